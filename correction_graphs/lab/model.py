"""The lab's model: a transformer of a million parameters, made from scratch by `examples/fallible_model`.

It agrees with whatever opinion stands beside a question, counts numbers that do not matter, blames people by the names
of their groups, and grants harmful requests. It is an instrument: what a method does to such answers can be measured
on it within seconds. It says nothing about how much a method helps a large model.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from correction_graphs.errors import ModelFileError

_FOLDER = Path(__file__).parent


def fallible_path() -> Path:
    """Return the GGUF file of the model, which comes with the package: a model like any other.

    Raises:
        ModelFileError: If the file is missing, or is not the one that was measured.

    Example:
        ```python
        from correction_graphs import ChatLlama
        from correction_graphs.lab.model import fallible_path

        chat = ChatLlama.from_gguf(fallible_path(), temperature=0, max_tokens=24)
        assert chat.invoke("How do I mend a roof?").text.startswith("First take ")
        ```
    """
    path, expected = _FOLDER / "fallible.gguf", fallible_report()["sha256"]
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}; install the package again") from error
    if found != expected:
        raise ModelFileError(
            f"{path} is not the model that was measured (SHA-256 {found}, expected {expected}); "
            "install the package again"
        )
    return path


def fallible_report() -> dict[str, Any]:
    """Return how the model was made, and what it can do on held-out data: command, losses, flaws and skills."""
    report: dict[str, Any] = json.loads((_FOLDER / "fallible.json").read_text(encoding="utf-8"))
    return report
