"""LLMCritic: a language model as the judge of an answer."""

from __future__ import annotations

from typing import Literal, get_args

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.verdicts import read_verdict
from correction_graphs.errors import SettingsError
from correction_graphs.messages import answer_of, fence, question_of
from correction_graphs.models import AnswerModel, ModelLike
from correction_graphs.prompts import Template, load_template
from correction_graphs.results import Verdict

Style = Literal["verdict", "natural_language", "chain_of_thought"]


class LLMCritic(Checker):
    r"""Asks a language model whether an answer may stand.

    The critic sees the conversation with the answer as the assistant's turn, followed by the check request of the
    template (CaC paper, section 2.1 and appendix C.2). Earlier rounds are not shown: an answer is judged by itself.
    On a local model, the conversation and the answer are in the cache already, and only the request is read.

    Args:
        model: The judge: often the model that wrote the answer. Anything `create_cac_graph` takes as a model.
        template: Name, path or `Template` with the prompt of the check and the labels of its verdict.
        style: "verdict": only a verdict is asked for. "natural_language": a review without a verdict, so that `passed`
            stays None. "chain_of_thought": reasoning, a short critique, and a verdict; the best of the three in the
            paper (figure 4b).

    Raises:
        SettingsError: If `style` is unknown.
        TemplateError: If the template cannot be loaded or lacks the prompt for this style.

    Example:
        ```python
        from correction_graphs import CheckRequest, LLMCritic
        from correction_graphs.testing import ScriptedChatModel

        judge = ScriptedChatModel(["A gender is assumed.\nCritique: It is not said who she is.\nVerdict: biased"])
        verdict = LLMCritic(judge, template="bias").invoke(CheckRequest(messages=(), answer="The nurse is a woman."))
        assert verdict.passed is False
        assert verdict.critique == "It is not said who she is."
        ```
    """

    def __init__(
        self, model: ModelLike, *, template: str | Template = "bias", style: Style = "chain_of_thought"
    ) -> None:
        if style not in get_args(Style):
            raise SettingsError(f"`style` is {style!r}; it is one of {', '.join(map(repr, get_args(Style)))}")
        self._template = load_template(template)
        self._role = f"check.{style}"
        self._template.require(self._role)
        self.template = self._template.info
        self.model = AnswerModel(model)
        self.style = style
        self.name = f"critic:{self._template.name}"

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask the model, and read its verdict."""
        return critic_verdict(self.model.invoke(self.messages(request), config), self._template, self.style)

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask the model, and read its verdict."""
        return critic_verdict(await self.model.ainvoke(self.messages(request), config), self._template, self.style)

    def messages(self, request: CheckRequest) -> list[AnyMessage]:
        """Return what the critic is shown."""
        return critic_messages(request, self._template, self._role)


def critic_messages(request: CheckRequest, template: Template, role: str) -> list[AnyMessage]:
    """Return the messages that ask for a check of the newest answer."""
    values = {"question": question_of(request.messages), "answer": request.answer}
    slots = {name: fence(value, name) for name, value in values.items() if name in template.slots[role]}
    return [*request.messages, AIMessage(request.answer), HumanMessage(template.fill(role, **slots))]


def critic_verdict(reply: AIMessage, template: Template, style: Style) -> Verdict:
    """Read a critic's reply. What cannot be read with certainty is unknown, never a pass."""
    labels, text = template.labels, answer_of(reply)
    if labels is None:  # only a template that asks for no verdict may have none
        return Verdict(passed=None, critique=text.strip())
    ending = reply.response_metadata.get("finish_reason") or reply.response_metadata.get("stop_reason")
    truncated = ending in {"length", "max_tokens", "timeout", "MAX_TOKENS"}
    verdict = read_verdict(text, labels, language=template.language, truncated=truncated)
    if style == "natural_language":
        return verdict.model_copy(update={"passed": None})
    if style == "verdict" and verdict.passed is not None:  # there is no more to it than the verdict itself
        label = labels.passing[0] if verdict.passed else labels.failing[0]
        return verdict.model_copy(update={"critique": f"{labels.verdict[0]}: {label}"})
    return verdict
