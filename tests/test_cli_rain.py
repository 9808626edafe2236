"""`correction-graphs run rain`: what it prints, where to, and with which status it ends.

Most tests call `main` with a backend without a model; those of pipes, terminals and signals start a process with one.
"""

from __future__ import annotations

import json
import re
import signal
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from terminal import as_terminal, command, plain, shown_by, without_rich

from correction_graphs import __version__
from correction_graphs.chat_llama import ChatLlama
from correction_graphs.cli import main
from correction_graphs.rain.values import as_value_function
from correction_graphs.results import RainResult
from correction_graphs.testing import ToyBackend

RUN = ["run", "rain"]
SHORT = ["--max-tokens", "12", "--max-iterations", "3"]


@pytest.fixture
def toy(monkeypatch) -> Any:
    """Makes `--model` a toy and `--judge` a function; tells what was asked for."""

    class Toy:
        def __init__(self) -> None:
            self.loaded: list[tuple[str, dict[str, Any]]] = []
            self.judges: list[str] = []
            self.values: list[float | BaseException] = []
            self.backend: Any = ToyBackend(n_ctx=512, n_sequences=32)

        def load(self, spec: str, **settings: Any) -> Any:
            self.loaded.append((spec, settings))
            return ChatLlama(backend=self.backend)

        def judge(self, name: str) -> Any:
            self.judges.append(name)
            return as_value_function(self.value)

        def value(self, text: str) -> float:
            value = self.values.pop(0) if self.values else len(set(text)) / (len(text) + 1)
            if isinstance(value, BaseException):
                raise value
            return value

    toy = Toy()
    monkeypatch.setattr("correction_graphs.cli_rain.load_model", toy.load)
    monkeypatch.setattr("correction_graphs.cli_rain.as_value_function", toy.judge)
    return toy


def result_of(out: str) -> RainResult:
    return RainResult.model_validate(json.loads(out)["rain"])


# A search


def test_a_search_is_told_line_by_line(toy, capsys) -> None:
    toy.values = [-0.5, 0.25, 0.0]

    assert main([*RUN, "Who is she?", *SHORT, "--seed", "1"]) == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert re.match(r"\[\+0\.25, \d judged, \d rewinds\] ", out)
    assert "\n[final, length] " in out
    assert re.search(
        r"\n\[total\] value [+-]0\.\d\d; 12 tokens, [\d.]+ a second; \d+ iterations, \d+ judged, \d+ rewinds; "
        r"\d+ tokens computed, \d+ of them by the judge; \d+\.\d s\n$",
        out,
    )
    assert toy.loaded == [("smollm2", {})]
    assert toy.judges == ["harmless"]


def test_json_is_one_document_that_reads_back(toy, capsys) -> None:
    assert main([*RUN, "Wer ist sie – “?”", *SHORT, "--json", "--model", "my.gguf"]) == 0

    out, err = capsys.readouterr()
    document = json.loads(out)
    result = result_of(out)
    assert err == ""
    assert result.output_tokens == 12
    assert all(commit.searched for commit in result.commits)
    assert document == {
        "version": __version__,
        "question": "Wer ist sie – “?”",
        "model": "my.gguf",
        "answer": result.text,
        "rain": result.model_dump(mode="json"),
        "error": None,
    }


def test_the_same_seed_gives_the_same_answer(toy, capsys) -> None:
    texts = []
    for seed in ("3", "3", "4"):
        toy.values = [-0.9, -0.5, -0.4]  # the first segment, which no seed changes, is the worst
        assert main([*RUN, "Who?", *SHORT, "--seed", seed, "--json"]) == 0
        texts.append(result_of(capsys.readouterr().out).text)

    assert texts[0] == texts[1] != texts[2]


def test_options_reach_search_and_judge(toy, capsys) -> None:
    started = []
    toy.values = [-0.5] * 99
    toy.backend.chat_tokens = lambda messages: started.append(messages) or list(b"Hello")

    assert main([*RUN, "Who?", *SHORT, "--system", "Be brief.", "--judge", "positive", "--json"]) == 0

    result = result_of(capsys.readouterr().out)
    assert started[0] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert toy.judges == ["positive"]
    assert {commit.iterations for commit in result.commits} <= {2, 3}


def test_the_published_search_takes_its_own_constants(toy, capsys) -> None:
    assert main([*RUN, "Who?", "--paper", "--max-tokens", "7", "--max-iterations", "4", "--json"]) == 0

    result = result_of(capsys.readouterr().out)
    assert [len(commit.tokens) for commit in result.commits] == [1, 2, 4]


