"""`S2AMiddleware`: the model of an agent sees filtered messages, and the agent's history keeps them as they were.

A text is filtered before the first model call that would show it, and what became of it is in the agent's private
state: a loop of tools costs no further call, and what was filtered in one turn of a thread stays filtered in the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

from langchain_core.messages import AnyMessage
from langchain_core.runnables.config import ensure_config
from langgraph.func import task
from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from correction_graphs.budget import Budget
from correction_graphs.filtering.rewriting import Mode, Rewrite, Scope, SkipIf, Source
from correction_graphs.messages import is_from_user
from correction_graphs.middleware.common import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    OmitFromInput,
    PrivateStateAttr,
    instance_name,
    is_durable,
)
from correction_graphs.models import AnswerModel, ModelLike
from correction_graphs.nodes import Quietly, let_pass, words
from correction_graphs.prompts import Template
from correction_graphs.results import FilteredText, S2AResult
from correction_graphs.s2a_rules import FilterEach, OnFilterFailure, Progress, Rules
from correction_graphs.usage import UsageMeter, require_price


class S2AMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    r"""Takes opinions or distractions out of what the model of an agent is shown of the user's messages.

    The history of the agent keeps every message as it was. What the model sees in the place of the user's words is
    written by a filter, once for each text: not again before each call in a loop of tools, and not in later turns of
    the thread. Replies of the model, tool calls, tool results, images and the system prompt are left alone, as are
    human messages that other middleware wrote.

    List it before `CaCMiddleware`, so that critic and revisions are shown the filtered text, too.

    Args:
        filter_model: Filters; by default the agent's model. A chat model, a compiled graph over `messages`, the path of
            a GGUF file, or a provider string such as `"openai:gpt-5-mini"`.
        template: Name, path or `Template` with the prompts: `"unbiased"` or `"relevant"`, each also `@zh`; see
            `create_s2a_graph`, as for the arguments that follow.
        rewrite: `"sections"`, or a `"single"` text.
        mode: Whether filtered texts `"replace"` the originals before the model, or stand after them:
            `"keep_original"`.
        instruct: Whether the model is also told, after the user's newest message, how to answer.
        scope: Which messages of the user are filtered: the `"last"` one of each turn, those of the whole
            `"conversation"`, or those for which a function from `HumanMessage` to bool says so.
        guards: Whether what the filter writes is compared with the original.
        on_filter_failure: Whether the `"original"` is used where the filter cannot be, or a `FilterError` is to be
            `"raise"`d.
        skip_if: What is not filtered at all: None, `"clean"`, or a function from text to bool.
        budget: Limits on what the filter spends in a turn, asked before each of its calls. Where it allows none, the
            original is used. An account given to the run as `context={"budget": SharedBudget(...)}` is drawn on, too.
        name: Where the result is found in the agent's output. Several in one agent have a name each, and the one
            listed later filters what the one before left.

    The output of the agent has one key more: under `name`, an `S2AResult` with what became of the texts that this turn
    had to filter, or None where the model was not called.

    Raises:
        SettingsError: If an argument is not one of those allowed.
        TemplateError: If the template cannot be loaded or lacks a prompt that these settings use.
        ModelFileError: If `filter_model` is a file that is missing or unusable.
        MissingExtraError: On import, if `langchain` is not installed.

    Example:
        ```python
        from correction_graphs import S2AMiddleware
        from correction_graphs.testing import ScriptedChatModel
        from langchain.agents import create_agent

        question = "I think it is Sydney. What is the capital of Australia?"
        filtered = "Context: none\nQuestion: What is the capital of Australia?"
        model = ScriptedChatModel([filtered, "Canberra."])
        agent = create_agent(model, middleware=[S2AMiddleware()])

        out = agent.invoke({"messages": [("user", question)]})
        assert [message.text for message in out["messages"]] == [question, "Canberra."]
        assert "Sydney" not in model.asked[1][-1].text
        assert out["s2a"].dropped[0].text == "I think it is Sydney."
        ```
    """

    def __init__(
        self,
        filter_model: ModelLike | None = None,
        *,
        template: str | Path | Template = "unbiased",
        rewrite: Rewrite = "sections",
        mode: Mode = "replace",
        instruct: bool = True,
        scope: Scope = "last",
        guards: bool = True,
        on_filter_failure: OnFilterFailure = "original",
        skip_if: SkipIf | None = None,
        budget: Budget | None = None,
        name: str = "s2a",
    ) -> None:
        super().__init__()
        self._name = instance_name(name, "s2a")
        self._memory = f"{name}_memory"
        channels: dict[str, Any] = {
            name: NotRequired[Annotated[S2AResult | None, OmitFromInput]],
            self._memory: NotRequired[Annotated[FilterMemory, PrivateStateAttr]],
        }
        self.state_schema = cast("Any", TypedDict)("S2AAgentState", channels)
        self._rules = Rules.of(
            template=template,
            rewrite=rewrite,
            mode=mode,
            instruct=instruct,
            scope=scope,
            guards=guards,
            on_filter_failure=on_filter_failure,
            skip_if=skip_if,
            budget=budget,
        )
        self._filterer = None if filter_model is None else AnswerModel(filter_model)
        if self._filterer is not None:
            require_price(budget, self._filterer.model)

    @property
    def name(self) -> str:
        """The name of the instance, under which its result is found."""
        return self._name

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Begin a turn: nothing is told of it yet, and texts that are still in the history stay filtered."""
        memory: FilterMemory = cast("Any", state).get(self._memory) or FilterMemory()
        return {self._name: None, self._memory: memory.next_turn(state["messages"])}

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Begin a turn, likewise."""
        return self.before_agent(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Show the model filtered messages."""
        memory, sources = self._look(request)

        def filtered_texts() -> FilterMemory:
            meter = self._rules.meter(memory.turn.usage)
            try:
                with Quietly(None, meter) as inner:
                    outcomes = self._each(request).batch(list(sources), inner, return_exceptions=True)
            except BaseException as error:
                self._pass_on(error, memory, meter)
                raise
            return self._with(memory, sources, outcomes, meter)

        if sources:
            memory = task(filtered_texts)().result() if is_durable(ensure_config()) else filtered_texts()
        return self._remember(memory, handler(self._override(request, memory)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Show the model filtered messages."""
        memory, sources = self._look(request)

        async def filtered_texts() -> FilterMemory:
            meter = self._rules.meter(memory.turn.usage)
            try:
                with Quietly(None, meter) as inner:
                    outcomes = await self._each(request).abatch(list(sources), inner, return_exceptions=True)
            except BaseException as error:
                self._pass_on(error, memory, meter)
                raise
            return self._with(memory, sources, outcomes, meter)

        if sources:
            memory = await (task(filtered_texts)() if is_durable(ensure_config()) else filtered_texts())
        return self._remember(memory, await handler(self._override(request, memory)))

    def _look(self, request: ModelRequest[Any]) -> tuple[FilterMemory, tuple[Source, ...]]:
        """Return what is known, and what is to be filtered: what the user said, not what middleware put in."""
        memory: FilterMemory = cast("Any", request.state).get(self._memory) or FilterMemory()
        history = {message.id for message in request.state["messages"]}
        return memory, tuple(
            source
            for source in self._rules.sources(request.messages)
            if request.messages[source.place].id in history and _digest(source.text) not in memory.texts
        )

    def _each(self, request: ModelRequest[Any]) -> FilterEach:
        return FilterEach(self._filterer or AnswerModel(request.model), self._rules.filtering)

    def _with(
        self, memory: FilterMemory, sources: Sequence[Source], outcomes: Sequence[Any], meter: UsageMeter
    ) -> FilterMemory:
        turn = self._rules.after_filter(memory.turn, sources, outcomes, meter.usage)
        found = turn.texts[len(memory.turn.texts) :]
        texts = {_digest(source.text): text for source, text in zip(sources, found, strict=True)}
        return FilterMemory(texts={**memory.texts, **texts}, turn=turn)

    def _pass_on(self, error: BaseException, memory: FilterMemory, meter: UsageMeter) -> None:
        let_pass(error, self._rules.result(memory.turn, meter.usage, error=words(error)))

    def _override(self, request: ModelRequest[Any], memory: FilterMemory) -> ModelRequest[Any]:
        messages = self._rules.answer_messages(request.messages, memory.found_in(request.messages))
        return request.override(messages=messages)

    def _remember(
        self, memory: FilterMemory, response: ModelResponse[Any]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        update = {self._name: self._rules.result(memory.turn), self._memory: memory}
        return ExtendedModelResponse(response, Command(update=update))


class FilterMemory(BaseModel):
    """What became of the user's texts.

    Attributes:
        texts: Of all turns, by the SHA-256 of the text.
        turn: What this turn had to filter.
    """

    model_config = ConfigDict(frozen=True)

    texts: dict[str, FilteredText] = {}
    turn: Progress = Progress()

    def found_in(self, messages: Sequence[AnyMessage]) -> list[FilteredText]:
        """Return what is known of the user's messages, each with its place among these."""
        users = [(at, _digest(str(message.text))) for at, message in enumerate(messages) if is_from_user(message)]
        return [self.texts[text].model_copy(update={"index": at}) for at, text in users if text in self.texts]

    def next_turn(self, messages: Sequence[AnyMessage]) -> FilterMemory:
        """Forget the turn, and texts that are in no message any more."""
        here = {_digest(str(message.text)) for message in messages if is_from_user(message)}
        return FilterMemory(texts={key: text for key, text in self.texts.items() if key in here})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
