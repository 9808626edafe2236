"""What the benchmarks share: intervals, and values that mean nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, bootstrap 95 % interval (10,000 resamples) and n."""
    array = np.asarray(values, dtype=float)
    means = array[np.random.default_rng(0).integers(0, len(array), (10_000, len(array)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    ends = [round(float(low), 4), round(float(high), 4)]
    return {"mean": round(float(array.mean()), 4), "interval95": ends, "n": len(array)}


def arbitrary(text: str) -> float:
    """Value of a text that says nothing about it: uniform from -1 to 1, the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**63 - 1
