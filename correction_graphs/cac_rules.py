"""The rules of the CaC loop, without a model: what was done so far, and what follows from a draft or a verdict.

Whoever runs the loop (the nodes of `cac`, or an agent's middleware) calls models and checkers; what becomes of their
replies is decided here. Decisions are updates of the state of the CaC graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, message_chunk_to_message
from langgraph.runtime import get_runtime
from pydantic import BaseModel, ConfigDict

from correction_graphs.budget import Budget
from correction_graphs.errors import GenerationError, words
from correction_graphs.messages import answer_of, squeezed, with_own_id
from correction_graphs.nodes import emit
from correction_graphs.prompts import Template
from correction_graphs.results import CacResult, CacStatus, Round, TemplateInfo, Usage, Verdict
from correction_graphs.strategy_adapters import BoundStrategy
from correction_graphs.usage import UsageMeter, shared_budget

OnUnknown = Literal["revise", "accept", "retry"]
OnCheckerError = Literal["raise", "accept", "revise"]
OnExhausted = Literal["best", "last", "first", "refuse"]
Exhausted = Callable[[CacResult], str | AIMessage]
"""What may be given as `on_exhausted`: from the result to what is returned in the place of an answer."""


class Draft(BaseModel):
    """An answer under way. Holds the model's message as it came, so that the one that is returned keeps its id."""

    model_config = ConfigDict(frozen=True)

    message: AIMessage
    usage: Usage
    verdict: Verdict | None = None


class Progress(BaseModel):
    """What the loop has done in this turn.

    LangGraph streams message objects that it finds in a node's update; those inside a model it does not find.

    Attributes:
        drafts: The answers so far.
        wasted: What was spent on an answer that never came.
        context: What the next answer is written from; None for the conversation as it is.
        ended: Whether the result is out.
    """

    model_config = ConfigDict(frozen=True)

    drafts: tuple[Draft, ...] = ()
    wasted: Usage = Usage()
    context: tuple[AnyMessage, ...] | None = None
    ended: bool = False

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The answers so far, as the result tells them."""
        rounds: list[Round] = []
        for draft in self.drafts:
            done = Round(answer=answer_of(draft.message), verdict=draft.verdict, usage=draft.usage)
            rounds.append(_compared(done, rounds[-1]) if rounds else done)
        return tuple(rounds)

    @property
    def spent(self) -> Usage:
        """What the run has cost until now."""
        return sum((draft.usage for draft in self.drafts), self.wasted)

    def correct(self, verdict: Verdict) -> Progress:
        """Add the checker's own answer as the newest one."""
        message = with_own_id(AIMessage(verdict.corrected or ""))
        return self.model_copy(
            update={"drafts": (*self.drafts, Draft(message=message, usage=Usage(), verdict=verdict))}
        )

    def judge(self, verdict: Verdict | None) -> Progress:
        """Add the verdict on the newest answer."""
        judged = self.drafts[-1].model_copy(update={"verdict": verdict})
        return self.model_copy(update={"drafts": (*self.drafts[:-1], judged)})

    def spend(self, usage: Usage) -> Progress:
        """Add what a step on the newest answer cost."""
        newest = self.drafts[-1]
        return self.model_copy(
            update={"drafts": (*self.drafts[:-1], newest.model_copy(update={"usage": newest.usage + usage}))}
        )


