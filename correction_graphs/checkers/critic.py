"""LLMCritic: a language model as the judge of an answer."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from correction_graphs.arguments import expect
from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.verdict_model import Style, VerdictModel
from correction_graphs.messages import fence, question_of
from correction_graphs.models import ModelLike, identity_of
from correction_graphs.prompts import Template, load_template
from correction_graphs.results import Verdict


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
        structured: Whether the model is held to a JSON schema, whose verdict can be nothing but a label of the
            template. None: where it says that it can be, by `structured_output` in its `profile`. False is for a
            server that takes no schemas although it goes by the name of a model that does. A review in natural language
            is never asked for in this way.

    Raises:
        SettingsError: If `style` is unknown, or `structured` is True and there is no schema for it, or no way to hold
            the model to one.
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
        self,
        model: ModelLike,
        *,
        template: str | Path | Template = "bias",
        style: Style = "chain_of_thought",
        structured: bool | None = None,
    ) -> None:
        expect("style", style, get_args(Style))
        self._template = load_template(template)
        self._role = f"check.{style}"
        self._template.require(self._role)
        self.template = self._template.info
        self.judge = VerdictModel(model, self._template, style=style, structured=structured)
        self.style = style
        self.name = f"critic:{self._template.name}"

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask the model, and read its verdict."""
        return self.judge.invoke(self.messages(request), config)

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask the model, and read its verdict."""
        return await self.judge.ainvoke(self.messages(request), config)

    def cache_identity(self) -> str | None:
        """Return what equal critics have in common: model, template and style."""
        return repr((identity_of(self.judge.given), self.judge.structured, self._template.sha256, self.style))

    def messages(self, request: CheckRequest) -> list[AnyMessage]:
        """Return what the critic is shown."""
        return critic_messages(request, self._template, self._role)


def critic_messages(request: CheckRequest, template: Template, role: str) -> list[AnyMessage]:
    """Return the messages that ask for a check of the newest answer."""
    values = {"question": question_of(request.messages), "answer": request.answer}
    slots = {name: fence(value, name) for name, value in values.items() if name in template.slots[role]}
    return [*request.messages, AIMessage(request.answer), HumanMessage(template.fill(role, **slots))]
