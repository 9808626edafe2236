"""Turning what users already have, functions and runnables, into checkers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from langchain_core.runnables import Runnable, RunnableConfig

from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.errors import SettingsError
from correction_graphs.results import Verdict

CheckFunction = Callable[[CheckRequest], Verdict | bool | Awaitable[Verdict | bool]]
CheckerLike = Checker | Runnable[CheckRequest, Verdict] | CheckFunction


def as_checker(checker: CheckerLike) -> Checker:
    """Return `checker` as a `Checker`.

    Args:
        checker: A checker (returned as it is), a LangChain runnable from `CheckRequest` to `Verdict`, or a function of
            one `CheckRequest`, sync or async, that returns a `Verdict` or a bool.

    Raises:
        SettingsError: If `checker` is none of these.

    Example:
        ```python
        from correction_graphs import CheckRequest, Verdict, as_checker


        @as_checker
        def names_the_capital(request: CheckRequest) -> Verdict:
            return Verdict(passed="Canberra" in request.answer, critique="Sydney is not the capital.")


        assert names_the_capital.invoke(CheckRequest(messages=(), answer="Canberra.")).passed
        ```
    """
    if isinstance(checker, Checker):
        return checker
    if isinstance(checker, Runnable):
        return RunnableChecker(checker)
    if callable(checker):
        return FunctionChecker(checker)
    raise SettingsError(
        f"`checker` is {checker!r}; give a checker of this package, a function of one CheckRequest that returns a "
        "Verdict, or a LangChain runnable that does"
    )


class FunctionChecker(Checker):
    """A plain function, sync or async, as a checker. Built by `as_checker`."""

    def __init__(self, function: CheckFunction) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:  # noqa: ARG002
        """Call the function; an async one runs to its end in an event loop of its own."""
        outcome = self.function(request)
        if inspect.isawaitable(outcome):
            # A loop may be running in this thread, so the coroutine gets another thread.
            with ThreadPoolExecutor(max_workers=1) as pool:
                outcome = pool.submit(copy_context().run, asyncio.run, _wait_for(outcome)).result()
        return _read(outcome, self.get_name())

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:  # noqa: ARG002
        """Await an async function; call a sync one in a worker thread."""
        if inspect.iscoroutinefunction(self.function):
            return _read(await self.function(request), self.get_name())
        outcome = await asyncio.to_thread(self.function, request)
        return _read(await outcome if inspect.isawaitable(outcome) else outcome, self.get_name())


class RunnableChecker(Checker):
    """A LangChain runnable from `CheckRequest` to `Verdict` as a checker. Built by `as_checker`."""

    def __init__(self, runnable: Runnable[CheckRequest, Verdict]) -> None:
        self.runnable = runnable
        self.name = runnable.get_name()

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Invoke the runnable."""
        return _read(self.runnable.invoke(request, config), self.get_name())

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Invoke the runnable asynchronously."""
        return _read(await self.runnable.ainvoke(request, config), self.get_name())


async def _wait_for(outcome: Awaitable[Verdict | bool]) -> Verdict | bool:
    return await outcome


def _read(outcome: object, name: str) -> Verdict:
    if isinstance(outcome, Verdict):
        return outcome
    if isinstance(outcome, bool):
        return Verdict(passed=outcome)
    raise TypeError(
        f"checker {name!r} returned {outcome!r}; a checker returns Verdict(passed=..., critique=...) or a bool"
    )
