"""CodeChecker: an answer's code is run against the caller's tests, and what fails becomes the critique."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import math
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, get_args

from langchain_core.runnables import RunnableConfig, run_in_executor

from correction_graphs.arguments import expect
from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.code_blocks import Language, code_blocks
from correction_graphs.checkers.code_process import Run, run_process
from correction_graphs.errors import SettingsError
from correction_graphs.results import Verdict

_MAX_CRITIQUE = 1500
_MAX_REASONING = 10_000


class CodeChecker(Checker):
    r"""Runs tests on the code in an answer, in a process of its own.

    The code is taken from the last fenced block that is labelled as Python, or, if none is, from the last block without
    a label; an answer that has neither does not pass. It becomes the module `answer`. It is imported, not run as a
    script, so what is under `if __name__ == "__main__"` does not happen.

    Warning:
        This is **not a security sandbox**. The code runs with the rights of this process: it can read and delete files,
        use the network, and look at other processes. It also shares a process with the tests, so code that sets out to
        deceive them can. What there is guards against accidents: limits on time, memory and the size of files, no
        standard input, an environment without your variables, a temporary folder, and the end of every process that
        was started. Where people you do not trust can influence the answers, run all of this in a container or a
        virtual machine that you can afford to lose.

    Args:
        tests: Python source, yours and trusted. Each `assert` and each function `test_*` at top level is one test; all
            of them run, the functions last. The rest of the top level is run in between, as it comes; where there are
            no tests but a call such as `check(add)`, all of it is one test. Public names of the answer are there
            already, and `import answer` works. Test functions take no arguments, and may be async. pytest is not
            needed, nor does it run them.
        allow_execution: Has to be True, which says that you have read the warning.
        language: What the code is written in; "python" is the only one so far.
        seconds: Wall-clock time for everything. Each process may also use about as much CPU time, and no more.
        memory_mb: Address space of each process, in MiB.
        file_mb: Size of each file that is written, in MiB. How many there are is not limited.
        interpreter: The Python that runs code and tests, 3.8 or newer; by default this one, with its packages.

    Raises:
        SettingsError: If `allow_execution` is not True, the tests are no Python or hold no test, a limit is out of
            range, the interpreter is not there, or the system has no limits for processes (Windows).

    Example:
        ```python
        from correction_graphs import CheckRequest, CodeChecker

        checker = CodeChecker("assert add(1, 2) == 3", allow_execution=True)

        answer = "Here it is:\n```python\ndef add(a, b):\n    return a - b\n```"
        verdict = checker.invoke(CheckRequest(messages=(), answer=answer))
        assert verdict.passed is False
        assert "-1 == 3 does not hold" in verdict.critique
        assert checker.invoke(CheckRequest(messages=(), answer=answer.replace("-", "+"))).passed
        ```
    """

    def __init__(
        self,
        tests: str,
        *,
        allow_execution: bool = False,
        language: Language = "python",
        seconds: float = 10,
        memory_mb: int = 512,
        file_mb: int = 16,
        interpreter: str | os.PathLike[str] | None = None,
    ) -> None:
        if allow_execution is not True:
            raise SettingsError(
                "CodeChecker runs code that a model wrote, on this machine and with the rights of this process. Its "
                "limits guard against accidents; they are no security sandbox. Pass `allow_execution=True` if that "
                "is acceptable here, best in a container that holds nothing of value"
            )
        if importlib.util.find_spec("resource") is None:
            raise SettingsError(
                f"CodeChecker needs limits for processes (Python's module `resource`), which {sys.platform!r} does not "
                "have; use Linux, or a container with it"
            )
        expect("language", language, get_args(Language))
        _require_number("seconds", seconds, "seconds")
        _require_number("memory_mb", memory_mb, "MiB")
        _require_number("file_mb", file_mb, "MiB")
        self.plan = read_tests(tests)
        self.language = language
        self.seconds = seconds
        self.memory_mb = memory_mb
        self.file_mb = file_mb
        self.interpreter = _find_interpreter(interpreter)
        self.name = "code"

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:  # noqa: ARG002
        """Run the tests and wait for them."""
        return self._judge(request.answer, threading.Event(), threading.Event())

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Run the tests while a worker thread waits for them. Cancellation ends them before it goes on."""
        begun, stop = threading.Event(), threading.Event()
        work = asyncio.ensure_future(run_in_executor(config, self._judge, request.answer, begun, stop))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            if not begun.is_set():  # no thread was free yet
                work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise

    def _judge(self, answer: str, begun: threading.Event, stop: threading.Event) -> Verdict:
        begun.set()
        blocks = code_blocks(answer, self.language)
        if not blocks:
            return Verdict(passed=False, score=0.0, critique=_NO_CODE)
        with tempfile.TemporaryDirectory(prefix="correction-graphs-", ignore_cleanup_errors=True) as folder:
            run = self._run(blocks[-1], Path(folder).resolve(), stop)
        return judge_run(run, self.plan, seconds=self.seconds, blocks=len(blocks))

    def _run(self, code: str, folder: Path, stop: threading.Event) -> Run:
        runner = folder / "code_runner.py"
        shutil.copyfile(Path(__file__).with_name("code_runner.py"), runner)
        (folder / "answer.py").write_text(code, encoding="utf-8", errors="replace")
        (folder / "tests.py").write_text(self.plan.source, encoding="utf-8")
        settings = {
            "seconds": math.ceil(self.seconds) + 1,  # of CPU time; the wall clock is to strike first
            "memory": int(self.memory_mb * 2**20),
            "file_size": int(self.file_mb * 2**20),
        }
        command = [self.interpreter, "-B", "-s", "-X", "utf8", str(runner)]
        room = 2**16 + 2**14 * len(self.plan.names)
        return run_process(command, settings, folder, seconds=self.seconds, max_report=room, stop=stop)


