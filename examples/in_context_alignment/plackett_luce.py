"""The loss of every learner here: Plackett-Luce over cosines, for all lengths of context in one go.

Of n responses sorted by reward, the best first, the loss is the sum over i of -log softmax(s_i, ..., s_n)[i], where s_j
is the cosine between the prediction and response j: each response should win against all that are worse.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEVER = -1e30  # finite, since the gradient of logcumsumexp is nan at minus infinity


def cosine_scores(predictions: Tensor, responses: Tensor) -> Tensor:
    """Return (tasks, lengths, responses): the cosine between each prediction and each response of its task."""
    return normalize(predictions, dim=-1) @ normalize(responses, dim=-1).transpose(-1, -2)


def plackett_luce(scores: Tensor, rewards: Tensor, lengths: Tensor) -> Tensor:
    """Return (tasks, lengths): the negative log-likelihood of the ranking of the first n responses.

    Args:
        scores: (tasks, lengths, responses), as from `cosine_scores`.
        rewards: (tasks, responses). The ranking is by reward, the highest first.
        lengths: (lengths,): n for each row of scores; response j counts when j < n.
    """
    order = rewards.argsort(dim=-1, descending=True)
    ranked = scores.gather(-1, order[:, None, :].expand_as(scores))
    counts = order[:, None, :] < lengths[:, None]
    kept = ranked.masked_fill(~counts, NEVER)
    worse_or_same = kept.flip(-1).logcumsumexp(dim=-1).flip(-1)
    return torch.where(counts, worse_or_same - ranked, 0.0).sum(dim=-1)
