"""`CaCMiddleware`: the loop of `cac` around the answers of an agent.

`CaCMiddleware` sits around the model call. A reply that calls tools goes to the tools; a reply that would end the run
is held back, checked, and written again while it does not pass. Only what is accepted leaves the model's node, so
neither the history nor the token stream ever holds a rejected answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, cast

from langchain_core.messages import AIMessage, AnyMessage, ToolCall, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnablePassthrough
from langchain_core.runnables.config import ensure_config
from langgraph.func import task
from langgraph.managed import RemainingSteps
from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from correction_graphs.budget import Budget
from correction_graphs.cac import build_cac_graph
from correction_graphs.cac_rules import (
    STEP_LIMIT,
    Draft,
    Exhausted,
    OnCheckerError,
    OnExhausted,
    OnUnknown,
    Progress,
    Rules,
    default_template,
)
from correction_graphs.checkers.adapters import CheckerLike
from correction_graphs.checkers.verdict_model import Style
from correction_graphs.errors import GenerationError
from correction_graphs.messages import with_own_id
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
from correction_graphs.nodes import Quietly, let_pass
from correction_graphs.prompts import Template, load_template
from correction_graphs.ranked import Ranked
from correction_graphs.results import CacResult, Usage
from correction_graphs.strategy_adapters import StrategyLike
from correction_graphs.streaming import astream_answer, stream_answer
from correction_graphs.usage import UsageMeter, refusal_in


class CaCMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Has the final answer of an agent checked, and written again until it passes.

    The first answer is what the agent would have returned. While it does not pass, answer and critique are put before
    the agent's model as in `create_cac_graph`, tools included: a revised reply may call tools, and the answer that
    comes of their results is checked again. Rejected answers are neither in the history nor in the token stream; of the
    accepted one, the pieces are streamed. Since nobody knows before its end whether a reply will stand, other replies
    of the model are streamed whole.

    With structured output the checker is shown the answer as JSON.

    Args:
        checker: Judges an answer; see `create_cac_graph`. By default `LLMCritic` with the agent's model, `template` and
            `style`. It is shown the agent's system prompt and the messages of tools with the rest of the conversation.
        template: Name, path or `Template` with the prompts for checking and revising; by default `"bias"`, or
            `"general"` with a `checker`, as for `create_cac_graph`.
        style: How the default checker is asked: `"verdict"`, `"natural_language"` or `"chain_of_thought"`.
        strategy: How answer and critique are put before the model; see `create_cac_graph`. The further answers of
            `"ranked"` are written without tools.
        max_rounds: How many times an answer may be revised between two messages of the user, with or without tools
            called in between.
        keep_best: Whether the best answer is the one with the highest score; see `create_cac_graph`.
        on_unknown: What follows when the checker cannot tell; see `create_cac_graph`.
        on_checker_error: What follows when the checker raises; see `create_cac_graph`.
        on_exhausted: What is returned when no answer passed; see `create_cac_graph`.
        budget: Limits on what the agent's model and the checker spend in a run, asked before each call. An account
            given to the run as `context={"budget": SharedBudget(...)}` is drawn on, too. Where the budget ends before
            there is any answer, a `GenerationError` is raised.
        name: Where the result is found in the agent's output. Several in one agent have a name each; the one that is
            listed first checks what has passed the others.

    The output of the agent has one key more: under `name`, a `CacResult`, or None where no answer was checked, as when
    another middleware ended the run.

    `ModelCallLimitMiddleware` counts each revision as a model call. It is asked before the agent's steps and not
    between the revisions of one step, so a run can exceed its limit by up to `max_rounds`; `budget` is exact.

    Raises:
        SettingsError: If an argument is not one of those allowed.
        TemplateError: If the template cannot be loaded or lacks a prompt that these settings use.
        MissingExtraError: On import, if `langchain` is not installed.

    Example:
        ```python
        from correction_graphs import CaCMiddleware, Verdict
        from correction_graphs.testing import ScriptedChatModel
        from langchain.agents import create_agent


        def names_the_capital(request):
            return Verdict(passed="Canberra" in request.answer, critique="Sydney is not the capital.")


        model = ScriptedChatModel(["Sydney.", "Canberra."])
        agent = create_agent(model, middleware=[CaCMiddleware(names_the_capital)])

        out = agent.invoke({"messages": [("user", "What is the capital of Australia?")]})
        assert [message.text for message in out["messages"]] == ["What is the capital of Australia?", "Canberra."]
        assert out["cac"].rounds[0].answer == "Sydney."
        ```
    """

    def __init__(
        self,
        checker: CheckerLike | None = None,
        *,
        template: str | Path | Template | None = None,
        style: Style = "chain_of_thought",
        strategy: StrategyLike = "self",
        max_rounds: int = 2,
        keep_best: bool = True,
        on_unknown: OnUnknown = "revise",
        on_checker_error: OnCheckerError = "raise",
        on_exhausted: OnExhausted | Exhausted = "best",
        budget: Budget | None = None,
        name: str = "cac",
    ) -> None:
        super().__init__()
        self._name = instance_name(name, "cac")
        self._progress = f"{name}_progress"
        channels: dict[str, Any] = {
            name: NotRequired[Annotated[CacResult | None, OmitFromInput]],
            self._progress: NotRequired[Annotated[AgentProgress, PrivateStateAttr]],
            "remaining_steps": Annotated[int, PrivateStateAttr, *RemainingSteps.__metadata__],  # type: ignore[attr-defined]
        }
        self.state_schema = cast("Any", TypedDict)("CaCAgentState", channels)
        self._settings: dict[str, Any] = {
            "checker": checker,
            # Here, and not when the agent runs, perhaps on an event loop.
            "template": load_template(default_template(checker) if template is None else template),
            "style": style,
            "strategy": strategy,
            "max_rounds": max_rounds,
            "keep_best": keep_best,
            "on_unknown": on_unknown,
            "on_checker_error": on_checker_error,
            "on_exhausted": on_exhausted,
            "budget": budget,
        }
        self._asks_the_model = checker is None or strategy == "ranked" or isinstance(strategy, Ranked)
        self._loop = _Loop.of(RunnablePassthrough(), self._settings)  # finds what is wrong with the settings

    @property
    def name(self) -> str:
        """The name of the instance, under which its result is found."""
        return self._name

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Forget what a thread has from its turn before."""
        return {self._name: None, self._progress: AgentProgress()}

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Forget what a thread has from its turn before."""
        return self.before_agent(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Call the model, and call it again while its answer does not pass."""
        config, course = ensure_config(), self._course(request)
        step = next(course)
        while not isinstance(step, ExtendedModelResponse):
            try:
                if isinstance(step, _ModelCall):
                    outcome: Any = self._call(step, handler, config)
                else:
                    outcome = step.node.step(step.state, config)
            except BaseException as error:  # noqa: BLE001  (raised again there, if nothing else follows from it)
                step = course.throw(error)
            else:
                step = course.send(outcome)
        if (answer := self._streamed(step)) is not None:
            stream_answer(answer, config)
        return step

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """Call the model, and call it again while its answer does not pass."""
        config, course = ensure_config(), self._course(request)
        step = next(course)
        while not isinstance(step, ExtendedModelResponse):
            try:
                if isinstance(step, _ModelCall):
                    outcome: Any = await self._acall(step, handler, config)
                else:
                    outcome = await step.node.astep(step.state, config)
            except BaseException as error:  # noqa: BLE001  (raised again there, if nothing else follows from it)
                step = course.throw(error)
            else:
                step = course.send(outcome)
        if (answer := self._streamed(step)) is not None:
            await astream_answer(answer, config)
        return step

    def _call(
        self, step: _ModelCall, handler: Callable[[ModelRequest[Any]], ModelResponse[Any]], config: RunnableConfig
    ) -> Held:
        def model_reply() -> dict[str, Held]:
            with Quietly(None, step.meter):
                return {_REPLY: _read(handler(step.request), step.meter)}

        return (task(model_reply)().result() if is_durable(config) else model_reply())[_REPLY]

    async def _acall(
        self,
        step: _ModelCall,
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
        config: RunnableConfig,
    ) -> Held:
        async def model_reply() -> dict[str, Held]:
            with Quietly(None, step.meter):
                return {_REPLY: _read(await handler(step.request), step.meter)}

        return (await (task(model_reply)() if is_durable(config) else model_reply()))[_REPLY]

    def _loop_with(self, model: Runnable[Any, Any]) -> _Loop:
        loop = self._loop
        if self._asks_the_model and loop.model is not model:  # as when another middleware chooses one for each call
            self._loop = loop = _Loop.of(model, self._settings)
        return loop

    def _course(self, request: ModelRequest[Any]) -> _Course:
        """Say what is to be done next, given the outcome of what was done, until there is something to return."""
        loop = self._loop_with(request.model)
        messages = request.messages
        conversation = [*([request.system_message] if request.system_message else []), *messages]
        state = cast("Any", request.state)
        progress = (state.get(self._progress) or AgentProgress()).at_step(state["remaining_steps"])
        calls = 0
        while True:
            meter = loop.rules.meter(progress)
            try:
                meter.check_budget()
                calls += 1
                reply = yield _ModelCall(request.override(messages=progress.asked(messages, loop.rules)), meter)
            except BaseException as error:  # noqa: BLE001  (raised again there)
                progress = progress.waste(meter.usage)
                update = loop.failed(progress, error)
                break
            if not _ends(request, reply):  # the agent goes on, with its tools most often
                progress = progress.waste(reply.usage).model_copy(update={"since": progress.since + 1})
                if progress.drafts and progress.short_of_steps:
                    update = loop.rules.end_without_pass(progress, "exhausted", error=STEP_LIMIT)
                    break
                yield self._response(request, reply, calls, {self._progress: progress})
                return
            progress = progress.model_copy(update={"drafts": (*progress.drafts, reply)})
            update = loop.rules.after_draft(progress, _ENOUGH)
            if "messages" not in update:
                update = yield _Step(loop.check, {**update, "messages": conversation, "remaining_steps": _ENOUGH})
            if "messages" not in update:
                update = yield _Step(loop.recontextualize, {**update, "messages": messages})
            if "messages" in update:
                break
            progress = update["cac_progress"].model_copy(update={"since": 0})
        yield self._accepted(request, progress, update, calls)

    def _accepted(
        self, request: ModelRequest[Any], progress: AgentProgress, update: dict[str, Any], calls: int
    ) -> ExtendedModelResponse[Any]:
        """Return what the model's node returns when the loop has ended."""
        result: CacResult = update["cac"]
        message: AIMessage = update["messages"][0]
        at = result.chosen
        if at is not None and at < len(progress.drafts):
            draft = progress.drafts[at]
        else:  # a refusal, a text of the user's function, or a better answer by the checker
            draft = Held(message=message.model_copy(update={"name": progress.drafts[0].message.name}), usage=Usage())
            if progress.drafts[0].structured is not None and not request.tools:
                draft = progress.drafts[0].saying(message, result)
        return self._response(request, draft, calls, {self._name: result, self._progress: AgentProgress()})

    @staticmethod
    def _response(
        request: ModelRequest[Any], reply: Held, calls: int, update: dict[str, Any]
    ) -> ExtendedModelResponse[Any]:
        if calls > 1:  # LangChain's limit counts one for this step; where there is no limit, there are no such channels
            update |= {key: cast("Any", request.state).get(key, 0) + calls - 1 for key in _CALL_COUNTS}
        messages = [*(reply.reply or [reply.message])]
        response = ModelResponse(result=messages, structured_response=reply.structured)
        return ExtendedModelResponse(response, Command(update=update))

    def _streamed(self, response: ExtendedModelResponse[Any]) -> AIMessage | None:
        """Return the answer, if it is there, and a single message; LangGraph streams others whole."""
        messages, update = response.model_response.result, cast("Command[Any]", response.command).update
        ended = isinstance(update, dict) and self._name in update
        return messages[0] if ended and len(messages) == 1 and isinstance(messages[0], AIMessage) else None


# State


class Held(Draft):
    """An answer of an agent, held back until it is judged.

    Attributes:
        reply: All messages of the model's node, where the answer is more than its text: structured output.
        structured: What the agent returns as `structured_response`.
    """

    reply: tuple[AnyMessage, ...] = ()
    structured: Any = None

    def saying(self, message: AIMessage, result: CacResult) -> Held:
        """Return this structured answer with the values of a text in the place of its own.

        An agent that has nothing but structured output to end with would call the model again upon a mere text.

        Raises:
            GenerationError: If the text is no JSON for it.
        """
        try:
            structured = TypeAdapter(type(self.structured)).validate_json(message.text)
        except ValidationError as invalid:
            raise GenerationError(
                f"this agent ends with structured output, and {message.text!r:.80} was to be returned in its place; "
                "have `on_exhausted`, and checkers that answer themselves, give JSON of that form",
                result=result,
            ) from invalid
        if not self.reply:
            return Held(message=message, usage=Usage(), structured=structured)
        said, told = cast("AIMessage", self.reply[0]), cast("ToolMessage", self.reply[-1])
        called = next(call for call in said.tool_calls if call["id"] == told.tool_call_id)
        call = ToolCall(name=called["name"], args=json.loads(message.text), id=called["id"], type="tool_call")
        reply = (
            AIMessage("", tool_calls=[call], id=message.id, name=message.name),
            ToolMessage(f"Returning structured response: {structured}", tool_call_id=call["id"], name=call["name"]),
        )
        return Held(message=message, usage=Usage(), reply=reply, structured=structured)


class AgentProgress(Progress):
    """What the loop has done since the user's last message, over as many steps of the agent as there were.

    Attributes:
        since: How many replies the agent went on with after `context` was made; they and what their tools said come
            after it. Counted, since the messages before them may be summarized meanwhile.
        step: How many steps the recursion limit left when the model was called the last time.
        cycle: How many steps it is from one call of the model to the next, hooks of other middleware included.
    """

    drafts: tuple[Held, ...] = ()
    since: int = 0
    step: int | None = None
    cycle: int = 4

    def at_step(self, steps_left: int) -> AgentProgress:
        """Note how many steps are left, and how many it took from the model's last call."""
        took = 0 if self.step is None else self.step - steps_left
        # Less than nothing where the run was interrupted meanwhile, which starts a new count.
        return self.model_copy(update={"step": steps_left, "cycle": took if took > 0 else self.cycle})

    @property
    def short_of_steps(self) -> bool:
        """Whether the recursion limit might end the run before the agent is back with another answer."""
        return self.step is not None and self.step < 2 * self.cycle

    def waste(self, usage: Usage) -> AgentProgress:
        """Add what was spent on a reply that is no answer."""
        return self.model_copy(update={"wasted": self.wasted + usage})

    def asked(self, messages: list[AnyMessage], rules: Rules) -> list[AnyMessage]:
        """Return what the model is to reply to now."""
        if self.context is None:
            return list(rules.opening(messages))
        replies = [at for at, message in enumerate(messages) if isinstance(message, AIMessage)][-self.since :]
        return [*self.context, *(messages[replies[0] :] if self.since and replies else [])]


# The loop's parts


class _Loop(NamedTuple):
    """The rules and nodes of the graph that `create_cac_graph` would make of the same settings."""

    model: Runnable[Any, Any]
    rules: Rules
    check: Runnable[Any, Any]
    recontextualize: Runnable[Any, Any]

    @classmethod
    def of(cls, model: Runnable[Any, Any], settings: dict[str, Any]) -> _Loop:
        nodes = build_cac_graph(model, **settings).nodes
        check, recontextualize = (cast("Any", nodes[name].runnable) for name in ("check", "recontextualize"))
        return cls(model, check._rules, check, recontextualize)  # noqa: SLF001

    def failed(self, progress: AgentProgress, error: BaseException) -> dict[str, Any]:
        """Return the update that ends the run when the model failed: with an earlier answer, if there is one.

        Where there is none, the error is raised as it would be without this middleware.
        """
        result = self.rules.partial(progress, error)
        let_pass(error, result)
        refusal = refusal_in(error)
        if result.chosen is not None:
            if refusal:
                return self.rules.end_without_pass(progress, "budget", error=str(refusal))
            return self.rules.end_without_pass(progress, "failed", error=result.error)
        if refusal:
            raise GenerationError(f"there is no answer: {refusal}", result=result) from error
        raise error


class _ModelCall(NamedTuple):
    request: ModelRequest[Any]
    meter: UsageMeter


class _Step(NamedTuple):
    node: Any
    state: dict[str, Any]


_Course = Generator[_ModelCall | _Step | ExtendedModelResponse[Any], Any, None]


def _read(response: ModelResponse[Any], meter: UsageMeter) -> Held:
    """Return what came of a model call: as an answer with its text, and as the messages that it is."""
    replies = cast("tuple[AnyMessage, ...]", tuple(response.result))
    said = next((message for message in replies if isinstance(message, AIMessage)), AIMessage(""))
    shown = with_own_id(said)
    if len(replies) == 1 and replies[0] is said:
        replies = ()
    told = next((message for message in replies if isinstance(message, ToolMessage)), None)
    if response.structured_response is not None and told is not None:
        args = next((call["args"] for call in said.tool_calls if call["id"] == told.tool_call_id), {})
        shown = AIMessage(json.dumps(args, ensure_ascii=False), id=shown.id, name=said.name)
    return Held(message=shown, usage=meter.usage, reply=replies, structured=response.structured_response)


def _ends(request: ModelRequest[Any], reply: Held) -> bool:
    """Whether the agent would end with this reply."""
    if reply.structured is not None:
        return True
    # Without tools, an agent that is to return structured output calls its model until there is some.
    return not (reply.reply or reply.message.tool_calls or (request.response_format is not None and not request.tools))


_REPLY = "reply"  # LangGraph looks for messages to stream in what a task returns, but no deeper than that
_ENOUGH = sys.maxsize  # of steps: drafts and checks are not steps of the agent
_CALL_COUNTS = ("run_model_call_count", "thread_model_call_count")
