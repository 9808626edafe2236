"""Choosing the next token from a row of logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from correction_graphs.backends.base import Logits


def choose(logits: Logits, rng: np.random.Generator, *, temperature: float, top_k: int, top_p: float) -> int:
    """Return a token.

    Args:
        logits: One row, shape (n_vocab,).
        rng: Source of randomness; not touched when `temperature` is 0.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Only the `top_k` likeliest tokens can be chosen; 0 for all.
        top_p: Of these, only the likeliest whose probabilities add up to `top_p`, at least one.
    """
    if temperature == 0:
        return int(logits.argmax())
    size = len(logits)
    # A partial sort: vocabularies are large, and all but the top is thrown away.
    tokens = np.argpartition(logits, size - top_k)[size - top_k :] if 0 < top_k < size else np.arange(size)
    tokens = tokens[np.argsort(-logits[tokens], kind="stable")]
    scaled = logits[tokens].astype(np.float64) / temperature
    weights = np.exp(scaled - scaled[0])
    cumulative = np.cumsum(weights / weights.sum())
    kept = 1 + int(np.searchsorted(cumulative, top_p, side="left")) if top_p < 1 else len(tokens)
    cumulative = cumulative[:kept]
    chosen = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(tokens[min(int(chosen), len(cumulative) - 1)])


def penalized(logits: Logits, recent: Sequence[int], penalty: float) -> Logits:
    """Return logits in which the `recent` tokens are less likely, so that a model leaves a loop it fell into.

    Args:
        logits: One row, shape (n_vocab,).
        recent: Tokens written lately.
        penalty: Positive logits are divided by it, negative ones multiplied (Keskar et al., CTRL, section 4.1); 1
            changes nothing.
    """
    if penalty == 1 or not recent:
        return logits
    tokens = np.unique(np.asarray(recent))
    changed = logits.copy()
    changed[tokens] = np.where(changed[tokens] > 0, changed[tokens] / penalty, changed[tokens] * penalty)
    return changed
