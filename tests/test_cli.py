"""The command line: what it prints, where to, and with which status it ends.

Most tests call `main` with a scripted model; those of pipes, terminals and signals start a process with a real model.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import gguf_models
import pytest
from terminal import PROGRAM, as_terminal, command, plain, shown_by, without_rich

from correction_graphs import __version__
from correction_graphs.cli import main
from correction_graphs.results import CacResult
from correction_graphs.testing import ScriptedChatModel

FAILED = "She need not be the nurse.\nCritique: A gender is assumed.\nVerdict: biased"
PASSED = "Nothing is assumed.\nCritique: None.\nVerdict: unbiased"
SCRIPT = ["The nurse.", FAILED, "It is not said.", PASSED]
RUN = ["run", "cac"]


@pytest.fixture
def script(monkeypatch) -> Any:
    """Makes `--model` a scripted one; tells what was asked of it."""

    class Loaded:
        spec: str
        settings: dict[str, Any]
        model: ScriptedChatModel

        def __call__(self, *replies: Any) -> Loaded:
            self.model = ScriptedChatModel(replies or SCRIPT)
            return self

        def load(self, spec: Any, **settings: Any) -> ScriptedChatModel:
            if isinstance(spec, str):  # the graph hands in the model itself
                self.spec, self.settings = spec, settings
            return self.model

    loaded = Loaded()
    monkeypatch.setattr("correction_graphs.models.load_model", loaded.load)
    return loaded


# A run


def test_a_run_is_told_line_by_line(script, capsys) -> None:
    script()

    assert main([*RUN, "Who is she?"]) == 0

    out, err = capsys.readouterr()
    assert err == ""
    headings = [re.sub(r", \d.* s\]", "]", line) for line in out.splitlines()]
    assert headings == [
        "[answer 1] The nurse.",
        "[check of answer 1: failed] A gender is assumed.",
        "[answer 2] It is not said.",
        "[check of answer 2: passed]",
        "[final, passed: answer 2 of 2] It is not said.",
        headings[-1],
    ]
    assert re.fullmatch(r"\[total\] 4 model calls, \d+ tokens in, \d+ out, \d\.\d s", headings[-1])


def test_an_exhausted_run_says_so(script, capsys) -> None:
    script("The nurse.", FAILED)

    assert main([*RUN, "Who is she?", "--max-rounds", "0"]) == 0

    assert "[final, exhausted: answer 1 of 1] The nurse." in capsys.readouterr().out


def test_json_is_one_document_that_reads_back(script, capsys) -> None:
    script()

    assert main([*RUN, "Wer ist sie – “?”", "--json", "--model", "some:model"]) == 0

    out, err = capsys.readouterr()
    document = json.loads(out)
    result = CacResult.model_validate(document["cac"])
    assert err == ""
    assert CacResult.model_validate_json(json.dumps(document["cac"])) == result
    assert [done.answer for done in result.rounds] == ["The nurse.", "It is not said."]
    assert (result.status, result.template.name) == ("passed", "bias")
    assert document == {
        "version": __version__,
        "question": "Wer ist sie – “?”",
        "model": "some:model",
        "answer": "It is not said.",
        "cac": result.model_dump(mode="json"),
        "error": None,
    }


def test_options_reach_model_and_graph(script, capsys) -> None:
    script("The nurse.", "Verdict: biased", "It is not said.", "Verdict: unbiased")
    options = [
        "--model",
        "some:model",
        "--temperature",
        "0.5",
        "--max-tokens",
        "9",
        "--seed",
        "3",
        "--system",
        "Be brief.",
    ]

    assert (
        main(
            [
                *RUN,
                "Who?",
                *options,
                "--style",
                "verdict",
                "--strategy",
                "self_instruct",
                "--template",
                "bias",
                "--json",
            ]
        )
        == 0
    )

    assert script.spec == "some:model"
    assert script.settings == {"temperature": 0.5, "max_tokens": 9, "seed": 3}
    assert [(message.type, message.text) for message in script.model.asked[0]] == [
        ("system", "Be brief."),
        ("human", "Who?"),
    ]
    assert json.loads(capsys.readouterr().out)["cac"]["strategy"] == "self_instruct"


def test_what_is_not_given_is_left_to_the_model(script, capsys) -> None:
    script()

    main([*RUN, "Who?"])

    assert (script.spec, script.settings) == ("smollm2", {"max_tokens": 256})


def test_the_question_may_come_from_standard_input(script, capsys, monkeypatch) -> None:
    script()
    monkeypatch.setattr("sys.stdin", StringIO("\nWho is she?\nTell me.\n\n"))

    assert main([*RUN, "-"]) == 0

    assert script.model.asked[0][-1].text == "Who is she?\nTell me."


# Errors


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("question", ["", "  \n", "-"])
@pytest.mark.parametrize("method", ["cac", "s2a", "rain"])
def test_an_empty_question_is_refused(method: str, question: str, capsys, monkeypatch, *, as_json: bool) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(" \n"))

    assert main(["run", method, question, *["--json"] * as_json]) == 1

    out, err = capsys.readouterr()
    message = "the question is empty; give one, or - and write it to standard input"
    assert err == ("" if as_json else f"correction-graphs: {message}\n")
    assert (json.loads(out)["error"]["message"] if as_json else message) == message


@pytest.mark.parametrize(
    "options",
    [["cac", "Who?", "--style", "loud"], ["cac", "Who?", "--strategy", "hope"], ["s2a", "Who?", "--mode", "both"]],
)
def test_a_choice_that_is_none_is_wrong_usage(capsys, options: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", *options])
    assert left.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (["caf\udce9"], "the question is not UTF-8 text"),
        (["-"], "the question is not UTF-8 text"),
        (["Who?", "--system", "caf\udce9"], "--system is not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("method", ["cac", "s2a", "rain"])
def test_bytes_that_are_no_text_are_refused(method: str, given: list[str], wrong: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("caf\udce9"))  # which is what Python makes of them

    assert main(["run", method, *given]) == 1

    out, err = capsys.readouterr()
    assert (out, err) == ("", f"correction-graphs: {wrong}; convert it to that first\n")


def test_standard_input_that_was_closed_is_named(capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main([*RUN, "-"]) == 1
    assert "there is none" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_in_a_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, "templates", "list"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "status"), [("templates list", 0), ("demo --n 0", 1), ("run cac Q --model x", 1)]
)
def test_outputs_may_be_closed(arguments: str, status: int, closed: str) -> None:
    line = f"'{PROGRAM}' {arguments} {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], check=False, capture_output=True, text=True)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (status == 0 and closed == "2>&-"), "an error does not go to standard output"


def test_what_is_printed_can_be_taken_by_the_program_that_calls_it() -> None:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        assert main(["templates", "list"]) == 0
        assert main(["demo", "--n", "0"]) == 1
    assert "bias" in out.getvalue()
    assert err.getvalue() == "correction-graphs: --n is 0; give at least 1 question\n"


def test_json_is_complete_where_an_output_cannot_have_every_character() -> None:
    documents = []
    for encoding in ("utf-8", "cp1252"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        listing = [PROGRAM, "templates", "list", "--json"]
        documents.append(subprocess.run(listing, check=True, capture_output=True, env=env).stdout.decode(encoding))
    assert json.loads(documents[0]) == json.loads(documents[1])
    assert "\\u" in documents[1]
    assert "\\u" not in documents[0]


def test_what_a_terminal_cannot_show_is_replaced() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([PROGRAM, "templates", "list"], check=False, capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"bias@zh" in done.stdout


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--template", "nonesuch"], "nonesuch"),
        (["--template", "nowhere/mine.yaml"], "mine.yaml"),
        (["--max-rounds", "-1"], "`max_rounds` is -1"),
        (["--model", "openai:x", "--base-url", "127.0.0.1:9"], "--base-url is '127.0.0.1:9'"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_option_is_named(script, capsys, options: list[str], wrong: str, *, as_json: bool) -> None:
    script()

    assert main([*RUN, "Who?", *options, *["--json"] * as_json]) == 1

    out, err = capsys.readouterr()
    message = json.loads(out)["error"]["message"] if as_json else err
    assert wrong in message
    assert err if not as_json else not err
    assert script.model.asked == []


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--model", "nowhere.gguf"], "there is no model file 'nowhere.gguf'"),
        (["--model", __file__ + ".gguf"], "there is no model file"),
        (["--model", "gpt-5-mini"], "`model` is 'gpt-5-mini'; give a chat model"),
        (["--model", "hf:owner"], "hf:OWNER/REPOSITORY/FILE.gguf"),
        (["--model", "nobody:model"], "nobody:model"),
        (["--base-url", "http://127.0.0.1:9/v1"], "--base-url goes with --model openai:NAME, not with 'smollm2'"),
        (["--model", "nobody:model", "--base-url", "http://127.0.0.1:9/v1"], "not with 'nobody:model'"),
    ],
)
def test_a_model_that_cannot_be_had_is_named(capsys, options: list[str], wrong: str) -> None:
    assert main([*RUN, "Who?", *options]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("correction-graphs: ")
    assert wrong in err


def test_a_file_of_another_kind_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("not a model")

    assert main([*RUN, "Who?", "--model", str(path)]) == 1

    assert "is not a GGUF file" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--temperature", "-1"], ["--max-tokens", "0"]])
def test_a_setting_outside_its_range_is_named(tmp_path: Path, capsys, options: list[str]) -> None:
    path = gguf_models.write_llama(tmp_path / "tiny.gguf")

    assert main([*RUN, "Who?", "--model", str(path), *options]) == 1

    assert f"`{options[0].strip('-').replace('-', '_')}` is {options[1]}" in capsys.readouterr().err


def test_a_missing_key_is_told(monkeypatch, capsys) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    assert main([*RUN, "Who?", "--model", "openai:gpt-5-mini"]) == 1

    assert "OPENAI_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_a_server_that_is_down_is_told(capsys, monkeypatch, *, as_json: bool) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    began = time.monotonic()

    assert main([*RUN, "Who?", "--model", "openai:local", "--base-url", url, *["--json"] * as_json]) == 1

    assert time.monotonic() - began < 30
    out, err = capsys.readouterr()
    if as_json:
        document = json.loads(out)
        assert document["error"]["type"] == "GenerationError"
        assert "onnection" in document["error"]["message"]
        assert document["answer"] == ""
        assert CacResult.model_validate(document["cac"]).status == "failed"
    else:
        assert err.startswith("correction-graphs: the model failed: ")
        assert "onnection" in err
        assert err.endswith(f"is a server listening at {url}?\n")
        assert err.count("\n") == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_a_judge_that_fails_costs_no_answer(script, capsys, *, as_json: bool) -> None:
    script("The nurse.", FAILED, "It is not said.", RuntimeError("boom"))

    assert main([*RUN, "Who?", *["--json"] * as_json]) == 1

    out, err = capsys.readouterr()
    if as_json:
        document = json.loads(out)
        assert (document["answer"], document["error"]["type"]) == ("It is not said.", "CheckerError")
    else:
        assert "[stopped] 2 answer(s) until then; 4 model calls" in out
        assert "[best so far] It is not said." in out
        assert "RuntimeError: boom" in err


def test_a_model_that_fails_while_revising_costs_no_answer(script, capsys) -> None:
    script("The nurse.", FAILED, RuntimeError("boom"))

    assert main([*RUN, "Who?"]) == 0

    assert "[final, failed: answer 1 of 1; RuntimeError: boom] The nurse." in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["run"], RUN, ["nonesuch"], [*RUN, "Who?", "--max-tokens", "many"], [*RUN, "a", "b"]]
)
def test_wrong_usage_ends_with_two(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: correction-graphs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], ["run", "demo", "--version"]),
        (["run", "--help"], ["cac", "Checking as Context"]),
        (
            [*RUN, "--help"],
            [
                "--template",
                "--style",
                "--strategy",
                "--max-rounds",
                "--model",
                "--base-url",
                "--json",
                "--html",
                "question",
            ],
        ),
        (["demo", "--help"], ["--n", "default: 100", "--json", "--html"]),
    ],
)
def test_help_tells_every_option(capsys, arguments: list[str], told: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert [word for word in told if word not in out] == []


def test_the_version_is_told(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])

    assert capsys.readouterr().out == f"correction-graphs {__version__}\n"


def test_help_loads_no_engine() -> None:
    code = (
        "import sys\nfrom correction_graphs.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'langgraph', 'langchain_core', 'llama_cpp', 'rich'} & sys.modules.keys()))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.splitlines()[-1] == "[]"


# Terminals


def test_a_terminal_gets_panels(script, capsys, monkeypatch) -> None:
    script("The nurse [bold]is[/bold] it.", *SCRIPT[1:])
    as_terminal(monkeypatch)

    assert main([*RUN, "Who?"]) == 0

    out = plain(capsys.readouterr().out)
    assert "╭─ answer 1, " in out
    assert "│ The nurse [bold]is[/bold] it." in out  # text of a model is no markup
    assert "╭─ check of answer 2: passed" in out
    assert "╭─ final, passed: answer 2 of 2" in out
    assert "4 model calls" in out


@pytest.mark.parametrize("terminal", [False, True])
def test_a_model_cannot_steer_the_terminal(script, capsys, monkeypatch, *, terminal: bool) -> None:
    script("a\x1b]0;owned\x07b\x9b31mc\r\n\td\x00", PASSED)
    if terminal:
        as_terminal(monkeypatch)

    assert main([*RUN, "Who?"]) == 0

    out = plain(capsys.readouterr().out)
    assert not {"\x1b", "\x07", "\x9b", "\x00"} & set(out)
    assert "a�]0;owned�b�31mc" in out


def test_json_steers_no_terminal_and_loses_nothing(script, capsys) -> None:
    script("a\x1b]0;owned\x07b\x7f\x9b31mc 好 🎉", PASSED)

    assert main([*RUN, "Who?", "--json"]) == 0

    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x7f", "\x9b"} & set(out)
    assert json.loads(out)["answer"] == "a\x1b]0;owned\x07b\x7f\x9b31mc 好 🎉"
    assert "好 🎉" in out


def test_an_error_cannot_steer_the_terminal(script, capsys) -> None:
    script(RuntimeError("\x1b]0;owned\x07"))

    assert main([*RUN, "Who?"]) == 1

    assert capsys.readouterr().err == "correction-graphs: the model failed: RuntimeError: \ufffd]0;owned\ufffd\n"


@pytest.mark.parametrize("method", ["cac", "s2a", "rain"])
def test_a_path_with_brackets_is_no_markup(method: str, capsys, monkeypatch) -> None:
    as_terminal(monkeypatch)

    assert main(["run", method, "Who?", "--model", "[/x].gguf"]) == 1

    assert "there is no model file '[/x].gguf'" in capsys.readouterr().err


def test_a_terminal_shows_what_there_is_when_a_run_stops(script, capsys, monkeypatch) -> None:
    script("The nurse.", RuntimeError("boom"))
    as_terminal(monkeypatch)

    assert main([*RUN, "Who?"]) == 1

    out, err = capsys.readouterr()
    assert "best so far" in out
    assert "RuntimeError: boom" in err


def test_an_error_with_brackets_is_no_markup(script, capsys, monkeypatch) -> None:
    script("The nurse.", FAILED, RuntimeError("[/boom]"))
    as_terminal(monkeypatch)

    assert main([*RUN, "Who?"]) == 0

    assert "RuntimeError: [/boom]" in plain(capsys.readouterr().out)


def test_without_rich_a_terminal_gets_plain_lines(script, capsys, monkeypatch) -> None:
    script()
    as_terminal(monkeypatch)
    without_rich(monkeypatch)

    assert main([*RUN, "Who?"]) == 0

    assert "[final, passed: answer 2 of 2] It is not said." in capsys.readouterr().out


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Options for a model with random weights, which answers at once."""
    return ["--model", str(gguf_models.write_llama(tmp_path / "tiny.gguf")), "--max-tokens", "5", "--template", "bias"]


