"""CodeChecker: what passes, what is told about what fails, and that nothing is left running or lying about."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from langchain_core.messages import HumanMessage

from correction_graphs import CheckRequest, CodeChecker, create_cac_graph
from correction_graphs.checkers import code_runner
from correction_graphs.checkers.code import read_tests
from correction_graphs.checkers.code_blocks import code_blocks
from correction_graphs.errors import SettingsError
from correction_graphs.testing import ScriptedChatModel

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")

TESTS = """
assert add(1, 2) == 3

def test_negative():
    assert add(-1, -1) == -2, "negative numbers"
"""
RIGHT = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a - b\n"


def answer(code):
    return f"Here you are:\n\n```python\n{textwrap.dedent(code).strip()}\n```\n"


def request(text):
    return CheckRequest(messages=(HumanMessage("Write add."),), answer=text)


def run(code, tests=TESTS, **settings):
    return CodeChecker(tests, allow_execution=True, **settings).invoke(request(answer(code)))


@pytest.fixture(autouse=True)
def leaves_nothing_behind(tmp_path, monkeypatch):
    """No folder, process or zombie of a test may outlive it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("correction-graphs-")] == []
    assert psutil.Process().children(recursive=True) == []
    assert [each.info for each in psutil.process_iter(["environ"]) if str(tmp_path) in str(each.info)] == []


# Right and wrong


def test_right_code_passes():
    verdict = run(RIGHT)

    assert (verdict.passed, verdict.score, verdict.critique) == (True, 1.0, "")
    assert verdict.reasoning == "2 of 2 tests passed."


def test_wrong_code_fails_with_the_tests_the_values_and_the_message():
    verdict = run(WRONG)

    assert (verdict.passed, verdict.score) == (False, 0.0)
    assert verdict.critique == (
        "0 of 2 tests passed.\n"
        "assert add(1, 2) == 3:\n"
        "  tests.py, line 2, in <module>: assert add(1, 2) == 3\n"
        "  AssertionError: -1 == 3 does not hold\n"
        "test_negative:\n"
        '  tests.py, line 5, in test_negative: assert add(-1, -1) == -2, "negative numbers"\n'
        "  AssertionError: negative numbers"
    )


def test_the_score_is_the_share_of_tests_that_pass():
    verdict = run("def add(a, b): return 3")

    assert (verdict.passed, verdict.score) == (False, 0.5)
    assert "assert add(1, 2)" not in verdict.critique, "a test that passed is not talked about"


def test_every_test_runs_whatever_the_others_do():
    tests = "assert f(1)\nx = 2\nassert f(x)\nassert f(3)\ndef test_a(): raise SystemExit\ndef test_b(): assert f(4)"

    assert run("def f(n): return n > 1", tests).score == 3 / 5


