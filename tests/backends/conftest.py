"""Tiny models, written once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf_models
import pytest

from correction_graphs.backends.llama_cpp import LlamaCppBackend


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer with random weights."""
    return gguf_models.write_llama(tmp_path_factory.mktemp("models") / "llama.gguf")


@pytest.fixture(scope="session")
def sliding_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer in which a layer sees the last few tokens only, with random weights."""
    return gguf_models.write_sliding(tmp_path_factory.mktemp("models") / "sliding.gguf")


@pytest.fixture(scope="session")
def mamba_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recurrent model with random weights."""
    return gguf_models.write_mamba(tmp_path_factory.mktemp("models") / "mamba.gguf")


@pytest.fixture(scope="session")
def hybrid_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a recurrent and an attention layer, and random weights."""
    return gguf_models.write_hybrid(tmp_path_factory.mktemp("models") / "hybrid.gguf")


@pytest.fixture
def llama(llama_path: Path) -> Iterator[LlamaCppBackend]:
    with LlamaCppBackend(llama_path, n_ctx=256, n_sequences=16, n_threads=1) as backend:
        yield backend
