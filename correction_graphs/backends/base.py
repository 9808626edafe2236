"""Branches of text over one language model: the interface that search, decoding and judging are written against.

A *branch* is a list of tokens. Opening, forking, extending, rewinding and releasing branches is bookkeeping and costs
nothing; `forward` is the one operation that computes. It returns the next-token logits of any number of branches, runs
the model once over whatever of their tokens is not in its key/value memory yet, and keeps what it computed for every
branch that shares it. What a branch returns never depends on which other branches exist.

`correction_graphs.backends.cached.CachedBackend` is that behaviour on top of a `SequenceMemory`, the few operations an
inference engine offers.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


class Branch:
    """A list of tokens, and where in the cache they were last found. Made by a backend; its methods change it."""

    __slots__ = ("__weakref__", "cached", "logits", "place", "released", "tokens")

    def __init__(self, tokens: list[int], *, place: Any = None, cached: int = 0, logits: Logits | None = None) -> None:
        self.tokens = tokens
        self.place = place  # the cache's own note; valid for the first `cached` tokens
        self.cached = cached
        self.logits = logits  # of the last token, while known
        self.released = False

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"<Branch of {len(self.tokens)} tokens{', released' if self.released else ''}>"


@runtime_checkable
class RewindableBackend(Protocol):
    """One loaded language model whose text can be forked and rewound at any token."""

    @property
    def name(self) -> str:
        """Name of the model, for metadata."""
        ...

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary, the width of a row of logits."""
        ...

    @property
    def n_ctx(self) -> int:
        """How many tokens one branch may hold."""
        ...

    @property
    def forwarded_tokens(self) -> int:
        """Tokens run through the model so far."""
        ...

    @property
    def forward_calls(self) -> int:
        """Batches run through the model so far."""
        ...

    @property
    def cells_in_use(self) -> int:
        """Tokens held in the key/value memory now."""
        ...

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Turn text into tokens; control tokens are recognized in it only if `special`."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for, b"" for control tokens."""
        ...

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its text, or its turn, with this token."""
        ...

    def chat_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Turn chat messages (`role`, `content`) into the prompt for the next assistant turn."""
        ...

    def open(self, tokens: Sequence[int]) -> Branch:
        """Start a branch."""
        ...

    def fork(self, branch: Branch) -> Branch:
        """Return a second branch with the same tokens."""
        ...

    def extend(self, branch: Branch, tokens: Sequence[int]) -> None:
        """Append tokens to a branch."""
        ...

    def rewind(self, branch: Branch, length: int) -> None:
        """Cut a branch back to its first `length` tokens."""
        ...

    def release(self, branch: Branch) -> None:
        """Give a branch up. Its tokens stay cached until their room is needed."""
        ...

    def cached_tokens(self, branch: Branch) -> int:
        """Tell how many of the branch's tokens `forward` would not have to compute now."""
        ...

    def forward(self, branches: Sequence[Branch]) -> Logits:
        """Return the next-token logits of each branch, one row a branch: shape (len(branches), n_vocab)."""
        ...

    def close(self) -> None:
        """Free the model. Any later use raises `BackendError`."""
        ...


class Run(NamedTuple):
    """Consecutive tokens to compute.

    Attributes:
        tokens: The tokens.
        position: Position of the first of them, counted from the start of the text.
        sequences: The sequences they are to belong to; all of these hold the same tokens before `position`.
        outputs: Offsets into `tokens` of those whose logits are wanted, ascending.
    """

    tokens: Sequence[int]
    position: int
    sequences: tuple[int, ...]
    outputs: tuple[int, ...]


class SequenceMemory(Protocol):
    """What an inference engine offers: numbered sequences of computed tokens that can share them.

    Attributes:
        n_sequences: Sequences are numbered from 0 to `n_sequences` - 1.
        n_cells: How many tokens fit, each counted once however many sequences share it.
        rewinds: Whether a sequence can be cut at any length. If not, `copy` copies whole sequences only, and `truncate`
            accepts 0 only.
        forwarded_tokens: Tokens computed so far.
        forward_calls: Batches computed so far.
    """

    n_sequences: int
    n_cells: int
    rewinds: bool
    forwarded_tokens: int
    forward_calls: int

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the empty sequence `target` share the first `length` tokens of `source`."""
        ...

    def truncate(self, sequence: int, length: int) -> None:
        """Keep only the first `length` tokens of a sequence."""
        ...

    def clear(self) -> None:
        """Empty all sequences."""
        ...

    def compute(self, runs: Sequence[Run]) -> list[Logits]:
        """Run the model over `runs` in order; return a row of logits for each output, each an array of its own."""
        ...


class Cache(Protocol):
    """Keeps track of what a `SequenceMemory` holds, and plans how to compute what is missing."""

    @property
    def cells_in_use(self) -> int:
        """Tokens held in the key/value memory now."""
        ...

    def known(self, branch: Branch) -> int:
        """How many of the branch's first tokens are held."""
        ...

    def forward(self, branches: Sequence[Branch], live: Iterable[Branch]) -> Batches:
        """Set `logits` on each of `branches`, no two of which are alike; better not drop what the `live` ones hold.

        Yields what the memory is to compute, a batch at a time, and is sent the rows. While it waits for them, `known`
        may be called, and branches other than `branches` may change.
        """
        ...


Batches = Generator[Sequence[Run], list[Logits], None]


class TextStream:
    """Turns tokens into text as they come; a character whose bytes are not complete yet waits for the rest."""

    def __init__(self, backend: RewindableBackend) -> None:
        self._backend = backend
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """Return the text that `token` completes, which may be empty."""
        return self._decoder.decode(self._backend.token_bytes(token))

    def finish(self) -> str:
        """Return what is left; an incomplete character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


def detokenize(backend: RewindableBackend, tokens: Iterable[int]) -> str:
    """Return the text of `tokens`; bytes that are not valid UTF-8 become U+FFFD."""
    return b"".join(map(backend.token_bytes, tokens)).decode("utf-8", errors="replace")
