"""Checking as Context (CaC): generate → check → recontextualize → generate … as a LangGraph state machine.

`generate` writes an answer. `check` has it judged. While it does not pass and revisions are left, `recontextualize`
puts question, answer and critique before the model, and `generate` writes the next one (Wang et al., "A Theoretical
Understanding of Self-Correction through In-context Alignment", NeurIPS 2024, arXiv 2405.18634).

Only the answer that is returned enters `messages`. Drafts and critiques live in a private channel, inside a model that
LangGraph's token stream does not look into, and reach the caller in the result and as custom events.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, NotRequired, get_args

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import BaseCache
from langgraph.channels import EphemeralValue
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.managed import RemainingSteps
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer
from typing_extensions import TypedDict

from correction_graphs.arguments import expect, whole_number
from correction_graphs.budget import Budget
from correction_graphs.cac_rules import (
    Draft,
    Exhausted,
    OnCheckerError,
    OnExhausted,
    OnUnknown,
    Progress,
    Rules,
    default_template,
)
from correction_graphs.caching import CachedAnswers, cached_verdicts
from correction_graphs.checkers.adapters import CheckerLike, as_checker, require_one_argument
from correction_graphs.checkers.base import CheckRequest
from correction_graphs.checkers.critic import LLMCritic
from correction_graphs.checkers.verdict_model import Style
from correction_graphs.errors import CheckerError, GenerationError, StrategyError, words
from correction_graphs.messages import check_conversation, with_own_id
from correction_graphs.models import AnswerModel, ModelLike
from correction_graphs.nodes import Quietly, UnlessEnded, emit, let_pass, require_budget, require_cache
from correction_graphs.prompts import Template, load_template
from correction_graphs.results import CacResult, Verdict
from correction_graphs.strategies import RevisionRequest
from correction_graphs.strategy_adapters import StrategyLike, as_strategy
from correction_graphs.streaming import astream_answer, stream_answer
from correction_graphs.usage import UsageMeter, refusal_in, require_price


def create_cac_graph(
    model: ModelLike,
    *,
    checker: CheckerLike | None = None,
    template: str | Path | Template | None = None,
    style: Style = "chain_of_thought",
    strategy: StrategyLike = "self",
    max_rounds: int = 2,
    keep_best: bool = True,
    on_unknown: OnUnknown = "revise",
    on_checker_error: OnCheckerError = "raise",
    on_exhausted: OnExhausted | Exhausted = "best",
    budget: Budget | None = None,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    context_schema: type[Any] | None = None,
    name: str = "cac",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Create a graph that answers, has the answer checked, and answers again until it passes.

    Args:
        model: Writes the answers, and checks them unless `checker` is given: a chat model, a compiled graph over
            `messages` such as an agent, the path of a GGUF file, or a provider string such as `"openai:gpt-5-mini"`.
        checker: Judges an answer: a function from `CheckRequest` to `Verdict` (or bool), or any checker of this
            package. By default `LLMCritic(model, template=template, style=style)`.
        template: Name, path or `Template` with the prompts for checking and revising: `"bias"`, `"harm"`,
            `"correctness"`, `"general"`, or one of these in Chinese, such as `"bias@zh"`. By default `"bias"`, as in
            the paper; with a `checker`, `"general"`, which has a revision put right whatever the critique says.
        style: How the default checker is asked: `"verdict"`, `"natural_language"` or `"chain_of_thought"`.
        strategy: How answer and critique are put before the model: `"self"` repeats the question after them,
            `"self_instruct"` asks for an improvement without repeating it, `"fresh"` asks again with the newest
            critique and without the rejected answers, `"ranked"` has more answers written and judged, and shows all
            from the worst to the best; or a `DemonstrationBank`, a `Ranked`, or a function (sync or async) or runnable
            from `RevisionRequest` to messages.
        max_rounds: How many times an answer may be revised. With the default checker each costs two model calls; 0
            answers and checks once.
            A model that gives an answer it gave before ends the run, too.
        keep_best: Whether the best answer is the one with the highest score, of equal ones the earlier; without scores
            the last that was not found wrong (the checker could not tell), else the last. With False it is the last.
        on_unknown: What follows when the checker cannot tell: `"revise"`, `"accept"` the answer as it is, or `"retry"`:
            ask the checker once more, then revise.
        on_checker_error: What follows when the checker raises: `"raise"` a `CheckerError` that carries the result so
            far, `"accept"` the answer unchecked, or `"revise"` it.
        on_exhausted: What is returned when no answer passed within `max_rounds`, the model repeated itself or crashed
            while revising, or the budget ran out: the `"best"`, `"last"` or `"first"` answer, `"refuse"` for the
            template's refusal, or a function from the `CacResult` to a text or message.
        budget: Limits on model calls, tokens, seconds and money, asked before each model call of the run. Several runs,
            nested ones included, draw on one account if each is given `context={"budget": SharedBudget(...)}`.
        checkpointer: Makes runs durable, and threads continue; see LangGraph.
        store: LangGraph's long-term store, for models and checkers that are graphs.
        cache: A LangGraph cache. What the model answered, and what critics found, is kept in it by the content of what
            they were shown, and is not asked for again; agents, and models with configurable fields, are also told
            apart by the run's `configurable` and context. Other checkers are asked each time: what people, searches
            and functions say may change. So are the samples of `"ranked"`, which are drawn to differ.
        context_schema: Schema of the run-time context, for models and checkers that read it.
        name: Name of the graph, and of its node when it is added to another graph.

    Returns:
        A compiled graph. Input is `messages`; output is `messages`, with one AI message added, and `cac`, a `CacResult`
        with the status and every round.

    Raises:
        SettingsError: If an argument is not one of those allowed.
        TemplateError: If the template cannot be loaded or lacks a prompt that these settings use.
        ModelFileError: If the model is a file that is missing or unusable.
        MissingExtraError: If the model needs a package that is not installed.

    Example:
        ```python
        from correction_graphs import Verdict, create_cac_graph
        from correction_graphs.testing import ScriptedChatModel


        def names_the_capital(request):
            return Verdict(passed="Canberra" in request.answer, critique="Sydney is not the capital.")


        model = ScriptedChatModel(["Sydney.", "Canberra."])
        graph = create_cac_graph(model, checker=names_the_capital)

        out = graph.invoke({"messages": [("user", "What is the capital of Australia?")]})
        assert out["messages"][-1].text == "Canberra."
        assert out["cac"].status == "passed"
        assert out["cac"].rounds[0].verdict.passed is False
        ```
    """
    builder = build_cac_graph(
        model,
        checker=checker,
        template=template,
        style=style,
        strategy=strategy,
        max_rounds=max_rounds,
        keep_best=keep_best,
        on_unknown=on_unknown,
        on_checker_error=on_checker_error,
        on_exhausted=on_exhausted,
        budget=budget,
        context_schema=context_schema,
        cache=cache,
    )
    return builder.compile(checkpointer=checkpointer, store=store, cache=cache, name=name)