@pytest.mark.gguf
def test_a_real_terminal_gets_panels(tiny: list[str]) -> None:
    panels = shown_by(*RUN, "Who?", *tiny, "--max-rounds", "0")

    assert "╭─ answer 1" in panels
    assert "╭─ final, " in panels


# Pipes and signals


@pytest.mark.gguf
def test_a_pipe_gets_plain_lines(tiny: list[str]) -> None:
    run = command(*RUN, "-", *tiny, "--max-rounds", "1", stdin=subprocess.PIPE)

    out, err = run.communicate("Who is she?\n", timeout=120)

    assert (run.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert [
        line.split(",")[0].split(":")[0]
        for line in out.splitlines()
        if line.startswith(("[answer", "[check", "[final"))
    ] == [
        "[answer 1",
        "[check of answer 1",
        "[answer 2",
        "[check of answer 2",
        "[final",
    ]


@pytest.mark.gguf
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_may_leave(tiny: list[str], lines: int, *, as_json: bool) -> None:
    run = command(*RUN, "Who?", *tiny, "--max-rounds", "3", *["--json"] * as_json)
    for _ in range(lines):
        run.stdout.readline()
    run.stdout.close()

    with run.stderr as stderr:
        err = stderr.read()

    assert (run.wait(60), err) == (0, "")


@pytest.mark.gguf
def test_ctrl_c_shows_what_there_is(smollm2_path: Path) -> None:
    """It comes while the first answer is being checked."""
    run = command(*RUN, "Name a colour.", "--model", str(smollm2_path), "--max-tokens", "60", "--max-rounds", "9")
    first = next(line for line in run.stdout if line.startswith("[answer 1"))

    run.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = run.communicate(timeout=60)

    assert (run.returncode, err.strip()) == (130, "interrupted")
    assert time.monotonic() - began < 20
    assert "[stopped] 1 answer(s) until then; 1 model call, " in out
    assert f"[best so far] {first.split('] ', 1)[1]}" in out


def test_ctrl_c_before_anything_was_written(script, capsys) -> None:
    script(KeyboardInterrupt())

    assert main([*RUN, "Who?"]) == 130

    out, err = capsys.readouterr()
    assert "[stopped] 0 answer(s)" in out
    assert "best so far" not in out
    assert err == "interrupted\n"


def test_ctrl_c_keeps_rounds_verdicts_and_usage(script, capsys) -> None:
    script("The nurse.", FAILED, "It is not said.", KeyboardInterrupt())

    assert main([*RUN, "Who?", "--json", "--strategy", "self_instruct"]) == 130

    result = CacResult.model_validate(json.loads(capsys.readouterr().out)["cac"])
    assert [(done.answer, done.verdict and done.verdict.passed) for done in result.rounds] == [
        ("The nurse.", False),
        ("It is not said.", None),
    ]
    assert (result.answer, result.status, result.strategy) == ("It is not said.", "failed", "self_instruct")
    assert result.usage.model_calls == 3


# A page


def test_a_run_is_written_as_a_page(script, capsys, tmp_path: Path) -> None:
    script()
    path = tmp_path / "run.html"
    path.write_text("an older one")

    assert main([*RUN, "Who is <she>?", "--html", str(path)]) == 0

    out, err = capsys.readouterr()
    page = path.read_text(encoding="utf-8")
    assert "[final, passed: answer 2 of 2]" in out
    assert err == f"page: {path}\n"
    assert "Who is &lt;she&gt;?" in page
    assert "A gender is assumed." in page
    assert "★ chosen" in page


def test_a_page_and_json_go_together(script, capsys, tmp_path: Path, monkeypatch) -> None:
    script()
    monkeypatch.chdir(tmp_path)

    assert main([*RUN, "Who?", "--json", "--html", "run.html"]) == 0

    out, err = capsys.readouterr()
    result = CacResult.model_validate(json.loads(out)["cac"])
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == result.to_html("Who?")
    assert err == f"page: {tmp_path / 'run.html'}\n"


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("stop", "status"), [(RuntimeError("boom"), 1), (KeyboardInterrupt(), 130)])
def test_a_run_that_stopped_is_written_as_a_page(
    script, capsys, tmp_path: Path, stop: BaseException, status: int, *, as_json: bool
) -> None:
    script("The nurse.", FAILED, "It is not said.", stop)
    path = tmp_path / "run.html"

    assert main([*RUN, "Who?", "--html", str(path), *["--json"] * as_json]) == status

    page = path.read_text(encoding="utf-8")
    assert "The nurse." in page
    assert "not checked" in page
    assert ("boom" if status == 1 else "interrupted") in page
    assert f"page: {path}\n" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("name", ["nowhere/run.html", ".", "", "file/run.html", "\0"])
