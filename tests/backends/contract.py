"""What every backend promises, as a machine that does random things to branches and checks each answer.

The truth is a fresh evaluation: what a model that has seen nothing but a branch's tokens says after them. A `Subject` is a
backend under test together with that truth; `BranchMachine` opens, forks, extends, rewinds, releases and computes branches
of it, lets the engine fail in between, and compares.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from correction_graphs.backends.base import Branch, Logits
from correction_graphs.backends.cached import CachedBackend
from correction_graphs.errors import BackendError, ContextLengthError, SettingsError
from correction_graphs.testing import ToyBackend

DISTINCT = 3  # so few different tokens that branches meet often

short_texts = st.lists(st.integers(0, DISTINCT - 1), min_size=1, max_size=4)
texts = st.lists(st.integers(0, DISTINCT - 1), max_size=12)
which = st.integers(0, 63)  # a branch, counted modulo how many there are
changes = st.tuples(
    st.sampled_from(["open", "ask", "rewind", "extend", "release", "fork"]), which, st.integers(0, 12), short_texts
)


@dataclass
class Subject:
    """A backend under test.

    Attributes:
        start: Returns the backend with nothing in it.
        alone: What a model that has seen nothing else says after these tokens.
        tolerance: How far a probability may be from it; 0 for identical logits.
        roomy: Everything fits, so nothing may ever be computed twice.
        alphabet: The tokens that texts are made of.
        held: Tokens that the engine really holds, where it can tell.
        operations: Things done to it so far.
    """

    start: Callable[[], CachedBackend]
    alone: Callable[[tuple[int, ...]], Logits]
    tolerance: float = 0.0
    roomy: bool = False
    alphabet: Sequence[int] = tuple(range(DISTINCT))
    held: Callable[[CachedBackend], int | None] = lambda _: None
    operations: int = field(default=0, init=False)

    def agrees(self, row: Logits, tokens: Sequence[int]) -> bool:
        """Whether a row of logits is what the model says after these tokens."""
        truth = self.alone(tuple(tokens))
        if self.tolerance == 0:
            return np.array_equal(row, truth)
        return float(np.abs(probabilities(row) - probabilities(truth)).max()) <= self.tolerance


def toy(backend: Callable[..., ToyBackend] = ToyBackend, *, roomy: bool = False, **arguments: Any) -> Subject:
    """A `ToyBackend`, or a faulty one."""
    return Subject(
        start=functools.partial(backend, **arguments),
        alone=functools.cache(ToyBackend().memory.logits),
        roomy=roomy,
        held=lambda backend: backend.memory.used,
    )


def shared(backend: CachedBackend) -> Callable[[], CachedBackend]:
    """A `start` for a backend that is too slow to load again for each example."""

    def start() -> CachedBackend:
        empty(backend)
        return backend

    return start


def fresh_evaluations(backend: CachedBackend) -> Callable[[tuple[int, ...]], Logits]:
    """What a backend says about a text with nothing else in its memory."""

    @functools.cache
    def alone(tokens: tuple[int, ...]) -> Logits:
        empty(backend)
        branch = backend.open(tokens)
        row = backend.forward([branch])[0]
        backend.release(branch)
        return row

    return alone


def empty(backend: CachedBackend) -> None:
    """Release everything, and forget all that is cached."""
    for branch in list(backend._live.values()):
        backend.release(branch)
    backend._cache = None


def probabilities(row: Logits) -> Logits:
    exp = np.exp(row - row.max())
    return exp / exp.sum()


class BranchMachine(RuleBasedStateMachine):
    """Whatever is done to its relatives: every branch is as if it were alone, and costs no more than it must."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.backend = subject.start()
        self.texts: dict[Branch, list[int]] = {}  # what each live branch should hold
        self.computed: set[tuple[int, ...]] = set()  # every beginning that was computed: the perfect prefix tree
        self.answered: dict[Branch, None] = {}  # whose logits are known, oldest first

    # What can be done

    @initialize(tokens=texts)
    def begin(self, tokens: list[int]) -> None:
        self.open(tokens)

    @rule(tokens=texts)
    def open(self, tokens: list[int]) -> None:
        self.open_branch(self.spelled(tokens))

    @rule(i=which, keep=st.integers(0, 12), tokens=short_texts)
    def open_related(self, i: int, keep: int, tokens: list[int]) -> None:
        """A separate branch that begins like another."""
        if (branch := self.branch(i)) is not None:
            self.open_branch(self.texts[branch][:keep] + self.spelled(tokens))

    @rule(i=which)
    def fork(self, i: int) -> None:
        if (branch := self.branch(i)) is not None:
            self.fork_branch(branch)

    @rule(i=which, tokens=short_texts)
    def extend(self, i: int, tokens: list[int]) -> None:
        if (branch := self.branch(i)) is not None:
            self.extend_branch(branch, self.spelled(tokens))

    @rule(i=which, keep=st.integers(0, 12))
    def rewind(self, i: int, keep: int) -> None:
        if (branch := self.branch(i)) is None:
            return
        self.count()
        keep = min(keep, len(branch))
        self.backend.rewind(branch, keep)
        if keep < len(self.texts[branch]):
            del self.texts[branch][keep:]
            self.answered.pop(branch, None)

    @rule(i=which, by=st.integers(1, 3), tokens=st.lists(st.integers(0, DISTINCT - 1), max_size=2))
    def take_back(self, i: int, by: int, tokens: list[int]) -> None:
        """Rewind a little and go on differently, the commonest thing a search does."""
        if (branch := self.branch(i)) is not None:
            self.rewind(i, max(0, len(branch) - by))
            if tokens:
                self.extend_branch(branch, self.spelled(tokens))
            self.forward([branch])

    @rule(i=which)
    def release(self, i: int) -> None:
        if (branch := self.branch(i)) is not None:
            self.release_branch(branch)

    @rule(i=which)
    def forward_one(self, i: int) -> None:
        self.forward([self.branch(i)])

    @rule(chosen=st.lists(which, min_size=2, max_size=6))
    def forward_some(self, chosen: list[int]) -> None:
        self.forward([self.branch(i) for i in chosen])

    @rule(i=which, tokens=st.lists(st.integers(0, DISTINCT - 1), min_size=2, max_size=4))
    def fork_and_diverge(self, i: int, tokens: list[int]) -> None:
        """Forks that go on with a token each, computed in one batch."""
        if (branch := self.branch(i)) is not None:
            forks = [self.fork_branch(branch) for _ in tokens]
            for fork, token in zip(forks, tokens, strict=True):
                self.extend_branch(fork, self.spelled([token]))
            self.forward(forks)

    @rule(chosen=st.lists(which, min_size=1, max_size=4), before=st.booleans(), call=st.integers(0, 1))
    def fail(self, chosen: list[int], before: bool, call: int) -> None:
        """The engine fails, or somebody presses Ctrl-C, in the middle of a computation."""
        memory = self.backend._memory
        real, calls = memory.compute, 0

        def compute(runs):
            nonlocal calls
            calls += 1
            if calls <= call:
                return real(runs)
            if not before:
                real(runs)
            raise KeyboardInterrupt

        memory.compute = compute
        try:
            self.forward([self.branch(i) for i in chosen])
        except KeyboardInterrupt:
            self.computed.clear()
        finally:
            del memory.compute

    @rule(chosen=st.lists(which, min_size=1, max_size=4), changes=st.lists(changes, min_size=1, max_size=4))
    def change_meanwhile(self, chosen: list[int], changes: list[tuple[str, int, int, list[int]]]) -> None:
        """While the engine computes, others go on with their branches, and with those that are computed."""
        memory = self.backend._memory
        real, left = memory.compute, list(changes)

        def compute(runs):
            while left:
                what, i, keep, tokens = left.pop(0)
                if what == "open":
                    self.open_branch(self.spelled(tokens))
                elif what == "ask" and (branch := self.branch(i)) is not None:
                    assert 0 <= self.backend.cached_tokens(branch) <= len(branch)
                elif what == "rewind":
                    self.rewind(i, keep)
                elif what == "extend":
                    self.extend(i, tokens)
                elif what == "release":
                    self.release(i)
                elif what == "fork":
                    self.fork(i)
            return real(runs)

        memory.compute = compute
        try:
            self.forward([self.branch(i) for i in chosen])
        finally:
            del memory.compute

    # What must hold

    @invariant()
    def texts_are_right(self) -> None:
        assert self.backend.live_branches == len(self.texts)
        for branch, tokens in self.texts.items():
            assert branch.tokens == tokens

    @invariant()
    def memory_is_right(self) -> None:
        cells = self.backend.cells_in_use
        assert 0 <= cells <= self.backend._memory.n_cells
        if self.backend._cache is not None:  # else what a failure left behind is cleared at the next computation
            held = self.subject.held(self.backend)
            if self.backend.can_rewind:
                assert held in (None, cells)
                if self.subject.roomy:
                    assert cells == len(self.computed)
            else:  # cells that states share are counted for each
                assert held is None or held <= cells

    def forward(self, branches: list[Branch | None]) -> None:
        chosen = [branch for branch in branches if branch is not None]
        self.count()
        if not all(self.texts[branch] for branch in chosen):
            with pytest.raises(SettingsError, match="empty branch"):
                self.backend.forward(chosen)
            return
        before = self.backend.forwarded_tokens
        asked = {branch: list(self.texts[branch]) for branch in chosen}
        waiting: dict[tuple[int, ...], list[Branch]] = {}
        for branch in dict.fromkeys(chosen):
            if branch not in self.answered:
                waiting.setdefault(tuple(self.texts[branch]), []).append(branch)
        rows = self.backend.forward(chosen)
        cost = self.backend.forwarded_tokens - before
        assert rows.shape == (len(chosen), self.backend.n_vocab)
        assert rows.dtype == np.float32
        for branch, row in zip(chosen, rows, strict=True):
            assert self.subject.agrees(row, asked[branch])
        if self.subject.roomy and self.backend.can_rewind:
            assert cost == self.least_cost(set(waiting))
        else:
            assert cost <= sum(map(len, waiting))
        for alike in waiting.values():
            for branch in alike:
                if self.texts.get(branch) == asked[branch]:  # else it was changed while it was computed
                    self.remember(branch)

    def least_cost(self, distinct: set[tuple[int, ...]]) -> int:
        """Tokens nobody has computed before, and the last one again of a text whose logits were not kept."""
        again = len(distinct & self.computed)
        known = len(self.computed)
        self.computed.update(text[:length] for text in distinct for length in range(1, len(text) + 1))
        return len(self.computed) - known + again

    def teardown(self) -> None:
        for branch in list(self.texts):
            self.release_branch(branch)
            with pytest.raises(BackendError):
                self.backend.fork(branch)
        assert self.backend.live_branches == 0
        self.memory_is_right()

    # Small parts

    def branch(self, i: int) -> Branch | None:
        return list(self.texts)[i % len(self.texts)] if self.texts else None

    def spelled(self, tokens: list[int]) -> list[int]:
        return [self.subject.alphabet[token] for token in tokens]

    def open_branch(self, tokens: list[int]) -> None:
        self.count()
        tokens = tokens[: self.backend.n_ctx]
        branch = self.backend.open(tokens)
        assert branch not in self.texts
        self.texts[branch] = tokens

    def fork_branch(self, branch: Branch) -> Branch:
        self.count()
        twin = self.backend.fork(branch)
        assert twin not in self.texts
        self.texts[twin] = list(self.texts[branch])
        if branch in self.answered:
            self.remember(twin)
        return twin

    def extend_branch(self, branch: Branch, tokens: list[int]) -> None:
        self.count()
        if len(branch) + len(tokens) > self.backend.n_ctx:
            with pytest.raises(ContextLengthError):
                self.backend.extend(branch, tokens)
        else:
            self.backend.extend(branch, tokens)
            self.texts[branch] += tokens
            self.answered.pop(branch, None)

    def release_branch(self, branch: Branch) -> None:
        self.count()
        self.backend.release(branch)
        del self.texts[branch]
        self.answered.pop(branch, None)

    def remember(self, branch: Branch) -> None:
        self.answered.pop(branch, None)
        self.answered[branch] = None
        while len(self.answered) > self.backend._kept_logits:
            self.answered.pop(next(iter(self.answered)))

    def count(self) -> None:
        self.subject.operations += 1


def check(subject: Subject, *, examples: int, steps: int = 50, search_only: bool = False) -> None:
    """Run the machine; `search_only` stops at the first failure as it is, which is all that a planted fault needs."""
    run_state_machine_as_test(
        lambda: BranchMachine(subject),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            **({"phases": [Phase.generate], "database": None, "derandomize": True} if search_only else {}),
        ),
    )
