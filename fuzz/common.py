"""What the targets share: findings, and a bound on how long a text may take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Finding(AssertionError):  # noqa: N818  (what it is called everywhere)
    """A property does not hold."""


def require(holds: object, what: str, *given: object) -> None:
    """Raise `Finding` unless something holds.

    Args:
        holds: What must be true.
        what: What is wrong if it is not.
        *given: What it was found with.
    """
    if not holds:
        raise Finding(": ".join([what, *map(repr, given)]))


def text_of(data: bytes) -> str:
    """Return bytes as text; each byte that is no UTF-8 becomes half of a surrogate pair, which no encoder takes."""
    return data.decode("utf-8", "surrogateescape")


def must_be_linear(read: Callable[[str], object], piece: str) -> None:
    """Raise `Finding` if four times as much of a text takes far more than four times as long.

    Processor time is counted, since a fuzzer shares its machine.

    Args:
        read: What is tried.
        piece: A text that is repeated.
    """
    if not piece:
        return
    short, long = ((piece * (size // len(piece) + 1))[:size] for size in (2_000, 8_000))
    first, second = _seconds(read, short), _seconds(read, long)
    if second > 10 * first + 1:
        again = _seconds(read, short), _seconds(read, long)  # something else may have been in the way
        require(again[1] <= 10 * again[0] + 1, "not linear", piece[:200], again)


def _seconds(read: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    read(text)
    return time.process_time() - began
