"""Every backend keeps the contract, and the contract finds faults that were planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import pytest
from contract import DISTINCT, Subject, check, fresh_evaluations, shared, toy

from correction_graphs.backends import cached
from correction_graphs.backends.base import Branch
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.backends.prefix_tree import Node, PrefixTree
from correction_graphs.backends.snapshots import SnapshotCache
from correction_graphs.errors import BackendError
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
    check(subject, examples=70)
    operations[name] = subject.operations


@pytest.mark.gguf
def test_transformer(llama_path: Path) -> None:
    with llama_subject(llama_path, roomy=True, n_ctx=2048, n_sequences=256) as subject:
        check(subject, examples=70)
        operations["llama, roomy"] = subject.operations


@pytest.mark.gguf
def test_transformer_with_little_room(llama_path: Path) -> None:
    # Prompts longer than a batch, hardly any sequences, and a memory that is full after a few branches.
    with llama_subject(llama_path, n_ctx=24, n_sequences=3, n_batch=4, n_cells=40, kept_logits=2) as subject:
        check(subject, examples=70)
        operations["llama, tiny"] = subject.operations


@pytest.mark.gguf
@pytest.mark.parametrize("kind", ["mamba", "hybrid"])
def test_models_that_cannot_rewind(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(f"{kind}_path")
    with llama_subject(path, n_ctx=64, n_sequences=8, n_batch=16) as subject:
        assert not subject.start().can_rewind
        check(subject, examples=30)
        operations[kind] = subject.operations


@pytest.mark.gguf
def test_quantized_model(smollm2_path: Path) -> None:
    with llama_subject(smollm2_path, exact=False, n_ctx=64, n_sequences=8) as subject:
        check(subject, examples=2, steps=12)
        operations["smollm2"] = subject.operations


def test_enough_was_done(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted after the tests above."""
    if len(operations) < 10:
        pytest.skip("not all of the tests above ran and passed")
    with capsys.disabled():
        print("\nrandom operations:", ", ".join(f"{name}: {count:,}" for name, count in operations.items()))
    for name, count in operations.items():
        assert count >= ENOUGH or not name.startswith(("toy", "llama")), name


@contextmanager
def llama_subject(
    path: Path, *, exact: bool = True, roomy: bool = False, n_cells: int | None = None, **arguments: Any
) -> Iterator[Subject]:
    """A GGUF model as the backend under test, and again for the truth."""
    threads = None if not exact else 1  # more make a tiny model slower
    with pytest.MonkeyPatch.context() as patch:
        if exact:
            patch.setattr(lib, "llama_context_default_params", exact_params)
        truth = LlamaCppBackend(path, n_ctx=arguments["n_ctx"], n_sequences=2, n_threads=threads)
        backend = LlamaCppBackend(path, n_threads=threads, **arguments)
    with truth, backend:
        if n_cells is not None:  # llama.cpp itself makes no memory of less than 256
            backend._memory.n_cells = n_cells
        yield Subject(
            start=shared(backend),
            alone=fresh_evaluations(truth),
            # Found: 5e-7 in F32, and up to 6e-4 on the same model with the rounding of llama.cpp's own defaults.
            tolerance=1e-5 if exact else 0.05,
            roomy=roomy,
            alphabet=range(40, 40 + DISTINCT),
            held=sequences_are_right,
        )
    with pytest.raises(BackendError, match="closed"):
        backend.open([1])


_default_params = lib.llama_context_default_params


def exact_params() -> Any:
    """llama.cpp's settings, but with keys and values in F32, and an attention that does not round either."""
    params = _default_params()
    params.type_k = params.type_v = lib.GGML_TYPE_F32
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params


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
