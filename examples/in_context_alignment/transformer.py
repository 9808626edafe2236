"""A causal transformer that reads (query, response, reward) triplets and answers at each query.

One implementation for every variant of the paper's ablations: softmax or linear attention, feed-forward or none, number
of heads at the same width, depth. Mask, normalisation, initialisation, embedding and read-out are the same in all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from synthetic_tasks import DIMENSION
from torch import Tensor, nn
from torch.nn.functional import relu, softmax


@dataclass(frozen=True)
class Design:
    """What is varied. `heads` divides `width`, so the model has as many weights whatever their number."""

    depth: int = 4
    heads: int = 3
    attention: Literal["softmax", "linear"] = "softmax"
    feed_forward: bool = True
    width: int = 48

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, which does not divide width {self.width}")
        if self.attention not in ("softmax", "linear"):
            raise ValueError(f"attention is {self.attention!r}; expected 'softmax' or 'linear'")


class CausalAttention(nn.Module):
    """Attention to this and earlier tokens.

    Linear attention leaves the softmax out, and nothing else: the weight of a token is its score itself, divided by the
    number of tokens in view, as the weights of softmax attention are by their sum.
    """

    def __init__(self, design: Design, max_tokens: int) -> None:
        super().__init__()
        self.heads, self.kind = design.heads, design.attention
        self.project = nn.Linear(design.width, 3 * design.width)
        self.output = nn.Linear(design.width, design.width)
        visible = torch.ones(max_tokens, max_tokens).tril()
        self.register_buffer("hide", torch.zeros_like(visible).masked_fill(visible == 0, -math.inf), persistent=False)
        self.register_buffer("average", visible / visible.sum(dim=-1, keepdim=True), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        query, key, value = self.project(tokens).view(shape).permute(2, 0, 3, 1, 4)
        scores = (query / math.sqrt(width // self.heads)) @ key.transpose(-1, -2)
        if self.kind == "softmax":
            weights = softmax(scores + self.hide[:length, :length], dim=-1)
        else:
            weights = scores * self.average[:length, :length]
        return self.output((weights @ value).transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention, then a feed-forward layer or none, each normalised before and added to what it read."""

    def __init__(self, design: Design, max_tokens: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(design.width)
        self.attention = CausalAttention(design, max_tokens)
        self.has_feed_forward = design.feed_forward
        if design.feed_forward:
            self.feed_norm = nn.LayerNorm(design.width)
            self.widen = nn.Linear(design.width, 4 * design.width)
            self.narrow = nn.Linear(4 * design.width, design.width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        if self.has_feed_forward:
            tokens = tokens + self.narrow(relu(self.widen(self.feed_norm(tokens))))
        return tokens


class CausalTransformer(nn.Module):
    """Predicts W x from the triplets seen so far.

    Tokens are x, y_1, r_1, x, y_2, r_2, ..., x, each of the data's dimension, the reward padded with zeros. What is
    read at the x after n triplets is prediction n; prediction 0 has seen nothing but the query.
    """

    def __init__(self, design: Design, length: int, *, seed: int) -> None:
        super().__init__()
        self.length = length
        tokens = 3 * length + 1
        self.embed = nn.Linear(DIMENSION, design.width)
        self.positions = nn.Parameter(torch.empty(tokens, design.width))
        self.blocks = nn.ModuleList(Block(design, tokens) for _ in range(design.depth))
        self.norm = nn.LayerNorm(design.width)
        self.read_out = nn.Linear(design.width, DIMENSION)
        self._initialise(torch.Generator().manual_seed(seed))

    def _initialise(self, random: torch.Generator) -> None:
        for name, weights in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weights)
            elif name == "positions":  # as large as an embedded response: then "the token before" is found sooner
                nn.init.normal_(weights, generator=random)
            elif weights.dim() == 2:  # noqa: PLR2004 - a matrix: the weights of normalisations are vectors of ones
                residual = name.endswith(("output.weight", "narrow.weight"))
                depth = 2 * len(self.blocks) if residual else 1
                nn.init.normal_(weights, std=1 / math.sqrt(weights.shape[1] * depth), generator=random)

    def forward(self, queries: Tensor, responses: Tensor, rewards: Tensor) -> Tensor:
        """Return the predictions 0 to `length`, (tasks, length + 1, dimension)."""
        batch, length, dimension = responses.shape
        if length != self.length:
            raise ValueError(f"a task has {length} responses; this model was made for {self.length}")
        repeated = queries[:, None, :].expand(batch, length, dimension)
        padded = torch.cat([rewards[..., None], rewards.new_zeros(batch, length, dimension - 1)], dim=-1)
        triplets = torch.stack([repeated, responses, padded], dim=2).reshape(batch, 3 * length, dimension)
        tokens = self.embed(torch.cat([triplets, queries[:, None, :]], dim=1)) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.read_out(self.norm(tokens[:, ::3]))
