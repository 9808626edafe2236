"""Searches that share batches: whatever comes together in whatever order, each gets its own, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from talkers import open_branches, watchdog

from correction_graphs.backends.base import Branch, Logits
from correction_graphs.errors import BackendError
from correction_graphs.rain import gathering as module
from correction_graphs.rain.gathering import Gathering, gathering_of
from correction_graphs.rain.steps import Call, Forward, Steps
from correction_graphs.testing import ToyBackend


class Counting(ToyBackend):
    """Notes how many branches each forward had."""

    def __init__(self) -> None:
        super().__init__(n_cells=65536, n_sequences=512)
        self.batches: list[int] = []

    def forward(self, branches: Sequence[Branch]) -> Logits:
        self.batches.append(len(branches))
        return super().forward(branches)


def written(
    backend: ToyBackend,
    prompt: str,
    length: int,
    *,
    call_at: Sequence[int] = (),
    call: Callable[[], object] = lambda: None,
    fail_at: int | None = None,
) -> Steps[list[int]]:
    """Decode greedily; at some steps, call something; at one, ask for a branch that was released."""

    async def acall() -> object:
        await asyncio.sleep(0)
        return call()

    branch = backend.open(backend.tokenize(prompt))
    try:
        for step in range(length):
            if step in call_at:
                yield Call(call, acall)
            if step == fail_at:
                gone = backend.fork(branch)
                backend.release(gone)
                yield Forward([gone])
            rows = yield Forward([branch])
            backend.extend(branch, [int(rows[0].argmax())])
        return branch.tokens
    finally:
        backend.release(branch)


def alone(prompt: str, length: int) -> list[int]:
    backend = ToyBackend()
    branch = backend.open(backend.tokenize(prompt))
    for _ in range(length):
        backend.extend(branch, [int(backend.forward([branch])[0].argmax())])
    return branch.tokens


def in_threads(jobs: Sequence[Callable[[], Any]], seconds: float = 60) -> list[Any]:
    """Run all at once and return results or errors; the test run ends if one of them never does."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return job()
        except BaseException as error:  # noqa: BLE001
            return error

    with watchdog(seconds), ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no end of patience: who relies on others' impatience hangs, and the watchdog barks."""
    monkeypatch.setattr(module, "PATIENCE", 3600.0)


def test_one_backend_has_one_gathering_while_somebody_holds_it() -> None:
    one, other = ToyBackend(), ToyBackend()

    held = gathering_of(one)
    assert gathering_of(one) is held
    assert gathering_of(other) is not held

    del held
    gc.collect()
    assert id(one) not in module._GATHERINGS


def test_alone_it_computes_in_the_callers_own_thread() -> None:
    """So that Ctrl-C reaches the engine."""
    backend, threads = ToyBackend(), []
    forward = backend.forward
    backend.forward = lambda branches: [threads.append(threading.current_thread()), forward(branches)][1]

    assert Gathering(backend).drive(written(backend, "hi", 5)) == alone("hi", 5)

    assert set(threads) == {threading.current_thread()}


def test_those_who_are_there_together_share_every_batch(monkeypatch, patient: None) -> None:
    backend = Counting()
    gathering = gathering_of(backend)
    compute = backend.memory.compute
    monkeypatch.setattr(backend.memory, "compute", lambda runs: [time.sleep(0.01), compute(runs)][1])
    barrier = threading.Barrier(8)

    def one(number: int) -> Callable[[], list[int]]:
        def run() -> list[int]:
            barrier.wait()
            return gathering.drive(written(backend, f"prompt {number}", 10, call_at=(0,), call=barrier.wait))

        return run

    assert in_threads([one(number) for number in range(8)]) == [alone(f"prompt {number}", 10) for number in range(8)]
    assert sum(backend.batches) == 80
    assert len(backend.batches) <= 20, "ten steps, but they come and go one after another"
    assert open_branches(backend) == 0