def test_an_error_is_told_with_its_place_in_the_answer():
    verdict = run("def add(a, b):\n    return a + b.missing")

    assert "answer.py, line 2, in add: return a + b.missing" in verdict.critique
    assert "AttributeError: 'int' object has no attribute 'missing'" in verdict.critique


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def add(a, b) return a", 'File "answer.py", line 1'),
        ("def add(a, b):\nreturn a", "IndentationError: expected an indented block"),
        ("def add(a, b): return '\0'", "null bytes"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("raise ValueError('at once')", "answer.py, line 1, in <module>: raise ValueError('at once')"),
        ("import sys\nsys.exit(0)", "The code asked to exit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_code_that_cannot_be_imported_fails_every_test(code, said):
    verdict = run(code)

    assert (verdict.passed, verdict.score) == (False, 0.0)
    assert "The code fails when it is imported:" in verdict.critique
    assert said in verdict.critique
    assert "correction-graphs-" not in verdict.critique, "paths are shortened"


def test_a_missing_name_is_told():
    assert "NameError: name 'add' is not defined" in run("def sum(a, b): return a + b").critique


def test_no_code_is_no_pass():
    verdict = CodeChecker(TESTS, allow_execution=True).invoke(request("Use the + operator."))

    assert (verdict.passed, verdict.score) == (False, 0.0)
    assert "```python" in verdict.critique


def test_unicode_is_kept():
    verdict = run("def gruß(name): return f'嗨 {name} 😀'", "assert gruß('世界') == '你好 世界'")

    assert "'嗨 世界 😀' == '你好 世界' does not hold" in verdict.critique
    assert run("x = '\ud800'", "assert x == '?'").passed  # half of a pair is no text


def test_a_deep_recursion_is_told_shortly():
    verdict = run("def add(a, b): return add(a, b)")

    assert "RecursionError" in verdict.critique
    assert len(verdict.critique) <= 1500


def test_a_long_critique_keeps_the_beginning_and_the_end():
    tests = "\n".join(f"def test_{n}():\n    raise ValueError('{str(n) * 900} the end')" for n in range(9))
    verdict = run("x = 1", tests)

    assert len(verdict.critique) <= 1500
    assert verdict.critique.startswith("0 of 9 tests passed.\ntest_0:\n")
    assert "the end" in verdict.critique
    assert verdict.critique.endswith("more failed.")
    assert len(verdict.reasoning) <= 10_000


def test_a_value_that_cannot_be_shown_is_no_trouble():
    code = """
        class Odd:
            def __repr__(self): raise ValueError
        def add(a, b): return Odd()
    """
    assert "<Odd instance at" in run(code).critique


# What counts as a test


def test_the_answer_is_a_module_and_its_public_names_are_there():
    tests = "import answer\nfrom answer import _hidden\nassert answer.__name__ == 'answer'\nassert _hidden == shown"

    assert run("_hidden = shown = 1\nif __name__ == '__main__': raise SystemExit", tests).passed


def test_the_answers_own_tests_are_not_run_and_do_not_replace_ours():
    code = "def add(a, b): return a - b\ndef test_negative(): pass\ndef test_more(): raise ValueError"

    assert run(code).score == 0.0
    assert "test_more" not in run(code).reasoning


def test_async_tests_are_awaited_and_generators_never_pass():
    tests = "async def test_a():\n    assert await f() == 1\ndef test_b():\n    assert False\n    yield"
    verdict = run("async def f(): return 1", tests)

    assert verdict.score == 0.5
    assert "test_b yields" in verdict.critique


def test_a_call_without_any_test_is_one_test():
    tests = "def check(f):\n    assert f(1, 2) == 3\ncheck(add)"

    assert run(RIGHT, tests).passed
    failed = run(WRONG, tests)
    assert (failed.passed, failed.score) == (False, 0.0)
    assert failed.critique.startswith("0 of 1 test passed.\nThe tests could not go on:")
    assert "-1 == 3 does not hold" in failed.critique


def test_when_the_tests_cannot_go_on_the_rest_counts_as_failed():
    tests = "assert add(1, 2) == 3\nfrom answer import subtract\nassert subtract(1, 1) == 0"
    verdict = run(RIGHT, tests)

    assert (verdict.passed, verdict.score) == (False, 0.5)
    assert "cannot import name 'subtract'" in verdict.critique


@pytest.mark.parametrize(
    ("assertion", "said"),
    [
        ("assert one != 1", "1 != 1 does not hold"),
        ("assert one > 2", "1 > 2 does not hold"),
        ("assert one >= 2", "1 >= 2 does not hold"),
        ("assert one < 1", "1 < 1 does not hold"),
        ("assert one <= 0", "1 <= 0 does not hold"),
        ("assert one is None", "1 is None does not hold"),
        ("assert one is not one", "1 is not 1 does not hold"),
        ("assert one in [2]", "1 in [2] does not hold"),
        ("assert one not in [1]", "1 not in [1] does not hold"),
        ("assert (two := one) == 2 or two > 5", "AssertionError"),
        ("assert 0 < one < 1", "AssertionError"),
        ("assert not one", "AssertionError"),
        ("assert f(0)", "ZeroDivisionError"),
        ("assert [one] * 1000 == []", "..."),
    ],
)
def test_an_assertion_tells_what_was_compared(assertion, said):
    verdict = run("one = 1\ndef f(x): return 1 / x", assertion)

    assert verdict.passed is False
    assert said in verdict.critique
    assert len(verdict.critique) < 600


def test_assertions_hold_as_they_do_elsewhere():
    tests = """
        from __future__ import annotations
        "text"
        assert one == 1 and one != 2
        assert (n := one) == 1
        assert n in {1}
        assert 0 < one <= 1, "chained"
        def test_nested():
            for i in range(3):
                assert i + 1 > i
            assert [x for x in [1] if x == one] == [1]
    """
    assert run("one = 1", tests).passed


def test_hypothesis_and_others_that_give_arguments_themselves_are_let_through():
    tests = "from functools import partial, wraps\ndef given(f): return lambda: f(1, 2)\n@given\ndef test_sum(a, b): assert add(a, b) == 3"

    assert run(RIGHT, tests).passed


# Code blocks


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("```python\na\n```", ["a\n"]),
        ("```py\na\n```", ["a\n"]),
        ("```python3\na\n```", ["a\n"]),
        ("```Python\na\n```", ["a\n"]),
        ("``` python title='x.py'\na\n```", ["a\n"]),
        ("```{.python .numberLines}\na\n```", ["a\n"]),
        ("```{python}\na\n```", ["a\n"]),
        ("```python:main.py\na\n```", ["a\n"]),
        ("~~~python\na\n~~~", ["a\n"]),
        ("~~~ python `odd`\na\n~~~~", ["a\n"]),
        ("````python\n```\na\n```\n````", ["```\na\n```\n"]),
        ("```python\n~~~\n```", ["~~~\n"]),
        ("```\na\n```", ["a\n"]),
        ("```\r\na\r\n```\r\n", ["a\n"]),
        ("```python\na", ["a\n"]),
        ("  ```python\n  a\n    b\n  ```", ["a\n  b\n"]),
        ("1. Like this:\n\n      ```python\n      a\n      ```", ["a\n"]),
        ("- ```python\n  a\n  ```", ["a\n"]),
        ("12) ```python\n    a\n    ```", ["a\n"]),
        ("```python\na\n```\ntext\n```py\nb\n```", ["a\n", "b\n"]),
        ("```\na\n```\n```python\nb\n```\n```sh\nrun\n```\n```\nout\n```", ["b\n"]),
        ("```\na\n```\n```\nb\n```", ["a\n", "b\n"]),
        ("```js\na\n```", []),
        ("```python\n```", []),
        ("```python\n \n```\n```\na\n```", ["a\n"]),
        ("Use `add` or ```add```.", []),
        ("```add``` is inline\n", []),
        ("    a\n", []),
        ("", []),
        ("````markdown\n```python\na\n```\n````", ["a\n"]),
        ("```markdown\nText\n```python\na\n```\n```", ["a\n\n"]),
        ("```text\nno code\n```\n```python\na\n```", ["a\n"]),
        ("```python\ndef f():\n    '''\n    ```python\n    f()\n    ```\n    '''\n```", ["def f():\n    '''\n    ```python\n    f()\n    ```\n    '''\n"]),
    ],
)  # fmt: skip
def test_fences(text, blocks):
    assert code_blocks(text) == blocks


