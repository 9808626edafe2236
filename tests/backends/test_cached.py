"""What the contract does not show: limits of what is remembered, how little is computed, and that cost stays small."""

from __future__ import annotations

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from correction_graphs.backends.prefix_tree import PrefixTree
from correction_graphs.errors import BackendError, ContextLengthError, SettingsError
from correction_graphs.testing import ToyBackend


def cost(backend: ToyBackend, branches: Any) -> int:
    """Tokens computed to answer."""
    before = backend.forwarded_tokens
    backend.forward(branches)
    return backend.forwarded_tokens - before


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    backend = ToyBackend()
    branch = backend.open([1, 2, 3])
    backend.extend(backend.fork(branch), [4])
    backend.rewind(branch, 1)
    assert backend.forwarded_tokens == backend.forward_calls == backend.cells_in_use == 0
    assert cost(backend, [branch]) == 1


def test_many_branches_are_one_batch() -> None:
    backend = ToyBackend()
    root = backend.open(b"a common beginning")
    branches = [backend.fork(root) for _ in range(10)]
    for token, branch in enumerate(branches):
        backend.extend(branch, [token])
    assert cost(backend, branches) == len(root) + 10
    assert backend.forward_calls == 1


def test_a_branch_that_nobody_has_any_more_is_given_up() -> None:
    backend = ToyBackend()
    kept = backend.open([1, 2, 3])
    lost = [backend.fork(kept) for _ in range(5)]
    backend.forward([kept, *lost])
    assert backend.live_branches == 6
    del lost
    gc.collect()
    assert backend.live_branches == 1
    assert cost(backend, [kept]) == 0


def test_what_was_forgotten_is_computed_again() -> None:
    backend = ToyBackend()
    branch = backend.open([1, 2, 3])
    before = backend.forward([branch])
    assert cost(backend, [branch]) == 0
    backend.forget()
    assert (backend.cells_in_use, backend.cached_tokens(branch)) == (0, 0)
    assert cost(backend, [branch]) == 3
    assert np.array_equal(backend.forward([branch]), before)


def test_only_computing_waits_for_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ToyBackend()
    computing, go_on = threading.Event(), threading.Event()
    compute = backend.memory.compute

    def waits(runs: Any) -> Any:
        computing.set()
        assert go_on.wait(30)
        return compute(runs)

    monkeypatch.setattr(backend.memory, "compute", waits)
    branch, other = backend.open([1, 2, 3]), backend.open([1, 2, 4])
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(backend.forward, [branch, other])
        assert computing.wait(30)
        twin = backend.fork(branch)
        backend.rewind(branch, 1)
        backend.extend(branch, [5])
        backend.release(other)
        assert backend.cached_tokens(backend.open([1, 2, 3, 4])) == 3, "it is there once the other is done"
        assert not answer.done()
        go_on.set()
        rows = answer.result(30)
    assert np.array_equal(rows, [backend.memory.logits(text) for text in ([1, 2, 3], [1, 2, 4])])
    monkeypatch.undo()
    for changed in (branch, twin):
        assert np.array_equal(backend.forward([changed])[0], backend.memory.logits(changed.tokens))
    assert other.released


def test_twins_cost_what_one_costs() -> None:
    backend = ToyBackend(n_sequences=2)
    branch = backend.open([1, 2, 3])
    backend.forward([branch])
    again = [backend.open([1, 2, 3]) for _ in range(5)]
    assert cost(backend, again) == 1
    assert backend.forward_calls == 2


def test_more_branches_than_sequences() -> None:
    backend = ToyBackend(n_sequences=3)
    branches = [backend.open([token]) for token in range(10)]
    rows = backend.forward(branches)
    assert all(np.array_equal(row, backend.memory.logits([token])) for token, row in enumerate(rows))
    assert backend.forwarded_tokens == 10


def test_no_branches() -> None:
    backend = ToyBackend()
    assert backend.forward([]).shape == (0, backend.n_vocab)