async def test_tasks_share_every_batch(patient: None) -> None:
    backend = Counting()
    gathering = gathering_of(backend)

    with watchdog():
        outcomes = await asyncio.gather(
            *(gathering.adrive(written(backend, f"prompt {number}", 10)) for number in range(8))
        )

    assert outcomes == [alone(f"prompt {number}", 10) for number in range(8)]
    assert backend.batches == [1, *[8] * 9, 7], "the first did not know that there would be more"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_they_do_between_forwards_each_gets_its_own(patient: None, seed: int) -> None:
    """Threads and tasks come, go, call, are slow and fail at random; who does not fail gets what it would get alone."""
    chance = random.Random(seed)
    backend = Counting()
    gathering = gathering_of(backend)
    jobs: list[Callable[[], Any]] = []
    expected: list[Any] = []
    for number in range(14):
        length = chance.randrange(1, 12)
        pause = chance.choice([0, 0, 0.001, 0.01])
        plan = {
            "call_at": sorted(chance.sample(range(length), chance.randrange(min(3, length + 1)))),
            "call": lambda pause=pause: time.sleep(pause),
            "fail_at": chance.randrange(length) if chance.random() < 0.3 else None,
        }
        prompt = f"prompt {chance.randrange(6)}"
        steps = lambda prompt=prompt, length=length, plan=plan: written(backend, prompt, length, **plan)  # noqa: E731
        before = chance.choice([0, 0, 0.002, 0.01])
        if number % 3:

            def job(steps: Any = steps, before: float = before) -> Any:
                time.sleep(before)
                return gathering.drive(steps())

        else:

            def job(steps: Any = steps, before: float = before) -> Any:
                async def several() -> Any:
                    await asyncio.sleep(before)
                    return await asyncio.gather(*(gathering.adrive(steps()) for _ in range(3)), return_exceptions=True)

                return asyncio.run(several())

        jobs.append(job)
        fails = plan["fail_at"] is not None
        expected.append([BackendError if fails else alone(prompt, length)] * (1 if number % 3 else 3))

    for number, (outcome, wanted) in enumerate(zip(in_threads(jobs), expected, strict=True)):
        outcomes = outcome if number % 3 == 0 else [outcome]
        assert [type(each) if isinstance(each, Exception) else each for each in outcomes] == wanted

    assert open_branches(backend) == 0
    assert gathering._present == gathering._computing == 0
    assert gathering._waiting == []


