"""`examples/batch_ray.py`: what is in its output whatever happens, and that Ray's workers write what one process does."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from correction_graphs import load_template

PROGRAM = Path(__file__).parent.parent / "examples" / "batch_ray.py"
NAME = "batch_ray_example"
QUESTIONS = [
    {"id": f"q{number}", "question": question, "asked by": "somebody"}
    for number, question in enumerate(
        [
            "What is the capital of France?",
            "Name a colour.",
            "Who wrote Hamlet?",
            "What is two plus two?",
            "Name a fish.",
            "Where is Rome?",
            "Name a month.",
            "What is snow?",
        ]
    )
]
FLAGS = ("--method", "s2a", "--max-tokens", "12", "--threads", "1")  # filter and answer: two or three calls a question

needs_processes = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location(NAME, PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[NAME]


@pytest.fixture
def questions(tmp_path):
    return written(tmp_path / "questions.jsonl", QUESTIONS)


def written(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def started(*arguments, program=PROGRAM):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, str(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        start_new_session=True,
    )


def done(*arguments, **more):
    process = started(*arguments, **more)
    out, err = process.communicate(timeout=300)
    return process.returncode, quiet(out), quiet(err)


def quiet(text):
    """What we print, without the progress of a slow machine and without what Ray has to say."""
    lines = text.splitlines(keepends=True)
    ours = r"(?!\d+ of \d+, \d+ failed; )(?!.*\(raylet\))(?!\[.* core_worker\.cc)"
    return "".join(line for line in lines if re.match(ours, line))


def records(path):
    """The records of an output, each of whose lines is whole, by id, of which none is there twice."""
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    found = [json.loads(line) for line in lines]
    by_id = {record["id"]: record for record in found}
    assert len(by_id) == len(found)
    return by_id


def untimed(data):
    if isinstance(data, dict):
        return {key: untimed(value) for key, value in data.items() if key != "seconds"}
    return [untimed(value) for value in data] if isinstance(data, list) else data


def wait_for(what, seconds=120):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def lines_in(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def answers(smollm2_path, tmp_path_factory):
    """What one process answers that nobody disturbs."""
    folder = tmp_path_factory.mktemp("here")
    source, target = written(folder / "questions.jsonl", QUESTIONS), folder / "answers.jsonl"
    assert done(source, target, *FLAGS) == (0, f"8 answered, 0 failed: {target}\n", "")
    return target


# Input


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('{"question": "Who?"}\n{"question": \n', """2: '{"question": ' is no JSON object, such as {"""),
        ('["Who?"]\n', """1: '["Who?"]' is no JSON object"""),
        ('{"question": "x", "a": ' + "[" * 100_000 + "\n", """1: '{"question": "x", "a": [[[["""),
        ('{"id": 1}\n', "1: `question` is None; give a text"),
        ('{"question": " "}\n', "1: `question` is ' '; give a text"),
        ('{"question": "Who?", "id": true}\n', "1: `id` is True; give a text or a whole number"),
        ('{"question": "Who?", "id": 2}\n\n{"question": "Why?", "id": 2}\n', "3: the id 2 is that of line 1, too"),
        ('{"question": "Who?", "id": 2}\n{"question": "Why?"}\n', "2: the id 2 is that of line 1, too"),
        ('{"question": "\\ud800?"}\n', "1: 'utf-8' codec can't encode character"),
    ],
)
def test_a_mistake_in_the_input_is_told_before_a_model_is_loaded(tmp_path, program, lines, complaint):
    source = tmp_path / "questions.jsonl"
    source.write_text(lines, encoding="utf-8")
    with pytest.raises(program.BatchError) as raised:
        program.read_questions(source)
    assert str(raised.value).startswith(f"{source}:{complaint}")


def test_ids_are_those_given_or_the_numbers_of_the_lines(tmp_path, program):
    source = tmp_path / "questions.jsonl"
    source.write_text('\ufeff{"question": "谁？"}\r\n\n{"id": "1", "question": "a\u2028b"}\n{"question": "x"}', "utf-8")
    assert program.read_questions(source) == [(1, "谁？"), ("1", "a\u2028b"), (4, "x")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["questions.jsonl"], "give an OUTPUT as well"),
        (["missing.jsonl", "answers.jsonl"], "missing.jsonl"),
        (["questions.jsonl", "questions.jsonl"], "are both 'questions.jsonl'"),
        (["questions.jsonl", "answers.jsonl", "--model", "missing.gguf"], "missing.gguf"),
        (["questions.jsonl", "answers.jsonl", "--template", "missing"], "missing"),
        (["questions.jsonl", "answers.jsonl", "--workers", "-1"], "-1 is less than 0"),
        (
            ["questions.jsonl", "answers.jsonl", "--method", "rain", "--model", "openai:x"],
            "OPENAI_API_KEY|logits|openai",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(request, questions, program, arguments, complaint):
    monkeypatch, capsys = request.getfixturevalue("monkeypatch"), request.getfixturevalue("capsys")
    monkeypatch.chdir(questions.parent)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["batch_ray.py", *arguments])
    try:
        status = program.main()
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert (status, out) in ((1, ""), (2, ""))
    assert any(word in err.splitlines()[-1] for word in complaint.split("|"))
    assert questions.read_text().count("\n") == len(QUESTIONS)


