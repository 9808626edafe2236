"""Work in a worker thread is waited for, whoever is cancelled, and how."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from contextvars import ContextVar

import pytest

from correction_graphs.threads import in_thread

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


async def test_it_returns_what_the_work_returns_and_knows_the_context():
    NAME.set("somebody")
    assert await in_thread(lambda: (NAME.get(), threading.current_thread() is threading.main_thread())) == (
        "somebody",
        False,
    )
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


class Work:
    """Takes a while."""

    def __init__(self, seconds=0.3, error=None):
        self.seconds, self.error = seconds, error
        self.begun, self.ended = threading.Event(), False

    def __call__(self):
        self.begun.set()
        time.sleep(self.seconds)
        self.ended = True
        if self.error:
            raise self.error


@pytest.mark.parametrize("error", [None, ValueError("late")])
@pytest.mark.parametrize("times", [1, 3])
async def test_who_is_cancelled_waits_for_the_work(error, times):
    work = Work(error=error)
    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(work.begun.wait)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
def test_ctrl_c_waits_for_the_work_of_every_task():
    """`asyncio.run` cancels all tasks then, those that nobody would cancel otherwise included."""
    works = [Work() for _ in range(3)]
    ended_before_release = []

    async def uses(work):
        try:
            await in_thread(work)
        finally:
            ended_before_release.append(work.ended)

    async def main():
        tasks = [asyncio.create_task(uses(work)) for work in works]
        for work in works:
            await asyncio.to_thread(work.begun.wait)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
        assert tasks

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert ended_before_release == [True] * 3