@pytest.mark.parametrize("rewinds", [True, False])
def test_text_that_can_never_fit(rewinds: bool) -> None:
    backend = ToyBackend(n_ctx=20, n_cells=10, rewinds=rewinds)
    branch = backend.open([1] * 20)
    with pytest.raises(BackendError, match="larger `n_ctx`"):
        backend.forward([branch])
    backend.rewind(branch, 5)
    assert np.array_equal(backend.forward([branch])[0], backend.memory.logits([1] * 5))


def test_wrong_arguments() -> None:
    backend = ToyBackend(n_ctx=8)
    branch = backend.open([1, 2])
    with pytest.raises(ContextLengthError):
        backend.open([1] * 9)
    for token in (-1, backend.n_vocab):
        with pytest.raises(SettingsError, match=f"token {token}"):
            backend.open([token])
        with pytest.raises(SettingsError, match=f"token {token}"):
            backend.extend(branch, [1, token])
    for length in (-1, 3):
        with pytest.raises(SettingsError, match=f"to {length}"):
            backend.rewind(branch, length)
    with pytest.raises(BackendError, match="another backend's"):
        ToyBackend().fork(branch)
    assert branch.tokens == [1, 2]
    assert "2 tokens" in repr(branch)
    backend.release(branch)
    backend.release(branch)
    assert "released" in repr(branch)


def test_the_callers_tokens_are_copied() -> None:
    backend = ToyBackend()
    tokens = [1, 2]
    branch = backend.open(tokens)
    tokens.append(3)
    assert branch.tokens == [1, 2]


def test_logits_are_remembered_for_so_many_branches() -> None:
    backend = ToyBackend(n_sequences=200)
    branches = [backend.open([1, token]) for token in range(100)]
    backend.forward(branches)
    assert sum(branch.logits is not None for branch in branches) == backend._kept_logits == 64
    assert cost(backend, branches[-64:]) == 0
    assert cost(backend, branches[:3]) == 3  # one token each, for their logits


def test_a_branch_asked_for_twice_is_remembered_once() -> None:
    backend = ToyBackend()
    backend._kept_logits = 1
    one, twin = backend.open([1]), backend.open([1])
    assert cost(backend, [one, twin, one]) == 1
    assert (one.logits is None, twin.logits is None) == (True, False)


def test_failure_leaves_no_logits_that_nobody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ToyBackend(n_sequences=2)  # so that five branches take several computations
    branches = [backend.open([token]) for token in range(5)]
    compute, calls = backend.memory.compute, []

    def fails_the_second_time(runs: Any) -> Any:
        calls.append(runs)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(runs)

    monkeypatch.setattr(backend.memory, "compute", fails_the_second_time)
    with pytest.raises(KeyboardInterrupt):
        backend.forward(branches)
    assert not backend._with_logits
    assert all(branch.logits is None for branch in branches)


def test_least_recently_used_text_goes_first() -> None:
    backend = ToyBackend(n_ctx=40, n_cells=40)
    texts = [[token] * 10 for token in range(3)]
    for text in texts:
        branch = backend.open(text)
        backend.forward([branch])
        backend.release(branch)
    first = backend.open(texts[0])
    assert cost(backend, [first]) == 1
    backend.release(first)
    assert cost(backend, [backend.open([9] * 15)]) == 15
    assert cost(backend, [backend.open(texts[0])]) == 1
    assert cost(backend, [backend.open(texts[1])]) == 10


def test_what_released_branches_left_goes_before_what_live_ones_need() -> None:
    backend = ToyBackend(n_ctx=40, n_cells=40)
    live = backend.open([1] * 15)
    backend.forward([live])
    other = backend.open([2] * 15)
    backend.forward([other])
    backend.release(other)
    assert cost(backend, [backend.open([3] * 15)]) == 15
    backend.extend(live, [1])
    assert cost(backend, [live]) == 1


