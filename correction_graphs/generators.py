"""Generators that ask for what they need, and whoever answers them, sync or async.

So the same steps are written once: a generator yields a request and is sent the answer. A request that fails is raised
inside the generator; a generator that is closed early gives up what it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Asked = TypeVar("Asked")
T = TypeVar("T")


def follow(steps: Generator[Asked, Any, T], perform: Callable[[Asked], Any]) -> T:
    """Run to the end, having each request answered by `perform`, and return the result."""
    try:
        request = next(steps)
        while True:
            try:
                answer = perform(request)
            except Exception as error:  # noqa: BLE001  (whoever asked decides)
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        steps.close()


async def afollow(steps: Generator[Asked, Any, T], perform: Callable[[Asked], Awaitable[Any]]) -> T:
    """Run to the end, having each request answered by `perform`, and return the result."""
    try:
        request = next(steps)
        while True:
            try:
                answer = await perform(request)
            except Exception as error:  # noqa: BLE001  (whoever asked decides)
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        steps.close()
