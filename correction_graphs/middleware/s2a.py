"""`S2AMiddleware`: the model of an agent sees filtered messages, and the agent's history keeps them as they were.

A message is filtered before the first model call that would show it, and what became of it is in the agent's private
state: a loop of tools costs no further call, and what was filtered in one turn of a thread stays filtered in the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, cast

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables.config import ensure_config
from langgraph.func import task
from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from correction_graphs.budget import Budget
from correction_graphs.filtering.rewriting import Mode, Rewrite, Scope, SkipIf, with_text
from correction_graphs.messages import is_from_user, text_of
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
from correction_graphs.prompts import Template
from correction_graphs.results import S2AResult
from correction_graphs.s2a_rules import Memory, OnFilterFailure, Plan, Progress, Rules
from correction_graphs.usage import require_price


class S2AMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    r"""Takes opinions or distractions out of what the model of an agent is shown of the user's messages.

    The history of the agent keeps every message as it was. What the model sees in the place of the user's words is
    written by a filter, once for each text: not again before each call in a loop of tools, and not in later turns of
    the thread. Replies of the model, tool calls, tool results, images and the system prompt are left alone, as are
    human messages that other middleware wrote.

    List it before `CaCMiddleware`, so that the critic is shown the filtered text, too. Behind middleware that chooses
    another model when one fails, give it a `filter_model`; of several instances, only one should `instruct`. Without a
    checkpointer, where every call brings the whole history, choose `scope="conversation"`.

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
            original is used. A call that hangs is not broken off: for that, models have timeouts of their own. An
            account given to the run as `context={"budget": SharedBudget(...)}` is drawn on, too.
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
            self._memory: NotRequired[Annotated[AgentMemory, PrivateStateAttr]],
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
        """Begin a turn: nothing is told of it yet, and messages that are still in the history stay filtered."""
        before = cast("Any", state).get(self._memory) or AgentMemory()
        return {self._name: None, self._memory: AgentMemory(memory=before.memory.next_turn(state["messages"]))}

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Begin a turn, likewise."""
        return self.before_agent(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Show the model filtered messages."""
        view = self._look(request)

        def filtered_texts() -> AgentMemory:
            return view.learned(self._rules.filter(self._filter_of(request), view.plan, view.known.turn, None))

        known = view.known
        if view.plan.sources:
            durable = view.plan.asked and is_durable(ensure_config())
            known = task(filtered_texts)().result() if durable else filtered_texts()
        return self._told(known, handler(self._override(request, view, known)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """Show the model filtered messages."""
        view = self._look(request)

        async def filtered_texts() -> AgentMemory:
            return view.learned(await self._rules.afilter(self._filter_of(request), view.plan, view.known.turn, None))

        known = view.known
        if view.plan.sources:
            durable = view.plan.asked and is_durable(ensure_config())
            known = await (task(filtered_texts)() if durable else filtered_texts())
        return self._told(known, await handler(self._override(request, view, known)))

    def _look(self, request: ModelRequest[Any]) -> _View:
        """Return what is known, and what is to be filtered: what the user said, not what middleware put in."""
        known: AgentMemory = cast("Any", request.state).get(self._memory) or AgentMemory()
        history = {message.id: at for at, message in enumerate(request.state["messages"])}
        by_text = {text_of(message): message.id for message in request.state["messages"] if is_from_user(message)}
        messages: list[AnyMessage] = [
            message.model_copy(update={"id": by_text[text_of(message)]})  # a copy that lost its id
            if message.id not in history and is_from_user(message) and text_of(message) in by_text
            else message
            for message in request.messages
        ]
        own = [message for message in messages if message.id in history]
        new = (
            source._replace(place=history[own[source.place].id])
            for source in self._rules.sources(own)
            if not known.memory.knows(own[source.place])
        )
        plan = self._rules.plan(new, known.memory)
        return _View(known, messages, {history[message.id]: message for message in own}, plan)

    def _filter_of(self, request: ModelRequest[Any]) -> AnswerModel:
        return self._filterer or AnswerModel(request.model)

    def _override(self, request: ModelRequest[Any], view: _View, known: AgentMemory) -> ModelRequest[Any]:
        # Other middleware may call this again in the same step, whose state is a copy that nobody else has.
        cast("Any", request.state)[self._memory] = known
        found = known.memory.found_in(view.messages)
        ids = {message.id for message in view.own.values()}
        users = [at for at, message in enumerate(view.messages) if message.id in ids and is_from_user(message)]
        told = self._rules.answer_messages(view.messages, found, newest=users[-1] if users else None)
        if self._rules.mode == "replace":
            # Middleware around this one may quote the user, as `CaCMiddleware` does when it asks for a revision.
            quotes = {text_of(view.messages[text.index]): text.text for text in found if text.filtered}
            told = [
                message if message.id in ids or not isinstance(message, HumanMessage) else _without(message, quotes)
                for message in told
            ]
        return request.override(messages=told)

    def _told(self, known: AgentMemory, response: ModelResponse[Any]) -> ExtendedModelResponse[Any]:
        update = {self._name: self._rules.result(known.turn), self._memory: known}
        return ExtendedModelResponse(response, Command(update=update))


class AgentMemory(BaseModel):
    """What became of the user's messages.

    Attributes:
        memory: In all turns.
        turn: What this turn had to filter.
    """

    model_config = ConfigDict(frozen=True)

    memory: Memory = Memory()
    turn: Progress = Progress()


class _View(NamedTuple):
    """What a model call is about to show.

    Attributes:
        known: What became of messages before.
        messages: What is to be shown, the user's messages with the ids that they have in the history.
        own: Those that are in the history, by their place there.
        plan: What is to be filtered now, by its place in the history.
    """

    known: AgentMemory
    messages: list[AnyMessage]
    own: dict[int, AnyMessage]
    plan: Plan

    def learned(self, turn: Progress) -> AgentMemory:
        """Return what is known after more was filtered in this turn."""
        texts = turn.texts[len(self.known.turn.texts) :]
        return AgentMemory(memory=self.known.memory.learn(self.own, texts), turn=turn)


def _without(message: HumanMessage, quotes: dict[str, str]) -> AnyMessage:
    text = told = text_of(message)
    for quoted, kept in quotes.items():
        told = told.replace(quoted, kept)
    return message if told == text else with_text(message, told)