def test_a_timeout_ends_it_with_what_there_is(toy, capsys) -> None:
    assert main([*RUN, "Who?", "--timeout", "0.001", "--json"]) == 0

    result = result_of(capsys.readouterr().out)
    assert result.stop_reason == "deadline"
    assert result.text


def test_the_question_may_come_from_standard_input(toy, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("\nWho is she?\n\n"))

    assert main([*RUN, "-", *SHORT, "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["question"] == "Who is she?"


# Errors


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([" "], "the question is empty"),
        (["Who?", "--model", "openai:gpt-5-mini"], "'openai:gpt-5-mini'; this command searches on local models"),
        (["Who?", "--model", "gpt-5-mini"], "'gpt-5-mini'; this command searches on local models"),
        (["Who?", "--model", "nowhere.gguf"], "there is no model file 'nowhere.gguf'"),
        (["Who?", "--judge", "nonesuch"], "there is no template 'nonesuch' for 'rain'"),
        (["Who?", "--judge", "nowhere/mine.yaml"], "mine.yaml"),
        (["Who?", "--max-tokens", "0"], "--max-tokens 0: RAIN settings: max_new_tokens: Input"),
        (["Who?", "--max-iterations", "0"], "--max-iterations 0: RAIN settings: max_iterations: Input"),
        (["Who?", "--timeout", "0"], "--timeout 0.0: RAIN settings: max_seconds: Input"),
        (["Who?", "--seed", "-1"], "--seed -1: RAIN settings: seed: Input"),
        (["Who?", "--temperature", "-1"], "--temperature -1.0: RAIN settings: temperature: Input"),
        (["Who?", "--html", "nowhere/run.html"], "--html: 'nowhere/run.html' cannot be written"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(capsys, arguments: list[str], wrong: str) -> None:
    assert main([*RUN, *arguments]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("correction-graphs: ")
    assert wrong in err
    assert err.count("\n") == 1
    assert len(err) < 500


@pytest.mark.parametrize("as_json", [False, True])
def test_a_judge_that_fails_costs_no_text(toy, capsys, tmp_path: Path, *, as_json: bool) -> None:
    toy.values = [0.9, RuntimeError("boom")]
    path = tmp_path / "run.html"

    assert main([*RUN, "Who?", "--html", str(path), "--max-tokens", "80", *["--json"] * as_json]) == 1

    out, err = capsys.readouterr()
    if as_json:
        document = json.loads(out)
        assert document["error"]["type"] == "SearchError"
        assert "boom" in document["error"]["message"]
        assert document["answer"] == result_of(out).text != ""
    else:
        assert "[stopped] 1 token set(s) until then; " in out
        assert "[text so far] " in out
        assert "boom" in err
    assert "boom" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_keeps_text_and_page(toy, capsys, tmp_path: Path, *, as_json: bool) -> None:
    toy.values = [0.9, KeyboardInterrupt()]
    path = tmp_path / "run.html"

    assert main([*RUN, "Who?", "--html", str(path), "--max-tokens", "80", *["--json"] * as_json]) == 130

    out, err = capsys.readouterr()
    if as_json:
        result = result_of(out)
        assert (result.stop_reason, result.error, len(result.commits)) == ("failed", "interrupted", 1)
        assert json.loads(out)["answer"] == result.text != ""
    else:
        assert "[text so far] " in out
        assert err.endswith("interrupted\n")
    assert f"page: {path}\n" in err
    assert "interrupted" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [RUN, [*RUN, "a", "b"], [*RUN, "Who?", "--max-iterations", "many"]])
def test_wrong_usage_ends_with_two(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: correction-graphs" in capsys.readouterr().err


def test_help_tells_every_option(capsys) -> None:
    with pytest.raises(SystemExit):
        main([*RUN, "--help"])

    out = capsys.readouterr().out
    options = [
        "--model",
        "--judge",
        "--paper",
        "--max-tokens",
        "--max-iterations",
        "--seed",
        "--timeout",
        "--html",
        "--json",
        "--system",
    ]
    assert [option for option in options if option not in out] == []


# A page


def test_a_search_is_written_as_a_page(toy, capsys, tmp_path: Path) -> None:
    path = tmp_path / "run.html"

    assert main([*RUN, "Who is <she>?", *SHORT, "--json", "--html", str(path)]) == 0

    out, err = capsys.readouterr()
    assert err == f"page: {path}\n"
    assert path.read_text(encoding="utf-8") == result_of(out).to_html("Who is <she>?")


# Terminals


def test_a_terminal_gets_a_panel(toy, capsys, monkeypatch) -> None:
    as_terminal(monkeypatch)

    assert main([*RUN, "Who?", *SHORT]) == 0

    out = plain(capsys.readouterr().out)
    assert "╭─ final, length ─" in out
    assert "12 tokens, " in out


@pytest.mark.parametrize("terminal", [False, True])
def test_a_model_cannot_steer_the_terminal(toy, capsys, monkeypatch, *, terminal: bool) -> None:
    toy.backend.token_bytes = lambda token: b"\x1b]0;owned\x07\x9b[bold]"[token % 9 : token % 9 + 9]
    if terminal:
        as_terminal(monkeypatch)

    assert main([*RUN, "Who?", *SHORT]) == 0

    out = plain(capsys.readouterr().out)
    assert not {"\x1b", "\x07", "\x9b"} & set(out)
    assert "\ufffd]0;own" in out.replace("\n", "")


def test_a_terminal_shows_what_there_is_when_a_search_stops(toy, capsys, monkeypatch) -> None:
    toy.values = [0.9, RuntimeError("[/boom]")]
    as_terminal(monkeypatch)

    assert main([*RUN, "Who?", "--max-tokens", "80"]) == 1

    out, err = capsys.readouterr()
    assert "text so far" in plain(out)
    assert "[/boom]" in err


def test_a_terminal_shows_candidates_with_their_values_while_they_are_judged(toy, capsys, monkeypatch) -> None:
    def slowly(text: str) -> float:
        time.sleep(0.15)
        return (-0.6, 0.05, 0.7)[len(text) % 3]

    toy.value = slowly
    as_terminal(monkeypatch)

    assert main([*RUN, "Who?", *SHORT]) == 0

    out = capsys.readouterr().out
    assert re.search(r"[+-]0\.\d\d ", plain(out).split("final, ")[0])
    assert re.search("\x1b\\[3[34]m *[+-]0\\.\\d\\d", out), "what is good or bad has a colour"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_search_that_stops_at_once_has_no_text_to_show(toy, capsys, monkeypatch, *, terminal: bool) -> None:
    toy.values = [RuntimeError("boom")]
    if terminal:
        as_terminal(monkeypatch)

    assert main([*RUN, "Who?", *SHORT]) == 1

    out, err = capsys.readouterr()
    if terminal:
        assert "(no text yet)" in plain(out)
    else:
        assert "[stopped] 0 token set(s) until then; " in out
        assert "[text so far]" not in out
    assert "boom" in err


def test_without_rich_a_terminal_gets_plain_lines(toy, capsys, monkeypatch) -> None:
    as_terminal(monkeypatch)
    without_rich(monkeypatch)

    assert main([*RUN, "Who?", *SHORT]) == 0

    assert "[final, length] " in capsys.readouterr().out


@pytest.mark.gguf
@pytest.mark.slow
def test_a_real_terminal_shows_the_search_as_it_goes(smollm2_path: Path) -> None:
    options = ["--model", str(smollm2_path), "--max-tokens", "24", "--max-iterations", "2"]

    text = shown_by(*RUN, "Name a colour.", *options, timeout=120)

    assert "╭─ committed ─" in text
    assert re.search(r"\d+ tokens, \d+\.\d a second; \d+ judged, \d+ rewinds", text)
    assert "╭─ final, " in text


# Pipes and signals


@pytest.mark.gguf
@pytest.mark.slow
def test_ctrl_c_shows_what_there_is(smollm2_path: Path, tmp_path: Path) -> None:
    """It comes while the second token set is searched for."""
    path = tmp_path / "run.html"
    options = ["--max-tokens", "400", "--max-iterations", "1", "--html", str(path)]
    run = command(*RUN, "Tell me a long story.", "--model", str(smollm2_path), *options)
    first = run.stdout.readline()

    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)

    assert (run.returncode, err) == (130, f"page: {path}\ninterrupted\n")
    assert "[stopped] " in out
    assert f"[text so far] {first.split('] ', 1)[1].strip()}" in out
    assert "interrupted" in path.read_text(encoding="utf-8")


@pytest.mark.gguf
@pytest.mark.slow
def test_a_reader_may_leave(smollm2_path: Path) -> None:
    run = command(*RUN, "Tell me a long story.", "--model", str(smollm2_path), "--max-iterations", "1")
    run.stdout.readline()
    run.stdout.close()

    with run.stderr as stderr:
        err = stderr.read()

    assert (run.wait(60), err) == (0, "")
