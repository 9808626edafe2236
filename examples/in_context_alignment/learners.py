"""The two learners: a transformer trained over many tasks, and gradient descent started anew on each."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from plackett_luce import cosine_scores, plackett_luce
from synthetic_tasks import DIMENSION, Array, Tasks, Variant, draw_tasks
from torch import Tensor
from transformer import CausalTransformer, Design

SHORTEST = 2  # of one response there is no ranking


@dataclass(frozen=True)
class Training:
    """How a transformer is trained: on `steps` batches of tasks that are never repeated, by Adam at a fixed rate."""

    steps: int = 2000
    batch: int = 64
    rate: float = 1e-3
    length: int = 10


@dataclass(frozen=True)
class Trained:
    """A transformer and what it took: the losses of each step, and seconds."""

    model: CausalTransformer
    losses: list[float]
    seconds: float


def as_tensors(tasks: Tasks) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, responses and rewards in the precision of the models."""
    return tuple(torch.tensor(part, dtype=torch.float32) for part in (tasks.queries, tasks.responses, tasks.rewards))


def train(
    design: Design,
    training: Training,
    *,
    variant: Variant,
    seed: int,
) -> Trained:
    """Train a transformer of this design. All designs see the same tasks in the same order, given seed and variant."""
    model = CausalTransformer(design, training.length, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.rate, fused=True)
    lengths = torch.arange(SHORTEST, training.length + 1)
    losses: list[float] = []
    started = time.perf_counter()
    for step in range(training.steps):
        drawn = range(step * training.batch, (step + 1) * training.batch)
        queries, responses, rewards = as_tensors(draw_tasks(seed, drawn, length=training.length, variant=variant))
        scores = cosine_scores(model(queries, responses, rewards)[:, SHORTEST:], responses)
        loss = plackett_luce(scores, rewards, lengths).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Trained(model, losses, time.perf_counter() - started)


def transformer_predictions(model: CausalTransformer, tasks: Tasks) -> Array:
    """Return the predictions after 2 to `length` responses, (tasks, length - 1, dimension)."""
    with torch.no_grad():
        return np.asarray(model(*as_tensors(tasks))[:, SHORTEST:].double().numpy())


def final_loss(answers: Array, tasks: Tasks) -> float:
    """Return the loss of one answer to each task, (tasks, dimension), against the ranking of all its responses."""
    _, responses, rewards = as_tensors(tasks)
    scores = cosine_scores(torch.tensor(answers, dtype=torch.float32)[:, None], responses)
    return float(plackett_luce(scores, rewards, torch.tensor([responses.shape[1]])).mean())


def descent_predictions(tasks: Tasks, *, seed: int, steps: int = 50, rate: float = 0.1) -> tuple[Array, Array]:
    """Fit a linear map of the query to each task's first n responses, for n from 2 to `length`.

    Every task and every n has a map of its own, drawn like the weights of a linear layer in PyTorch and fitted by
    `steps` of Adam on the loss that the transformer is trained on. All are fitted at once: no map is in another's loss.

    Returns:
        The predictions, in the shape of `transformer_predictions`, and the mean loss before each step and at the end.
    """
    queries, responses, rewards = as_tensors(tasks)
    lengths = torch.arange(SHORTEST, responses.shape[1] + 1)
    random = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(DIMENSION)
    shape = (len(queries), len(lengths), DIMENSION, DIMENSION)
    maps = ((2 * torch.rand(shape, generator=random) - 1) * bound).requires_grad_()
    optimizer = torch.optim.Adam([maps], lr=rate)

    def answers() -> Tensor:
        return torch.einsum("tnij,tj->tni", maps, queries)

    losses = []
    for step in range(steps + 1):
        each = plackett_luce(cosine_scores(answers(), responses), rewards, lengths)
        losses.append(each.mean().item())
        if step < steps:
            optimizer.zero_grad()
            each.sum().backward()
            optimizer.step()
    return np.asarray(answers().detach().double().numpy()), np.asarray(losses)
