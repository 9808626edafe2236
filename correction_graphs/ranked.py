"""The strategy `"ranked"`: scored answers in order of reward, and the request for one that is better than all of them.

In-context alignment (CaC paper, section 3) reads a prompt as a ranking: a transformer that sees several answers to one
question, each with its reward, can move its own towards what sets the better ones apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import patch_config
from langgraph.errors import GraphBubbleUp

from correction_graphs.arguments import whole_number
from correction_graphs.checkers.adapters import CheckerLike, as_checker
from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.human import HumanChecker
from correction_graphs.checkers.outcomes import read_outcome
from correction_graphs.errors import SettingsError, words
from correction_graphs.messages import answer_of, fence, question_of, squeezed
from correction_graphs.models import AnswerModel, ModelLike
from correction_graphs.results import Round, Verdict
from correction_graphs.strategies import RevisionRequest, asking_instead, critique_of
from correction_graphs.usage import refusal_in

Output = TypeVar("Output")


class Ranked(Runnable[RevisionRequest, list[AnyMessage]]):
    """A strategy: draw further answers, have them judged, and show all that is known in order of reward.

    When an answer was rejected, `samples` more are drawn for the conversation as it was, at the same time, and then
    judged at the same time; the run's `max_concurrency` limits how many at once. Empty answers and tool calls are
    dropped, and answers that are equal but for white space are judged once. They join the rejected answers of the
    run, whose verdicts are known. The best `keep` of all are shown, the worst of them first and the best next to what
    is asked, each with its score, along with the critique of the best one that was rejected.

    A `max_concurrency` of 1 does not go with `graph.stream` of "messages" or "custom": LangGraph then waits for ever,
    in a graph of any kind. `invoke` and `astream` are not concerned.

    The theory needs scores and several answers, not an order; the best stands last since models heed most what they
    read last. It also needs one layer or more of the model for each answer that is ranked, hence `keep`.

    The context never holds more than `keep` answers and one critique, however many rounds there are: samples of an
    earlier round are not kept, and earlier contexts are not repeated. A revision costs `samples` model calls, and at
    most as many checks, more than with other strategies. A model with a prompt cache reads the conversation once for
    all of them, but each ranking anew.

    Samples must differ to be worth their price. A model at temperature 0, or with a seed that every call starts from,
    gives the same answer each time, of which one is shown. A sample that passes the check is shown, not returned: what
    is written next is returned, if it passes.

    The reward of an answer is the score of its verdict. An answer without one takes its place on the scale of the
    scores that there are: the highest if it passed, the lowest if it failed, the middle if that is unknown; without any
    scores these are 1, 0 and 0.5. Of equal rewards, answers that passed rank highest, then unknown ones; then the
    rejected answers of the run rank above samples, and newer above older.

    Args:
        samples: How many answers to draw for each revision, 1 or more.
        keep: How many answers to show at most, 1 or more.
        model: Draws them: anything that a graph takes for a model; by default the model of the graph.
        checker: Judges them: anything that `as_checker` takes; by default the checker of the graph, on whose scale its
            scores should be.

    Raises:
        SettingsError: If an argument is outside what is allowed, or the checker is a `HumanChecker`: a run cannot be
            interrupted in several places at once. Nor should there be one inside the checker, or inside the model.

    A sample that the model or the checker crashes on is left out, or counts as unknown. If all crash, an
    `ExceptionGroup` is raised; not for a checker that had crashed on the rejected answer already, which means that the
    run is to go on without it. An exhausted budget, LangGraph's signals and Ctrl-C are always raised.

    Example:
        ```python
        from correction_graphs import Verdict, create_cac_graph
        from correction_graphs.ranked import Ranked
        from correction_graphs.testing import ScriptedChatModel


        def brevity(request):
            return Verdict(passed=request.answer == "Canberra.", score=-len(request.answer))


        model = ScriptedChatModel(["I am afraid it is Sydney.", "Sydney, I think.", "Perth.", "Canberra."])
        graph = create_cac_graph(model, checker=brevity, strategy=Ranked(samples=2))

        out = graph.invoke({"messages": [("user", "What is the capital of Australia?")]}, {"max_concurrency": 1})
        shown = model.asked[-1][-1].text
        assert shown.index("I am afraid") < shown.index("I think") < shown.index("Perth.")
        assert out["messages"][-1].text == "Canberra."
        ```
    """

    role = "revise.ranked"

    def __init__(
        self,
        samples: int = 4,
        *,
        keep: int = 8,
        model: ModelLike | None = None,
        checker: CheckerLike | None = None,
    ) -> None:
        for name, value in (("samples", samples), ("keep", keep)):
            whole_number(name, value, 1, "a number of answers")
        self.name = "ranked"
        self.samples = samples
        self.keep = keep
        self.model = model if model is None or isinstance(model, AnswerModel) else AnswerModel(model)
        self.checker = None if checker is None else as_checker(checker)
        if isinstance(self.checker, HumanChecker):
            raise SettingsError(
                "a person cannot judge several answers at once; give `Ranked` another checker: "
                "Ranked(checker=LLMCritic(model))"
            )

    def completed(self, *, model: AnswerModel, checker: Checker) -> Ranked:
        """Return this strategy with a graph's model and checker where it has none of its own.

        Raises:
            SettingsError: If the checker is a `HumanChecker`.
        """
        return Ranked(self.samples, keep=self.keep, model=self.model or model, checker=self.checker or checker)

    def invoke(
        self,
        input: RevisionRequest,  # noqa: A002
        config: RunnableConfig | None = None,
        **_: object,
    ) -> list[AnyMessage]:
        """Return what the next answer is written from."""
        return self._call_with_config(self._revise, input, config)

    async def ainvoke(
        self,
        input: RevisionRequest,  # noqa: A002
        config: RunnableConfig | None = None,
        **_: object,
    ) -> list[AnyMessage]:
        """Return what the next answer is written from."""
        return await self._acall_with_config(self._arevise, input, config)

    def _revise(
        self, request: RevisionRequest, run_manager: CallbackManagerForChainRun, config: RunnableConfig
    ) -> list[AnyMessage]:
        model, checker = self._parts()
        conversation: list[Sequence[BaseMessage]] = [request.messages] * self.samples
        inner = patch_config(config, callbacks=run_manager.get_child("sample"))
        fresh = unseen(answers_from(model.batch(conversation, inner, return_exceptions=True)), request.rounds)
        inner = patch_config(config, callbacks=run_manager.get_child("judge"))
        outcomes = checker.batch(requests_for(fresh, request), inner, return_exceptions=True)
        return self._shown(request, fresh, outcomes)

    async def _arevise(
        self, request: RevisionRequest, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
    ) -> list[AnyMessage]:
        model, checker = self._parts()
        conversation: list[Sequence[BaseMessage]] = [request.messages] * self.samples
        inner = patch_config(config, callbacks=run_manager.get_child("sample"))
        fresh = unseen(answers_from(await model.abatch(conversation, inner, return_exceptions=True)), request.rounds)
        inner = patch_config(config, callbacks=run_manager.get_child("judge"))
        outcomes = await checker.abatch(requests_for(fresh, request), inner, return_exceptions=True)
        return self._shown(request, fresh, outcomes)

    def _parts(self) -> tuple[AnswerModel, Checker]:
        if self.model is None or self.checker is None:
            raise SettingsError("`Ranked` has no model or no checker; a graph fills in its own, or give both")
        return self.model, self.checker

    def _shown(self, request: RevisionRequest, fresh: Sequence[str], outcomes: Sequence[object]) -> list[AnyMessage]:
        newest = request.rounds[-1].verdict
        verdicts = verdicts_from(outcomes, self._parts()[1].get_name(), tolerant=bool(newest and newest.error))
        samples = [Round(answer=answer, verdict=verdict) for answer, verdict in zip(fresh, verdicts, strict=True)]
        return show(request, ranking([*samples, *request.rounds])[-self.keep :])


# Pure functions


def answers_from(replies: Sequence[AIMessage | Exception]) -> list[str]:
    """Return what a model answered; not empty texts, and not tool calls, which are no answers yet.

    Raises:
        ExceptionGroup: If it crashed each time.
    """
    kept = survivors(replies, "every further answer failed")
    return [text for reply in kept if not reply.tool_calls and (text := answer_of(reply)).strip()]


def unseen(answers: Iterable[str], rounds: Iterable[Round]) -> list[str]:
    """Return answers that are not among those of the rounds, each once; white space makes no difference."""
    known = {squeezed(done.answer) for done in rounds}
    by_text = {squeezed(answer): answer for answer in answers}
    return [answer for text, answer in by_text.items() if text not in known]


def requests_for(answers: Iterable[str], request: RevisionRequest) -> list[CheckRequest]:
    """Return what the checker is asked about each answer."""
    return [CheckRequest(messages=request.messages, answer=answer, rounds=request.rounds) for answer in answers]


def verdicts_from(outcomes: Sequence[object], name: str, *, tolerant: bool) -> list[Verdict]:
    """Return what a checker said of each answer; unknown where it crashed.

    Args:
        outcomes: What it returned or raised.
        name: The checker's name.
        tolerant: Whether it may have crashed each time.

    Raises:
        ExceptionGroup: If it did, and may not.
    """
    read = [_verdict_from(outcome, name) for outcome in outcomes]
    survivors(read, f"the checker {name!r} failed on every further answer", tolerant=tolerant)
    return [_unknown(verdict) if isinstance(verdict, Exception) else verdict for verdict in read]


def _unknown(crash: Exception) -> Verdict:
    return Verdict(passed=None, error=words(crash))


def _verdict_from(outcome: object, name: str) -> Verdict | Exception:
    try:
        return outcome if isinstance(outcome, Exception) else read_outcome(outcome, name)
    except TypeError as error:  # a checker of the user's own may return anything
        return error


def survivors(outcomes: Sequence[Output | Exception], problem: str, *, tolerant: bool = False) -> list[Output]:
    """Return what was not raised.

    Args:
        outcomes: What several calls returned or raised.
        problem: What to say if all of them raised.
        tolerant: Whether that may be.

    Raises:
        ExceptionGroup: If it is so, and may not be.
        GraphBubbleUp, BudgetExceededError: If one of them raised it, or from it; these are no failures.
    """
    crashes = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for crash in crashes:
        if isinstance(crash, GraphBubbleUp) or refusal_in(crash):
            raise crash
    if crashes and len(crashes) == len(outcomes) and not tolerant:
        told = "; ".join(dict.fromkeys(map(words, crashes)))
        raise ExceptionGroup(f"{problem} ({told})", crashes)
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


def ranking(candidates: Iterable[Round]) -> list[tuple[float, Round]]:
    """Return answers with their rewards, the lowest first; of equal ones, those that were given first come first."""
    written = [candidate for candidate in candidates if candidate.answer.strip()]
    scores = [v.score for candidate in written if (v := candidate.verdict) is not None and v.score is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    middle = low / 2 + high / 2  # not of the sum, which may be too large for a float

    def rated(candidate: Round) -> tuple[float, bool, bool]:
        verdict = candidate.verdict or Verdict(passed=None)
        passed, unknown = verdict.passed is True, verdict.passed is None
        stand_in = high if passed else middle if unknown else low
        return stand_in if verdict.score is None else verdict.score, passed, unknown

    return [(rated(candidate)[0], candidate) for candidate in sorted(written, key=rated)]


def show(request: RevisionRequest, ranked: Sequence[tuple[float, Round]]) -> list[AnyMessage]:
    """Return the conversation with the ranked answers in the place of the question, which they include."""
    rejected = [done for _, done in ranked if done.verdict is None or not done.verdict.passed] or request.rounds
    shown = (f"[{reward:.3g}]\n{fence(done.answer, 'answer')}" for reward, done in ranked)
    text = request.template.fill(
        Ranked.role,
        question=question_of(request.messages),
        answers="\n\n".join(shown) or "(no answer)",
        critique=fence(critique_of(rejected[-1], request.template), "critique"),
    )
    return asking_instead(request.messages, text)
