"""Jury: several checkers judge the same answer at the same time, and the majority of those that can tell decides."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config
from langgraph.errors import GraphBubbleUp

from correction_graphs.arguments import whole_number
from correction_graphs.checkers.adapters import CheckerLike, as_checker
from correction_graphs.checkers.base import Checker, CheckRequest, joint_identity
from correction_graphs.checkers.outcomes import read_outcome
from correction_graphs.errors import SettingsError, words
from correction_graphs.results import Verdict, Vote
from correction_graphs.usage import refusal_in

LONGEST_CRITIQUE = 1_000
"""Characters of one juror's critique that the model is told; its vote keeps all of it."""

_LONGEST_ERROR = 500


class Jury(Checker):
    """Asks several checkers about the same answer, and decides by majority.

    The jurors are asked concurrently: in threads when the jury is invoked, as tasks when it is awaited; the run's
    `max_concurrency` limits how many at once. A juror that cannot tell abstains, and so does one that raises. More
    passes than fails are a pass, more fails than passes a fail, if at least `quorum` jurors did not abstain. A tie is
    unknown, and so is a missed quorum.

    The verdict holds a `Vote` of every juror. Its critique, unless it is a pass, is that of the jurors that failed the
    answer, with their names if they say different things; if none failed it, that of those who could not tell. Its
    score is the mean of the scores that were given, so they should be on one scale. Each juror costs what it costs
    alone.

    Args:
        *checkers: Anything `as_checker` takes, at least one. The same checker may be given several times.
        quorum: How many jurors must not abstain; by default more than half of them.
        name: Name of the jury in traces and results.

    Attributes:
        jurors: The checkers by their names; the second of a name is "NAME#2".
        quorum: How many jurors must not abstain.

    Raises:
        SettingsError: If there are no checkers, one of them is none, or `quorum` is out of range.

    A call raises an `ExceptionGroup` if every juror raised. A juror whose model call the budget refuses does not
    abstain: once the others have finished, that error is raised, and a graph ends with the status "budget", as with any
    other checker. What is not a failure, as an interrupt of LangGraph, Ctrl-C or cancellation, is raised at once, and
    the other jurors are not waited for. LangGraph repeats an interrupted node, so a jury in which one juror waits for a
    person asks all the others again when the run is resumed. No more than one juror may interrupt: concurrent ones
    would be handed each other's answers.

    Example:
        ```python
        from correction_graphs import CheckRequest, Jury, Verdict


        def names_the_capital(request):
            return Verdict(passed="Canberra" in request.answer, critique="Sydney is not the capital.")


        def is_short(request):
            return len(request.answer) < 80


        def is_down(request):
            raise ConnectionError("no route")


        jury = Jury(names_the_capital, is_short, is_down)
        assert jury.invoke(CheckRequest(messages=(), answer="Canberra.")).passed is True

        verdict = jury.invoke(CheckRequest(messages=(), answer="Sydney."))
        assert verdict.passed is None  # one against one, and one abstention
        assert verdict.critique == "Sydney is not the capital."
        assert [vote.passed for vote in verdict.votes] == [False, True, None]
        ```
    """

    def __init__(self, *checkers: CheckerLike, quorum: int | None = None, name: str = "jury") -> None:
        if not checkers:
            raise SettingsError("a jury of nobody cannot judge; give at least one checker")
        quorum = len(checkers) // 2 + 1 if quorum is None else quorum
        whole_number("quorum", quorum, 1, "how many jurors must not abstain", most=len(checkers))
        self.jurors = named([as_checker(checker) for checker in checkers])
        self.quorum = quorum
        self.name = name

    def cache_identity(self) -> str | None:
        """Return what equal juries have in common; None if one of the jurors is to be asked each time."""
        return joint_identity(self.jurors.values(), self.name, self.quorum)

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask all jurors in threads, and decide."""
        return self._call_with_config(self._check, request, config)

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask all jurors concurrently, and decide."""
        return await self._acall_with_config(self._acheck, request, config)

    def _check(self, request: CheckRequest, run_manager: CallbackManagerForChainRun, config: RunnableConfig) -> Verdict:
        pool = ThreadPoolExecutor(max_workers=self._at_once(config), thread_name_prefix=self.get_name())
        try:
            futures = [
                pool.submit(copy_context().run, _ask, name, juror, request, _child(config, run_manager, name))
                for name, juror in self.jurors.items()
            ]
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()  # a signal is raised before the others are waited for
            return self._decide([future.result() for future in futures])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    async def _acheck(
        self, request: CheckRequest, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
    ) -> Verdict:
        gate = asyncio.Semaphore(self._at_once(config))
        tasks = [
            asyncio.create_task(_aask(name, juror, request, _child(config, run_manager, name), gate))
            for name, juror in self.jurors.items()
        ]
        try:
            return self._decide(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # does nothing to those that are done
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _at_once(self, config: RunnableConfig) -> int:
        return max(1, min(config.get("max_concurrency") or len(self.jurors), len(self.jurors)))

    def _decide(self, ballots: Sequence[Ballot]) -> Verdict:
        crashes = [ballot.crash for ballot in ballots if ballot.crash is not None]
        for crash in crashes:
            if refusal_in(crash):
                raise crash
        if len(crashes) == len(ballots):
            told = "; ".join(f"{ballot.vote.name}: {ballot.vote.error}" for ballot in ballots)
            raise ExceptionGroup(f"every juror of {self.get_name()!r} failed ({told})", crashes)
        return verdict_of(ballots, self.quorum)


class Ballot(NamedTuple):
    """A juror's vote with what is not kept in it."""

    vote: Vote
    reasoning: str = ""
    crash: Exception | None = None


# Pure functions


def verdict_of(ballots: Sequence[Ballot], quorum: int) -> Verdict:
    """Return the verdict of a jury."""
    votes = tuple(ballot.vote for ballot in ballots)
    passed = majority(votes, quorum)
    reasons = [f"{ballot.vote.name}: {ballot.reasoning}" for ballot in ballots if ballot.reasoning]
    return Verdict(
        passed=passed,
        critique="" if passed else common_critique(votes),
        score=mean_score(votes),
        reasoning="\n".join([tally(votes, quorum), *reasons]),
        votes=votes,
    )


def majority(votes: Sequence[Vote], quorum: int) -> bool | None:
    """Return what more of the votes say, None for a tie or if fewer than `quorum` say anything."""
    passes = sum(vote.passed is True for vote in votes)
    fails = sum(vote.passed is False for vote in votes)
    if passes == fails or passes + fails < quorum:
        return None
    return passes > fails


def common_critique(votes: Sequence[Vote]) -> str:
    """Return what the jurors say against the answer: of those that failed it, else of those that could not tell.

    The same words are said once. Different ones are listed with the names of those who say them.
    """
    for verdict in (False, None):
        speakers: dict[str, list[str]] = {}
        for vote in votes:
            if vote.passed is verdict and (said := shortened(vote.critique.strip(), LONGEST_CRITIQUE)):
                speakers.setdefault(said, []).append(vote.name)
        if len(speakers) == 1:
            return next(iter(speakers))
        if speakers:
            return "\n".join(f"- {', '.join(names)}: {_indented(said)}" for said, names in speakers.items())
    return ""


def mean_score(votes: Sequence[Vote]) -> float | None:
    """Return the mean of the scores that were given."""
    scores = [vote.score for vote in votes if vote.score is not None]
    return math.fsum(scores) / len(scores) if scores else None


def tally(votes: Sequence[Vote], quorum: int) -> str:
    """Return how the votes fell, in words."""
    passes = sum(vote.passed is True for vote in votes)
    fails = sum(vote.passed is False for vote in votes)
    crashes = "".join(f"; {vote.name} raised {vote.error}" for vote in votes if vote.error)
    return f"{passes} passed, {fails} failed, {len(votes) - passes - fails} abstained, quorum {quorum}{crashes}"


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, with a mark where it was cut."""
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def named(checkers: Sequence[Checker]) -> dict[str, Checker]:
    """Return checkers by name: "a", "a#2", "b"."""
    by_name: dict[str, Checker] = {}
    for checker in checkers:
        name, copy = checker.get_name(), 1
        while (unique := name if copy == 1 else f"{name}#{copy}") in by_name:
            copy += 1
        by_name[unique] = checker
    return by_name


def vote_of(name: str, verdict: Verdict) -> Vote:
    """Return a verdict as the vote of the checker that gave it."""
    return Vote(
        name=name,
        passed=verdict.passed,
        critique=verdict.critique,
        score=verdict.score,
        error=verdict.error,
        votes=verdict.votes,
    )


def _indented(text: str) -> str:
    return "\n".join(line if number == 0 else f"  {line}" for number, line in enumerate(text.splitlines()))


# Asking one juror


def _ask(name: str, juror: Checker, request: CheckRequest, config: RunnableConfig) -> Ballot:
    try:
        return _given(name, juror.invoke(request, config))
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001  (a juror that crashes abstains)
        return _crashed(name, error)


async def _aask(
    name: str, juror: Checker, request: CheckRequest, config: RunnableConfig, gate: asyncio.Semaphore
) -> Ballot:
    async with gate:
        try:
            return _given(name, await juror.ainvoke(request, config))
        except GraphBubbleUp:
            raise
        except Exception as error:  # noqa: BLE001  (a juror that crashes abstains)
            return _crashed(name, error)


def _given(name: str, outcome: object) -> Ballot:
    verdict = read_outcome(outcome, name)  # a checker of the user's own may return anything
    return Ballot(vote_of(name, verdict), verdict.reasoning)


def _crashed(name: str, error: Exception) -> Ballot:
    return Ballot(Vote(name=name, passed=None, error=shortened(words(error), _LONGEST_ERROR)), crash=error)


def _child(
    config: RunnableConfig, run: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun, name: str
) -> RunnableConfig:
    return patch_config(config, callbacks=run.get_child(f"checker:{name}"))