def test_two_texts_that_just_overflow_do_not_push_each_other_out_whole() -> None:
    backend = ToyBackend(n_ctx=100, n_cells=110)
    texts = [backend.open([token] * 50) for token in (1, 2)]
    backend.forward(texts)
    spent = 0
    for _ in range(20):
        for branch in texts:
            backend.extend(branch, [3])
            spent += cost(backend, [branch])
    assert spent < 40 * 25  # recomputing the other's whole text every time would be 40 * 50 and more


def test_tree_stays_small_along_a_long_text() -> None:
    """Each step leaves a side branch behind, as a search does; the path past them must not fall to pieces."""
    backend = ToyBackend(n_ctx=200, n_sequences=4)
    branch = backend.open([0])
    for _ in range(150):
        side = backend.fork(branch)
        backend.extend(branch, [1])
        backend.extend(side, [2])
        backend.forward([branch, side])
        backend.release(side)
    assert isinstance(backend._cache, PrefixTree)
    stack, nodes = [backend._cache._root], 0
    while stack:
        node = stack.pop()
        nodes += 1
        stack += node.children.values()
    assert nodes <= 2 * 4


def test_failure_leaves_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ToyBackend()
    branch = backend.open([1, 2, 3])
    backend.forward([branch])
    backend.extend(branch, [4])
    with monkeypatch.context() as patch:
        patch.setattr(backend.memory, "compute", lambda runs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            backend.forward([branch])
    assert backend.cells_in_use == 0
    assert cost(backend, [branch]) == 4


def test_context_manager_closes() -> None:
    with ToyBackend() as backend:
        branch = backend.open([1])
    assert branch.released
    with pytest.raises(BackendError, match="closed"):
        backend.forward([])


# Models that cannot rewind


def test_states_are_continued() -> None:
    backend = ToyBackend(rewinds=False)
    branch = backend.open([1, 2, 3])
    assert cost(backend, [branch]) == 3
    for _ in range(10):
        backend.extend(branch, [4])
        assert cost(backend, [branch]) == 1
    backend.rewind(branch, 3)
    backend.extend(branch, [5])
    assert cost(backend, [branch]) == 1  # from the state after the prompt
    backend.rewind(branch, 2)
    backend._forget_logits(branch)
    assert cost(backend, [branch]) == 2  # no state has read just this


def test_states_that_several_go_on_from_are_copied() -> None:
    backend = ToyBackend(rewinds=False)
    branch = backend.open([1, 2, 3])
    backend.forward([branch])
    for token in range(5):
        backend.extend(branch, [token])
        backend.forward([branch])
    forks = [backend.fork(branch) for _ in range(3)]
    backend.release(branch)
    for token, fork in enumerate(forks):
        backend.extend(fork, [token])
    assert cost(backend, forks) == 3


def test_known_tokens() -> None:
    for rewinds in (True, False):
        backend = ToyBackend(rewinds=rewinds)
        branch = backend.open([1, 2, 3])
        assert backend.cached_tokens(branch) == 0
        backend.forward([branch])
        assert backend.cached_tokens(branch) == 3
        backend.extend(branch, [4])
        assert backend.cached_tokens(branch) == 3
        assert backend.cached_tokens(backend.open([1, 2, 3])) == 2  # its last token is computed again


@pytest.mark.parametrize("rewinds", [True, False])
def test_random_texts_in_a_memory_that_is_always_full(rewinds: bool) -> None:
    rng = random.Random(1)
    backend = ToyBackend(n_ctx=60, n_sequences=5, n_cells=130, rewinds=rewinds)
    branches = [backend.open([rng.randrange(200) for _ in range(rng.randrange(1, 50))]) for _ in range(30)]
    for _ in range(5):
        for branch, row in zip(branches, backend.forward(branches), strict=True):
            assert np.array_equal(row, backend.memory.logits(branch.tokens))
            backend.extend(branch, [rng.randrange(200)])
    assert backend.cells_in_use <= 130
