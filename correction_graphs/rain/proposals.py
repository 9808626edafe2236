"""Writing several texts at once, token by token: candidates for the tree, and simulations of how a text goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from correction_graphs.backends.base import Branch, Logits, RewindableBackend
from correction_graphs.rain.settings import RainSettings

_BLOCK = 64


class Next(NamedTuple):
    """The likeliest next tokens after a text: all that is kept of a row of logits.

    Attributes:
        tokens: The likeliest first; of equals, the lower id first.
        probabilities: Of these tokens among the whole vocabulary, at temperature 1.
    """

    tokens: NDArray[np.intp]
    probabilities: NDArray[np.float64]

    def among(self, top_k: int, temperature: float) -> NDArray[np.float64]:
        """The probabilities of the first `top_k` at this temperature, as if there were no others."""
        first = self.probabilities[:top_k]
        weights = (first / first[0]) ** (1 / temperature)
        result: NDArray[np.float64] = weights / weights.sum()
        return result


def next_tokens(row: Logits, count: int | None) -> Next:
    """Return the `count` likeliest tokens of a row of logits, or all, in order."""
    tokens = _likeliest(row, count) if count and count < len(row) else np.argsort(-row, kind="stable")
    highest = row[tokens[0]]
    total = np.exp(row - highest).sum(dtype=np.float64)
    return Next(tokens, np.exp(row[tokens].astype(np.float64) - highest) / total)


def _likeliest(row: Logits, count: int) -> NDArray[np.intp]:
    # The `count`-th highest of the blocks' maxima is a bound that few tokens reach: far cheaper than sorting them all.
    blocks = row[: len(row) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).max(axis=1)
    if len(blocks) < count:
        return np.argsort(-row, kind="stable")[:count]
    bound = np.partition(blocks, len(blocks) - count)[len(blocks) - count]
    tokens = np.flatnonzero(row >= bound)
    result: NDArray[np.intp] = tokens[np.argsort(-row[tokens], kind="stable")][:count]
    return result


def draw(probabilities: NDArray[np.float64], at: float) -> int:
    """Return the index at which the running sum of `probabilities` first exceeds `at`; the length if it never does."""
    return int(np.searchsorted(np.cumsum(probabilities), at, side="right"))


class Draft:
    """A text that is being written.

    Attributes:
        start: The tokens between the committed text and the draft.
        tokens: Those written so far.
        probability: The product of their probabilities, each among the `top_k` likeliest.
        ended: Whether the reply ends with it: with an end token, or a stop text.
        done: Whether nothing is to be added.
        branch: Where it is computed, once it had to be.
    """

    def __init__(
        self,
        start: tuple[int, ...],
        before: bytes,
        *,
        limit: int,
        ends: tuple[bytes, ...],
        min_length: int = 1,
        generator: np.random.Generator | None = None,
        whole_vocabulary: bool = False,
    ) -> None:
        self.start = start
        self.tokens: list[int] = []
        self.probability = 1.0
        self.ended = False
        self.done = limit <= 0
        self.branch: Branch | None = None
        self._text = before
        self._limit = limit
        self._ends = ends
        self._min_length = min_length
        self._generator = generator
        self._whole = whole_vocabulary
        self._at: float | None = None  # what was drawn for the next token

    @property
    def sampled(self) -> bool:
        """Whether it is a sample, and not the greedy text."""
        return self._generator is not None

    @property
    def place(self) -> tuple[int, ...]:
        """The tokens after the committed text."""
        return (*self.start, *self.tokens)

    def choose(self, known: Next | None, settings: RainSettings, row: Logits | None = None) -> int | None:
        """Choose the next token; None if `known` does not suffice, and the row of logits is needed.

        Greedy is the likeliest token. A sample takes one number u from its generator for each token, and the first
        token at which the running sum of probabilities exceeds u, from the likeliest token down: among the `top_k`,
        or, for simulations, among all at temperature 1.
        """
        if known is None:
            return None
        if self._generator is None:
            index = 0
        else:
            if self._at is None:
                self._at = self._generator.random()
            if self._whole:
                index = draw(known.probabilities, self._at)
                if index == len(known.tokens):
                    if row is None:
                        return None
                    known = next_tokens(row, None)
                    index = min(draw(known.probabilities, self._at), len(row) - 1)
                self._at = None
                return int(known.tokens[index])
            among = known.among(settings.top_k, settings.temperature)
            index = min(draw(among, self._at), len(among) - 1)
            self._at = None
        self.probability *= float(known.among(settings.top_k, settings.temperature)[index])
        return int(known.tokens[index])

    def append(self, token: int, backend: RewindableBackend, stops: Sequence[bytes]) -> None:
        """Add a token, and see whether that ends the draft."""
        self.tokens.append(token)
        added = backend.token_bytes(token)
        self._text += added
        if backend.is_end(token):
            self.ended = True
        elif stops:
            tail = self._text[-(len(added) + max(map(len, stops))) :]
            self.ended = any(stop in tail for stop in stops)
        self.done = (
            self.ended
            or len(self.tokens) >= self._limit
            or (len(self.tokens) >= self._min_length and self._text.endswith(self._ends))
        )
