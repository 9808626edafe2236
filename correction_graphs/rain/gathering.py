"""Several searches on one backend, in as many threads or tasks, whose forwards become one batch.

A forward waits until every search that is under way asks for one too, or has ended, or is busy with something outside
the backend. So searches keep step, and a batch of all costs little more than one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from correction_graphs.backends.base import Branch, Logits, RewindableBackend
from correction_graphs.rain.steps import Forward, Request, Steps, afollow, follow

T = TypeVar("T")


class Gathering:
    """Those who use one backend at the same time. All of its methods may be called from any thread."""

    def __init__(self, backend: RewindableBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._present = 0
        self._waiting: list[tuple[Sequence[Branch], Future[Logits]]] = []
        # One thread, since the backend computes one batch at a time; it ends when nobody holds this any more.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rain-forward")

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Take part: others' forwards wait for this one's in here, but for the time of `apart`."""
        self._come()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Do something else for a while, inside of `attended`."""
        self._leave()
        try:
            yield
        finally:
            self._come()

    def forward(self, branches: Sequence[Branch]) -> Logits:
        """Return the next-token logits of branches, as the backend does."""
        if self._alone():
            return self._backend.forward(branches)
        future = self.submit(branches)
        try:
            return future.result()
        except BaseException:
            self._withdraw(future)
            raise

    def drive(self, steps: Steps[T]) -> T:
        """Run steps to their end, together with those of others."""

        def perform(request: Request) -> Any:
            if isinstance(request, Forward):
                return self.forward(request.branches)
            with self.apart():
                return request.invoke()

        with self.attended():
            return follow(steps, perform)

    async def adrive(self, steps: Steps[T]) -> T:
        """Run steps to their end, together with those of others; cancelling waits for the forward under way."""

        async def perform(request: Request) -> Any:
            if isinstance(request, Forward):
                return await self._aforward(request.branches)
            with self.apart():
                return await request.ainvoke()

        with self.attended():
            return await afollow(steps, perform)

    async def _aforward(self, branches: Sequence[Branch]) -> Logits:
        future = self.submit(branches)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._withdraw(future)
            while not future.done():  # nothing may be released under the backend's hands
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([waiting])
            raise

    def submit(self, branches: Sequence[Branch]) -> Future[Logits]:
        """Ask for logits, to be computed with those of the others."""
        future: Future[Logits] = Future()
        with self._lock:
            self._waiting.append((branches, future))
            self._begin_if_all_wait()
        return future

    def _alone(self) -> bool:
        with self._lock:
            return self._present <= 1 and not self._waiting

    def _come(self) -> None:
        with self._lock:
            self._present += 1

    def _leave(self) -> None:
        with self._lock:
            self._present -= 1
            self._begin_if_all_wait()

    def _withdraw(self, future: Future[Logits]) -> None:
        future.cancel()
        with self._lock:
            self._waiting = [each for each in self._waiting if each[1] is not future]

    def _begin_if_all_wait(self) -> None:
        if self._waiting and len(self._waiting) >= self._present:
            batch, self._waiting = self._waiting, []
            self._worker.submit(self._compute, batch)

    def _compute(self, batch: list[tuple[Sequence[Branch], Future[Logits]]]) -> None:
        batch = [(branches, future) for branches, future in batch if future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            rows = self._backend.forward([branch for branches, _ in batch for branch in branches])
        except BaseException as error:  # noqa: BLE001  (whoever asked is told)
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for branches, future in batch:  # each alone, so that only those at fault are told
                _compute_alone(self._backend, branches, future)
            return
        at = 0
        for branches, future in batch:
            future.set_result(rows[at : at + len(branches)])
            at += len(branches)


def _compute_alone(backend: RewindableBackend, branches: Sequence[Branch], future: Future[Logits]) -> None:
    try:
        future.set_result(backend.forward(branches))
    except BaseException as error:  # noqa: BLE001  (whoever asked is told)
        future.set_exception(error)


_GATHERINGS: WeakValueDictionary[int, Gathering] = WeakValueDictionary()
_LOCK = threading.Lock()


def gathering_of(backend: RewindableBackend) -> Gathering:
    """Return the one gathering of a backend; it lives as long as somebody holds it."""
    with _LOCK:
        gathering = _GATHERINGS.get(id(backend))
        if gathering is None:  # it holds the backend, so the id is not another's while it lives
            gathering = _GATHERINGS[id(backend)] = Gathering(backend)
        return gathering
