"""System 2 Attention (S2A): filter → answer as a LangGraph state machine.

`filter` has a model write down again what the user said, without what could sway the answer; `answer` has a model
answer that, and not what the user said (Weston & Sukhbaatar, "System 2 Attention (is something you might need too)",
arXiv 2311.11829). The paper has no guard against a filter that loses the question or makes something up; here, what the
filter writes is compared with the original, and the original is used where it cannot be trusted.

The filtered text never enters `messages` or the token stream. The answer is streamed as the model writes it.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, NoReturn, NotRequired

from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBinding
from langgraph.cache.base import BaseCache
from langgraph.channels import EphemeralValue
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.managed import RemainingSteps
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer
from typing_extensions import TypedDict

from correction_graphs.budget import Budget
from correction_graphs.caching import CachedAnswers
from correction_graphs.errors import GenerationError, words
from correction_graphs.filtering.rewriting import (
    Mode,
    Rewrite,
    Scope,
    SkipIf,
    kept_documents,
)
from correction_graphs.messages import answer_of, check_conversation, with_own_id
from correction_graphs.models import AnswerModel, ModelLike
from correction_graphs.nodes import Aloud, Quietly, UnlessEnded, emit, let_pass, require_cache
from correction_graphs.prompts import Template
from correction_graphs.results import S2AResult
from correction_graphs.s2a_rules import Memory, OnFilterFailure, Plan, Progress, Rules
from correction_graphs.streaming import astream_answer, stream_answer
from correction_graphs.usage import UsageMeter, require_price


def create_s2a_graph(
    model: ModelLike,
    *,
    filter_model: ModelLike | None = None,
    template: str | Path | Template = "unbiased",
    rewrite: Rewrite = "sections",
    mode: Mode = "replace",
    instruct: bool = True,
    scope: Scope = "last",
    guards: bool = True,
    on_filter_failure: OnFilterFailure = "original",
    skip_if: SkipIf | None = None,
    budget: Budget | None = None,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    context_schema: type[Any] | None = None,
    name: str = "s2a",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    r"""Create a graph that takes opinions or distractions out of a question before it answers.

    A run makes two model calls: one filters, one answers. A reply of the filter that cannot be used costs one more.

    Args:
        model: Writes the answer: a chat model, a compiled graph over `messages` such as an agent, the path of a GGUF
            file, or a provider string such as `"openai:gpt-5-mini"`.
        filter_model: Filters; anything that may be given as `model`, which does it by default.
        template: Name, path or `Template` with the prompts: `"unbiased"` drops opinions and leading remarks,
            `"relevant"` drops what has nothing to do with the question; both in Chinese as `"unbiased@zh"` and
            `"relevant@zh"`.
        rewrite: What the filter is asked for: `"sections"`, context and question under a label each, or `"single"`, one
            text without labels.
        mode: `"replace"`: the answer is written from the filtered text alone. `"keep_original"`: from the original with
            the filtered text after it, which keeps what the filter may have lost, and a good part of the bias.
        instruct: Whether the model is also told, in a sentence after the question, how to answer.
        scope: Which messages of the user are filtered, each by itself: the `"last"` one, those of the whole
            `"conversation"`, or those for which a function from `HumanMessage` to bool says so. Only their text is:
            images and the like stay where they are, and so do all other messages.
        guards: Whether what the filter writes is compared with the original: numbers, names and quotations that are not
            there, numbers and negations that got lost, a question that is not asked any more. The filter is told once,
            and may try again.
        on_filter_failure: What follows when the filter crashed or its second reply cannot be used either: the
            `"original"` is used, and the result says why, or `"raise"` a `FilterError`.
        skip_if: What is not filtered at all: None for nothing, `"clean"` for texts in which a cheap test finds nothing
            to filter (none of the template's `clean.markers`; where it has none, a single sentence), or a function
            from text to bool.
        budget: Limits on model calls, tokens, seconds and money, asked before each model call of the run. Where it does
            not allow filtering, the original is used; where it does not allow the answer, a `GenerationError` is
            raised.
        checkpointer: Makes runs durable, and threads continue; see LangGraph.
        store: LangGraph's long-term store, for models that are graphs.
        cache: A LangGraph cache. What the models said is kept in it by what they were shown, and is not asked for
            again; so the earlier messages of a conversation are filtered once.
        context_schema: Schema of the run-time context, for models that read it.
        name: Name of the graph, and of its node when it is added to another graph.

    Returns:
        A compiled graph. Input is `messages`, and `documents` where there are any: a list of LangChain documents that
        are filtered, too, each by itself and all at once, and shown to the model with the question. Output is
        `messages`, with one AI message added, and `s2a`, an `S2AResult`.

    Raises:
        SettingsError: If an argument is not one of those allowed.
        TemplateError: If the template cannot be loaded or lacks a prompt that these settings use.
        ModelFileError: If a model is a file that is missing or unusable.
        MissingExtraError: If a model needs a package that is not installed.

    Example:
        ```python
        from correction_graphs.s2a import create_s2a_graph
        from correction_graphs.testing import ScriptedChatModel

        filtered = "Context: none\nQuestion: What is the capital of Australia?"
        model = ScriptedChatModel([filtered, "Canberra."])
        graph = create_s2a_graph(model)

        question = "I think it is Sydney. What is the capital of Australia?"
        out = graph.invoke({"messages": [("user", question)]})
        assert out["messages"][-1].text == "Canberra."
        assert out["s2a"].dropped[0].text == "I think it is Sydney."
        assert "Sydney" not in model.asked[1][0].text
        ```
    """
    builder = build_s2a_graph(
        model,
        filter_model=filter_model,
        template=template,
        rewrite=rewrite,
        mode=mode,
        instruct=instruct,
        scope=scope,
        guards=guards,
        on_filter_failure=on_filter_failure,
        skip_if=skip_if,
        budget=budget,
        context_schema=context_schema,
        cache=cache,
    )
    return builder.compile(checkpointer=checkpointer, store=store, cache=cache, name=name)


def build_s2a_graph(
    model: ModelLike,
    *,
    filter_model: ModelLike | None = None,
    template: str | Path | Template = "unbiased",
    rewrite: Rewrite = "sections",
    mode: Mode = "replace",
    instruct: bool = True,
    scope: Scope = "last",
    guards: bool = True,
    on_filter_failure: OnFilterFailure = "original",
    skip_if: SkipIf | None = None,
    budget: Budget | None = None,
    context_schema: type[Any] | None = None,
    cache: BaseCache[Any] | None = None,
) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of `create_s2a_graph` without compiling it, to add nodes or compile it otherwise.

    Takes the arguments of `create_s2a_graph` but those for `compile` alone, and raises the same errors.

    Example:
        ```python
        from correction_graphs import build_s2a_graph
        from correction_graphs.testing import ScriptedChatModel

        builder = build_s2a_graph(ScriptedChatModel(["Yes."]))
        assert list(builder.nodes) == ["filter", "answer"]
        graph = builder.compile(name="filtered")
        ```
    """
    require_cache(cache)
    rules = Rules.of(
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
    answerer = AnswerModel(model)
    filterer = answerer if filter_model is None else AnswerModel(filter_model)
    require_price(budget, answerer.model, filterer.model)

    live = _streams_its_answer(answerer.model)
    answer = _Answer(answerer if cache is None else CachedAnswers(answerer, cache), rules, live=live)
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        State, context_schema=context_schema, input_schema=Input, output_schema=Output
    )
    graph.add_node("filter", _Filter(filterer if cache is None else CachedAnswers(filterer, cache), rules, answer))
    graph.add_node("answer", answer)
    graph.add_edge(START, "filter")
    graph.add_conditional_edges("filter", UnlessEnded("s2a_progress", "answer"), ["answer", END])
    graph.add_edge("answer", END)
    return graph


# State


class Input(TypedDict):
    """What an S2A graph takes."""

    messages: Annotated[list[AnyMessage], add_messages]
    documents: NotRequired[Annotated[list[Document] | None, EphemeralValue]]
    """For this turn alone."""


class Output(TypedDict):
    """What an S2A graph returns."""

    messages: Annotated[list[AnyMessage], add_messages]
    s2a: NotRequired[S2AResult]


class State(Input):
    """The channels of an S2A graph; those beyond input and output are private."""

    s2a: NotRequired[S2AResult]
    s2a_progress: NotRequired[Progress]
    s2a_memory: NotRequired[Memory]
    remaining_steps: RemainingSteps


def _streams_its_answer(model: Runnable[Any, Any]) -> bool:
    """Whether all that a model writes is its answer: not so in agents and chains, which may write several things."""
    if type(model) is RunnableBinding:
        return _streams_its_answer(model.bound)
    return isinstance(model, BaseChatModel)


# Nodes


class _Node(Runnable[Any, Any]):
    """A node: a step in two ways of calling models."""

    def invoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:  # noqa: A002
        return self.step(input, config)

    async def ainvoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:  # noqa: A002
        return await self.astep(input, config)

    @abstractmethod
    def step(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        """Return the node's update."""

    @abstractmethod
    async def astep(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        """Return the node's update."""


class _Filter(_Node):
    """Node `filter`: texts are written down again without what is not wanted, all at once.

    Under a recursion limit of one step it answers as well.
    """

    def __init__(self, model: Runnable[Any, AIMessage], rules: Rules, answer: _Answer) -> None:
        self.name = "filter"
        self._model = model
        self._rules = rules
        self._answer = answer

    def step(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        memory, plan = self._plan(state)
        update = self._read(state, memory, self._rules.filter(self._model, plan, Progress(), config))
        if state["remaining_steps"] <= 1:
            update |= self._answer.step({**state, **update}, config)  # type: ignore[typeddict-item]
        return update

    async def astep(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        memory, plan = self._plan(state)
        update = self._read(state, memory, await self._rules.afilter(self._model, plan, Progress(), config))
        if state["remaining_steps"] <= 1:
            update |= await self._answer.astep({**state, **update}, config)  # type: ignore[typeddict-item]
        return update

    def _plan(self, state: State) -> tuple[Memory, Plan]:
        messages = state["messages"]
        check_conversation(messages)
        memory = (state.get("s2a_memory") or Memory()).next_turn(messages)
        sources = self._rules.sources(messages, state.get("documents") or ())
        new = (each for each in sources if each.kind == "document" or not memory.knows(messages[each.place]))
        return memory, self._rules.plan(new, memory)

    @staticmethod
    def _read(state: State, memory: Memory, progress: Progress) -> dict[str, Any]:
        documents = tuple(kept_documents(state.get("documents") or (), progress.texts))
        return {
            "s2a_progress": progress.model_copy(update={"documents": documents}),
            "s2a_memory": memory.learn(state["messages"], progress.texts),
        }


class _Answer(_Node):
    """Node `answer`: the model answers what the filter left."""

    def __init__(self, model: Runnable[Any, AIMessage], rules: Rules, *, live: bool) -> None:
        self.name = "answer"
        self._model = model
        self._rules = rules
        self._live = live

    def step(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        meter = self._rules.meter(state["s2a_progress"].usage)
        try:
            meter.check_budget()
            with self._hearing(config, meter) as inner:
                reply = self._model.invoke(self._asked(state), inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            self._failed(state, meter, error)
        update = self._read(state, reply, meter)
        if not self._was_heard(meter):
            stream_answer(update["messages"][0], config)
        return update

    async def astep(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        meter = self._rules.meter(state["s2a_progress"].usage)
        try:
            meter.check_budget()
            with self._hearing(config, meter) as inner:
                reply = await self._model.ainvoke(self._asked(state), inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            self._failed(state, meter, error)
        update = self._read(state, reply, meter)
        if not self._was_heard(meter):
            await astream_answer(update["messages"][0], config)
        return update

    def _asked(self, state: State) -> list[AnyMessage]:
        progress, messages = state["s2a_progress"], state["messages"]
        documents = (text for text in progress.texts if text.source == "document")
        texts = [*state["s2a_memory"].found_in(messages), *documents]
        return self._rules.answer_messages(messages, texts, progress.documents)

    def _hearing(self, config: RunnableConfig | None, meter: UsageMeter) -> Quietly:
        return Aloud(config, meter) if self._live else Quietly(config, meter)

    def _was_heard(self, meter: UsageMeter) -> bool:
        """Whether the answer is in the token stream already: not if it came out of the cache."""
        return self._live and meter.usage.model_calls > 0

    def _read(self, state: State, reply: AIMessage, meter: UsageMeter) -> dict[str, Any]:
        reply = with_own_id(reply, state["messages"])
        result = self._rules.result(state["s2a_progress"], meter.usage)
        emit(
            "s2a.end",
            filtered=result.filtered,
            fallback=result.fallback,
            answer=answer_of(reply),
            usage=result.usage.model_dump(),
        )
        return {"messages": [reply], "s2a": result, "s2a_progress": Progress(ended=True)}

    def _failed(self, state: State, meter: UsageMeter, error: BaseException) -> NoReturn:
        result = self._rules.result(state["s2a_progress"], meter.usage, error=words(error))
        let_pass(error, result)
        raise GenerationError(
            f"the model failed: {words(error)}. What it was to answer is in `.result`",
            result=result,
        ) from error
