"""One step of gradient descent, written as a change of the data and then as attention (CaC paper, section 3).

The model to be aligned is linear, W x. Its reward for a response is r(y) = -|W x - y|^2, and its loss for responses of
which `best` is preferred is Bradley-Terry's -log softmax(r)[best] (two responses; with more it is InfoNCE).

Proposition 3.1: one step on W changes that loss as much as leaving W alone and moving every response by

    - 2 eta y_best + 2 eta sum_j beta_j y_j,    beta = softmax(r).

Theorem 3.2: softmax attention can compute that. Head 1 finds y_best, its query being large and its key the reward.
Head 2 forms the beta-mean, its query being 2 W x and its key the response. Written as plainly as here, that needs |y_j|
to be the same for all j: |W x - y_j|^2 = |W x|^2 - 2 W x . y_j + |y_j|^2, and the scores hold the middle term only.

Needs numpy only.
"""

from __future__ import annotations

import numpy as np
from synthetic_tasks import Array


def softmax(scores: Array) -> Array:
    """Exponentials of the scores, divided by their sum."""
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def loss(weights: Array, query: Array, responses: Array, best: int) -> float:
    """-log of the probability that response `best` is preferred to the others."""
    rewards = -np.sum((weights @ query - responses) ** 2, axis=1)
    return float(-np.log(softmax(rewards)[best]))


def step_on_weights(weights: Array, query: Array, responses: Array, best: int, *, rate: float) -> Array:
    """Return W after one step of gradient descent on `loss`."""
    residuals = weights @ query - responses
    beta = softmax(-np.sum(residuals**2, axis=1))
    gradient = 2 * np.outer(residuals[best] - beta @ residuals, query)
    return np.asarray(weights - rate * gradient)


def step_on_responses(weights: Array, query: Array, responses: Array, best: int, *, rate: float) -> Array:
    """Return the responses moved as Proposition 3.1 says. The query has length 1."""
    beta = softmax(-np.sum((weights @ query - responses) ** 2, axis=1))
    return np.asarray(responses - 2 * rate * responses[best] + 2 * rate * beta @ responses)


def step_by_attention(
    weights: Array, query: Array, responses: Array, rewards: Array, *, rate: float, sharpness: float
) -> Array:
    """Return the responses after one layer of two-head softmax attention with a residual connection (Theorem 3.2).

    `sharpness` multiplies the query of head 1: the larger, the nearer its attention is to the best response alone.
    """
    picks_best = softmax(sharpness * rewards)
    forms_mean = softmax(responses @ (2 * weights @ query))
    return np.asarray(responses - 2 * rate * picks_best @ responses + 2 * rate * forms_mean @ responses)
