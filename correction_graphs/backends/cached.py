"""The bookkeeping every backend shares: live branches, limits, locking, and recovery from failures."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import numpy as np

from correction_graphs.backends.base import Batches, Branch, Cache, Logits, Run, SequenceMemory
from correction_graphs.backends.prefix_tree import PrefixTree
from correction_graphs.backends.snapshots import SnapshotCache
from correction_graphs.errors import BackendError, ContextLengthError, SettingsError


class CachedBackend:
    """Branches on a `SequenceMemory`: everything of a `RewindableBackend` but the tokenizer.

    All methods may be called from any thread. Computations run one after another; nothing else waits for them, so that
    an event loop may open, change and release branches while another thread computes.

    Args:
        memory: The engine.
        n_vocab: Width of a row of logits.
        n_ctx: How many tokens one branch may hold.
        kept_logits: For how many branches the logits of the last token are remembered. A branch that lost its row gets
            it back at the price of one forwarded token.
    """

    def __init__(self, memory: SequenceMemory, *, n_vocab: int, n_ctx: int, kept_logits: int = 64) -> None:
        self._memory = memory
        self._n_vocab = n_vocab
        self._n_ctx = n_ctx
        self._turn = threading.RLock()  # to compute; taken before the other
        self._lock = threading.RLock()  # of the bookkeeping; never held while the engine computes
        # Weak: a branch that nobody has any more, such as one lost to Ctrl-C between two lines, is given up by itself.
        self._live: WeakValueDictionary[int, Branch] = WeakValueDictionary()
        self._with_logits: WeakValueDictionary[int, Branch] = WeakValueDictionary()
        self._kept_logits = kept_logits
        self._cache: Cache | None = None
        self._in_use: Cache | None = None  # what is in the cache while it is computed, for those who only ask
        self._closed = False

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self._n_vocab

    @property
    def n_ctx(self) -> int:
        """How many tokens one branch may hold."""
        return self._n_ctx

    @property
    def forwarded_tokens(self) -> int:
        """Tokens run through the model so far."""
        return self._memory.forwarded_tokens

    @property
    def forward_calls(self) -> int:
        """Batches run through the model so far."""
        return self._memory.forward_calls

    @property
    def can_rewind(self) -> bool:
        """Whether the memory can be cut anywhere; if not, rewound branches are read again from a snapshot."""
        return self._memory.rewinds

    @property
    def cells_in_use(self) -> int:
        """Tokens held in the key/value memory now, those of released branches included."""
        with self._lock:
            cache = self._cache or self._in_use
            return cache.cells_in_use if cache else 0

    @property
    def live_branches(self) -> int:
        """Branches opened or forked, not released, and still held by somebody."""
        return len(self._live)

    def open(self, tokens: Sequence[int]) -> Branch:
        """Start a branch with `tokens`; nothing is computed yet.

        Raises:
            ContextLengthError: If there are more tokens than `n_ctx`.
            SettingsError: If a token is not in the vocabulary.
            BackendError: If the backend is closed.
        """
        return self._admit(Branch(self._checked(tokens)))

    def fork(self, branch: Branch) -> Branch:
        """Return a second branch with the same tokens; what is computed is shared."""
        with self._lock:
            self._must_be_live(branch)
            twin = _copy(branch)
            twin.logits = branch.logits
            if twin.logits is not None:
                self._remember_logits(twin)
            return self._admit(twin)

    def extend(self, branch: Branch, tokens: Sequence[int]) -> None:
        """Append `tokens`; they are computed when `forward` next asks for this branch.

        Raises:
            ContextLengthError: If the branch would hold more tokens than `n_ctx`; it is left as it was.
            SettingsError: If a token is not in the vocabulary.
        """
        with self._lock:
            self._must_be_live(branch)
            added = self._checked(tokens, already=len(branch))
            if added:
                self._forget_logits(branch)  # first, so that Ctrl-C in between does no harm
                branch.tokens.extend(added)

    def rewind(self, branch: Branch, length: int) -> None:
        """Keep only the first `length` tokens.

        Raises:
            SettingsError: If `length` is negative or beyond the branch's end.
        """
        with self._lock:
            self._must_be_live(branch)
            if not 0 <= length <= len(branch):
                raise SettingsError(
                    f"cannot rewind a branch of {len(branch)} tokens to {length}; give 0 to {len(branch)}"
                )
            if length < len(branch):
                self._forget_logits(branch)  # the tokens last, so that Ctrl-C in between does no harm
                branch.cached = min(branch.cached, length)
                del branch.tokens[length:]

    def release(self, branch: Branch) -> None:
        """Give a branch up; releasing it again does nothing. Its tokens stay cached until their room is needed."""
        with self._lock:
            self._live.pop(id(branch), None)
            self._forget_logits(branch)
            branch.place = None
            branch.cached = 0
            branch.released = True

    def cached_tokens(self, branch: Branch) -> int:
        """Tell how many of the branch's tokens `forward` would not have to compute now."""
        with self._lock:
            self._must_be_live(branch)
            if branch.logits is not None:
                return len(branch)
            cache = self._cache or self._in_use
            known = cache.known(branch) if cache else 0
            return min(known, max(0, len(branch) - 1))  # without its logits, the last token is computed again

    def forward(self, branches: Sequence[Branch]) -> Logits:
        """Return the next-token logits of each branch, computing in one batch what is not cached.

        Args:
            branches: Live branches with at least one token each.

        Returns:
            Array of shape (len(branches), n_vocab), a copy the caller may keep.

        Raises:
            SettingsError: If a branch is empty.
            BackendError: If a branch was released, the backend is closed, or the engine failed. After a failure, or an
                interruption such as Ctrl-C, branches stay usable: what they need is computed again.
        """
        with self._turn:
            waiting: dict[tuple[int, ...], list[Branch]] = {}
            rows: dict[Branch, Logits] = {}
            with self._lock:
                self._must_be_open()
                for branch in dict.fromkeys(branches):
                    self._must_be_live(branch)
                    if not branch.tokens:
                        raise SettingsError("an empty branch has no logits; give it at least one token")
                    if branch.logits is None:
                        waiting.setdefault(tuple(branch.tokens), []).append(branch)
                    else:
                        rows[branch] = branch.logits
                self._cache = cache = self._cache or self._fresh_cache()
                # What is computed are branches of our own, since others may change theirs meanwhile.
                own = [_copy(alike[0]) for alike in waiting.values()]
            if own:
                self._compute(cache, own)
            with self._lock:
                for computed, alike in zip(own, waiting.values(), strict=True):
                    for branch in alike:
                        rows[branch] = self._logits_of(computed)
                        self._note(branch, computed)
        return np.stack([rows[branch] for branch in branches]) if branches else self._no_rows()

    def forget(self) -> None:
        """Drop all that is cached; branches stay usable, and what they need is computed again.

        What is in the cache decides how a text is cut into batches, and so how sums are rounded. Where equal questions
        are to get equal answers to the last bit, whatever was asked before, call this in between.
        """
        with self._turn, self._lock:
            self._cache = None
            for branch in list(self._with_logits.values()):
                self._forget_logits(branch)

    def close(self) -> None:
        """Free the engine; calling it again does nothing."""
        with self._turn, self._lock:
            if not self._closed:
                self._closed = True
                self._cache = None
                for branch in list(self._live.values()):
                    self.release(branch)
                self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _free(self) -> None:
        """Free what the engine holds; for subclasses."""

    def _compute(self, cache: Cache, branches: Sequence[Branch]) -> None:
        """Set `logits` on branches no two of which are alike, and which nobody else has."""
        # An exception or Ctrl-C from here on leaves no cache behind, so a half-finished step is never built on: the
        # next call starts empty and recomputes from the branches' tokens.
        self._in_use, self._cache = cache, None
        try:
            with self._lock:
                batches = cache.forward(branches, list(self._live.values()))
                runs = next(batches, None)
            while runs is not None:
                rows = self._memory.compute(runs)
                with self._lock:
                    runs = _continued(batches, rows)
            self._cache = cache
        finally:
            self._in_use = None

    def _fresh_cache(self) -> Cache:
        self._memory.clear()
        for branch in list(self._live.values()):
            branch.place, branch.cached = None, 0
        return PrefixTree(self._memory) if self._memory.rewinds else SnapshotCache(self._memory)

    def _admit(self, branch: Branch) -> Branch:
        with self._lock:
            self._must_be_open()
            self._live[id(branch)] = branch
            return branch

    def _checked(self, tokens: Sequence[int], already: int = 0) -> list[int]:
        checked = list(tokens)
        if already + len(checked) > self._n_ctx:
            raise ContextLengthError(already + len(checked), self._n_ctx)
        if checked and (min(checked) < 0 or max(checked) >= self._n_vocab):
            wrong = next(token for token in checked if not 0 <= token < self._n_vocab)
            raise SettingsError(f"token {wrong} is not in the vocabulary, which has ids 0 to {self._n_vocab - 1}")
        return checked

    def _must_be_open(self) -> None:
        if self._closed:
            raise BackendError("this backend was closed; load the model again to go on")

    def _must_be_live(self, branch: Branch) -> None:
        self._must_be_open()
        if id(branch) not in self._live:
            raise BackendError(
                f"{branch!r} is not a live branch of this backend; it was released, or is another backend's"
            )

    def _note(self, branch: Branch, computed: Branch) -> None:
        """Take over what was found for a branch, unless it was given up or changed meanwhile."""
        if id(branch) in self._live and branch.tokens == computed.tokens:
            branch.place, branch.cached, branch.logits = computed.place, computed.cached, computed.logits
            self._remember_logits(branch)

    def _remember_logits(self, branch: Branch) -> None:
        self._with_logits.pop(id(branch), None)
        self._with_logits[id(branch)] = branch
        while len(self._with_logits) > self._kept_logits:
            if oldest := self._with_logits.pop(next(iter(self._with_logits)), None):
                oldest.logits = None

    def _forget_logits(self, branch: Branch) -> None:
        self._with_logits.pop(id(branch), None)
        branch.logits = None

    def _logits_of(self, branch: Branch) -> Logits:
        if branch.logits is None:
            raise BackendError("the engine returned no logits for a branch")
        return branch.logits

    def _no_rows(self) -> Logits:
        return np.empty((0, self._n_vocab), dtype=np.float32)


def _copy(branch: Branch) -> Branch:
    return Branch(list(branch.tokens), place=branch.place, cached=branch.cached)


def _continued(batches: Batches, rows: list[Logits]) -> Sequence[Run] | None:
    """Return the next batch, or None after the last."""
    try:
        return batches.send(rows)
    except StopIteration:
        return None
