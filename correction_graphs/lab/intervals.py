"""Shares and means with their 95 % intervals, and the paired test for answers that are right or wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_Z = 1.959964  # of a standard normal variable, 95 % lie within this distance of 0
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with 95 % confidence.

    Attributes:
        mean: Of the sample.
        low: The lower end.
        high: The upper end.
        n: Size of the sample.
    """

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, rounded to four digits."""
        ends = [round(self.low, 4), round(self.high, 4)]
        return {"mean": round(self.mean, 4), "interval95": ends, "n": self.n}


def share(outcomes: Sequence[bool]) -> Interval:
    """Return how many of the outcomes are True, with Wilson's interval, which is sound near 0 and 1 as well."""
    n = len(outcomes)
    if not n:
        raise ValueError("a share of no outcomes; give at least one")
    mean = sum(outcomes) / n
    middle = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2))
    return Interval(mean, max(0.0, middle - half), min(1.0, middle + half), n)


def difference(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    """Return by how much the share of True differs between paired outcomes, after less before.

    The interval is Newcombe's for paired proportions (Statistics in Medicine 17, 1998, method 10), which has a width
    also where all pairs agree.
    """
    pairs = list(zip(before, after, strict=True))
    first, second = share(before), share(after)
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    n = len(pairs)
    margins = (both + lost) * (both + gained) * (neither + gained) * (neither + lost)
    product = float(both * neither - gained * lost)
    if product > 0:
        product = max(product - n / 2, 0)  # a correction for continuity
    phi = product / math.sqrt(margins) if margins else 0.0
    mean = second.mean - first.mean
    down, up = second.mean - second.low, first.high - first.mean
    low = mean - math.sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    rise, fall = second.high - second.mean, first.mean - first.low
    high = mean + math.sqrt(max(0.0, rise**2 - 2 * phi * rise * fall + fall**2))
    return Interval(mean, max(-1.0, low), min(1.0, high), n)


def bootstrap(values: Sequence[float]) -> Interval:
    """Return the mean of values with the percentiles of 10,000 resamples."""
    array = np.asarray(values, dtype=float)
    if not len(array):
        raise ValueError("a mean of no values; give at least one")
    means = array[np.random.default_rng(0).integers(0, len(array), (_RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(array.mean()), float(low), float(high), len(array))


def sign_test(mended: int, spoiled: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Args:
        mended: How many answers were wrong before and right after.
        spoiled: How many were right before and wrong after.
    """
    n, fewer = mended + spoiled, min(mended, spoiled)
    tail: int = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))
