"""What the benchmarks share: intervals, and values that mean nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from correction_graphs.lab.intervals import bootstrap


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, bootstrap 95 % interval and n, for JSON."""
    return bootstrap(values).as_dict()


def arbitrary(text: str) -> float:
    """Value of a text that says nothing about it: uniform from -1 to 1, the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**63 - 1