class Rules(NamedTuple):
    """The settings of a loop, and the decisions that follow from them."""

    template: Template
    info: TemplateInfo
    strategy: BoundStrategy
    max_rounds: int
    keep_best: bool
    on_unknown: OnUnknown
    on_checker_error: OnCheckerError
    on_exhausted: OnExhausted | Exhausted
    budget: Budget | None

    def opening(self, messages: list[AnyMessage]) -> Sequence[AnyMessage]:
        """Return what the first answer is written from."""
        return self.strategy.opening(messages, self.template)

    def meter(self, progress: Progress) -> UsageMeter:
        """Return what counts a step, and asks the budget before each model call in it."""
        return UsageMeter(self.budget, progress.spent, shared_budget(get_runtime().context))

    def result(
        self, progress: Progress, status: CacStatus, *, chosen: int | None, error: str | None = None
    ) -> CacResult:
        """Tell the story so far."""
        rounds = progress.rounds
        return CacResult(
            status=status,
            rounds=rounds,
            chosen=chosen,
            usage=progress.spent,
            strategy=self.strategy.name,
            template=self.info,
            error=error,
        )

    def partial(self, progress: Progress, error: BaseException) -> CacResult:
        """Tell what was done until something went wrong."""
        return self.result(
            progress, "failed", chosen=best_round(progress.rounds, keep_best=self.keep_best), error=words(error)
        )

    def end(
        self,
        progress: Progress,
        status: CacStatus,
        *,
        chosen: int | None,
        message: AIMessage | None = None,
        error: str | None = None,
    ) -> dict[str, Any]:
        """Return the update that ends the run with the `chosen` answer, or with another `message`."""
        result = self.result(progress, status, chosen=chosen, error=error)
        if chosen is not None:
            message = progress.drafts[chosen].message
        if message is None:
            raise GenerationError(
                f"the model returned nothing but empty messages, {len(progress.drafts)} of them; "
                "there is no answer to return",
                result=result.model_copy(update={"status": "failed"}),
            )
        emit("cac.end", round=chosen, status=status, answer=answer_of(message), usage=result.usage.model_dump())
        return {"messages": [message], "cac": result, "cac_progress": Progress(ended=True)}

    def end_with_newest(self, progress: Progress, status: CacStatus, *, error: str | None = None) -> dict[str, Any]:
        """Return the update that ends the run with the newest answer."""
        return self.end(progress, status, chosen=len(progress.drafts) - 1, error=error)

    def end_without_pass(self, progress: Progress, status: CacStatus, *, error: str | None = None) -> dict[str, Any]:
        """Return the update that ends the run when no answer passed, by the policy `on_exhausted`.

        Raises:
            GenerationError: If all answers are empty and the policy is to return one, or its function failed.
        """
        rounds = progress.rounds
        best = best_round(rounds, keep_best=self.keep_best)
        written = _written(rounds)
        if callable(self.on_exhausted):
            result = self.result(progress, status, chosen=best, error=error)
            try:
                message = _as_message(self.on_exhausted(result))
            except Exception as failure:
                raise GenerationError(f"`on_exhausted` failed: {words(failure)}", result=result) from failure
            return self.end(progress, status, chosen=None, message=with_own_id(message), error=error)
        if self.on_exhausted == "refuse":
            message = with_own_id(AIMessage(self.template.fill("refuse")))
            return self.end(progress, status, chosen=None, message=message, error=error)
        picked = {"best": best, "first": written[0] if written else None, "last": written[-1] if written else None}
        return self.end(progress, status, chosen=picked[self.on_exhausted], error=error)

    def after_draft(self, progress: Progress, steps_left: int) -> dict[str, Any]:
        """Decide what follows a new answer."""
        draft = progress.drafts[-1]
        emit(
            "cac.draft", round=len(progress.drafts) - 1, answer=answer_of(draft.message), usage=draft.usage.model_dump()
        )
        if draft.message.tool_calls:  # not an answer yet; whoever runs the tools comes back with their results
            return self.end_with_newest(progress, "unverified")
        if steps_left <= _STEPS_TO_CHECK:
            best = best_round(progress.rounds, keep_best=self.keep_best)
            return self.end(progress, "unverified", chosen=best, error=STEP_LIMIT)
        *earlier, newest = [squeezed(answer_of(draft.message)) for draft in progress.drafts]
        if newest and newest in earlier:  # what was said of it then, still holds
            known = progress.drafts[len(earlier) - 1 - earlier[::-1].index(newest)].verdict
            repeated = progress.judge(known)
            return self.end_without_pass(repeated, "plateau" if newest == earlier[-1] else "oscillation")
        return {"cac_progress": progress}

    def after_verdict(self, progress: Progress, verdict: Verdict, usage: Usage, steps_left: int) -> dict[str, Any]:
        """Decide what follows a verdict on the newest answer."""
        progress = progress.spend(usage).judge(verdict)
        emit(
            "cac.verdict",
            round=len(progress.drafts) - 1,
            **verdict.model_dump(mode="json", include={"passed", "critique", "score", "reasoning", "votes"}),
            usage=usage.model_dump(),
        )
        if verdict.passed:
            return self.end_with_newest(progress if verdict.corrected is None else progress.correct(verdict), "passed")
        if verdict.passed is None and (self.on_checker_error if verdict.error else self.on_unknown) == "accept":
            return self.end_with_newest(progress, "unverified", error=verdict.error)
        if len(progress.drafts) > self.max_rounds:
            return self.end_without_pass(progress, "exhausted")
        if steps_left <= _STEPS_TO_REVISE:
            return self.end_without_pass(progress, "exhausted", error=STEP_LIMIT)
        return {"cac_progress": progress}


_STEPS_TO_CHECK = 1
_STEPS_TO_REVISE = 3  # recontextualize, generate, check
STEP_LIMIT = "the graph's recursion limit leaves no steps for another round"


def default_template(checker: object) -> str:
    """Return whose words are used where no template is given: the paper's case, or with a checker what fits any."""
    return "bias" if checker is None else "general"


def best_round(rounds: tuple[Round, ...], *, keep_best: bool = True) -> int | None:
    """Return the index of the answer to return when none passed; None if all are empty.

    Args:
        rounds: The answers with their verdicts.
        keep_best: Whether a higher score wins, of equal ones the earlier. Where no answer has a score, one that was
            found wrong loses to one that was not, as when the verdict on it was unknown, and the later wins, since it
            was written with more critiques in view. Without `keep_best` it is always the last.
    """
    written = _written(rounds)
    scores = {i: v.score for i in written if (v := rounds[i].verdict) is not None and v.score is not None}
    if keep_best and scores:
        return max(scores, key=lambda index: (scores[index], -index))
    unfaulted = [i for i in written if (v := rounds[i].verdict) is None or v.passed is None]
    if keep_best and unfaulted:
        return unfaulted[-1]
    return written[-1] if written else None


def _written(rounds: tuple[Round, ...]) -> list[int]:
    """Indices of the answers that say something."""
    return [index for index, done in enumerate(rounds) if done.answer.strip()]


def _compared(done: Round, before: Round) -> Round:
    """Record how an answer differs from the one before."""
    scores = [v.score for v in (before.verdict, done.verdict) if v is not None and v.score is not None]
    return done.model_copy(
        update={
            "changed": squeezed(done.answer) != squeezed(before.answer),
            "score_change": scores[1] - scores[0] if len(scores) == 2 else None,  # noqa: PLR2004
        }
    )


def _as_message(said: object) -> AIMessage:
    """Return what a function of the user's gave for an answer as a message."""
    if isinstance(said, AIMessageChunk):
        said = message_chunk_to_message(said)
    if isinstance(said, AIMessage):
        return said
    if isinstance(said, str):
        return AIMessage(said)
    if inspect.iscoroutine(said):
        said.close()  # or Python would warn of it, far from here
    raise TypeError(f"it returned {type(said).__name__}; it returns a text or an AI message")
