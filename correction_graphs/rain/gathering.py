"""Several searches on one backend, in as many threads or tasks, whose forwards become one batch.

A forward waits until every search that is under way asks for one too, or has ended, or is busy with something outside
the backend. So searches keep step, and a batch of all costs little more than one. Nobody is waited for longer than
`PATIENCE`: a search may be unable to go on, such as one in an event loop that is blocked by another.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from correction_graphs.backends.base import Branch, Logits, RewindableBackend
from correction_graphs.generators import afollow, follow
from correction_graphs.rain.steps import Forward, Request, Steps

T = TypeVar("T")

PATIENCE = 0.25
"""Seconds that a forward waits for others while nothing is computed. Between two forwards a search takes some ms."""


class Gathering:
    """Those who use one backend at the same time. All of its methods may be called from any thread."""

    def __init__(self, backend: RewindableBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._present = 0
        self._waiting: list[tuple[Sequence[Branch], Future[Logits]]] = []
        self._computing = 0
        self._idle_since = time.monotonic()
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
        if self._begin_alone():
            try:
                return self._backend.forward(branches)
            finally:
                self._end()
        future = self.submit(branches)
        try:
            while not wait([future], PATIENCE).done:
                self._hurry(future)
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
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, also if nobody waits
        try:
            while not (await asyncio.wait([waiting], timeout=PATIENCE))[0]:
                self._hurry(future)
            return await waiting
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

    def _begin_alone(self) -> bool:
        """Whether there is nobody to wait for; the caller then computes, and calls `_end`."""
        with self._lock:
            if self._present > 1 or self._waiting or self._computing:
                return False
            self._computing += 1
            return True

    def _end(self) -> None:
        with self._lock:
            self._computing -= 1
            self._idle_since = time.monotonic()

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

    def _hurry(self, future: Future[Logits]) -> None:
        """Begin without those who do not come; not while something is computed, which they may be waiting for."""
        with self._lock:
            late = not self._computing and time.monotonic() - self._idle_since >= PATIENCE
            if late and any(each[1] is future for each in self._waiting):
                self._begin()

    def _begin_if_all_wait(self) -> None:
        if self._waiting and len(self._waiting) >= self._present:
            self._begin()

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        self._computing += 1
        try:
            self._worker.submit(self._work, batch)
        except RuntimeError as error:  # the interpreter is about to end
            self._computing -= 1
            for _, future in batch:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)

    def _work(self, batch: list[tuple[Sequence[Branch], Future[Logits]]]) -> None:
        try:
            self._compute(batch)
        finally:
            self._end()

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