# Output, on the files alone


def opened(program, path, asked, **settings):
    with program.Output(path, [program.Item(*one) for one in asked], {"model": "m", **settings}) as output:
        return output


def answer(name, question, **more):
    return {"id": name, "question": question, "answer": "a", "settings": {"model": "m"}, **more}


def test_a_half_line_is_left_out_wherever_the_run_was_killed(tmp_path, program):
    path = tmp_path / "answers.jsonl"
    asked = [("a", "A?"), ("b", "B?")]
    whole = [json.dumps(answer(*one)).encode() for one in asked]
    for length in range(len(whole[1]) + 1):
        path.write_bytes(whole[0] + b"\n" + whole[1][:length])
        output = opened(program, path, asked)
        is_whole = length == len(whole[1])
        assert output.answered == ({'"a"', '"b"'} if is_whole else {'"a"'})
        assert path.read_bytes() == whole[0] + b"\n" + (whole[1] + b"\n" if is_whole else b"")
    assert list(tmp_path.iterdir()) == [path]


def test_what_failed_is_tried_again_and_what_is_not_asked_stays(tmp_path, program):
    failed, other = answer("b", "B?", error={}), answer("c", "C?", error={})
    path = written(tmp_path / "answers.jsonl", [answer("a", "A?"), failed, other, answer("a", "A?")])
    assert opened(program, path, [("a", "A?"), ("b", "B?")]).answered == {'"a"'}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [answer("a", "A?"), other]


def test_a_file_that_is_in_order_is_not_written_anew(tmp_path, program):
    path = written(tmp_path / "answers.jsonl", [answer("a", "A?")])
    before = path.stat()
    opened(program, path, [("a", "A?")])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("My diary.", "1: not a line of answers"),
        ('{"id": "a", "ques\n' + json.dumps(answer("b", "B?")), "1: not a line of answers"),
        (json.dumps(QUESTIONS[0]) + "\n", "1: not a line of answers"),
        (json.dumps(answer("a", "Z?")), "there, the id \"a\" is that of 'Z?'; in the input it is that of 'A?'"),
    ],
)
def test_a_file_that_is_not_the_output_of_this_input_is_left_alone(tmp_path, program, text, complaint):
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(program.BatchError) as raised:
        opened(program, path, [("a", "A?"), ("b", "B?")])
    assert complaint in str(raised.value)
    assert path.read_text() == text


def test_answers_that_were_made_otherwise_are_counted_by_what_differs(tmp_path, program):
    path = written(tmp_path / "answers.jsonl", [answer("a", "A?"), answer("b", "B?")])
    assert opened(program, path, []).other_settings == {}
    assert opened(program, path, [], model="n").other_settings == {"model 'm', now 'n'": 2}


# Answering in this process


@pytest.mark.gguf
def test_a_line_has_the_answer_the_result_and_what_it_was_made_with(answers):
    found = records(answers)
    assert list(found) == [record["id"] for record in QUESTIONS]
    record = found["q0"]
    assert list(record) == ["id", "question", "answer", "status", "result", "settings"]
    assert (record["question"], record["status"]) == ("What is the capital of France?", "original")
    assert "Paris" in record["answer"]
    assert record["result"]["usage"]["model_calls"] == 3
    assert record["settings"]["template_sha256"] == load_template("unbiased", method="s2a").sha256


@pytest.mark.gguf
@pytest.mark.parametrize(
    ("method", "status"), [("cac", "exhausted|passed|plateau|oscillation"), ("rain", "length|stop")]
)
def test_each_method_answers(tmp_path, smollm2_path, method, status):
    source, target = written(tmp_path / "questions.jsonl", [{"question": "Name a fish."}]), tmp_path / "answers.jsonl"
    assert done(source, target, "--method", method, "--max-tokens", "8", "--threads", "1")[0] == 0
    record = records(target)[1]
    assert record["answer"]
    assert record["status"] in status.split("|")


@pytest.mark.gguf
def test_an_answer_does_not_depend_on_what_was_asked_before(tmp_path, answers):
    source = written(tmp_path / "questions.jsonl", QUESTIONS[3::-1])
    target = tmp_path / "answers.jsonl"
    assert done(source, target, *FLAGS)[0] == 0
    assert list(records(target)) == ["q3", "q2", "q1", "q0"]
    expected = untimed(records(answers))
    assert untimed(records(target)) == {name: expected[name] for name in records(target)}