def test_the_last_block_is_run_and_the_critique_says_so():
    text = f"{answer(RIGHT)}\nUse it so:\n{answer('print(add(1, 2))')}"
    verdict = CodeChecker(TESTS, allow_execution=True).invoke(request(text))

    assert verdict.passed is False
    assert "NameError" in verdict.critique
    assert verdict.critique.endswith("Only the last of 2 code blocks was run; put the complete program into it.")
    assert CodeChecker(TESTS, allow_execution=True).invoke(request(answer(WRONG) + answer(RIGHT))).passed


# Ways to misbehave


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import os\ndef add(a, b): os._exit(0)",
        "import os, threading, time\nthreading.Thread(target=lambda: os._exit(0)).start()\ntime.sleep(5)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.closerange(3, 256)",
        "import atexit, os\natexit.register(os._exit, 0)\nimport sys\ndef add(a, b): sys.exit(0)",
        "import ctypes\ndef add(a, b): ctypes.string_at(0)",
        "print('2 of 2 tests passed.')\nprint('{\"end\": true}')\nimport os\nos._exit(0)",
    ],
)
def test_ending_the_process_is_no_pass(code):
    verdict = run(code)

    assert (verdict.passed, verdict.score) == (False, 0.0)
    assert "ended the process" in verdict.critique or "asked to exit" in verdict.critique or "Errno" in verdict.critique


def test_made_up_results_are_not_believed():
    code = """
        import json, os
        records = [{"ready": True}, {"imported": True}, {"done": 0, "error": None}, {"done": 1, "error": None}, {"end": True}]
        for descriptor in range(1, 64):
            for record in records:
                try:
                    os.write(descriptor, b"\\n" + json.dumps(record).encode() + b"\\n")
                except OSError:
                    break
        os._exit(0)
    """
    assert run(code).passed is False