def test_a_page_that_cannot_be_written_is_refused_before_the_model_loads(
    script, capsys, tmp_path: Path, monkeypatch, name: str, *, as_json: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()

    assert main([*RUN, "Who?", "--html", name, *["--json"] * as_json]) == 1

    out, err = capsys.readouterr()
    assert f"--html: {name!r} cannot be written: " in (json.loads(out)["error"]["message"] if as_json else err)
    assert not hasattr(script(), "spec")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_never_began_leaves_files_as_they_were(script, capsys, tmp_path: Path) -> None:
    script()
    old, new = tmp_path / "old.html", tmp_path / "new.html"
    old.write_text("kept")

    for path in (old, new):
        assert main([*RUN, "Who?", "--html", str(path), "--template", "nonesuch"]) == 1

    assert old.read_text() == "kept"
    assert not new.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_page_may_go_into_a_pipe(script, capsys, tmp_path: Path) -> None:
    script()
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text(encoding="utf-8")), daemon=True)
    reader.start()

    assert main([*RUN, "Who is she?", "--html", str(path)]) == 0

    reader.join(10)
    assert "Who is she?" in read[0]
    assert "★ chosen" in read[0]


def test_a_page_that_can_no_longer_be_written_costs_no_answer(script, capsys, tmp_path: Path, monkeypatch) -> None:
    script()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)

    assert main([*RUN, "Who?", "--json", "--html", str(tmp_path / "run.html")]) == 1

    out, err = capsys.readouterr()
    assert json.loads(out)["answer"] == "It is not said."
    assert "could not be written: No space left on device" in err