@pytest.mark.gguf
def test_what_fails_is_a_line_with_its_error_and_is_tried_again(tmp_path, smollm2_path):
    too_long = {"id": "long", "question": "word " * 9000}
    source = written(tmp_path / "questions.jsonl", [too_long, QUESTIONS[1]])
    target = tmp_path / "answers.jsonl"
    for _ in range(2):  # the second time, nothing else is asked
        status, out, err = done(source, target, *FLAGS)
        assert (status, out, err) == (1, f"1 answered, 1 failed: {target}\n", "")
        record = records(target)["long"]
        assert list(record) == ["id", "question", "error", "result", "settings"]
        assert record["error"]["type"] == "GenerationError"
        assert "context holds" in record["error"]["message"]
        assert record["result"]["usage"]["model_calls"] >= 0
        assert "answer" in records(target)["q1"]

    written(source, [{**too_long, "id": "short", "question": "Who?"}, QUESTIONS[1]])
    status, out, err = done(source, target, *FLAGS, "--seed", "7")
    assert (status, out) == (0, f"2 answered, 0 failed: {target}\n")
    assert err.startswith(f"1 answer(s) in {target} were made with other settings and are kept: seed 0, now 7. Give")
    assert list(records(target)) == ["q1", "long", "short"]


@pytest.mark.gguf
@needs_processes
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_keeps_what_was_finished_and_goes_on(questions, answers, how):
    target = questions.with_name("answers.jsonl")
    process = started(questions, target, *FLAGS)
    wait_for(lambda: lines_in(target) >= 2)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert ("the same command goes on from here" in err) == (how == signal.SIGINT)
    before = target.read_bytes()
    assert 2 <= before.count(b"\n") < len(QUESTIONS)

    assert done(questions, target, *FLAGS) == (0, f"8 answered, 0 failed: {target}\n", "")
    whole = before[: before.rindex(b"\n") + 1]
    assert target.read_bytes().startswith(whole)
    assert untimed(records(target)) == untimed(records(answers))


# With Ray


@pytest.fixture(scope="module")
def ray_is_there(smollm2_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip('Ray is not installed: pip install "ray[data]"')


def test_without_workers_ray_is_not_imported(tmp_path):
    script = f"""
    import runpy, sys
    sys.argv = ["batch_ray.py", {str(tmp_path / "missing.jsonl")!r}, "answers.jsonl"]
    try:
        runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
    except SystemExit as exit_:
        assert exit_.code == 1
    assert "ray" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True)


@pytest.mark.gguf
@pytest.mark.slow
@needs_processes
def test_a_worker_is_killed_and_nothing_is_lost_twice_or_different(questions, answers, ray_is_there):
    target = questions.with_name("answers.jsonl")
    process = started(questions, target, *FLAGS, "--workers", "2")
    try:
        wait_for(lambda: lines_in(target) >= 2)
        workers = ray_workers(process)
        assert len(workers) == 2
        workers[0].kill()
        at = lines_in(target)
        assert at < len(QUESTIONS) - 1
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, quiet(out)) == (0, f"8 answered, 0 failed: {target}\n"), err
    assert not workers[0].is_running()
    assert untimed(records(target)) == untimed(records(answers))


def ray_workers(process):
    family = psutil.Process(process.pid).children(recursive=True)
    return [one for one in family if (one.cmdline() or [""])[0].startswith("ray::MapWorker")]


@pytest.mark.gguf
@pytest.mark.slow
@needs_processes
def test_a_run_with_workers_that_is_stopped_goes_on_without_them(questions, answers, ray_is_there):
    target = questions.with_name("answers.jsonl")
    process = started(questions, target, *FLAGS, "--workers", "2")
    wait_for(lambda: lines_in(target) >= 1)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all that run in it are interrupted
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted; the same command goes on from here")
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    before = target.read_bytes()
    assert 1 <= before.count(b"\n") < len(QUESTIONS)

    assert done(questions, target, *FLAGS) == (0, f"8 answered, 0 failed: {target}\n", "")
    assert target.read_bytes().startswith(before)
    assert untimed(records(target)) == untimed(records(answers))


@pytest.mark.gguf
@pytest.mark.slow
@needs_processes
def test_a_question_that_kills_every_worker_fails_and_takes_no_other_along(tmp_path, answers, ray_is_there):
    wrapped = tmp_path / "wrapped.py"
    wrapped.write_text(
        textwrap.dedent(f"""
        import os, runpy, sys
        names = runpy.run_path({str(PROGRAM)!r})
        answer = names["Corrector"].line
        names["Corrector"].line = lambda self, item: os.kill(os.getpid(), 9) if item.id == "deadly" else answer(self, item)
        sys.exit(names["main"]())
        """)
    )
    source = written(tmp_path / "questions.jsonl", [{"id": "deadly", "question": "Die."}, *QUESTIONS[:2]])
    target = tmp_path / "answers.jsonl"
    status, out, err = done(source, target, *FLAGS, "--workers", "1", program=wrapped)
    assert (status, out) == (1, f"2 answered, 1 failed: {target}\n"), err
    found = records(target)
    assert found.pop("deadly")["error"]["type"] == "WorkerDiedError"
    expected = untimed(records(answers))
    assert untimed(found) == {name: expected[name] for name in ("q0", "q1")}


@pytest.mark.slow
@needs_processes
def test_a_model_that_no_worker_can_load_ends_the_run(questions, ray_is_there):
    target = questions.with_name("answers.jsonl")
    status, out, err = done(questions, target, "--model", questions.with_name("missing.gguf"), "--workers", "1")
    assert (status, out) == (1, "")
    assert "missing.gguf" in err.splitlines()[-1]
    assert target.read_bytes() == b""