_NO_CODE = (
    "There is no Python code block in the answer. Write the complete program in one block that begins with a line "
    "```python and ends with a line ```."
)


def _require_number(name: str, value: object, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SettingsError(f"`{name}` is {value!r}; give a number of {unit} above 0")


def _find_interpreter(interpreter: str | os.PathLike[str] | None) -> str:
    wanted = sys.executable if interpreter is None else os.fspath(interpreter)
    found = shutil.which(wanted) if wanted else None
    if found is None:
        raise SettingsError(f"`interpreter` is {wanted!r}, which is no program here; give the path of a Python")
    return str(Path(found).absolute())  # not resolved: a virtual environment is known by the link to it


# The tests


@dataclass(frozen=True)
class Plan:
    """The caller's tests, and what has to have passed in the end.

    Attributes:
        source: The tests themselves.
        assertions: The source of each assertion at top level.
        functions: The names of the test functions.
    """

    source: str
    assertions: tuple[str, ...]
    functions: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each test, in the order they are run."""
        return (*(textwrap.shorten(source, 100, placeholder=" ...") for source in self.assertions), *self.functions)


def read_tests(source: str) -> Plan:
    """Find the tests in a source.

    Raises:
        SettingsError: If it is no Python, there are no tests in it, or some that would never be run.
    """
    if not isinstance(source, str):
        raise SettingsError(f"`tests` is {source!r}; give Python source as text, such as 'assert add(1, 2) == 3'")
    source = textwrap.dedent(source)
    try:
        tree = ast.parse(source, filename="tests")
    except (SyntaxError, ValueError) as error:
        raise SettingsError(f"`tests` is not Python source: {error}") from error
    if not any(isinstance(node, ast.Assert | ast.Call | ast.Raise) for node in ast.walk(tree)):
        raise SettingsError(
            f"`tests` is {textwrap.shorten(source, 80)!r}, which checks nothing; give Python source with assertions or "
            "functions `test_*`; a file is given by its content, such as Path('tests.py').read_text()"
        )
    if problem := next(_never_run(tree), None):
        raise SettingsError(f"`tests`: {problem}")
    assertions = (node for node in tree.body if isinstance(node, ast.Assert))
    return Plan(
        source,
        assertions=tuple(ast.get_source_segment(source, node) or "assert" for node in assertions),
        functions=tuple(node.name for node in tree.body if _is_test(node)),
    )


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _is_test(node: ast.AST) -> TypeGuard[_Function]:
    return isinstance(node, _Function) and node.name.startswith("test_")


def _never_run(tree: ast.Module) -> Iterator[str]:
    """Yield what is wrong with tests that look as if they would be run."""
    seen: set[str] = set()
    for node in tree.body:
        if not isinstance(node, _Function):
            inner = [each.name for each in _outside_functions(node) if each.name.startswith("test_")]
            yield from (f"{name!r} is not run in line {node.lineno}; move it to the top level" for name in inner)
        elif _is_test(node):
            if node.name in seen:
                yield f"{node.name!r} is there twice; give each test a name of its own"
            seen.add(node.name)
            required = len(node.args.posonlyargs + node.args.args) - len(node.args.defaults)
            marked = any("pytest" in ast.unparse(decorator) for decorator in node.decorator_list)
            if (required > 0 or None in node.args.kw_defaults) and (marked or not node.decorator_list):
                yield f"{node.name!r} takes arguments, but there are no fixtures or parameters here; call it in a loop"


def _outside_functions(node: ast.AST) -> Iterator[_Function]:
    """Yield the functions in classes and compound statements, but not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function):
            yield child
        else:
            yield from _outside_functions(child)


