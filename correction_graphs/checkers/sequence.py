"""Sequential: checkers one after the other, so that an expensive one is asked only when the cheap ones agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config

from correction_graphs.arguments import expect
from correction_graphs.checkers.adapters import CheckerLike, as_checker
from correction_graphs.checkers.base import Checker, CheckRequest, joint_identity
from correction_graphs.checkers.jury import named, vote_of
from correction_graphs.checkers.outcomes import read_outcome
from correction_graphs.errors import SettingsError
from correction_graphs.results import Verdict, Vote

OnUnknownStep = Literal["stop", "continue"]


class Sequential(Checker):
    r"""Asks checkers one after the other until one does not pass the answer.

    The verdict is that of the checker asked last: of the first that failed the answer, or could not tell, else of the
    last one. Its `votes` say who was asked and what each said; the last of them decided. A pass carries no critique,
    and the score of the last checker. One that raises ends the sequence with its exception.

    Put what is cheap and certain first (a length, a schema, a regular expression) and a model last: an answer that
    fails early costs no model call. LangGraph repeats an interrupted node, so when one that waits for a person is
    resumed, those before it are asked again.

    Args:
        *checkers: Anything `as_checker` takes, at least one, in the order they are asked.
        on_unknown: What follows when a checker cannot tell: `"stop"` makes the whole unknown, `"continue"` leaves the
            verdict to the checkers after it. The last one has none after it, so if it cannot tell, the whole is
            unknown either way.
        name: Name of the sequence in traces and results.

    Attributes:
        checkers: The checkers by their names, in order; the second of a name is "NAME#2".
        on_unknown: What follows when a checker cannot tell.

    Raises:
        SettingsError: If there are no checkers, one of them is none, or `on_unknown` is unknown.

    Example:
        ```python
        from correction_graphs import CheckRequest, LLMCritic, Verdict
        from correction_graphs.checkers.sequence import Sequential
        from correction_graphs.testing import ScriptedChatModel


        def is_short(request):
            return Verdict(passed=len(request.answer) < 40, critique="Answer in one short sentence.")


        judge = ScriptedChatModel(["Critique: None.\nVerdict: unbiased"])
        checker = Sequential(is_short, LLMCritic(judge, template="bias"))

        verdict = checker.invoke(CheckRequest(messages=(), answer="Well, " * 20))
        assert verdict.critique == "Answer in one short sentence."
        assert [vote.name for vote in verdict.votes] == ["is_short"]
        assert judge.asked == []

        assert checker.invoke(CheckRequest(messages=(), answer="It is not said.")).passed
        ```
    """

    def __init__(self, *checkers: CheckerLike, on_unknown: OnUnknownStep = "stop", name: str = "sequential") -> None:
        if not checkers:
            raise SettingsError("a sequence of no checkers cannot judge; give at least one")
        expect("on_unknown", on_unknown, get_args(OnUnknownStep))
        self.checkers = named([as_checker(checker) for checker in checkers])
        self.on_unknown = on_unknown
        self.name = name

    def cache_identity(self) -> str | None:
        """Return what equal sequences have in common; None if one of the checkers is to be asked each time."""
        return joint_identity(self.checkers.values(), self.name, self.on_unknown)

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask the checkers in order until one decides."""
        return self._call_with_config(self._check, request, config)

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Ask the checkers in order until one decides."""
        return await self._acall_with_config(self._acheck, request, config)

    def _check(self, request: CheckRequest, run_manager: CallbackManagerForChainRun, config: RunnableConfig) -> Verdict:
        asked: list[tuple[str, Verdict]] = []
        for name, checker in self.checkers.items():
            child = patch_config(config, callbacks=run_manager.get_child(f"checker:{name}"))
            asked.append((name, read_outcome(checker.invoke(request, child), name)))
            if decides(asked[-1][1], self.on_unknown):
                break
        return verdict_of(asked)

    async def _acheck(
        self, request: CheckRequest, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
    ) -> Verdict:
        asked: list[tuple[str, Verdict]] = []
        for name, checker in self.checkers.items():
            child = patch_config(config, callbacks=run_manager.get_child(f"checker:{name}"))
            asked.append((name, read_outcome(await checker.ainvoke(request, child), name)))
            if decides(asked[-1][1], self.on_unknown):
                break
        return verdict_of(asked)


def decides(verdict: Verdict, on_unknown: OnUnknownStep) -> bool:
    """Tell whether no checker after this one is asked."""
    return verdict.passed is False or (verdict.passed is None and on_unknown == "stop")


def verdict_of(asked: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Return the verdict of the checker that was asked last, with the votes of all that were asked."""
    votes: tuple[Vote, ...] = tuple(vote_of(name, verdict) for name, verdict in asked)
    last = asked[-1][1]
    return last.model_copy(update={"votes": votes, "critique": "" if last.passed else last.critique})
