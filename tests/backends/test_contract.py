"""Every backend keeps the contract, and the contract finds faults that were planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf_models
import llama_cpp.llama_cpp as lib
import pytest
from contract import DISTINCT, Subject, check, fresh_evaluations, shared, toy

from correction_graphs.backends import cached
from correction_graphs.backends.base import Branch
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.backends.prefix_tree import Node, PrefixTree
from correction_graphs.backends.snapshots import SnapshotCache
from correction_graphs.errors import BackendError, ContextLengthError
from correction_graphs.testing import ToyBackend, ToyMemory

ENOUGH = 5_000  # random operations for each backend

operations: dict[str, int] = {}


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("toy, roomy", toy(roomy=True, n_sequences=256, n_cells=4096)),
        ("toy, tiny", toy(n_ctx=14, n_sequences=3, n_cells=16)),
        ("toy, two sequences", toy(n_ctx=20, n_sequences=2, n_cells=60)),
        ("toy without rewinding, roomy", toy(roomy=True, rewinds=False, n_sequences=256, n_cells=20_000)),
        ("toy without rewinding, tiny", toy(rewinds=False, n_ctx=14, n_sequences=3, n_cells=30)),
        ("toy without rewinding, one sequence", toy(rewinds=False, n_ctx=14, n_sequences=1, n_cells=14)),
    ],
)
def test_toy_backend(name: str, subject: Subject) -> None:
    check(subject, examples=130)
    operations[name] = subject.operations


@pytest.mark.gguf
def test_transformer(llama_path: Path) -> None:
    with llama_subject(llama_path, roomy=True, n_ctx=2048, n_sequences=256) as subject:
        check(subject, examples=130)
        operations["llama, roomy"] = subject.operations


@pytest.mark.gguf
def test_transformer_with_little_room(llama_path: Path) -> None:
    # Prompts longer than a batch, hardly any sequences, and a memory that is full after a few branches.
    with llama_subject(llama_path, n_ctx=24, n_sequences=3, n_batch=4, n_cells=40, kept_logits=2) as subject:
        check(subject, examples=130)
        operations["llama, tiny"] = subject.operations


@pytest.mark.gguf
@pytest.mark.parametrize(
    ("n_ctx", "rewinds"), [(33, False), (gguf_models.WINDOW, False), (gguf_models.WINDOW - 1, True)]
)
def test_sliding_window(sliding_path: Path, n_ctx: int, rewinds: bool) -> None:
    # llama.cpp may overwrite what a window has left behind, so only texts shorter than the window can be cut.
    with llama_subject(sliding_path, n_ctx=n_ctx, n_sequences=3, n_batch=26) as subject:
        assert subject.start().can_rewind == rewinds
        check(subject, examples=60)
        operations[f"window, {n_ctx}"] = subject.operations


@pytest.mark.gguf
@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
def test_models_that_cannot_rewind(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(f"{kind}_path")
    with llama_subject(path, n_ctx=64, n_sequences=8, n_batch=16) as subject:
        assert not subject.start().can_rewind
        check(subject, examples=60)
        operations[kind] = subject.operations


@pytest.mark.gguf
def test_quantized_model(smollm2_path: Path) -> None:
    with llama_subject(smollm2_path, exact=False, n_ctx=64, n_sequences=8) as subject:
        check(subject, examples=3, steps=15)
        operations["smollm2"] = subject.operations


def test_enough_was_done(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted after the tests above."""
    if len(operations) < 14:
        pytest.skip("not all of the tests above ran and passed")
    with capsys.disabled():
        print("\nrandom operations:", ", ".join(f"{name}: {count:,}" for name, count in operations.items()))  # noqa: T201
    for name, count in operations.items():
        assert count >= ENOUGH or not name.startswith(("toy", "llama")), name


@contextmanager
def llama_subject(
    path: Path, *, exact: bool = True, roomy: bool = False, n_cells: int | None = None, **arguments: Any
) -> Iterator[Subject]:
    """A GGUF model as the backend under test, and again for the truth."""
    truth = LlamaCppBackend(path, n_ctx=arguments["n_ctx"], n_sequences=2, n_threads=1, exact=exact)
    backend = LlamaCppBackend(path, n_threads=1, exact=exact, **arguments)
    with truth, backend:
        if n_cells is not None:  # llama.cpp itself makes no memory of less than 256
            backend._memory.n_cells = n_cells
        yield Subject(
            start=shared(backend),
            alone=fresh_evaluations(truth),
            # Found: up to 1e-5 in F32, and up to 6e-4 with the rounding of llama.cpp's own defaults.
            tolerance=5e-5 if exact else 0.05,
            roomy=roomy,
            alphabet=range(40, 40 + DISTINCT),
            held=sequences_are_right,
        )
    with pytest.raises(BackendError, match="closed"):
        backend.open([1])


