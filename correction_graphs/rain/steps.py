"""Searches and judges as generators of requests, and what drives them.

A generator yields what it needs and is sent the answer. So the same code runs alone or beside others, sync or async,
and whoever drives several can compute for all of them in one batch. A request that fails is raised inside the
generator; a generator that is closed early gives up what it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from correction_graphs.backends.base import Branch, RewindableBackend
from correction_graphs.generators import afollow, follow
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


async def adrive(steps: Steps[T], backend: RewindableBackend) -> T:
    """Run to the end, with forwards in a worker thread; cancelling waits for the forward under way, and closes."""
    return await afollow(steps, lambda request: _aperform(request, backend))


async def _aperform(request: Request, backend: RewindableBackend) -> Any:
    if isinstance(request, Forward):
        branches = request.branches
        return await in_thread(lambda: backend.forward(branches))
    return await request.ainvoke()
