"""What fuzzing has found worth keeping (`fuzz/corpus`) is tried again: every property holds for every input."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from correction_graphs import Verdict, load_template

FUZZ = Path(__file__).parent.parent / "fuzz"
INPUTS = sorted((FUZZ / "corpus").glob("*/*"))
BIAS = FUZZ.parent / "templates" / "cac" / "bias.yaml"
TARGETS = ("command_line", "replies", "templates", "verdicts")


@pytest.fixture(autouse=True)
def _found_like_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))


def test_each_target_has_a_corpus_and_together_they_are_small() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)
    assert sum(path.stat().st_size for path in INPUTS) <= 200_000


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_of_the_corpus_holds_every_property(path: Path) -> None:
    importlib.import_module(path.parent.name).check(path.read_bytes())


@pytest.mark.parametrize(
    ("target", "seen", "wrong", "data"),
    [
        ("verdicts", "read_verdict", lambda *_, **__: Verdict(passed=True), b"\x00> Verdict: correct"),
        ("replies", "breaches", lambda *_, **__: [], b"\x02Tom has a dog.\x1eContext: Tom met Anna.\nQuestion: x"),
        ("templates", "parse_template", lambda _: load_template("harm"), BIAS.read_bytes()),
        ("command_line", "cli", type("Cli", (), {"main": lambda _: 3}), b"--version"),
    ],
)
def test_a_planted_fault_is_found(
    target: str, seen: str, wrong: object, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(target)
    module.check(data)
    monkeypatch.setattr(module, seen, wrong)

    with pytest.raises(module.require.__globals__["Finding"]):
        module.check(data)


def test_only_the_process_of_the_fuzzer_imports_it() -> None:
    for target in TARGETS:
        importlib.import_module(target)

    assert "atheris" not in sys.modules
