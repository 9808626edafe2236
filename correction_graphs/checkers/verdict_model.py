"""A model that is asked for a verdict: by a schema where it can be held to one, else by the template's words alone."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from correction_graphs.checkers.verdicts import read_verdict
from correction_graphs.errors import SettingsError
from correction_graphs.messages import answer_of, is_cut_off
from correction_graphs.models import AnswerModel, ModelLike, load_model
from correction_graphs.prompts import Labels, Template
from correction_graphs.results import Verdict

Style = Literal["verdict", "natural_language", "chain_of_thought"]


class VerdictModel:
    """Asks a model for a verdict, and reads what it says.

    Args:
        model: Anything `create_cac_graph` takes as a model.
        template: Its labels are the words of the verdict.
        style: How the model is asked; see `LLMCritic`.
        structured: Whether it is held to a JSON schema; None where its `profile` says that it can be.

    Attributes:
        given: The model as it is without the schema.
        structured: Whether it is held to one.

    Raises:
        SettingsError: If `structured` is not one of those, or is True and there is no schema for the style, or no way
            to hold the model to one.
    """

    def __init__(self, model: ModelLike, template: Template, *, style: Style, structured: bool | None = None) -> None:
        if structured is not None and not isinstance(structured, bool):
            raise SettingsError(f"`structured` is {structured!r}; it is True, False or None")
        self.given = judge = load_model(model)
        if structured is None:
            structured = style != "natural_language" and _takes_schemas(judge)
        self.structured = structured
        self.model = AnswerModel(held_to_schema(judge, template, style) if structured else judge)
        self._template = template
        self._style = style

    def invoke(self, messages: Sequence[BaseMessage], config: RunnableConfig | None = None) -> Verdict:
        """Return the verdict that the messages ask for."""
        try:
            reply = self.model.invoke(messages, config)
        except Exception as error:  # noqa: BLE001  (raised again, but for one kind)
            reply = _cut_off(error)
        return verdict_of_reply(reply, self._template, self._style)

    async def ainvoke(self, messages: Sequence[BaseMessage], config: RunnableConfig | None = None) -> Verdict:
        """Return the verdict that the messages ask for."""
        try:
            reply = await self.model.ainvoke(messages, config)
        except Exception as error:  # noqa: BLE001  (raised again, but for one kind)
            reply = _cut_off(error)
        return verdict_of_reply(reply, self._template, self._style)


def verdict_of_reply(reply: AIMessage, template: Template, style: Style) -> Verdict:
    """Read a critic's reply. What cannot be read with certainty is unknown, never a pass."""
    labels, text = template.labels, answer_of(reply)
    if labels is None:  # only a template that asks for no verdict may have none
        return Verdict(passed=None, critique=text.strip())
    verdict = read_verdict(text, labels, language=template.language, truncated=is_cut_off(reply))
    if style == "natural_language":
        return verdict.model_copy(update={"passed": None})
    if style == "verdict" and verdict.passed is not None:  # there is no more to it than the verdict itself
        label = labels.passing[0] if verdict.passed else labels.failing[0]
        return verdict.model_copy(update={"critique": f"{labels.verdict[0]}: {label}"})
    return verdict


# Structured output


def verdict_schema(labels: Labels, style: Style) -> dict[str, Any]:
    """Return the JSON schema of a verdict: its reasons first, so that they are thought of before it is given.

    The names of the fields are the same in every language. What the template calls them is in their descriptions.
    """
    verdict = {"type": "string", "description": labels.verdict[0], "enum": [*labels.passing, *labels.failing]}
    reasons = {
        "reasoning": {"type": "string", "description": "The check, step by step, before there is a verdict"},
        "critique": {"type": "string", "description": labels.critique[0]},
    }
    fields = {**(reasons if style == "chain_of_thought" else {}), "verdict": verdict}
    return {
        "title": "check",
        "description": "The result of the check",
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def held_to_schema(model: Runnable[Any, Any], template: Template, style: Style) -> Runnable[Any, Any]:
    """Return the model so that it answers in the schema of a verdict, as a text that `verdict_of_reply` reads.

    Raises:
        SettingsError: If the style has no verdict, or the model offers no structured output.
    """
    if style == "natural_language" or template.labels is None:
        raise SettingsError(f"`structured` is True, but the style {style!r} asks for a text without a verdict")
    if not isinstance(model, BaseChatModel):
        raise SettingsError(
            f"`structured` is True, but {model.get_name()!r} is no chat model of LangChain; give the chat model itself"
        )
    # Where strictness is a choice, the enumeration of the labels would be a mere hint without it.
    strict = {"strict": True} if "strict" in inspect.signature(model.with_structured_output).parameters else {}
    schema = verdict_schema(template.labels, style)
    try:
        asked: Runnable[Any, Any] = model.with_structured_output(schema, include_raw=True, **strict)
    except NotImplementedError as error:
        raise SettingsError(
            f"the model {model.get_name()!r} offers no structured output; leave `structured` out, or pass False"
        ) from error
    return asked | _written_out


def _takes_schemas(model: Runnable[Any, Any]) -> bool:
    return isinstance(model, BaseChatModel) and bool((model.profile or {}).get("structured_output"))


def _written_out(reply: dict[str, Any]) -> AIMessage:
    """Return a structured reply as a text: the message as it was written, or what a tool was called with.

    What the model's own parser made of it is not looked at: it completes JSON that was cut off, and takes the first of
    several calls.
    """
    message: AIMessage = reply["raw"]
    if not message.tool_calls:
        return message
    text = "\n".join(json.dumps(call["args"], ensure_ascii=False) for call in message.tool_calls)
    return message.model_copy(update={"content": text, "tool_calls": []})


def _cut_off(error: Exception) -> AIMessage:
    """Return the reply that was cut off, which OpenAI's client raises as an error; any other error is raised."""
    if type(error).__name__ != "LengthFinishReasonError":
        raise error
    text = error.completion.choices[0].message.content  # type: ignore[attr-defined]
    return AIMessage(text or "", response_metadata={"finish_reason": "length"})
