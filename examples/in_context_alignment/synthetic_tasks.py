"""The alignment problems of the CaC paper's section 4: a query, ranked responses to it, and a map to be found.

A task is one query x, a good map W and responses y_i = r_i W x + (1 - r_i) B_i x, where the reward r_i says how near a
response is to W x, and B_i is a bad map. Whoever sees x, the responses and their rewards is to answer W x.

The paper draws B_i anew for each response (`INDEPENDENT`). The experiments it shows use one B for a whole task
(`SEGMENT`), so that all responses lie on the segment from B x to W x.

Needs numpy only. Every task has a generator of its own, keyed by seed and index: task 7 is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Variant = Literal["segment", "independent"]

SEGMENT: Variant = "segment"
INDEPENDENT: Variant = "independent"
VARIANTS: tuple[Variant, ...] = (SEGMENT, INDEPENDENT)
DIMENSION = 5

_DRAW, _NOISE = 0, 1


@dataclass(frozen=True)
class Tasks:
    """A batch of tasks. `seed` and `indices` are kept, since noise is drawn from them, too."""

    queries: Array  # (tasks, dimension)
    responses: Array  # (tasks, length, dimension)
    rewards: Array  # (tasks, length)
    targets: Array  # (tasks, dimension)
    seed: int
    indices: tuple[int, ...]


def draw_tasks(seed: int, indices: Iterable[int], *, length: int, variant: Variant) -> Tasks:
    """Draw the tasks `indices` of `seed`, each with `length` responses."""
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; expected one of {VARIANTS}")
    if length < 1:
        raise ValueError(f"length is {length}; a task has at least 1 response")
    chosen = tuple(indices)
    drawn = [_one_task(np.random.default_rng((seed, index, _DRAW)), length, variant) for index in chosen]
    queries, responses, rewards, targets = (np.stack(part) for part in zip(*drawn, strict=True))
    return Tasks(queries, responses, rewards, targets, seed, chosen)


def _one_task(random: np.random.Generator, length: int, variant: Variant) -> tuple[Array, Array, Array, Array]:
    query = random.standard_normal(DIMENSION)
    good = random.standard_normal((DIMENSION, DIMENSION)) @ query
    rewards = random.random(length)
    bad = random.standard_normal((1 if variant == SEGMENT else length, DIMENSION, DIMENSION)) @ query
    return query, rewards[:, None] * good + (1 - rewards[:, None]) * bad, rewards, good


def with_noise(tasks: Tasks, probability: float) -> Tasks:
    """Replace each reward by a uniform draw with `probability`. The responses stay as they are.

    A reward that is replaced at one probability is replaced by the same value at every higher one, so curves for
    different probabilities differ by the noise and not by the luck of the draw.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}; expected a number from 0 to 1")
    generators = [np.random.default_rng((tasks.seed, index, _NOISE)) for index in tasks.indices]
    chance, replacement = np.stack([random.random((2, tasks.rewards.shape[1])) for random in generators], axis=1)
    return replace(tasks, rewards=np.where(chance < probability, replacement, tasks.rewards))


def error(predictions: Array, targets: Array) -> Array:
    """1 - cos(prediction, W x): 0 for the right direction, 1 for a random one. The paper's "normalised MSE"."""
    lengths = np.linalg.norm(predictions, axis=-1) * np.linalg.norm(targets, axis=-1)
    return np.asarray(1 - np.sum(predictions * targets, axis=-1) / np.maximum(lengths, 1e-12))


def copy_best(tasks: Tasks) -> Array:
    """Answer the response with the highest reward so far: (tasks, length, dimension), entry n - 1 having seen n."""
    seen = np.arange(tasks.rewards.shape[1])
    visible = np.where(seen[None, :] <= seen[:, None], tasks.rewards[:, None, :], -np.inf)
    return np.take_along_axis(tasks.responses, visible.argmax(axis=2)[:, :, None], axis=1)


def running_mean(tasks: Tasks) -> Array:
    """Answer the mean of the responses so far, whatever their rewards. The same shape as `copy_best`."""
    return np.cumsum(tasks.responses, axis=1) / np.arange(1, tasks.rewards.shape[1] + 1)[:, None]
