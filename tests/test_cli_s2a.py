"""`correction-graphs run s2a`: what it prints, where to, and with which status it ends.

The models are real clients of a server on this machine that replies from a script; one test runs the embedded model.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import pytest
from terminal import as_terminal, command, plain, shown_by

from correction_graphs import __version__
from correction_graphs.cli import main
from correction_graphs.cli_s2a import _WRONG
from correction_graphs.filtering.guards import Kind
from correction_graphs.results import S2AResult

QUESTION = "I think it is Sydney. Australia has 6 states. What is the capital of Australia?"
FILTERED = "Context: Australia has 6 states.\nQuestion: What is the capital of Australia?"
INVENTED = "Context: Australia has 8 states.\nQuestion: What is the capital of Australia?"
ANSWER = "It is Canberra."
CAPITAL = "What is the capital of Australia?"
FACT = "Its capital is Canberra."


class Api:
    """A chat completions API that says what it is told to, word by word where it is asked to stream.

    A reply that is None is an error; "…" at the end of one keeps it open until the test is over.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.replies: list[str | None] = []
        self.over = threading.Event()
        self.counts = True  # what a call took
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.asked.append(asked)
                said = api.reply("\n".join(message["content"] for message in asked["messages"]))
                if said is None:
                    self.send_error(400, "boom")
                    return
                self.send_response(200)
                usage = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37} if api.counts else None
                head = {"id": "1", "created": 0, "model": "local"}
                if not asked.get("stream"):
                    message = {"role": "assistant", "content": said}
                    choice = {"index": 0, "message": message, "finish_reason": "stop"}
                    body = json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    self.wfile.write(body.encode())
                    return
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for word in re.findall(r"\s*\S+\s*?", said.removesuffix("…")):
                    self._send({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]})
                if said.endswith("…"):
                    api.over.wait(60)
                    return
                self._send({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                self._send({**head, "choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")

            def _send(self, chunk: dict[str, Any]) -> None:
                self.wfile.write(f"data: {json.dumps({'object': 'chat.completion.chunk', **chunk})}\n\n".encode())
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def reply(self, _: str) -> str | None:
        """Return what is said to a conversation."""
        return self.replies.pop(0) if self.replies else None

    def says(self, *replies: str | None) -> list[str]:
        """Take a script; return the command."""
        self.replies = list(replies)
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return ["run", "s2a", QUESTION, "--model", "openai:local", "--base-url", url]

    def shown(self, call: int) -> str:
        return "\n".join(message["content"] for message in self.asked[call]["messages"])


@pytest.fixture
def api(monkeypatch) -> Iterator[Api]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, args=(0.01,))
    thread.start()
    yield api
    api.over.set()
    api.server.shutdown()
    thread.join()
    api.server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """An empty folder, in which the command is given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document_of(out: str) -> tuple[dict[str, Any], S2AResult]:
    document = json.loads(out)
    return document, S2AResult.model_validate(document["s2a"])


def interrupt_once(true: Callable[[], bool]) -> None:
    """Press Ctrl-C when something is so, and a moment has passed for what was sent to arrive."""

    def wait() -> None:
        until = time.monotonic() + 30
        while not true() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(1)
        if true():  # else the run has failed, and this would end the tests
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


# A run


def test_a_run_is_told_line_by_line(api: Api, capsys) -> None:
    assert main(api.says(FILTERED, ANSWER)) == 0

    out, err = capsys.readouterr()
    assert err == ""
    *lines, total = out.splitlines()
    assert lines == [
        "[question: left out] I think it is Sydney.",
        "[question: kept] Australia has 6 states.",
        "",
        "What is the capital of Australia?",
        "[answer] It is Canberra.",
    ]
    assert re.fullmatch(r"\[total\] 2 model calls, .* out, \d+\.\d s.*", total)
    assert "Sydney" in api.shown(0)
    assert "Sydney" not in api.shown(1)


def test_what_is_wrong_with_a_reply_is_told_and_then_that_the_original_is_used(api: Api, capsys) -> None:
    assert main(api.says(INVENTED, INVENTED, ANSWER)) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[question: reply 1 not used] it has what the original has not: “8”"
    assert "[question: reply 2 not used] it has what the original has not: “8”" in lines
    (left,) = [line for line in lines if line.startswith("[question: left as it was] ")]
    assert "could not be used, 2 times" in left
    assert not [line for line in lines if "left out" in line]
    assert "[answer] It is Canberra." in lines
    assert "Sydney" in api.shown(2)


def test_a_second_reply_may_be_better(api: Api, capsys) -> None:
    assert main(api.says(INVENTED, FILTERED, ANSWER)) == 0

    out = capsys.readouterr().out
    assert "reply 1 not used]" in out
    assert "reply 2 not used]" not in out
    assert "left as it was" not in out
    assert out.index("[question: reply 1 not used]") < out.index("[question: left out] I think it is Sydney.")


def test_all_that_can_be_wrong_has_words() -> None:
    assert _WRONG.keys() == set(get_args(Kind))


def test_json_is_one_document_that_reads_back(api: Api, capsys) -> None:
    assert main([*api.says(INVENTED, FILTERED, ANSWER), "--json"]) == 0

    out, err = capsys.readouterr()
    document, result = document_of(out)
    assert err == ""
    assert [span.text for span in result.dropped] == ["I think it is Sydney."]
    assert "added" in [violation.kind for violation in result.violations]
    assert result.usage.model_calls == 3
    assert document == {
        "version": __version__,
        "question": QUESTION,
        "model": "openai:local",
        "answer": ANSWER,
        "s2a": result.model_dump(mode="json"),
        "error": None,
    }


def test_documents_are_filtered_and_shown(api: Api, capsys, tmp_path: Path, monkeypatch) -> None:
    paths = [tmp_path / "one.txt", tmp_path / "two.txt"]
    paths[0].write_text("\ufeffCanberra is the capital. I adore Perth.", encoding="utf-8")
    paths[1].write_text("I adore Hobart.", encoding="utf-8")
    options = [part for path in paths for part in ("--document", str(path))]
    replies = {"Perth.": "Canberra is the capital.", "Hobart.": "Nothing", "Sydney.": FILTERED, "": ANSWER}
    # The texts are filtered at once, so in any order; the question is shown with each document.
    monkeypatch.setattr(api, "reply", lambda asked: next(said for word, said in replies.items() if word in asked))

    assert main([*api.says(), *options]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert f"[{paths[0]}: left out] I adore Perth." in lines
    assert f"[{paths[0]}: kept] Canberra is the capital." in lines
    assert f"[{paths[1]}: left out] I adore Hobart." in lines
    assert "Canberra is the capital." in api.shown(-1)
    assert "Perth" not in api.shown(-1)


def test_options_reach_model_and_graph(api: Api, capsys) -> None:
    options = ["--rewrite", "single", "--mode", "keep_original", "--template", "relevant", "--system", "Be brief."]
    numbers = ["--temperature", "0.5", "--max-tokens", "9", "--seed", "3"]
    said = "Australia has 6 states. What is the capital of Australia?"

    assert main([*api.says(said, ANSWER), *options, *numbers, "--json"]) == 0

    _, result = document_of(capsys.readouterr().out)
    assert (result.template.name, result.context) == ("relevant", said)
    assert api.asked[1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "I think it is Sydney." in api.shown(1)
    assert said in api.shown(1)
    assert [(asked["temperature"], asked["max_tokens"], asked["seed"]) for asked in api.asked] == [(0.5, 9, 3)] * 2


@pytest.mark.parametrize("counts", [True, False])
def test_calls_whose_tokens_the_server_did_not_count_are_told(api: Api, capsys, *, counts: bool) -> None:
    api.counts = counts

    assert main(api.says(FILTERED, ANSWER)) == 0

    *_, total = capsys.readouterr().out.splitlines()
    assert total.endswith(", 2 model calls without a count of tokens") == (not counts)
    assert ("60 tokens in, 14 out" in total) == counts


def test_another_model_may_filter(api: Api, capsys) -> None:
    assert main([*api.says(FILTERED, ANSWER), "--filter-model", "openai:small"]) == 0

    assert [asked["model"] for asked in api.asked] == ["small", "local"]


def test_a_clean_question_need_not_be_filtered(api: Api, capsys) -> None:
    _, _, _, *options = api.says(ANSWER)

    assert main(["run", "s2a", "What is the capital of Australia?", *options, "--skip-if-clean"]) == 0

    out = capsys.readouterr().out
    assert "[question: left as it was] there is nothing in it to filter\n[answer] It is Canberra.\n" in out
    assert len(api.asked) == 1


def test_the_question_may_come_from_standard_input(api: Api, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(f"\n{QUESTION}\n\n"))
    command = ["-" if part == QUESTION else part for part in api.says(FILTERED, ANSWER)]

    assert main([*command, "--json"]) == 0

    assert document_of(capsys.readouterr().out)[0]["question"] == QUESTION


def test_a_template_of_ones_own_is_a_file(api: Api, capsys, folder: Path) -> None:
    main(["templates", "copy", "unbiased"])
    path = folder / "unbiased.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("name: unbiased", "name: mine"), encoding="utf-8")
    capsys.readouterr()

    assert main([*api.says(FILTERED, ANSWER), "--template", "unbiased.yaml", "--json"]) == 0

    assert document_of(capsys.readouterr().out)[1].template.name == "mine"


# Errors


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ("--template bias", "there is no template 'bias' for 's2a'"),
        ("--template nowhere/mine.yaml", "mine.yaml"),
        ("--document nowhere.txt", "--document: 'nowhere.txt' cannot be read: No such file or directory"),
        ("--document .", "--document: '.' cannot be read: Is a directory"),
        ("--document latin.txt", "--document: 'latin.txt' is not UTF-8 text"),
        ("--filter-model nowhere.gguf", "there is no model file 'nowhere.gguf'"),
        ("--model smollm2", "--base-url goes with --model openai:NAME, not with 'smollm2'"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_option_is_named(api: Api, capsys, folder: Path, options: str, wrong: str, *, as_json: bool) -> None:
    (folder / "latin.txt").write_bytes("ça".encode("latin-1"))

    assert main([*api.says(), *options.split(), *["--json"] * as_json]) == 1

    out, err = capsys.readouterr()
    assert wrong in (json.loads(out)["error"]["message"] if as_json else err)
    assert bool(out) == as_json
    assert api.asked == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_model_that_fails_to_answer_costs_nothing_of_what_was_filtered(api: Api, capsys, *, as_json: bool) -> None:
    assert main([*api.says(FILTERED, None), *["--json"] * as_json]) == 1

    out, err = capsys.readouterr()
    if as_json:
        document, result = document_of(out)
        assert (document["answer"], document["error"]["type"]) == ("", "GenerationError")
        assert [span.text for span in result.dropped] == ["I think it is Sydney."]
    else:
        assert "[question: left out] I think it is Sydney." in out
        assert "[stopped] 1 text(s) filtered until then; 2 model calls" in out
        assert err.startswith("correction-graphs: the model failed: ")


def test_a_filter_that_fails_is_told_and_the_original_is_answered(api: Api, capsys) -> None:
    assert main(api.says(None, ANSWER)) == 0

    out = capsys.readouterr().out
    assert "[question: left as it was] the filter failed: " in out
    assert "[answer] It is Canberra." in out
    assert "Sydney" in api.shown(1)


# Terminals, pipes and signals


def test_a_terminal_sees_what_is_left_out_struck_through(api: Api, capsys, monkeypatch) -> None:
    as_terminal(monkeypatch)

    assert main(api.says(INVENTED, FILTERED, "It is [bold]Canberra[/bold].")) == 0

    out = capsys.readouterr().out
    assert "\x1b[2;9mI think it is Sydney.\x1b[0m" in out  # dim and struck through
    shown = plain(out)
    assert "╭─ question: reply 1 of the filter not used" in shown
    assert "│ it has what the original has not: “8”" in shown
    assert "╭─ question: what is struck through is left out" in shown
    assert "│ I think it is Sydney. Australia has 6 states. What is the capital of Australia?" in shown
    assert "╭─ question: kept" in shown
    assert "It is [bold]Canberra[/bold]." in shown  # text of a model is no markup
    assert "3 model calls" in shown


def test_a_terminal_tells_why_a_question_was_left_as_it_was(api: Api, capsys, monkeypatch) -> None:
    as_terminal(monkeypatch)

    assert main(api.says(INVENTED, INVENTED, ANSWER)) == 0

    shown = plain(capsys.readouterr().out)
    assert "╭─ question: reply 1 of the filter not used" in shown
    assert "╭─ question: reply 2 of the filter not used" in shown
    assert shown.index("reply 2 of the filter not used") < shown.index("╭─ question: left as it was")
    assert "question: kept" not in shown
    assert "could not be used, 2 times" in shown
    assert "It is Canberra." in shown


def test_a_terminal_shows_nothing_struck_through_where_all_is_kept(api: Api, capsys, monkeypatch, folder: Path) -> None:
    as_terminal(monkeypatch)
    (folder / "facts.txt").write_text(FACT, encoding="utf-8")
    _, _, _, *options = api.says()
    # The question is shown with the document.
    monkeypatch.setattr(api, "reply", lambda asked: FACT if FACT in asked else FILTERED)

    assert main(["run", "s2a", f"Australia has 6 states. {CAPITAL}", *options, "--document", "facts.txt"]) == 0

    out = capsys.readouterr().out
    assert "struck through" not in plain(out)
    assert ";9m" not in out
    assert "╭─ question: kept" in plain(out)
    assert "╭─ facts.txt: kept" in plain(out)


@pytest.mark.parametrize("answered", [False, True])
def test_a_terminal_keeps_what_was_filtered_before_a_run_stopped(
    api: Api, capsys, monkeypatch, *, answered: bool
) -> None:
    as_terminal(monkeypatch)
    if answered:
        interrupt_once(lambda: len(api.asked) == 2)

    assert main(api.says(FILTERED, "It is Canberra, of course…" if answered else None)) == (130 if answered else 1)

    shown, err = map(plain, capsys.readouterr())
    assert "╭─ question: kept" in shown
    assert "stopped: 1 text(s) filtered until then; 2 model calls" in shown
    if answered:
        assert shown.index("It is Canberra, of course") < shown.index("stopped: ")
        assert err == "interrupted\n"
    else:
        assert "─ answer ─" not in shown
        assert err.startswith("correction-graphs: the model failed: ")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_model_cannot_steer_the_terminal(api: Api, capsys, monkeypatch, *, terminal: bool) -> None:
    if terminal:
        as_terminal(monkeypatch)

    assert main(api.says(FILTERED, "a\x1b]0;owned\x07b\x9b31mc")) == 0

    shown = plain(capsys.readouterr().out)
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    assert "a�]0;owned�b�31mc" in shown


def test_a_real_terminal_gets_panels_and_a_pipe_none(api: Api) -> None:
    assert "╭─ question: kept" in shown_by(*api.says(FILTERED, ANSWER))

    out, err = command(*api.says(FILTERED, ANSWER)).communicate(timeout=60)

    assert err == ""
    assert "\x1b" not in out
    assert "[answer] It is Canberra." in out


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_keeps_what_was_filtered_and_the_answer_so_far(api: Api, *, as_json: bool) -> None:
    run = command(*api.says(FILTERED, "It is Canberra, of course…"), *["--json"] * as_json)
    began = ""
    if as_json:
        until = time.monotonic() + 60
        while len(api.asked) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(2)  # for the pieces to arrive, of which nothing is shown
    else:
        while "of course" not in began:  # it is shown before it is complete
            began += run.stdout.read(1)

    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)

    assert run.returncode == 130
    if as_json:
        document, result = document_of(out)
        assert document["answer"] == "It is Canberra, of course"
        assert (result.error, result.usage.model_calls) == ("interrupted", 2)
        assert [span.text for span in result.dropped] == ["I think it is Sydney."]
    else:
        assert err.strip() == "interrupted"
        assert "[question: left out] I think it is Sydney." in began
        assert "[answer] It is Canberra, of course" in began
        assert out.startswith("\n[stopped] 1 text(s) filtered until then; 2 model calls")


def test_a_reader_may_leave(api: Api) -> None:
    run = command(*api.says(FILTERED, ANSWER))
    run.stdout.readline()
    run.stdout.close()

    with run.stderr as stderr:
        err = stderr.read()

    assert (run.wait(60), err) == (0, "")


@pytest.mark.gguf
def test_the_embedded_model_filters_and_answers(tmp_path: Path) -> None:
    run = command("run", "s2a", QUESTION, "--max-tokens", "24", "--seed", "1", "--json")

    out, err = run.communicate(timeout=300)

    document, result = document_of(out)
    assert (run.returncode, err) == (0, "")
    assert document["model"] == "smollm2"
    assert document["answer"]
    assert len(result.texts) == 1
    assert result.usage.model_calls == 1 + result.texts[0].attempts
    assert result.filtered == (result.fallback is None), "which one is up to the model"