@pytest.mark.parametrize("error", [BackendError("no room"), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_an_error_hits_only_those_whose_branches_raise_it(monkeypatch, patient: None, error: BaseException) -> None:
    backend = Counting()
    gathering = gathering_of(backend)
    compute = backend.memory.compute

    def poisoned(runs: Any) -> Any:
        if any(ord("!") in run.tokens for run in runs):
            raise error
        return compute(runs)

    monkeypatch.setattr(backend.memory, "compute", poisoned)
    prompts = ["one", "two!", "three", "four"]
    barrier = threading.Barrier(4)

    def job(prompt: str) -> Callable[[], Any]:
        return lambda: gathering.drive(written(backend, prompt, 4, call_at=(0,), call=barrier.wait))

    outcomes = in_threads([job(prompt) for prompt in prompts])

    assert type(outcomes.pop(1)) is type(error)
    # A greedy toy may come to "!" by itself; these do not.
    assert outcomes == [alone(prompt, 4) for prompt in ("one", "three", "four")]
    assert open_branches(backend) == 0


async def test_who_is_cancelled_while_waiting_leaves_the_others_alone(patient: None) -> None:
    backend = Counting()
    gathering = gathering_of(backend)
    for round_ in range(20):
        calls = [asyncio.ensure_future(gathering.adrive(written(backend, f"prompt {n}", 6))) for n in range(5)]
        for _ in range(round_):
            await asyncio.sleep(0)
        calls[round_ % 5].cancel()
        with watchdog():
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        outcome = outcomes.pop(round_ % 5)
        assert isinstance(outcome, asyncio.CancelledError) or outcome == alone(f"prompt {round_ % 5}", 6)
        assert outcomes == [alone(f"prompt {n}", 6) for n in range(5) if n != round_ % 5]
        assert open_branches(backend) == 0
        assert gathering._present == 0


def test_who_is_interrupted_while_waiting_leaves_the_others_alone(monkeypatch, patient: None) -> None:
    """As by Ctrl-C, which reaches a thread that waits for a batch."""
    backend = Counting()
    gathering = gathering_of(backend)
    wait, here = module.wait, threading.local()

    def interrupted(*args: Any) -> Any:
        if getattr(here, "interrupt", False):
            raise KeyboardInterrupt
        return wait(*args)

    monkeypatch.setattr(module, "wait", interrupted)
    barrier = threading.Barrier(3)

    def job(number: int) -> Callable[[], Any]:
        def run() -> Any:
            here.interrupt = number == 1
            try:
                return gathering.drive(written(backend, f"prompt {number}", 6, call_at=(0,), call=barrier.wait))
            finally:
                if number == 1:
                    gathering._leave()

        return run

    gathering._come()  # so nobody is alone until the interrupted one is gone

    outcomes = in_threads([job(number) for number in range(3)])

    assert isinstance(outcomes.pop(1), KeyboardInterrupt)
    assert outcomes == [alone("prompt 0", 6), alone("prompt 2", 6)]
    assert open_branches(backend) == 0


def test_who_is_busy_elsewhere_is_not_waited_for(patient: None) -> None:
    backend = Counting()
    gathering = gathering_of(backend)
    busy, done = threading.Event(), threading.Event()

    def call() -> None:
        busy.set()
        assert done.wait(60)

    def slow() -> list[int]:
        return gathering.drive(written(backend, "slow", 4, call_at=(2,), call=call))

    def quick() -> list[int]:
        assert busy.wait(60)
        try:
            return gathering.drive(written(backend, "quick", 8))
        finally:
            done.set()

    assert in_threads([slow, quick]) == [alone("slow", 4), alone("quick", 8)]


def test_who_never_asks_is_waited_for_not_much_longer_than_patience_lasts(monkeypatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    backend = Counting()
    gathering = gathering_of(backend)

    with watchdog(), gathering.attended():  # as one whose event loop is blocked
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(lambda prompt: gathering.drive(written(backend, prompt, 5)), ["one", "two"]))
        outcomes.append(asyncio.run(_awritten(gathering, backend)))
        outcomes.append(gathering.drive(written(backend, "four", 5)))

    assert outcomes == [alone(prompt, 5) for prompt in ("one", "two", "three", "four")]


async def _awritten(gathering: Gathering, backend: ToyBackend) -> list[int]:
    return await gathering.adrive(written(backend, "three", 5))


def test_patience_does_not_run_out_while_others_are_computed(monkeypatch) -> None:
    """Else searches that once fell out of step would compute apart for ever on a slow model."""
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    backend = Counting()
    gathering = gathering_of(backend)
    forward = backend.forward

    def slow(branches: Sequence[Branch]) -> Logits:
        time.sleep(0.08)
        return forward(branches)

    monkeypatch.setattr(backend, "forward", slow)

    def job(number: int) -> Callable[[], Any]:
        def run() -> Any:
            time.sleep(0.03 * number)  # each comes while another's first step is computed
            return gathering.drive(written(backend, f"prompt {number}", 10))

        return run

    assert in_threads([job(number) for number in range(4)]) == [alone(f"prompt {number}", 10) for number in range(4)]
    assert len(backend.batches) <= 15, "forty steps, most of them together"


def test_at_the_end_of_the_interpreter_nobody_is_left_waiting(monkeypatch) -> None:
    """Python takes no more work for threads then, while those that run are waited for."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    backend = Counting()
    gathering = gathering_of(backend)
    gathering._worker.shutdown()

    with gathering.attended():
        outcomes = in_threads([lambda: gathering.drive(written(backend, "hi", 3)) for _ in range(2)])

    assert [type(outcome) for outcome in outcomes] == [RuntimeError] * 2
    assert open_branches(backend) == 0


def test_rows_are_given_to_whom_they_belong(patient: None) -> None:
    """Also where each asks for several branches."""
    backend = Counting()
    gathering = gathering_of(backend)
    barrier = threading.Barrier(3)

    def several(prompts: list[str]) -> Steps[Logits]:
        branches = [backend.open(backend.tokenize(prompt)) for prompt in prompts]
        try:
            yield Call(barrier.wait, lambda: asyncio.to_thread(barrier.wait))
            return (yield Forward(branches))
        finally:
            for branch in branches:
                backend.release(branch)

    groups = [["a"], ["b", "c", "d"], ["e", "f"]]
    outcomes = in_threads([lambda group=group: gathering.drive(several(group)) for group in groups])

    for group, rows in zip(groups, outcomes, strict=True):
        for prompt, row in zip(group, rows, strict=True):
            np.testing.assert_array_equal(row, backend.memory.logits(backend.tokenize(prompt)))
    assert sum(backend.batches) == 6