def sequences_are_right(backend: LlamaCppBackend) -> None:
    """What llama.cpp says about its sequences is what the tree believes."""
    if not isinstance(backend._cache, PrefixTree):
        return
    tree, memory = backend._cache, lib.llama_get_memory(backend._memory.context)
    believed = dict.fromkeys(tree._free, 0) | {leaf.sequence: leaf.end for leaf in tree._root.leaves() if leaf.parent}
    really = {
        sequence: lib.llama_memory_seq_pos_max(memory, sequence) + 1 for sequence in range(backend._memory.n_sequences)
    }
    assert really == believed


# Planted faults. Each stands for a slip that is easy to make, and each must be found.


class TwinIsTheSame(ToyBackend):
    def fork(self, branch: Branch) -> Branch:
        return branch


class TwinSharesItsTokens(ToyBackend):
    def fork(self, branch: Branch) -> Branch:
        twin = super().fork(branch)
        twin.tokens = branch.tokens
        return twin


class RewindKeepsItsPlace(ToyBackend):
    def rewind(self, branch: Branch, length: int) -> None:
        cached = branch.cached
        super().rewind(branch, length)
        branch.cached = cached


class RewindKeepsLogits(ToyBackend):
    def rewind(self, branch: Branch, length: int) -> None:
        logits = branch.logits
        super().rewind(branch, length)
        branch.logits = logits


class ExtendKeepsLogits(ToyBackend):
    def extend(self, branch: Branch, tokens: Any) -> None:
        logits = branch.logits
        super().extend(branch, tokens)
        branch.logits = logits


class ExtendForgetsItsLimit(ToyBackend):
    def extend(self, branch: Branch, tokens: Any) -> None:
        branch.tokens.extend(tokens)
        self._forget_logits(branch)


class ReleaseLeaks(ToyBackend):
    def release(self, branch: Branch) -> None:
        live = dict(self._live)
        super().release(branch)
        self._live = live


class FailureIsBuiltOn(ToyBackend):
    def forward(self, branches: Any) -> Any:
        cache = self._cache
        try:
            return super().forward(branches)
        finally:
            self._cache = self._cache or cache


class NotesWhatWasChanged(ToyBackend):
    def _note(self, branch: Branch, computed: Branch) -> None:
        branch.logits = computed.logits
        self._remember_logits(branch)


class FindsWhereItWasNot(ToyBackend):
    def _note(self, branch: Branch, computed: Branch) -> None:
        super()._note(branch, computed)
        branch.place, branch.cached = computed.place, computed.cached


class ForgetsEverything(ToyBackend):
    def forward(self, branches: Any) -> Any:
        self._cache = None
        return super().forward(branches)


class NeverForks(ToyBackend):
    def fork(self, branch: Branch) -> Branch:
        twin = super().fork(branch)
        self._forget_logits(twin)
        return twin


def with_memory(**methods: Callable[..., Any]) -> type[ToyBackend]:
    """A backend whose engine has other methods."""
    memory = type("FaultyMemory", (ToyMemory,), methods)

    def make(self: ToyBackend, **arguments: Any) -> None:
        ToyBackend.__init__(self, **arguments)
        self.memory.__class__ = memory

    return type(next(iter(methods.values())).__name__, (ToyBackend,), {"__init__": make})


def copies_one_short(memory: ToyMemory, source: int, target: int, length: int) -> None:
    ToyMemory.copy(memory, source, target, length)
    ToyMemory.truncate(memory, target, length - 1)


def copies_too_much(memory: ToyMemory, source: int, target: int, length: int) -> None:
    ToyMemory.copy(memory, source, target, sum(source in sequences for _, _, sequences in memory._cells))


def cuts_its_siblings(memory: ToyMemory, sequence: int, length: int) -> None:
    memory._cells = [cell for cell in memory._cells if sequence not in cell[2] or cell[0] < length]


def cuts_one_short(memory: ToyMemory, sequence: int, length: int) -> None:
    ToyMemory.truncate(memory, sequence, length + 1)


def cuts_nothing(memory: ToyMemory, sequence: int, length: int) -> None:
    pass


def swaps_its_answers(memory: ToyMemory, runs: Any) -> Any:
    return ToyMemory.compute(memory, runs)[::-1]


def clears_nothing(memory: ToyMemory) -> None:
    pass


ROOMY = {"roomy": True, "n_sequences": 256, "n_cells": 4096}
TINY = {"n_ctx": 14, "n_sequences": 3, "n_cells": 16}
STATES = {"rewinds": False, "n_ctx": 14, "n_sequences": 3, "n_cells": 30}


