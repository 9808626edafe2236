"""Blocking work in worker threads, for callers that may be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a worker thread; a caller that is cancelled waits for it, however often it is.

    For a computation under way cannot be broken off, and nothing may be released under its hands.
    """
    # No task, as `asyncio.to_thread` would need: after Ctrl-C `asyncio.run` cancels all there are, this one included,
    # and it would end before its thread does.
    future = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # what it raised meanwhile is of no interest, and asyncio would report it as unheard
        raise
