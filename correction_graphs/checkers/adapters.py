"""Turning what users already have, functions and runnables, into checkers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableConfig, run_in_executor

from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.outcomes import CheckOutcome, check_threshold, read_outcome
from correction_graphs.errors import SettingsError
from correction_graphs.results import Verdict

Given = TypeVar("Given")
T = TypeVar("T")
CheckFunction = Callable[[CheckRequest], CheckOutcome | Awaitable[CheckOutcome]]
Reader = Callable[[Any, CheckRequest], Verdict]
CheckerLike = Checker | Runnable[CheckRequest, Any] | CheckFunction


def as_checker(checker: CheckerLike, *, threshold: float | None = None, critique: str | None = None) -> Checker:
    """Return `checker` as a `Checker`.

    Args:
        checker: A checker (returned as it is), a LangChain runnable from `CheckRequest` to `Verdict`, or a function of
            one `CheckRequest`, sync or async.
        threshold: The lowest score that passes, for a function or runnable that returns a score.
        critique: What the model is told about an answer that failed, where the function or runnable does not say it.

    What may be returned: a `Verdict`; True or False; a number, which is a score and needs `threshold`, where
    not-a-number is unknown; a text, which is a critique and fails the answer; a dict with the fields of a `Verdict`;
    None, which is unknown. Labels are not guessed at: an empty text, a single word and everything else is a
    `TypeError`. Scalars of NumPy and PyTorch count as the Python values they hold.

    Raises:
        SettingsError: If `checker` is none of these, or has no use for `threshold` or `critique`.

    Example:
        ```python
        from correction_graphs import CheckRequest, Verdict, as_checker


        @as_checker
        def names_the_capital(request: CheckRequest) -> Verdict:
            return Verdict(passed="Canberra" in request.answer, critique="Sydney is not the capital.")


        assert names_the_capital.invoke(CheckRequest(messages=(), answer="Canberra.")).passed


        def brevity(request):
            return 1 - len(request.answer) / 100


        brief = as_checker(brevity, threshold=0.5, critique="Be brief.")
        assert brief.invoke(CheckRequest(messages=(), answer="It is Canberra. " * 5)).critique == "Be brief."
        ```
    """
    check_threshold(threshold)
    if isinstance(checker, Checker):
        if threshold is not None or critique is not None:
            raise SettingsError(
                f"`checker` is {checker.get_name()!r}, which makes its own verdicts; "
                "`threshold` and `critique` are for functions and runnables"
            )
        return checker
    if isinstance(checker, BaseLanguageModel):
        raise SettingsError(
            f"`checker` is the model {checker.get_name()!r}, which does not return verdicts by itself; "
            "give LLMCritic(model) to have it judge with a template"
        )
    if isinstance(checker, Runnable):
        return RunnableChecker(checker, threshold=threshold, critique=critique)
    if callable(checker) and not isinstance(checker, type):
        require_one_argument("checker", checker, "a CheckRequest")
        return FunctionChecker(checker, threshold=threshold, critique=critique)
    raise SettingsError(
        f"`checker` is {checker!r}; give LLMCritic(model), another checker of this package, a function of one "
        "CheckRequest that returns a Verdict, or a LangChain runnable that does"
    )


def require_one_argument(name: str, function: Callable[..., object], argument: str) -> None:
    """Raise unless `function` can be called with one argument.

    Raises:
        SettingsError: If it cannot.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions do not tell
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise SettingsError(f"`{name}` is {function!r}, but it is called with {argument} alone: {error}") from error


class FunctionChecker(Checker):
    """A plain function, sync or async, as a checker. Built by `as_checker`.

    Args:
        function: Takes the request.
        name: Its name, if not that of `function`.
        read: Turns what was returned, and the request, into a verdict; by default `read_outcome`.
        threshold: See `as_checker`.
        critique: See `as_checker`.
    """

    def __init__(
        self,
        function: Callable[[CheckRequest], Any],
        *,
        name: str | None = None,
        read: Reader | None = None,
        threshold: float | None = None,
        critique: str | None = None,
    ) -> None:
        self.function = function
        called = name or str(getattr(function, "__name__", type(function).__name__))
        self.name = called
        self._read = read or _reader(called, threshold, critique)

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:  # noqa: ARG002
        """Call the function; an async one runs to its end in an event loop of its own."""
        return self._read(called(self.function, request), request)

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Await an async function; call a sync one in a worker thread."""
        return self._read(await acalled(self.function, request, config), request)


class RunnableChecker(Checker):
    """A LangChain runnable from `CheckRequest` to `Verdict` as a checker. Built by `as_checker`."""

    def __init__(
        self, runnable: Runnable[CheckRequest, Any], *, threshold: float | None = None, critique: str | None = None
    ) -> None:
        self.runnable = runnable
        self.name = runnable.get_name()
        self._read = _reader(runnable.get_name(), threshold, critique)

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Invoke the runnable."""
        return self._read(self.runnable.invoke(request, config), request)

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Invoke the runnable asynchronously."""
        return self._read(await self.runnable.ainvoke(request, config), request)


def called(function: Callable[[Given], T | Awaitable[T]], given: Given) -> T:
    """Call a function, sync or async; an async one runs to its end in an event loop of its own."""
    outcome = function(given)
    return run_awaitable(outcome) if inspect.isawaitable(outcome) else outcome


async def acalled(function: Callable[[Given], T | Awaitable[T]], given: Given, config: RunnableConfig | None) -> T:
    """Await an async function; call a sync one in a worker thread."""
    if inspect.iscoroutinefunction(function):
        awaited: T = await function(given)
        return awaited
    outcome = await run_in_executor(config, function, given)
    return await outcome if inspect.isawaitable(outcome) else outcome


def run_awaitable(outcome: Awaitable[T]) -> T:
    """Wait for an awaitable in a function that is not async itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # none runs in this thread, and Ctrl-C gets through to one that does
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(_wait_for(outcome))
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(copy_context().run, asyncio.run, _wait_for(outcome)).result()


async def _wait_for(outcome: Awaitable[T]) -> T:
    return await outcome


def _reader(name: str, threshold: float | None, critique: str | None) -> Reader:
    def read(outcome: object, _: CheckRequest) -> Verdict:
        return read_outcome(outcome, name, threshold=threshold, critique=critique)

    return read
