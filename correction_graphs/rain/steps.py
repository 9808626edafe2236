"""Searches and judges as generators of requests, and what drives them.

A generator yields what it needs and is sent the answer. So the same code runs alone or beside others, sync or async,
and whoever drives several can compute for all of them in one batch. A request that fails is raised inside the
generator; a generator that is closed early gives up what it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from correction_graphs.backends.base import Branch, RewindableBackend
from correction_graphs.threads import in_thread

T = TypeVar("T")


class Forward(NamedTuple):
    """Asks for the logits of branches, a row a branch."""

    branches: Sequence[Branch]


class Call(NamedTuple):
    """Asks for anything outside the backend: models, embeddings, the user's functions.

    Attributes:
        invoke: Does it.
        ainvoke: Does it where an event loop runs.
    """

    invoke: Callable[[], Any]
    ainvoke: Callable[[], Awaitable[Any]]


Request = Forward | Call
Steps = Generator[Request, Any, T]


def drive(steps: Steps[T], backend: RewindableBackend) -> T:
    """Run to the end and return the result."""
    return follow(
        steps, lambda request: request.invoke() if isinstance(request, Call) else backend.forward(request.branches)
    )


def follow(steps: Steps[T], perform: Callable[[Request], Any]) -> T:
    """Run to the end, having each request answered by `perform`, and return the result."""
    run = _Run(steps)
    try:
        run.begin()
        while (request := run.request) is not None:
            try:
                answer = perform(request)
            except Exception as error:  # noqa: BLE001  (whoever asked decides)
                run.fail(error)
            else:
                run.answer(answer)
        return run.result()
    finally:
        steps.close()


async def adrive(steps: Steps[T], backend: RewindableBackend) -> T:
    """Run to the end, with forwards in a worker thread; cancelling waits for the forward under way, and closes."""
    return await afollow(steps, lambda request: _aperform(request, backend))


async def afollow(steps: Steps[T], perform: Callable[[Request], Awaitable[Any]]) -> T:
    """Run to the end, having each request answered by `perform`, and return the result."""
    run = _Run(steps)
    try:
        run.begin()
        while (request := run.request) is not None:
            try:
                answer = await perform(request)
            except Exception as error:  # noqa: BLE001  (whoever asked decides)
                run.fail(error)
            else:
                run.answer(answer)
        return run.result()
    finally:
        steps.close()


class _Run(Generic[T]):
    """One generator under way: what it waits for, or how it ended."""

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self._result: T | None = None
        self.request: Request | None = None
        self.error: Exception | None = None

    def begin(self) -> None:
        self._advance(lambda: next(self._steps))

    def answer(self, answer: Any) -> None:
        self._advance(lambda: self._steps.send(answer))

    def fail(self, error: Exception) -> None:
        self._advance(lambda: self._steps.throw(error))

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]

    def _advance(self, step: Callable[[], Request]) -> None:
        self.request = None
        try:
            self.request = step()
        except StopIteration as stop:
            self._result = stop.value
        except Exception as error:  # noqa: BLE001  (told in the outcome)
            self.error = error


async def _aperform(request: Request, backend: RewindableBackend) -> Any:
    if isinstance(request, Forward):
        branches = request.branches
        return await in_thread(lambda: backend.forward(branches))
    return await request.ainvoke()