def build_cac_graph(
    model: ModelLike,
    *,
    checker: CheckerLike | None = None,
    template: str | Path | Template | None = None,
    style: Style = "chain_of_thought",
    strategy: StrategyLike = "self",
    max_rounds: int = 2,
    keep_best: bool = True,
    on_unknown: OnUnknown = "revise",
    on_checker_error: OnCheckerError = "raise",
    on_exhausted: OnExhausted | Exhausted = "best",
    budget: Budget | None = None,
    context_schema: type[Any] | None = None,
    cache: BaseCache[Any] | None = None,
) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of `create_cac_graph` without compiling it, to add nodes or compile it otherwise.

    Takes the arguments of `create_cac_graph` but those for `compile` alone, and raises the same errors.

    Example:
        ```python
        from correction_graphs import build_cac_graph
        from correction_graphs.testing import ScriptedChatModel

        builder = build_cac_graph(ScriptedChatModel(["Yes."]), checker=lambda request: True)
        graph = builder.compile(interrupt_before=["check"], name="paused")
        assert list(builder.nodes) == ["generate", "check", "recontextualize"]
        ```
    """
    whole_number("max_rounds", max_rounds, 0, "the number of revisions")
    expect("keep_best", keep_best, (True, False))
    expect("style", style, get_args(Style))
    expect("on_unknown", on_unknown, get_args(OnUnknown))
    expect("on_checker_error", on_checker_error, get_args(OnCheckerError))
    require_budget(budget)
    require_cache(cache)
    prompts = load_template(default_template(checker) if template is None else template)
    if callable(on_exhausted):
        require_one_argument("on_exhausted", on_exhausted, "a CacResult")
    else:
        expect("on_exhausted", on_exhausted, get_args(OnExhausted), also=", or a function from CacResult to a text")
        prompts.require(*(["refuse"] if on_exhausted == "refuse" else []))
    answerer = AnswerModel(model)
    judge = LLMCritic(answerer.model, template=prompts, style=style) if checker is None else as_checker(checker)
    require_price(budget, answerer.model, *([judge.judge.given] if isinstance(judge, LLMCritic) else []))
    recontextualize = as_strategy(strategy, model=answerer, checker=judge)
    prompts.require(*([recontextualize.role] if recontextualize.role else []))
    loop = Rules(
        prompts,
        prompts.info,
        recontextualize,
        max_rounds,
        keep_best,
        on_unknown=on_unknown,
        on_checker_error=on_checker_error,
        on_exhausted=on_exhausted,
        budget=budget,
    )

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        State, context_schema=context_schema, input_schema=Input, output_schema=Output
    )
    graph.add_node("generate", _Generate(answerer if cache is None else CachedAnswers(answerer, cache), loop))
    graph.add_node("check", _Check(judge if cache is None else cached_verdicts(judge, cache), loop))
    graph.add_node("recontextualize", _Recontextualize(loop))
    graph.add_edge(START, "generate")
    graph.add_conditional_edges("generate", UnlessEnded("cac_progress", "check"), ["check", END])
    graph.add_conditional_edges("check", UnlessEnded("cac_progress", "recontextualize"), ["recontextualize", END])
    graph.add_conditional_edges("recontextualize", UnlessEnded("cac_progress", "generate"), ["generate", END])
    return graph


# State


class Input(TypedDict):
    """What a CaC graph takes."""

    messages: Annotated[list[AnyMessage], add_messages]


class Output(Input):
    """What a CaC graph returns."""

    cac: NotRequired[CacResult]


class State(Output):
    """The channels of a CaC graph; those beyond input and output are private."""

    cac_progress: NotRequired[Progress]
    cac_revising: Annotated[bool, EphemeralValue]
    """Set for the step after `recontextualize` alone. Progress that `generate` finds without it is left over."""
    remaining_steps: RemainingSteps


# Nodes


class _Node(Runnable[Any, Any]):
    """A node. One that ends the run sends the answer to the token stream, too."""

    def invoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:  # noqa: A002
        update = self.step(input, config)
        for message in update.get("messages", ()):
            stream_answer(message, config)
        return update

    async def ainvoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:  # noqa: A002
        update = await self.astep(input, config)
        for message in update.get("messages", ()):
            await astream_answer(message, config)
        return update

    @abstractmethod
    def step(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        """Return the node's update."""

    @abstractmethod
    async def astep(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        """Return the node's update."""


class _Generate(_Node):
    """Node `generate`: the model writes an answer."""

    def __init__(self, model: Runnable[Any, AIMessage], rules: Rules) -> None:
        self.name = "generate"
        self._model = model
        self._rules = rules

    def step(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        progress, messages = self._prepare(state)
        meter = self._rules.meter(progress)
        try:
            meter.check_budget()
            with Quietly(config, meter) as inner:
                reply = self._model.invoke(messages, inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            return self._failed(progress, meter, error)
        return self._read(state, progress, reply, meter)

    async def astep(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        progress, messages = self._prepare(state)
        meter = self._rules.meter(progress)
        try:
            meter.check_budget()
            with Quietly(config, meter) as inner:
                reply = await self._model.ainvoke(messages, inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            return self._failed(progress, meter, error)
        return self._read(state, progress, reply, meter)

    def _prepare(self, state: State) -> tuple[Progress, list[AnyMessage]]:
        messages = state["messages"]
        check_conversation(messages)
        progress = state["cac_progress"] if state.get("cac_revising") else Progress()
        return progress, list(self._rules.opening(messages) if progress.context is None else progress.context)

    def _read(self, state: State, progress: Progress, reply: AIMessage, meter: UsageMeter) -> dict[str, Any]:
        draft = Draft(message=with_own_id(reply, state["messages"]), usage=meter.usage)
        drafts = (*progress.drafts, draft)
        return self._rules.after_draft(progress.model_copy(update={"drafts": drafts}), state["remaining_steps"])

    def _failed(self, progress: Progress, meter: UsageMeter, error: BaseException) -> dict[str, Any]:
        progress = progress.model_copy(update={"wasted": meter.usage})
        result = self._rules.partial(progress, error)
        let_pass(error, result)
        if progress.drafts and (refusal := refusal_in(error)):
            return self._rules.end_without_pass(progress, "budget", error=str(refusal))
        if result.chosen is not None:  # there are earlier answers, although none that passed
            return self._rules.end_without_pass(progress, "failed", error=result.error)
        raise GenerationError(f"the model failed: {words(error)}", result=result) from error


class _Check(_Node):
    """Node `check`: the checker judges the newest answer."""

    def __init__(self, checker: Runnable[CheckRequest, Verdict], rules: Rules) -> None:
        self.name = "check"
        self._checker = checker
        self._rules = rules

    def step(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        request, meter = self._request(state), self._rules.meter(state["cac_progress"])
        try:
            with Quietly(config, meter) as inner:
                verdict = self._checker.invoke(request, inner) if request.answer.strip() else _EMPTY
                if self._retries(verdict):
                    verdict = self._checker.invoke(request, inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            return self._failed(state, meter, error)
        return self._rules.after_verdict(state["cac_progress"], verdict, meter.usage, state["remaining_steps"])

    async def astep(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        request, meter = self._request(state), self._rules.meter(state["cac_progress"])
        try:
            with Quietly(config, meter) as inner:
                verdict = await self._checker.ainvoke(request, inner) if request.answer.strip() else _EMPTY
                if self._retries(verdict):
                    verdict = await self._checker.ainvoke(request, inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            return self._failed(state, meter, error)
        return self._rules.after_verdict(state["cac_progress"], verdict, meter.usage, state["remaining_steps"])

    def _request(self, state: State) -> CheckRequest:
        rounds = state["cac_progress"].rounds
        return CheckRequest(messages=tuple(state["messages"]), answer=rounds[-1].answer, rounds=rounds[:-1])

    def _retries(self, verdict: Verdict) -> bool:
        return self._rules.on_unknown == "retry" and verdict.passed is None and verdict.error is None

    def _failed(self, state: State, meter: UsageMeter, error: BaseException) -> dict[str, Any]:
        rules, spent = self._rules, state["cac_progress"].spend(meter.usage)
        if refusal := refusal_in(error):
            return rules.end_without_pass(spent, "budget", error=str(refusal))
        result = rules.partial(spent, error)
        let_pass(error, result)
        if rules.on_checker_error == "raise":
            raise CheckerError(
                f"the checker {self._checker.get_name()!r} failed on answer {len(result.rounds)}: {words(error)}. "
                "The answers so far are in `.result.rounds`; `on_checker_error` can be 'accept' or 'revise' instead",
                result=result,
            ) from error
        verdict = Verdict(passed=None, error=words(error))
        return rules.after_verdict(state["cac_progress"], verdict, meter.usage, state["remaining_steps"])


class _Recontextualize(_Node):
    """Node `recontextualize`: answers and critiques are put before the model."""

    def __init__(self, rules: Rules) -> None:
        self.name = "recontextualize"
        self._rules = rules

    def step(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        request, meter = self._request(state), self._rules.meter(state["cac_progress"])
        try:
            with Quietly(config, meter) as inner:
                context = self._rules.strategy.invoke(request, inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            return self._failed(state, meter, error)
        return self._read(state, meter, context)

    async def astep(self, state: State, config: RunnableConfig | None) -> dict[str, Any]:
        request, meter = self._request(state), self._rules.meter(state["cac_progress"])
        try:
            with Quietly(config, meter) as inner:
                context = await self._rules.strategy.ainvoke(request, inner)
        except BaseException as error:  # noqa: BLE001  (raised again there)
            return self._failed(state, meter, error)
        return self._read(state, meter, context)

    def _request(self, state: State) -> RevisionRequest:
        rounds = state["cac_progress"].rounds
        emit("cac.revise", round=len(rounds), strategy=self._rules.strategy.name)
        return RevisionRequest(messages=tuple(state["messages"]), rounds=rounds, template=self._rules.template)

    def _read(self, state: State, meter: UsageMeter, context: tuple[AnyMessage, ...]) -> dict[str, Any]:
        progress = state["cac_progress"].spend(meter.usage).model_copy(update={"context": context})
        return {"cac_progress": progress, "cac_revising": True}

    def _failed(self, state: State, meter: UsageMeter, error: BaseException) -> dict[str, Any]:
        spent = state["cac_progress"].spend(meter.usage)
        if refusal := refusal_in(error):
            return self._rules.end_without_pass(spent, "budget", error=str(refusal))
        result = self._rules.partial(spent, error)
        let_pass(error, result)
        raise StrategyError(
            f"the strategy {self._rules.strategy.name!r} failed: {words(error)}. "
            "The answers so far are in `.result.rounds`",
            result=result,
        ) from error


_EMPTY = Verdict(passed=False, critique="The answer was empty.")
