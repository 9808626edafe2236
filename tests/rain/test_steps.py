"""Driving generators of requests: alone, together, sync and async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from together import adrive_together, drive_together

from correction_graphs.backends.base import Branch, Logits
from correction_graphs.errors import BackendError
from correction_graphs.rain.gathering import Gathering
from correction_graphs.rain.steps import Call, Forward, Steps, adrive, drive
from correction_graphs.testing import ToyBackend


class Counting(ToyBackend):
    """Notes how many branches each forward had."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, branches: Sequence[Branch]) -> Logits:
        self.batches.append(len(branches))
        return super().forward(branches)


def written(
    backend: ToyBackend, prompt: str, length: int, *, ask: Callable[[], object] | None = None
) -> Steps[list[int]]:
    """Decode greedily; before the end, call something."""
    branch = backend.open(backend.tokenize(prompt))
    try:
        for _ in range(length):
            rows = yield Forward([branch])
            backend.extend(branch, [int(rows[0].argmax())])
        if ask is not None:

            async def later() -> object:
                return ask()

            yield Call(ask, later)
        return branch.tokens
    finally:
        backend.release(branch)


def refuse() -> None:
    raise LookupError("no")


def alone(prompt: str, length: int) -> list[int]:
    backend = ToyBackend()
    return drive(written(backend, prompt, length), backend)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_those_who_wait_are_computed_in_one_batch_and_get_what_they_get_alone(asynchronous: bool) -> None:
    backend = Counting()
    steps = [written(backend, prompt, length) for prompt, length in (("a", 3), ("b", 5), ("c", 4))]

    results = asyncio.run(adrive_together(steps, backend)) if asynchronous else drive_together(steps, backend)

    assert results == [alone("a", 3), alone("b", 5), alone("c", 4)]
    assert sum(backend.batches) == 12  # what one by one would take 12 calls for
    assert len(backend.batches) <= 7
    assert max(backend.batches) == 3
    assert backend.live_branches == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_is_the_asker_s_own(asynchronous: bool) -> None:
    backend = Counting()
    steps = [written(backend, "a", 2, ask=refuse), written(backend, "b", 3)]

    failed, fine = asyncio.run(adrive_together(steps, backend)) if asynchronous else drive_together(steps, backend)

    assert isinstance(failed, LookupError)
    assert fine == alone("b", 3)
    assert backend.live_branches == 0


def test_a_branch_that_cannot_be_computed_fails_only_its_search() -> None:
    backend = ToyBackend()
    gone = backend.open([1])
    backend.release(gone)

    def broken() -> Steps[None]:
        yield Forward([gone])

    failed, fine = drive_together([broken(), written(backend, "b", 3)], backend)

    assert isinstance(failed, BackendError)
    assert fine == alone("b", 3)


def test_calls_of_several_run_at_the_same_time_and_hold_nobody_up() -> None:
    backend = Counting()
    meeting = threading.Barrier(2, timeout=20)

    results = drive_together(
        [
            written(backend, "a", 1, ask=meeting.wait),
            written(backend, "b", 1, ask=meeting.wait),
            written(backend, "c", 6),
        ],
        backend,
    )

    assert results == [alone("a", 1), alone("b", 1), alone("c", 6)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_can_be_handled_where_it_was_asked_for(asynchronous: bool) -> None:
    async def arefuse() -> None:
        raise LookupError

    def careful() -> Steps[str]:
        try:
            yield Call(refuse, arefuse)
        except LookupError:
            return "went on"
        return "not refused"

    backend = ToyBackend()
    assert (asyncio.run(adrive(careful(), backend)) if asynchronous else drive(careful(), backend)) == "went on"


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("driver", [drive, lambda steps, backend: Gathering(backend).drive(steps)])
def test_ctrl_c_releases_everything(driver: Callable) -> None:
    backend = ToyBackend()

    with pytest.raises(KeyboardInterrupt):
        driver(written(backend, "a", 2, ask=interrupt), backend)

    assert backend.live_branches == 0


async def test_cancelling_waits_for_the_forward_under_way() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(ToyBackend):
        def forward(self, branches: Sequence[Branch]) -> Logits:
            begun.set()
            may_end.wait(20)
            assert not any(branch.released for branch in branches)
            return super().forward(branches)

    backend = Slow()
    task = asyncio.create_task(adrive(written(backend, "a", 9), backend))
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    assert backend.live_branches == 1
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.live_branches == 0
