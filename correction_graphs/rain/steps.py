"""Searches and judges as generators of requests, and what drives them.

A generator yields what it needs and is sent the answer. So the same code runs alone or beside others, sync or async,
and whoever drives several can compute for all of them in one batch. A request that fails is raised inside the
generator; a generator that is closed early gives up what it holds.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from correction_graphs.backends.base import Branch, RewindableBackend

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


def drive_together(steps: Sequence[Steps[T]], backend: RewindableBackend) -> list[T | Exception]:
    """Run several to their ends, computing for all that wait in one batch; calls run in threads meanwhile.

    Returns:
        For each its result, or what it raised: one that fails does not stop the others.
    """
    runs = [_Run(each) for each in steps]
    calls: dict[Future[Any], _Run[T]] = {}
    pool = ThreadPoolExecutor(max_workers=max(len(runs), 1), thread_name_prefix="rain-call")
    try:
        for run in runs:
            run.begin()
        while any(run.request is not None for run in runs):
            for run in _calling(runs, calls.values()):
                calls[pool.submit(contextvars.copy_context().run, run.request.invoke)] = run  # type: ignore[union-attr]
            _forward_for([run for run in runs if isinstance(run.request, Forward)], backend)
            forwards = any(isinstance(run.request, Forward) for run in runs)
            done, _ = wait(calls, timeout=0 if forwards else None, return_when=FIRST_COMPLETED)
            for future in done:
                _settle(calls.pop(future), future)
        return [run.outcome() for run in runs]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _close(steps)


async def adrive_together(steps: Sequence[Steps[T]], backend: RewindableBackend) -> list[T | Exception]:
    """As `drive_together`, with forwards in a worker thread and calls as tasks; cancelling cancels the calls."""
    runs = [_Run(each) for each in steps]
    calls: dict[asyncio.Future[Any], _Run[T]] = {}
    try:
        for run in runs:
            run.begin()
        while any(run.request is not None for run in runs):
            for run in _calling(runs, calls.values()):
                calls[asyncio.ensure_future(run.request.ainvoke())] = run  # type: ignore[union-attr]
            waiting = [run for run in runs if isinstance(run.request, Forward)]
            if waiting:
                await _in_thread(lambda waiting=waiting: _forward_for(waiting, backend))  # type: ignore[misc]
            forwards = any(isinstance(run.request, Forward) for run in runs)
            if calls:
                done, _ = await asyncio.wait(
                    calls, timeout=0 if forwards else None, return_when=asyncio.FIRST_COMPLETED
                )
                for future in done:
                    _settle(calls.pop(future), future)
        return [run.outcome() for run in runs]
    finally:
        for future in calls:
            future.cancel()
        _close(steps)


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

    def outcome(self) -> T | Exception:
        return self.error if self.error is not None else self.result()

    def _advance(self, step: Callable[[], Request]) -> None:
        self.request = None
        try:
            self.request = step()
        except StopIteration as stop:
            self._result = stop.value
        except Exception as error:  # noqa: BLE001  (told in the outcome)
            self.error = error


def _calling(runs: Sequence[_Run[T]], busy: Any) -> list[_Run[T]]:
    """Those that wait for a call that was not begun."""
    under_way = set(map(id, busy))
    return [run for run in runs if isinstance(run.request, Call) and id(run) not in under_way]


def _settle(run: _Run[T], future: Future[Any] | asyncio.Future[Any]) -> None:
    try:
        answer = future.result()
    except Exception as error:  # noqa: BLE001  (whoever asked decides)
        run.fail(error)
    else:
        run.answer(answer)


def _forward_for(runs: Sequence[_Run[T]], backend: RewindableBackend) -> None:
    """Compute for all in one batch; if that fails, for each alone, so that only those at fault are told."""
    if not runs:
        return
    wanted = [run.request.branches for run in runs if isinstance(run.request, Forward)]
    try:
        rows = backend.forward([branch for branches in wanted for branch in branches])
    except Exception as error:  # noqa: BLE001
        if len(runs) == 1:
            runs[0].fail(error)
        else:
            for run in runs:
                _forward_for([run], backend)
        return
    at = 0
    for run, branches in zip(runs, wanted, strict=True):
        run.answer(rows[at : at + len(branches)])
        at += len(branches)


async def _aperform(request: Request, backend: RewindableBackend) -> Any:
    if isinstance(request, Forward):
        branches = request.branches
        return await _in_thread(lambda: backend.forward(branches))
    return await request.ainvoke()


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Run in a worker thread; one that is cancelled is waited for, since nothing may be released under its hands."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise


def _close(steps: Sequence[Steps[Any]]) -> None:
    for each in steps:
        each.close()