def test_the_files_of_the_tests_cannot_be_changed_under_them():
    code = """
        import os, pathlib
        for name in ("tests.py", "code_runner.py"):
            pathlib.Path(name).write_text("assert True")
        def add(a, b): return a - b
    """
    assert run(code).score == 0.0


def test_an_endless_loop_is_stopped_in_time():
    started = time.monotonic()
    verdict = run("def add(a, b):\n    while True: pass", seconds=1.5)

    assert time.monotonic() - started < 5
    assert verdict.passed is False
    assert "did not finish within 1.5 seconds; it was stopped in 'assert add(1, 2) == 3'" in verdict.critique


def test_tests_that_passed_before_the_time_was_up_count():
    verdict = run("import time\ndef add(a, b):\n    if a < 0: time.sleep(60)\n    return a + b", seconds=1.5)

    assert (verdict.passed, verdict.score) == (False, 0.5)
    assert "in 'test_negative'" in verdict.critique


def test_a_process_that_ignores_signals_is_stopped():
    code = """
        import signal, time
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_IGN)
        while True:
            try: time.sleep(60)
            except BaseException: pass
    """
    assert "did not finish" in run(code, seconds=1.5).critique


@pytest.mark.parametrize("code", ["x = 'a' * 10**11", "x = []\nwhile True: x.append('a' * 10**7 + str(len(x)))"])
def test_a_memory_hog_gets_no_more(code):
    assert "MemoryError" in run(code + f"\n{RIGHT}", memory_mb=256).critique


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no signals without a name here")
def test_a_signal_without_a_name_is_told_by_its_number():
    verdict = run("import os\n\ndef add(a, b):\n    os.kill(os.getpid(), 40)")
    assert verdict.passed is False
    assert "The code ended the process" in verdict.critique
    assert "(signal 40)" in verdict.critique


@pytest.mark.parametrize(("code", "passed"), [(RIGHT, True), (WRONG, False)])
def test_a_program_that_does_not_wait_for_its_children_can_check(code, passed):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some servers do: the system then forgets how they end
    try:
        verdict = run(code)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert verdict.passed is passed


def test_where_the_end_of_a_process_cannot_be_seen_without_taking_it_code_is_checked(monkeypatch):
    monkeypatch.delattr(os, "waitid")  # as on macOS before Python 3.13
    assert run(RIGHT).passed is True
    assert run(WRONG).passed is False
    assert run("import os\nos._exit(3)").passed is False


def test_huge_output_is_cut():
    verdict = run(f"for _ in range(100): print('x' * 10**6)\nprint('the end')\n{RIGHT}", seconds=60)

    assert verdict.passed
    assert len(verdict.reasoning) < 10_100
    assert verdict.reasoning.endswith("the end")


def test_endless_output_is_stopped_and_its_end_told():
    verdict = run("while True: print('y' * 100)", seconds=1.5)

    assert "did not finish" in verdict.critique
    assert verdict.critique.endswith("y" * 50)
    assert len(verdict.critique) <= 1500


def test_a_big_file_is_refused():
    verdict = run("open('big', 'wb').write(b'x' * 3 * 2**20)\n" + RIGHT, file_mb=2)

    assert "File too large" in verdict.critique
    assert run("open('small', 'wb').write(b'x' * 2**20)\n" + RIGHT, file_mb=2).passed


@pytest.mark.parametrize("code", ["x = input()", "import sys\nassert sys.stdin.read()", "import os\nos.read(0, 1)[0]"])
def test_there_is_nothing_to_read_on_standard_input(code):
    started = time.monotonic()

    assert "The code fails when it is imported" in run(code).critique
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "code",
    [
        "import os, time\nif os.fork() == 0:\n    time.sleep(100)",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(100)",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(100)\n    os._exit(0)",
        "import subprocess\nsubprocess.Popen(['sleep', '100'], start_new_session=True)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=[100]).start()",
        "import os\nos.fork()",
    ],
)
def test_children_end_with_it(code):
    started = time.monotonic()

    assert run(f"{code}\n{RIGHT}").passed
    assert time.monotonic() - started < 5


def test_many_children_end_with_it():
    code = "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(100)"

    assert "did not finish" in run(f"{code}\ntime.sleep(100)", seconds=1.5).critique


def test_what_cannot_be_listed_is_removed_too():
    assert run(f"import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.chmod('a', 0)\n{RIGHT}").passed