# The demo


@pytest.mark.gguf
@pytest.mark.slow
def test_the_demo_counts_and_tells_what_each_method_mends(tmp_path) -> None:
    page = tmp_path / "demo.html"
    run = command("demo", "--n", "20", "--html", str(page))

    out, err = run.communicate(timeout=300)

    assert (run.returncode, err) == (0, f"page: {page}\n")
    table, *stories = out.split("\n== ")
    assert [line.split("  ")[0] for line in table.splitlines() if "%" in line and "(" in line][:4] == [
        "agrees with wrong opinions",
        "counts numbers that do not matter",
        "blames people by their group",
        "helps with something harmful",
    ]
    assert len(stories) == 4
    assert all("asked:" in story and "alone:" in story for story in stories)
    assert "left out:" in stories[0]
    assert "check:" in stories[2]
    assert "kept +" in stories[3]
    html = page.read_text(encoding="utf-8")
    assert html.count('class="plot"') == 4
    assert "left out" in html


@pytest.mark.gguf
def test_the_demo_as_json(capsys) -> None:
    assert main(["demo", "--n", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n"] == 3
    assert [len(each["rows"]) for each in document["comparisons"]] == [3, 3, 3, 3]
    assert all(row["right"]["n"] == 3 for each in document["comparisons"] for row in each["rows"].values())


@pytest.mark.gguf
def test_a_narrow_terminal_gets_the_demo_as_lists_that_fit(capsys, monkeypatch) -> None:
    as_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "60")

    assert main(["demo", "--n", "1"]) == 0

    out = capsys.readouterr().out
    assert "the model alone ..." not in out, "a heading of columns"
    assert re.search(
        r"^agrees with wrong opinions\n    right alone: *\d+\.\d%.*\n    right with method: *S2A .*\n"
        r"    right with oracle: *\d.*\n    model calls: *1\.0, \d\.\d$",
        out,
        re.MULTILINE,
    )
    assert max(map(len, out.split("questions of each kind", 1)[1].splitlines()[1:])) <= 60


@pytest.mark.gguf
def test_a_demo_too_small_to_mend_anything_says_so(capsys, tmp_path) -> None:
    page = tmp_path / "demo.html"

    assert main(["demo", "--n", "1", "--html", str(page)]) == 0

    *_, story = capsys.readouterr().out.split("\n== ")
    assert story.startswith("RAIN: helps with something harmful\n   (it mended none of these questions)\n")
    html = page.read_text(encoding="utf-8")
    assert html.count('class="plot"') == 4
    assert html.count("For example") == 3


@pytest.mark.gguf
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_demo_whose_disk_is_full_at_the_end_has_told_all_the_same(capsys) -> None:
    assert main(["demo", "--n", "1", "--html", "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n== ") == 4
    assert err == "correction-graphs: --html: '/dev/full' could not be written: No space left on device\n"


def test_a_demo_of_no_questions_is_refused(capsys) -> None:
    assert main(["demo", "--n", "0"]) == 1
    assert "--n is 0; give at least 1 question" in capsys.readouterr().err


@pytest.mark.gguf
def test_a_demo_of_more_questions_than_there_are_is_refused_before_it_begins(capsys) -> None:
    assert main(["demo", "--n", "1000"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"correction-graphs: --n is 1000: this world has about 7\d\d different questions ", err)


def test_a_demo_whose_page_cannot_be_written_does_not_begin(capsys, tmp_path) -> None:
    assert main(["demo", "--html", str(tmp_path / "no" / "such.html")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "cannot be written" in err
