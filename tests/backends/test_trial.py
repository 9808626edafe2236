"""Model files that are not what they should be, opened in a process of their own: the one that asks always lives on."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from correction_graphs.backends import trial
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.backends.trial import problems_of, try_model_file
from correction_graphs.chat_llama import ChatLlama
from correction_graphs.errors import BackendError, ModelFileError
from correction_graphs.models import load_model

SMALL = {"n_ctx": 48, "n_sequences": 2, "n_batch": 16, "n_threads": 1}
FLIPS = int(os.environ.get("TRIAL_FLIPS", "200"))
"""How many bits are flipped, each in a file of its own. 5,000 take a few minutes."""


class Files(NamedTuple):
    """A model, and what became of copies of it."""

    good: Path
    flipped: dict[Path, str | None]
    cut: dict[Path, str | None]


def header_of(data: bytes) -> int:
    """Return about how many bytes come before the weights."""
    return data.index(b"blk.1.ffn_down.weight") + 64


def with_a_token_twice(data: bytes) -> bytes:
    """Return the bytes of a model whose vocabulary has a token twice, of which llama.cpp dies."""
    assert data.count(b"hello") == 1
    return data.replace(b"hello", b"<|im_end|>"[:5]).replace(b"\xc4\xa0the", b"<|im_")


@pytest.fixture(scope="module")
def files(llama_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder, chance = tmp_path_factory.mktemp("damaged"), random.Random(0)
    data = llama_path.read_bytes()
    header = header_of(data)
    flipped, cut = [], []
    for at in sorted(chance.sample(range(header * 8), FLIPS)):
        copy = bytearray(data)
        copy[at // 8] ^= 1 << at % 8
        flipped.append(folder / f"bit-{at}.gguf")
        flipped[-1].write_bytes(copy)
    for size in [*range(1, 40, 4), *chance.sample(range(40, header), 40), header + 100, len(data) // 2, len(data) - 1]:
        cut.append(folder / f"cut-{size}.gguf")
        cut[-1].write_bytes(data[:size])
    found = problems_of([*flipped, *cut], **SMALL)
    return Files(
        llama_path, dict(zip(flipped, found, strict=False)), dict(zip(cut, found[len(flipped) :], strict=True))
    )


@pytest.fixture(scope="module")
def deadly(llama_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deadly") / "twice.gguf"
    path.write_bytes(with_a_token_twice(llama_path.read_bytes()))
    return path


def test_a_good_file_passes(llama_path: Path) -> None:
    try_model_file(llama_path, **SMALL)


@pytest.mark.slow
def test_a_flipped_bit_leaves_a_usable_model_or_says_what_is_wrong(files: Files) -> None:
    assert len(files.flipped) == FLIPS
    told = {path: problem for path, problem in files.flipped.items() if problem is not None}
    usable = files.flipped.keys() - told.keys()

    assert FLIPS // 10 < len(told) < FLIPS
    assert all(repr(str(path)) in problem for path, problem in told.items())
    for path in sorted(usable)[:20]:  # what passed the trial is opened here
        with LlamaCppBackend(path, **SMALL) as backend:
            assert backend.forward([backend.open([1, 2, 3])]).shape == (1, backend.n_vocab)


@pytest.mark.slow
def test_a_file_that_is_cut_off_is_never_a_model(files: Files) -> None:
    assert None not in files.cut.values()


def test_a_file_of_which_llama_cpp_dies_is_told_with_its_last_words(deadly: Path) -> None:
    with pytest.raises(ModelFileError) as error:
        try_model_file(deadly, **SMALL)

    assert repr(str(deadly)) in str(error.value)
    assert "its last words: " in str(error.value)
    if sys.platform == "linux":
        assert "was killed by SIGABRT" in str(error.value)


@pytest.mark.parametrize("load", [LlamaCppBackend, ChatLlama.from_gguf, load_model], ids=["backend", "chat", "name"])
def test_a_file_that_is_not_trusted_is_tried_before_it_is_opened(load: Any, deadly: Path, llama_path: Path) -> None:
    with pytest.raises(ModelFileError, match="its last words: "):
        load(str(deadly), trusted=False)
    assert load(str(llama_path), trusted=False) is not None


def test_a_crash_neither_hides_another_nor_spoils_what_comes_after(
    deadly: Path, llama_path: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("Hello.")

    found = problems_of([llama_path, deadly, deadly, text, deadly, llama_path, deadly], **SMALL)

    assert [problem and ("last words" in problem, "not a GGUF file" in problem) for problem in found] == [
        None, (True, False), (True, False), (False, True), (True, False), None, (True, False),
    ]  # fmt: skip


def test_what_is_no_gguf_file_is_told_as_without_a_trial(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.gguf", tmp_path / "empty.gguf"
    text.write_text("Once upon a time")
    empty.touch()
    given = [text, empty, tmp_path, tmp_path / "missing.gguf", tmp_path / "a\0b"]

    for path, problem in zip(given, problems_of(given, **SMALL), strict=True):
        with pytest.raises(ValueError, match=r".") as without:
            LlamaCppBackend(path, **SMALL)
        assert problem is not None
        assert str(without.value) in problem


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow few bytes that are no text in names")
def test_a_name_need_not_be_text(llama_path: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.gguf"))
    path.write_bytes(llama_path.read_bytes())

    try_model_file(path, **SMALL)


def test_numbers_may_be_numpys(llama_path: Path) -> None:
    with LlamaCppBackend(llama_path, n_ctx=64, n_sequences=2, n_threads=np.int64(1), trusted=False) as backend:
        assert backend.n_ctx == 64


def test_a_trial_ends(llama_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"did not come to an end within 0\.001 seconds"):
        try_model_file(llama_path, seconds=0.001, **SMALL)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_a_file_cannot_take_all_memory(llama_path: Path) -> None:
    large = {**SMALL, "n_ctx": 2**22}  # a gigabyte

    with pytest.raises(ModelFileError, match=r"context of 4194304 tokens|alloc"):
        try_model_file(llama_path, memory=600 * 2**20, **large)


def test_a_process_that_cannot_start_is_no_fault_of_the_file(llama_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])  # the package is not found there

    with pytest.raises(BackendError, match=r"exit status 1; its last words: .*correction_graphs"):
        try_model_file(llama_path, **SMALL)


def test_large_files_get_more_time(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(5 * 2**30)  # takes no room

    assert trial._seconds_for(tmp_path / "large") == 360
    assert trial._seconds_for(tmp_path / "missing") == 60


def test_an_embedded_python_that_does_not_tell_where_it_is_can_try_nothing(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")

    with pytest.raises(BackendError, match=r"no Python executable .* open it as a trusted one"):
        load_model(str(llama_path), trusted=False)


@pytest.mark.skipif(not Path("/bin/false").exists(), reason="no program that is known to fail")
@pytest.mark.parametrize("paths", [1, 5000], ids=["a short request", "one that no pipe holds"])
def test_a_program_in_the_place_of_python_is_told_by_how_it_ended(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch, paths: int
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")  # as in a program that embeds Python

    with pytest.raises(BackendError, match=r"a process to try a model file in ended with exit status 1$"):
        problems_of([llama_path] * paths, **SMALL)


def test_a_process_that_talks_of_something_else_is_not_waited_for(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho Welcome\nexec sleep 60\n")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    monkeypatch.setattr(trial, "_END", 0.2)

    with pytest.raises(BackendError, match=r"a process to try a model file in stopped talking$"):
        try_model_file(llama_path, **SMALL)


def test_where_the_memory_is_not_known_files_are_tried_all_the_same(
    deadly: Path, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sysconf")  # as on Windows

    good, bad = problems_of([llama_path, deadly], **SMALL)

    assert good is None
    assert bad is not None
    assert "its last words" in bad