def test_the_environment_is_not_passed_on(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    tests = """
        import os, tempfile
        assert "OPENAI_API_KEY" not in os.environ
        assert os.path.realpath(os.environ["HOME"]) == os.getcwd()
        assert os.path.realpath(tempfile.gettempdir()) == os.getcwd()
        assert os.path.exists("answer.py")
        assert hash("a") == h
    """
    assert run("h = hash('a')", tests).passed


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root, to be somebody else for a moment"
)
def test_the_number_of_processes_is_limited_for_all_but_root(tmp_path):
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(code_runner.__file__).parent)!r})
import code_runner
os.setgid(65534); os.setuid(65534)
code_runner.limit_processes()
count = 0
try:
    while count < 1000:
        if os.fork() == 0:
            import time; time.sleep(2); os._exit(0)
        count += 1
except OSError:
    pass
print(count)
"""
    copy = tmp_path / "code_runner.py"  # the checkout may be root's alone
    copy.write_text(Path(code_runner.__file__).read_text())
    tmp_path.chmod(0o755)
    script = script.replace(str(Path(code_runner.__file__).parent), str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert 1 <= int(done.stdout) <= code_runner._SPARE_PROCESSES
    time.sleep(2.2)  # until they have ended


def test_a_process_that_does_not_start_is_not_the_answers_fault(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho no such thing\nexit 3\n")
    fake.chmod(0o755)

    with pytest.raises(RuntimeError, match="did not start but ended with exit code 3; it said 'no such thing'"):
        run(RIGHT, interpreter=fake)
    fake.write_text("#!/bin/sh\nsleep 100\n")
    with pytest.raises(RuntimeError, match="did not start in time"):
        run(RIGHT, interpreter=fake, seconds=0.3)


def test_another_interpreter_is_used():
    assert run("import sys", f"assert sys.executable == {sys.executable!r}", interpreter=Path(sys.executable)).passed


# Waiting, and not waiting any longer


async def test_async_does_not_block_the_loop_and_many_run_at_once():
    checker = CodeChecker(TESTS, allow_execution=True)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    slow = f"import time\ntime.sleep(0.3)\n{RIGHT}"
    verdicts = await checker.abatch([request(answer(code)) for code in (slow, WRONG, slow, RIGHT)])
    ticker.cancel()

    assert [verdict.passed for verdict in verdicts] == [True, False, True, True]
    assert ticks > 5
    assert [v.passed for v in checker.batch([request(answer(code)) for code in (WRONG, RIGHT)])] == [False, True]


async def test_cancellation_ends_the_process_before_it_goes_on():
    checker = CodeChecker(TESTS, allow_execution=True, seconds=60)
    task = asyncio.create_task(checker.ainvoke(request(answer("while True: pass"))))
    while not psutil.Process().children():  # noqa: ASYNC110  (nobody can tell)
        await asyncio.sleep(0.01)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert psutil.Process().children() == []


async def test_a_time_limit_of_the_callers_own_ends_it():
    checker = CodeChecker(TESTS, allow_execution=True, seconds=60)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(checker.ainvoke(request(answer("while True: pass"))), 0.3)


async def test_cancellation_before_a_thread_is_free_starts_nothing():
    checker = CodeChecker(TESTS, allow_execution=True, seconds=60)
    release = threading.Event()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    task = asyncio.create_task(checker.ainvoke(request(answer(RIGHT))))
    await asyncio.sleep(0.05)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    release.set()
    await asyncio.gather(*busy)


@pytest.mark.parametrize("in_a_graph", [False, True])
def test_ctrl_c_ends_it(in_a_graph, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
import tempfile
tempfile.tempdir = {str(tmp_path)!r}
from correction_graphs import CheckRequest, CodeChecker, create_cac_graph
from correction_graphs.testing import ScriptedChatModel
checker = CodeChecker("assert x", allow_execution=True, seconds=60)
answer = "```python\\nopen({str(tmp_path / "begun")!r}, 'w').close()\\nwhile True: pass\\n```"
try:
    if {in_a_graph}:
        create_cac_graph(ScriptedChatModel([answer]), checker=checker).invoke({{"messages": [("user", "x?")]}})
    else:
        checker.invoke(CheckRequest(messages=(), answer=answer))
except KeyboardInterrupt:
    print("interrupted")
""")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)

    assert output == "interrupted\n"
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_it_ends_by_itself_if_whoever_started_it_was_killed(tmp_path):
    runner = tmp_path / "code_runner.py"
    runner.write_text(Path(code_runner.__file__).read_text())
    (tmp_path / "answer.py").write_text("import time\ntime.sleep(100)")
    (tmp_path / "tests.py").write_text("assert True")
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, str(runner)], cwd=tmp_path, stdin=subprocess.PIPE, pass_fds=[writing])
    settings = {"pipe": writing, "secret": "s", "seconds": -4, "memory": 2**30, "file_size": 1}
    settings["seconds"] = 1 - code_runner.GRACE
    process.communicate(json.dumps(settings).encode(), timeout=20)
    os.close(reading)
    os.close(writing)

    assert process.returncode == -signal.SIGALRM


