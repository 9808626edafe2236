"""A run whose process is killed at any moment is resumed by another, and ends as if nothing had happened.

What is promised under `durability="sync"`: a call whose outcome lies in the checkpointer is never made again. Since a
step does not begin before what led to it is stored, only the newest call can ever be repeated, and that only if the kill
came while it ran or before its outcome was stored. A kill costs one call at most.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count, groupby
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes that it kills"),
]


class Worker:
    """The process of `worker.py`, and the threads that it has worked on."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.errors = folder / "errors"
        self._numbers = count(1)

    def thread(self, checker: str, saver: str) -> dict[str, Any]:
        """What a new thread's runs are given; without a connection string, its checkpoints are in its folder."""
        number = str(next(self._numbers))
        folder = self._folder / number
        folder.mkdir()
        return {"checker": checker, "thread": number, "folder": str(folder), "saver": saver or str(folder / "sqlite")}

    def run(self, thread: dict[str, Any], kill_after: float | None = None) -> dict[str, Any]:
        """Work on a thread in a new process, until it is done or killed."""
        print(json.dumps({**thread, "kill_after": kill_after}), file=self._process.stdin, flush=True)
        done = json.loads(self._process.stdout.readline())
        assert done["killed"] or done["code"] == 0, self.errors.read_text()
        return done


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("threads")
    command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
    with (
        (folder / "errors").open("wb") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        worker = Worker(process, folder)
        yield worker
        process.stdin.close()
    assert process.returncode == 0
    assert worker.errors.read_text() == "", "no warnings about types that checkpoints do not know, either"


def log_of(thread: dict[str, Any]) -> list[tuple[str, list[str]]]:
    lines = (Path(thread["folder"]) / "log").read_text().splitlines()
    return [(entry["event"], entry["calls"]) for entry in map(json.loads, lines)]


def result_of(thread: dict[str, Any]) -> dict[str, Any] | None:
    path = Path(thread["folder"]) / "result"
    return _untimed(json.loads(path.read_text())) if path.exists() else None


def _untimed(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _untimed(value) for key, value in data.items() if key != "seconds"}
    return [_untimed(value) for value in data] if isinstance(data, list) else data


def count_repeats(log: list[tuple[str, list[str]]], calls: list[str]) -> Counter[str]:
    """Check what a thread's processes did, and count what was done twice.

    Args:
        log: The events of all processes, in order.
        calls: The calls of a run that nobody disturbed.
    """
    figures: Counter[str] = Counter()
    begun: set[str] = set()
    finished: set[str] = set()
    stored: set[str] = set()
    for event, named in log:
        if event == "found":
            assert stored <= set(named) <= finished, (
                "what was stored, stays, and nothing else is stored than what was said"
            )
            figures["finished calls found stored"] += len(set(named) - stored)
            figures["finished calls found not stored"] += len(finished - set(named))
            stored = set(named)
        elif event == "start":
            assert stored.isdisjoint(named), "a stored call is not repeated"
            figures["finished calls repeated"] += len(finished & set(named))
            figures["unfinished calls repeated"] += len((begun - finished) & set(named))
            begun.update(named)
        else:
            finished.update(named)
    starts = [call for event, named in log if event == "start" for call in named]
    assert [call for call, _ in groupby(starts)] == calls, "once the next call has begun, the one before stands"
    return figures


def kill_and_resume(worker: Worker, *, checker: str, saver: str, kills: int, seed: int) -> Counter[str]:
    """Kill runs at random moments until `kills` of them were, resume each until it is done, and check what they did.

    The moments are the same each time, what they hit is not.
    """
    undisturbed = worker.thread(checker, saver)
    usual = min(worker.run(run)["seconds"] for run in (undisturbed, *(worker.thread(checker, saver) for _ in range(2))))
    expected, log = result_of(undisturbed), log_of(undisturbed)
    calls = [call for event, named in log if event == "start" for call in named]
    assert len(calls) == len(set(calls)) == (8 if checker == "function" else 6)
    assert expected["cac"]["status"] == ("exhausted" if checker == "function" else "passed")

    moments = random.Random(seed)
    figures: Counter[str] = Counter()
    while figures["kills"] < kills:
        thread = worker.thread(checker, saver)
        killed = -1
        done = {"killed": True}
        while done["killed"]:
            left = kills - figures["kills"]
            done = worker.run(thread, moments.uniform(0, 1.1 * usual) if left else None)
            figures["kills"] += done["killed"]
            killed += 1
        assert result_of(thread) == expected
        seen = count_repeats(log_of(thread), calls)
        assert seen["finished calls repeated"] <= seen["finished calls found not stored"]  # or killed before it, again
        assert seen["finished calls repeated"] + seen["unfinished calls repeated"] <= killed, "one call a kill at most"
        figures.update(seen)
        figures["runs resumed"] += killed > 0
        figures["runs killed more than once"] += killed > 1
    return figures


@pytest.mark.parametrize("checker", ["function", "critic"])
def test_a_run_killed_at_any_moment_ends_as_if_undisturbed_with_sqlite(worker, checker):
    figures = kill_and_resume(worker, checker=checker, saver="", kills=25, seed=1)
    print(f"sqlite, {checker}: {dict(figures)}")  # noqa: T201  (shown by -rP)
    assert figures["kills"] == 25
    assert figures["finished calls found stored"] > 10, "the moments were spread over the run"


def test_a_run_killed_at_any_moment_ends_as_if_undisturbed_with_postgresql(worker, postgres):
    figures = kill_and_resume(worker, checker="critic", saver=postgres, kills=10, seed=2)
    print(f"postgresql: {dict(figures)}")  # noqa: T201  (shown by -rP)
    assert figures["kills"] == 10
    assert figures["finished calls found stored"] > 3, "the moments were spread over the run"


def test_a_run_killed_after_its_end_returns_its_result_again_without_a_call(worker):
    thread = worker.thread("critic", "")
    worker.run(thread)
    expected = result_of(thread)
    (Path(thread["folder"]) / "result").unlink()
    worker.run(thread)
    assert result_of(thread) == expected
    assert [event for event, _ in log_of(thread)].count("start") == 6
