"""The proof under load, small: it holds for ten seconds, and it fails where a promise is broken."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableLambda

pytestmark = [pytest.mark.gguf, pytest.mark.slow, pytest.mark.timeout(1800)]  # a busy machine may be very slow
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import soak

    monkeypatch.setattr(soak, "SETTLE", 0.2)
    return soak


def broken_promises(soak, make, *, patience=600.0):
    under_load = soak.Soak(soak.fallible_path(), seed=1, patience=patience, make=make)
    found = soak.run(under_load, 1, None)
    if found["promises"]["no request hangs"]:
        under_load.close()
    return {promise for promise, kept in found["promises"].items() if not kept}, found


def test_ten_seconds_of_every_fault_break_no_promise(tmp_path):
    command = [sys.executable, BENCHMARKS / "soak.py", "--minutes", "0.17", "--seed", "1"]
    command += ["--patience", "600", "--json", tmp_path / "soak.json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.splitlines()[-1]
    assert line == (tmp_path / "soak.json").read_text().strip()
    found = json.loads(line)
    assert found["kept"]
    assert all(found["promises"].values())
    assert found["outcomes"]["answered"] > 0
    assert found["plain_answers_compared"] > 0
    assert found["interrupts"]["exit_status"] == 130
    assert found["interrupts"]["sent"] > 4
    assert {fault for _, fault, *_ in found["ended"]} - {"none"}, "there are faults"


def test_a_branch_that_is_kept_is_found(soak):
    kept = []

    def leaky(backend, kind, fault, moments, *, waits):
        kept.append(backend.open([9]))
        return soak.build(backend, kind, fault, moments, waits=waits)

    broken, found = broken_promises(soak, leaky)

    assert broken == {"branches are given back"}
    assert found["left"]["branches"] == len(kept)


def test_an_untyped_error_is_found_and_told(soak):
    def fails(_):
        raise KeyError("planted")

    def untyped(backend, kind, fault, moments, *, waits):
        graph = soak.build(backend, kind, fault, moments, waits=waits)
        return RunnableLambda(fails) if kind == "plain" else graph

    broken, found = broken_promises(soak, untyped)

    assert broken == {"no error is untyped"}
    assert "planted" in found["told"][0]


def test_an_answer_that_changes_is_found(soak, monkeypatch):
    class Forgetful(soak.Soak):
        def _sure(self):
            return {text: f"{answer} once" for text, answer in super()._sure().items()}

    monkeypatch.setattr(soak, "Soak", Forgetful)

    broken, _ = broken_promises(soak, soak.build)

    assert broken == {"answers stay as they were"}


def test_a_thread_that_stays_is_found(soak):
    done = threading.Event()

    def starts(backend, kind, fault, moments, *, waits):
        threading.Thread(target=done.wait, daemon=True).start()
        return soak.build(backend, kind, fault, moments, waits=waits)

    try:
        broken, _ = broken_promises(soak, starts)
    finally:
        done.set()

    assert broken == {"threads end"}


def test_a_request_that_hangs_is_found_and_its_stack_is_shown(soak, capfd):
    free = threading.Event()

    def waits_for_ever(_):
        free.wait()

    def hanging(backend, kind, fault, moments, *, waits):
        return RunnableLambda(waits_for_ever)

    try:
        broken, found = broken_promises(soak, hanging, patience=1)
    finally:
        free.set()

    assert "no request hangs" in broken
    assert found["hangs"] > 0
    assert "in waits_for_ever" in capfd.readouterr().err