# What is refused


@pytest.mark.parametrize(
    ("tests", "settings", "message"),
    [
        (TESTS, {"allow_execution": False}, "rights of this process.*no security sandbox.*`allow_execution=True`"),
        (TESTS, {"allow_execution": 1}, "no security sandbox"),
        (TESTS, {"language": "rust"}, "`language` is 'rust'; it is one of 'python'"),
        (TESTS, {"seconds": 0}, "`seconds` is 0; give a number of seconds above 0"),
        (TESTS, {"seconds": float("nan")}, "`seconds` is nan"),
        (TESTS, {"memory_mb": "512"}, "`memory_mb` is '512'"),
        (TESTS, {"file_mb": True}, "`file_mb` is True"),
        (TESTS, {"interpreter": "/no/such/python"}, "`interpreter` is '/no/such/python', which is no program"),
        (None, {}, "`tests` is None; give Python source"),
        ("assert (", {}, "`tests` is not Python source: .*never closed.*line 1"),
        ("assert '\0'", {}, "`tests` is not Python source"),
        ("", {}, "checks nothing"),
        ("tests.py", {}, r"`tests` is 'tests.py', which checks nothing;.*read_text"),
        ("def test_a(): assert x\ndef test_a(): assert y", {}, "'test_a' is there twice"),
        ("def test_a(tmp_path): assert x", {}, "'test_a' takes arguments"),
        ("def test_a(*, x): assert x", {}, "'test_a' takes arguments"),
        ("@pytest.mark.parametrize('x', [1])\ndef test_a(x): assert x", {}, "'test_a' takes arguments"),
        ("class TestA:\n    def test_a(self): assert x", {}, "'test_a' is not run in line 1; move it to the top level"),
        ("if True:\n    def test_a(): assert x", {}, "'test_a' is not run"),
    ],
)
def test_wrong_arguments_are_refused_at_once(tests, settings, message):
    with pytest.raises(SettingsError, match=message):
        CodeChecker(tests, **{"allow_execution": True, **settings})


def test_a_system_without_limits_is_told(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "resource" else find(name, *rest)
    )

    with pytest.raises(SettingsError, match="needs limits for processes"):
        CodeChecker(TESTS, allow_execution=True)


def test_a_python_without_a_path_of_its_own_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")

    with pytest.raises(SettingsError, match="`interpreter` is ''"):
        CodeChecker(TESTS, allow_execution=True)


def test_arguments_with_defaults_and_helpers_are_no_trouble():
    plan = read_tests("def helper(x):\n    def test_inner(): ...\n    return x\ndef test_a(n=1): assert helper(n)")

    assert plan.functions == ("test_a",)


# In the loop


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_the_output_of_a_failing_test_leads_to_code_that_passes(mode):
    model = ScriptedChatModel([answer(WRONG), answer(RIGHT)])
    graph = create_cac_graph(model, checker=CodeChecker(TESTS, allow_execution=True), template="correctness")
    ask = {"messages": [("user", "Write add.")]}

    out = graph.invoke(ask) if mode == "sync" else await graph.ainvoke(ask)

    assert out["cac"].status == "passed"
    assert out["messages"][-1].text == answer(RIGHT)
    assert "-1 == 3 does not hold" in model.asked[1][-1].text
    assert [done.verdict.score for done in out["cac"].rounds] == [0.0, 1.0]


def test_of_answers_that_fail_the_one_with_more_passing_tests_is_returned():
    half = answer("def add(a, b): return 3")
    model = ScriptedChatModel([half, answer(WRONG), "I give up."])
    graph = create_cac_graph(model, checker=CodeChecker(TESTS, allow_execution=True))

    out = graph.invoke({"messages": [("user", "Write add.")]})

    assert (out["cac"].status, out["cac"].chosen) == ("exhausted", 0)
    assert out["messages"][-1].text == half
