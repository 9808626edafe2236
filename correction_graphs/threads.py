"""Blocking work in worker threads, for callers that may be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a worker thread; a caller that is cancelled waits for it, however often it is.

    For a computation under way cannot be broken off, and nothing may be released under its hands.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        task.exception()  # what it raised meanwhile is of no interest, and asyncio would report it as unheard
        raise