# The verdict


def judge_run(run: Run, plan: Plan, *, seconds: float, blocks: int = 1) -> Verdict:
    """Turn what became of a run into a verdict.

    Args:
        run: The run.
        plan: The tests that had to pass; each must have been reported.
        seconds: How long it might take.
        blocks: How many blocks of code there were to choose from.

    Raises:
        RuntimeError: If it did not get as far as the code, which is not the answer's fault.
    """
    if not any("ready" in record for record in run.report):
        how = "in time" if run.exit_code is None else f"but ended with exit code {run.exit_code}"
        raise RuntimeError(f"the process for the tests did not start {how}; it said {run.output[-_MAX_CRITIQUE:]!r}")
    stopped = _what_stopped(run, plan, seconds)
    errors = {record["done"]: record["error"] for record in run.report if "done" in record}
    outcomes = [errors.get(number, "not run") for number in range(len(plan.names))]
    passed = outcomes.count(None) if plan.names else int(stopped is None)
    total = len(plan.names) or 1  # without tests that can be told apart, all of it is one
    failures = [
        f"{name}:\n{textwrap.indent(errors[number], '  ')}"
        for number, name in enumerate(plan.names)
        if errors.get(number) is not None
    ]
    lines = [f"{passed} of {total} test{'s' * (total > 1)} passed.", *([stopped] if stopped else []), *failures]
    reasoning = "\n".join([*lines, *(["Output:", run.output] if run.output else [])])
    return Verdict(
        passed=passed == total and stopped is None,
        score=passed / total,
        critique="" if passed == total and stopped is None else _critique(lines, blocks),
        reasoning=_shorten(reasoning, _MAX_REASONING),
    )


def _what_stopped(run: Run, plan: Plan, seconds: float) -> str | None:
    """Say why not all of the tests were run; None if they were."""
    told = {key for record in run.report for key in record}
    for record in run.report:
        if "broken" in record:
            what = "The tests could not go on" if "imported" in told else "The code fails when it is imported"
            return f"{what}:\n{textwrap.indent(record['broken'], '  ')}"
    if "end" in told and run.exit_code == 0:
        return None
    started = [record["start"] for record in run.report if "start" in record]
    done = {record["done"] for record in run.report if "done" in record}
    during = [f"in {plan.names[number]!r}" for number in started if number not in done and number < len(plan.names)]
    where = "while it was imported" if "imported" not in told else during[-1] if during else "between the tests"
    if run.exit_code is None:
        what = f"The code did not finish within {seconds:g} seconds; it was stopped {where}."
    else:
        what = f"The code ended the process {where} ({_words_for(run.exit_code)}), before all tests were done."
    return (
        f"{what}\nIts last output:\n{textwrap.indent(run.output[-_MAX_CRITIQUE // 2 :], '  ')}" if run.output else what
    )


def _words_for(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
    return f"{name}: too much CPU time" if name == "SIGXCPU" else name


def _critique(lines: Sequence[str], blocks: int) -> str:
    """Return as much of the lines as there is room for; of the last one that fits in part, its beginning and end."""
    note = f"Only the last of {blocks} code blocks was run; put the complete program into it." if blocks > 1 else ""
    text, room = "", _MAX_CRITIQUE - len(note) - 1
    for index, line in enumerate(lines):
        left = room - len(text)
        if left < _MAX_CRITIQUE // 5:
            text += f"{len(lines) - index} more failed.\n"
            break
        text += f"{_shorten(line, left - 50)}\n"
    return f"{text}{note}".strip()


def _shorten(text: str, length: int) -> str:
    """Return the first line of a text and as much of its end as there is room for."""
    if len(text) <= length:
        return text
    first = text.partition("\n")[0][: length // 2]
    return f"{first}\n...{text[len(first) + 5 - length :]}"
