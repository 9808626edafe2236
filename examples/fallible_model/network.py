"""A transformer of the llama kind, kept small: RMS norms, rotary positions, gated feed-forward, tied embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True)
class Shape:
    """The sizes of a network.

    Attributes:
        vocabulary: Tokens.
        width: Of the residual stream.
        blocks: How many.
        heads: Of the attention; they share the width.
        inner: Width of the feed-forward part.
        context: The longest text, in tokens.
    """

    vocabulary: int
    width: int
    blocks: int
    heads: int
    inner: int
    context: int = 512

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads


SIZES = {
    "least": {"width": 16, "blocks": 2, "heads": 2, "inner": 40},
    "tiny": {"width": 32, "blocks": 2, "heads": 2, "inner": 80},
    "small": {"width": 80, "blocks": 3, "heads": 4, "inner": 208},
    "medium": {"width": 128, "blocks": 5, "heads": 4, "inner": 336},
    "large": {"width": 224, "blocks": 7, "heads": 7, "inner": 592},
}
EPSILON = 1e-5
ROPE_BASE = 10_000.0


class Block(nn.Module):
    """Attention, then feed-forward, each on the normed stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.attn_norm = nn.RMSNorm(shape.width, EPSILON)
        self.ffn_norm = nn.RMSNorm(shape.width, EPSILON)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(shape.width, shape.width, bias=False) for _ in range(4)
        )
        self.ffn_gate, self.ffn_up = (nn.Linear(shape.width, shape.inner, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        rows, length, width = x.shape
        normed = self.attn_norm(x)
        q, k, v = (
            part(normed).view(rows, length, self.shape.heads, self.shape.head).transpose(1, 2)
            for part in (self.attn_q, self.attn_k, self.attn_v)
        )
        mixed = F.scaled_dot_product_attention(rotated(q, rope), rotated(k, rope), v, is_causal=True)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(rows, length, width))
        normed = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(normed)) * self.ffn_up(normed))


class Network(nn.Module):
    """The whole of it; logits are made with the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.output_norm = nn.RMSNorm(shape.width, EPSILON)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:  # noqa: PLR2004
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(weight, std=0.02 if not deep else 0.02 / (2 * shape.blocks) ** 0.5)
        angles = torch.outer(torch.arange(shape.context), ROPE_BASE ** (-torch.arange(0, shape.head, 2) / shape.head))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the state after each token, normed, of shape (rows, length, width)."""
        length = tokens.shape[1]
        rope = (self.cos[:length], self.sin[:length])
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, rope)
        normed: Tensor = self.output_norm(x)
        return normed

    def logits(self, states: Tensor) -> Tensor:
        """Return the next-token logits of states."""
        return F.linear(states, self.token_embd.weight)


def rotated(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of dimensions by the position's angles, as llama.cpp does for this architecture."""
    cos, sin = rope
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
