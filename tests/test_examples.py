"""The programs in `examples/`: each runs offline in a process of its own, and prints what its reader came to see."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from correction_graphs import load_template

EXAMPLES = Path(__file__).parent.parent / "examples"
OFFLINE = """
import os, runpy, sys
from pytest_socket import socket_allow_hosts
socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)
if hasattr(os, "sched_setaffinity"):  # one thread for each model: several processes on few cores are slow otherwise
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SERVER_NEEDS = ("openai", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
SCRIPTED = "scripted replies; give --model for a real one"
FILTER_SCRIPTED = "the filter's replies are scripted; give --model for a real one"


def start(name, *arguments, typed=""):
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, str(EXAMPLES / name), *arguments],
        input=typed,
        env={**environment, "LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def printed(name, *arguments, typed=""):
    done = start(name, *arguments, typed=typed)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def field(text, label):
    return re.findall(rf"^\s*{re.escape(label)}\s*(.*)$", text, re.MULTILINE)


def test_every_example_is_in_the_list():
    listed = re.findall(
        r"^\| \[([^\]]+)\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(name for name, _ in listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert all(name == target for name, target in listed)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_list_says_what_the_program_says_of_itself(path):
    (row,) = [
        line for line in (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines() if f"({path.name})" in line
    ]
    command = row.split("`")[-2]
    text = path.read_text(encoding="utf-8")
    assert command in text
    assert ("| nothing |" not in row) == ("scripted" in text.replace("Nothing is scripted", ""))


# Nothing scripted


@pytest.mark.gguf
def test_a_rule_is_told_to_the_model_until_an_answer_keeps_it_or_the_rounds_end(smollm2_path):
    out = printed("question_with_rule.py")
    answers = re.findall(r"^answer \d+: (.+?)(?=^(?:passed|The answer has))", out, re.MULTILINE | re.DOTALL)
    lengths = [len(answer.split()) for answer in answers]
    complaints = [int(words) for words in re.findall(r"The answer has (\d+) words", out)]
    assert complaints == [length for length in lengths if length > 25] != []
    assert re.search(r"^returned: answer \d \(\w+\), \d calls$", out, re.MULTILINE)


@pytest.mark.gguf
def test_a_search_writes_the_answers_that_a_rule_checks(smollm2_path):
    out = printed("rain_in_cac.py")
    assert "Name the fish." in out or "passed" in out
    assert re.search(r"^returned: answer \d \(\w+\)$", out, re.MULTILINE)
    assert re.search(r"its search judged [1-9]\d* texts", out)


@pytest.mark.gguf
def test_a_search_over_http_tells_its_requests(smollm2_path):
    missing = [name for name in SERVER_NEEDS if find_spec(name) is None]
    if missing:
        pytest.skip(f"the server needs {', '.join(missing)}: pip install --group server")
    out = printed("rain_over_http.py")
    judged, _ = map(int, re.search(r"judged (\d+) texts, rewound (\d+) times", out).groups())
    requests, steps = map(int, re.search(r"^(\d+) requests in (\d+) steps, \d+ s$", out, re.MULTILINE).groups())
    assert judged > 1
    assert requests > steps > judged


@pytest.mark.gguf
def test_an_agent_that_searches_finds_what_its_value_function_likes_better(smollm2_path):
    out = printed("rain_in_agent.py")
    straight, searched = (float(value) for value in re.findall(r"value ([+-][\d.]+):", out))
    assert searched > straight
    judged, rewound = map(int, re.search(r"judged (\d+) texts and rewound (\d+) times", out).groups())
    assert judged > 1
    assert rewound > 0


# The filter is scripted


@pytest.mark.gguf
def test_a_model_that_does_not_see_a_claim_does_not_repeat_it(smollm2_path):
    out = printed("sycophantic_support.py")
    assert out.startswith(FILTER_SCRIPTED)
    assert field(out, "dropped:") == [
        "I'm sure the capital of Australia is Sydney.",
        "I'm sure the capital of Canada is Toronto.",
    ]
    filtered, plain = field(out, "filtered:"), field(out, "plain:")
    assert "Sydney" in plain[0]
    assert "Toronto" in plain[1]
    assert "Canberra" in filtered[0]
    assert "Ottawa" in filtered[1]


@pytest.mark.gguf
def test_one_output_has_the_results_of_all_three_methods(smollm2_path):
    out = printed("all_three.py")
    assert out.startswith(FILTER_SCRIPTED)
    assert "S2A:  dropped ['I am sure that a rainbow is a kind of bird.'], asked 'What is a rainbow?'" in out
    assert re.search(r"^CaC:  answer 1: .*\n      (passed|The answer has \d+ words)", out, re.MULTILINE)
    assert re.search(r"^CaC:  \w+, returned answer \d$", out, re.MULTILINE)
    assert re.search(r"^RAIN: for that answer it judged [1-9]\d* texts", out, re.MULTILINE)
    assert "bird" not in "".join(field(out, "CaC:"))


# The person is scripted


@pytest.mark.gguf
def test_a_person_sends_an_answer_back_and_then_writes_a_better_one(smollm2_path):
    out = printed("moderated_chat.py")
    assert out.startswith("scripted reviews; give --interactive")
    assert re.search(r"^waiting in reviews.sqlite, answer 1 to .*\n\S", out, re.MULTILINE)
    assert field(out, "sent (passed):") == [
        "I am sorry for the delay. Please send me the number of your parcel, and I will ask where it is."
    ]


@pytest.mark.gguf
def test_a_review_waits_for_another_process(smollm2_path, tmp_path):
    arguments = ("--interactive", "--database", str(tmp_path / "kept.sqlite"))
    first = start("moderated_chat.py", *arguments)
    assert first.returncode != 0  # nobody was at the terminal
    assert "EOFError" in first.stderr
    (waiting,) = re.findall(r"^waiting in kept.sqlite, answer 1 to .*\n(.*)", first.stdout, re.MULTILINE)

    second = printed("moderated_chat.py", *arguments, typed="\n")
    assert f"answer 1 to 'My parcel is a week late. What can I do?':\n{waiting}" in second
    assert field(second, "sent (passed):") == [waiting]


# All that the model says is scripted


@pytest.mark.parametrize(
    "name",
    [
        "all_three.py",
        "chinese_prompts.py",
        "coding_agent.py",
        "custom_template.py",
        "rag_with_distractor.py",
        "sycophantic_support.py",
        "translation_with_glossary.py",
    ],
)
def test_the_model_that_is_asked_for_is_loaded_and_no_script_stands_in_for_it(name):
    done = start(name, "--model", "missing.gguf")
    assert done.stdout == ""
    assert "ModelFileError" in done.stderr
    assert "missing.gguf" in done.stderr


def test_only_what_helps_is_kept_of_each_document():
    out = printed("rag_with_distractor.py")
    assert out.startswith(SCRIPTED)
    assert "bread.txt" not in out
    assert field(out, "kept:") == ["The Tinbury footbridge was opened in 1931.", "(nothing)"]
    assert field(out, "dropped:") == [
        "It is made of steel and 84 metres long.",
        "The mayor opened the Tinbury car park in 1958. It is next to the footbridge.",
    ]
    assert field(out, "answer:") == ["It was opened in 1931."]


def test_code_that_fails_a_test_is_not_returned():
    out = printed("coding_agent.py")
    assert out.startswith(SCRIPTED)
    assert "the tool read_specification said: shares(cents: int" in out
    assert "AssertionError: 99 == 100 does not hold" in out
    assert out.index("1 of 3 tests passed") < out.index("divmod") < out.index("all tests passed")
    assert out.endswith("returned: answer 2 (passed); in the history: human, ai, tool, ai\n")


def test_a_translation_is_told_the_terms_that_it_missed():
    out = printed("translation_with_glossary.py")
    assert out.startswith(SCRIPTED)
    assert [line.split(".")[0] for line in field(out, "glossary:")] == ["0%", "67%", "100%"]
    assert field(out, "glossary: 67%.") == ["Translate 'late fee' as 'Mahngebühr'."]
    assert out.endswith("returned: translation 3 (passed)\n")


def test_a_result_names_the_edited_template():
    out = printed("custom_template.py")
    assert out.startswith(SCRIPTED)
    assert "slanted: Neither the children" in out
    own, bundled = re.findall(r"sha256 ([0-9a-f]{64})$", out, re.MULTILINE)
    assert own != bundled == load_template("bias").sha256
    assert "judged by house-bias, version 2026-1" in out


def test_chinese_verdicts_are_read():
    out = printed("chinese_prompts.py")
    assert out.startswith(SCRIPTED)
    assert "未通过：首都是堪培拉，不要附和用户的说法。" in out
    assert "回答 2：不对。悉尼是澳大利亚最大的城市，首都是堪培拉。\n通过\n" in out
    assert "模板 correctness（zh）" in out


@pytest.mark.gguf
def test_a_batch_answers_each_question(smollm2_path):
    assert re.findall(r"^question (\d): .+\n\w+: \S", printed("batch_ray.py"), re.MULTILINE) == ["1", "2"]