@pytest.mark.parametrize(
    ("faulty", "arguments"),
    [
        (TwinIsTheSame, ROOMY),
        (TwinIsTheSame, STATES),
        (TwinSharesItsTokens, ROOMY),
        (RewindKeepsItsPlace, ROOMY),
        (RewindKeepsLogits, ROOMY),
        (RewindKeepsLogits, STATES),
        (ExtendKeepsLogits, ROOMY),
        (ExtendForgetsItsLimit, TINY),
        (ReleaseLeaks, ROOMY),
        (FailureIsBuiltOn, ROOMY),
        (FailureIsBuiltOn, STATES),
        (NotesWhatWasChanged, ROOMY),
        (NotesWhatWasChanged, STATES),
        (FindsWhereItWasNot, ROOMY),
        (ForgetsEverything, ROOMY),
        (NeverForks, ROOMY),
        (with_memory(copy=copies_one_short), ROOMY),
        (with_memory(copy=copies_one_short), STATES),
        (with_memory(copy=copies_too_much), ROOMY),
        (with_memory(truncate=cuts_its_siblings), TINY),
        (with_memory(truncate=cuts_its_siblings), STATES),
        (with_memory(truncate=cuts_one_short), TINY),
        (with_memory(truncate=cuts_nothing), TINY),
        (with_memory(truncate=cuts_nothing), STATES),
        (with_memory(compute=swaps_its_answers), ROOMY),
        (with_memory(compute=swaps_its_answers), STATES),
        (with_memory(clear=clears_nothing), ROOMY),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "roomy" if "roomy" in value else "tiny",
)
def test_faulty_backend_is_found(faulty: type[ToyBackend], arguments: dict[str, Any]) -> None:
    assert_found(toy(faulty, **arguments))


class SplitLeavesOldPlacesAlive(PrefixTree):
    def _replace(self, node: Node, by: Node) -> None:
        super()._replace(node, by)
        node.alive = True


class CutLeavesOldPlacesAlive(PrefixTree):
    def _cut(self, leaf: Node, at: int) -> None:
        super()._cut(leaf, at)
        leaf.alive = True


class AbsorbedPlacesStayAlive(PrefixTree):
    def _absorb(self, node: Node) -> None:
        (child,) = node.children.values()
        super()._absorb(node)
        child.alive = True


class AbsorbsTheTokensOnly(PrefixTree):
    def _absorb(self, node: Node) -> None:
        computed = node.computed
        super()._absorb(node)
        node.computed = computed


class DropsWhatIsNeeded(PrefixTree):
    def drop_one(self, needed: Any, live: Any, *, cells: int) -> bool:
        return super().drop_one([], live, cells=cells)


class DropLosesTheSequence(PrefixTree):
    def drop_one(self, needed: Any, live: Any, *, cells: int) -> bool:
        free = list(self._free)
        dropped = super().drop_one(needed, live, cells=cells)
        self._free = free
        return dropped


class DropLosesTheCells(PrefixTree):
    def _cut(self, leaf: Node, at: int) -> None:
        cells = self._cells
        super()._cut(leaf, at)
        self._cells = cells


class ScratchLeaks(PrefixTree):
    def drop_scratch(self, sequence: int) -> None:
        self._free.append(sequence)


class SharesWhatIsNotComputed(PrefixTree):
    def _share(self, node: Node, length: int, target: int) -> None:
        if length:
            source = next(leaf.sequence for leaf in node.leaves())
            self.memory.copy(source, target, length)


class StartsOver(SnapshotCache):
    def _longest_beginning(self, text: list[int]) -> Any:
        return max((state for state in self._states), key=lambda state: len(state.tokens), default=None)


class DropsItsBase(SnapshotCache):
    def _make_room(self, cells: int, needed: Any, *, sequences: int) -> bool:
        return super()._make_room(cells, [], sequences=sequences)


class RoomWithoutLimit(SnapshotCache):
    def _make_room(self, cells: int, needed: Any, *, sequences: int) -> bool:
        return super()._make_room(0, needed, sequences=sequences)


@pytest.mark.parametrize(
    ("faulty", "arguments"),
    [
        (SplitLeavesOldPlacesAlive, ROOMY),
        (CutLeavesOldPlacesAlive, TINY),
        (AbsorbedPlacesStayAlive, TINY),
        (AbsorbsTheTokensOnly, TINY),
        (DropsWhatIsNeeded, TINY),
        (DropLosesTheSequence, TINY),
        (DropLosesTheCells, TINY),
        (ScratchLeaks, ROOMY),
        (SharesWhatIsNotComputed, ROOMY),
        (StartsOver, STATES),
        (DropsItsBase, STATES),
        (RoomWithoutLimit, STATES),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "roomy" if "roomy" in value else "tiny",
)
def test_faulty_cache_is_found(faulty: type, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, faulty.__base__.__name__, faulty)
    assert_found(toy(**arguments))


def assert_found(subject: Subject) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, BackendError, ContextLengthError, LookupError)):
        check(subject, examples=100, search_only=True)
