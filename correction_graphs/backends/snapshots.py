"""The cache for models that cannot rewind: recurrent and hybrid ones, whose memory is a state and not a list of tokens.

Such a state can be copied and continued, but not cut. So whole states are kept, each for the text it has read: after
every stretch of text that was read in one go (a prompt, typically), and wherever another branch still stands. A branch
goes on from the longest kept state that is a beginning of its text; the least recently used states make room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence

from correction_graphs.backends.base import Batches, Branch, Logits, Run, SequenceMemory
from correction_graphs.errors import BackendError


class _State:
    """A sequence of the engine and the text it has read."""

    __slots__ = ("keep", "logits", "sequence", "tokens", "used")

    def __init__(self, sequence: int, tokens: list[int], logits: Logits, *, keep: bool, used: int) -> None:
        self.sequence = sequence
        self.tokens = tokens
        self.logits = logits
        self.keep = keep  # as a point to return to; else the state moves on with the text
        self.used = used


class SnapshotCache:
    """Plans what to compute for models whose sequences can only be copied whole.

    Args:
        memory: The engine, with all sequences empty.
    """

    def __init__(self, memory: SequenceMemory) -> None:
        self._memory = memory
        self._states: list[_State] = []
        self._free = list(range(memory.n_sequences - 1, -1, -1))
        self._clock = 0

    @property
    def cells_in_use(self) -> int:
        """Tokens that the kept states have read."""
        return sum(len(state.tokens) for state in self._states)

    def known(self, branch: Branch) -> int:
        """How many of the branch's first tokens a kept state has read."""
        base = self._longest_beginning(branch.tokens)
        return len(base.tokens) if base else 0

    def forward(self, branches: Sequence[Branch], live: Iterable[Branch]) -> Batches:
        """Set `logits` on each branch: one batch, or several when there are not sequences enough for all."""
        self._clock += 1
        waiting = {tuple(branch.tokens): branch for branch in branches}
        while waiting:
            for state in (yield from self._step([list(text) for text in waiting], live)):
                waiting.pop(tuple(state.tokens)).logits = state.logits

    def _step(
        self, texts: list[list[int]], live: Iterable[Branch]
    ) -> Generator[Sequence[Run], list[Logits], list[_State]]:
        """Read the first texts, as many as there is room for, in one batch; return the states that have read them."""
        bases: list[_State] = []  # what this step starts from stays until it is computed
        done: list[_State] = []
        plans: list[tuple[int, list[int], int]] = []
        begun = Counter(self._longest_beginning(text) for text in texts)
        for text in texts:
            base = self._longest_beginning(text)
            begun[base] -= 1
            length = len(base.tokens) if base else 0
            if base:
                base.used = self._clock
                bases.append(base)
                if length == len(text):
                    done.append(base)
                    continue
            stays = base is None or base.keep or begun[base] > 0 or _stands_at(base.tokens, live)
            planned = sum(len(plan[1]) for plan in plans)
            sequence = self._sequence_for(text, base, bases, stays=stays, planned=planned)
            if sequence is None:
                break
            plans.append((sequence, text, length))
        if plans:
            runs = [
                Run(text[length:], length, (sequence,), (len(text) - length - 1,)) for sequence, text, length in plans
            ]
            rows = yield runs
            for (sequence, text, length), row in zip(plans, rows, strict=True):
                done.append(_State(sequence, text, row, keep=len(text) - length > 1, used=self._clock))
            self._states += done[-len(plans) :]
        elif not done:
            raise BackendError(
                f"a text of {len(texts[0])} tokens does not fit into the memory of {self._memory.n_cells} cells and "
                f"{self._memory.n_sequences} sequences; load the model with a larger `n_ctx`"
            )
        return done

    def _sequence_for(
        self, text: list[int], base: _State | None, needed: list[_State], *, stays: bool, planned: int
    ) -> int | None:
        """Return a sequence that has read `base` and nothing else, for `text` to go on in; None without room."""
        if stays and self._make_room(planned + len(text), needed, sequences=1):
            sequence = self._free.pop()
            if base:
                self._memory.copy(base.sequence, sequence, len(base.tokens))
            return sequence
        # The state itself moves on: nobody will want it again, or there is no room for it and its continuation.
        if base and self._make_room(planned + len(text) - len(base.tokens), needed, sequences=0):
            self._states.remove(base)
            return base.sequence
        return None

    def _longest_beginning(self, text: list[int]) -> _State | None:
        """Return the state that has read most of the text and nothing else."""
        matching = (state for state in self._states if _begins(text, state.tokens))
        return max(matching, key=lambda state: len(state.tokens), default=None)

    def _make_room(self, cells: int, needed: list[_State], *, sequences: int) -> bool:
        """Drop the least recently used states until there is room; False if there cannot be."""
        # Counted as if no two states shared a cell: some engines share them, none needs more.
        while len(self._free) < sequences or self.cells_in_use + cells > self._memory.n_cells:
            droppable = [state for state in self._states if state not in needed]
            if not droppable:
                return False
            oldest = min(droppable, key=lambda state: state.used)
            self._states.remove(oldest)
            self._memory.truncate(oldest.sequence, 0)
            self._free.append(oldest.sequence)
        return True


def _begins(text: list[int], beginning: list[int]) -> bool:
    length = len(beginning)  # most differ in their last token, and a look at that is far quicker than a comparison
    return length <= len(text) and text[length - 1] == beginning[-1] and text[:length] == beginning


def _stands_at(tokens: list[int], live: Iterable[Branch]) -> bool:
    """Tell whether a live branch has exactly these tokens and may want to go on from them."""
    return any(branch.tokens == tokens for branch in live)
