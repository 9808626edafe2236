"""Runs tests on an answer's code. `CodeChecker` copies this file next to both and starts it as a process of its own.

It needs the standard library alone, of Python 3.8 or newer, since any interpreter may run it. Settings come in on
standard input. What happens goes out as lines of JSON through a pipe that the code under test is not told about, each
line with a secret from the settings, so that nothing printed is taken for a result:

    {"ready": true}                    the limits are set, and the code is about to be imported
    {"imported": true}
    {"start": 0}, {"done": 0, "error": null}    a test begins; it ended, and why it failed if it did
    {"broken": "..."}                  what stands around the tests failed, or the import of the answer
    {"end": true}                      everything ran

Assertions at top level are tests, and so are functions `test_*` at top level; these run last.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import linecache
import operator
import os
import reprlib
import resource
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

MAX_DETAIL = 1500
GRACE = 5
_SPARE_PROCESSES = 128
_FRAMES = 3
_ANSWER = "answer"  # the module that the code under test is
_COMPARISONS: dict[type[ast.cmpop], tuple[str, Any]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Is: ("is", operator.is_),
    ast.IsNot: ("is not", operator.is_not),
    ast.In: ("in", lambda item, container: item in container),
    ast.NotIn: ("not in", lambda item, container: item not in container),
}


# Telling what happens


class Reporter:
    """Writes what happens to a pipe, from the process that it was made in and from no copy of it."""

    def __init__(self, pipe: int, secret: str) -> None:
        self._pipe = pipe
        self._secret = secret
        self._owner = os.getpid()

    def tell(self, **record: Any) -> None:
        """Write one record."""
        if os.getpid() != self._owner:  # the code has forked, and this is its copy of the tests
            os._exit(0)
        rest = f"{self._secret} {json.dumps(record)}\n".encode()
        while rest:
            rest = rest[os.write(self._pipe, rest) :]


class Unit:
    """Context manager around one test: reports how it ends, and lets the next one run."""

    def __init__(self, number: int, reporter: Reporter) -> None:
        self._number = number
        self._reporter = reporter

    def __enter__(self) -> None:
        self._reporter.tell(start=self._number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._reporter.tell(done=self._number, error=None if error is None else describe(error))
        return True


def describe(error: BaseException) -> str:
    """Return where in the tests and in the answer an error came from, and what it says; the end, if it is long."""
    folder = str(Path.cwd()) + os.sep
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.startswith(folder):
            name = code.co_filename[len(folder) :]
            if name in {"answer.py", "tests.py"}:
                line = linecache.getline(code.co_filename, trace.tb_lineno).strip()
                places.append(f"{name}, line {trace.tb_lineno}, in {code.co_name}: {line}")
        trace = trace.tb_next
    if len(places) > 2 * _FRAMES:
        places[_FRAMES:-_FRAMES] = ["..."]
    words = "".join(traceback.format_exception_only(type(error), error)).strip()
    if isinstance(error, SystemExit):
        words += "\nThe code asked to exit, which ends a program before its tests are over."
    return "\n".join([*places, words]).replace(folder, "")[-MAX_DETAIL:]


# The tests


class Comparison:
    """Does what a comparison in an assertion does, and remembers its sides."""

    def __init__(self) -> None:
        self._repr = reprlib.Repr()
        for kind in ("string", "other", "long"):
            setattr(self._repr, f"max{kind}", 200)
        for kind in ("list", "tuple", "dict", "set", "frozenset", "deque", "array"):
            setattr(self._repr, f"max{kind}", 20)
        self._symbols = dict(_COMPARISONS.values())
        self._last: tuple[Any, str, Any] = (None, "", None)

    def compare(self, symbol: str, left: Any, right: Any) -> Any:
        """Compare."""
        self._last = (left, symbol, right)
        return self._symbols[symbol](left, right)

    def sides(self) -> str:
        """Return the last comparison with its values."""
        left, symbol, right = self._last
        self._last = (None, "", None)
        return f"{self._repr.repr(left)} {symbol} {self._repr.repr(right)} does not hold"


class Instrument(ast.NodeTransformer):
    """Puts a `Unit` around each assertion at top level, and has comparisons tell their values."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """Put a unit around each assertion of the module itself."""
        self.generic_visit(node)
        number = 0
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.Assert):
                unit = ast.withitem(context_expr=_call("__unit__", ast.Constant(value=number)), optional_vars=None)
                wrapped = ast.With(items=[unit], body=[statement], type_comment=None)
                node.body[place] = ast.copy_location(wrapped, statement)
                number += 1
        return ast.fix_missing_locations(node)

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        """Let `assert left == right`, without a message of its own, say what both sides were."""
        test = node.test
        if node.msg is None and isinstance(test, ast.Compare) and len(test.ops) == 1:
            symbol = ast.Constant(value=_COMPARISONS[type(test.ops[0])][0])
            node.test = ast.copy_location(_call("__compare__", symbol, test.left, *test.comparators), test)
            node.msg = _call("__sides__")
        return node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=list(arguments), keywords=[])


class Loader(importlib.machinery.SourceFileLoader):
    """Loads the tests as a module, instrumented, as they were when it was made."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        linecache.getlines(path)
        tree = ast.parse(Path(path).read_bytes(), filename=path)
        self.assertions = sum(isinstance(node, ast.Assert) for node in tree.body)
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        self.functions = [n.name for n in tree.body if isinstance(n, kinds) and n.name.startswith("test_")]
        self._code = self.source_to_code(Instrument().visit(tree), path)

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002  (importlib's interface)
        """Return what was compiled then."""
        return self._code


def run_tests(reporter: Reporter) -> None:
    """Import the answer, then run the tests at top level in their order, then those that are functions."""
    loader = Loader("tests", str(Path.cwd() / "tests.py"))  # before the answer could touch the file
    try:
        answer = importlib.import_module(_ANSWER)
        reporter.tell(imported=True)
        spec = importlib.util.spec_from_file_location("tests", loader.path, loader=loader)
        assert spec is not None  # noqa: S101  (for type checkers: there is a loader)
        tests = importlib.util.module_from_spec(spec)
        sys.modules["tests"] = tests
        comparison = Comparison()
        vars(tests).update({name: value for name, value in vars(answer).items() if not name.startswith("_")})
        vars(tests).update(
            __unit__=lambda number: Unit(number, reporter),
            __compare__=comparison.compare,
            __sides__=comparison.sides,
        )
        loader.exec_module(tests)
    except BaseException as error:  # noqa: BLE001  (exits of the code under test included)
        reporter.tell(broken=describe(error))
        return
    for number, name in enumerate(loader.functions, loader.assertions):
        with Unit(number, reporter):
            call_test(getattr(tests, name))


def call_test(test: Any) -> None:
    """Run one test function, to its very end.

    Raises:
        TypeError: If it is a generator, whose body would never run.
    """
    result = test()
    if inspect.iscoroutine(result):
        asyncio.run(result)
    elif inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(f"{test.__name__} yields, so calling it does not run it; a test is a plain function")


# The limits


def set_limits(seconds: int, memory: int, file_size: int) -> None:
    """Limit this process and all that it will start; bytes and seconds of CPU time."""
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_CPU", seconds)
    limit("RLIMIT_FSIZE", file_size)
    limit("RLIMIT_AS", memory)
    limit_processes()


def limit(name: str, value: int) -> None:
    """Lower a limit for good; a stricter one that is there already stays."""
    number = getattr(resource, name, None)
    if number is not None:
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # not every system can limit everything
            resource.setrlimit(number, (value, value))


def limit_processes() -> None:
    """Leave room for some more processes.

    The system counts all processes and threads of the user, those in other containers included, so the limit is set
    only if it can be seen to leave room. It does not bind root.
    """
    running = count_tasks(os.getuid())
    old = resource.getrlimit(resource.RLIMIT_NPROC)
    value = running + _SPARE_PROCESSES
    if not running or os.getuid() == 0 or (old[1] != resource.RLIM_INFINITY and old[1] <= value):
        return
    resource.setrlimit(resource.RLIMIT_NPROC, (value, old[1]))
    try:
        child = os.fork()
    except OSError:  # processes that cannot be seen from here have used it up
        resource.setrlimit(resource.RLIMIT_NPROC, old)
        return
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    resource.setrlimit(resource.RLIMIT_NPROC, (value, value))


def count_tasks(user: int) -> int:
    """Return how many processes and threads of a user can be seen; 0 where the system does not tell."""
    count, processes = 0, Path("/proc")
    for process in processes.iterdir() if processes.is_dir() else ():
        with suppress(OSError):  # it may have ended since
            if process.name.isdigit() and process.stat().st_uid == user:
                count += sum(1 for _ in (process / "task").iterdir())
    return count


def main() -> None:
    """Read the settings, run the tests, and leave at once, whatever threads the code has started."""
    settings: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  (a device, not a path of anybody's)
        os.dup2(nothing.fileno(), 0)
    os.set_inheritable(settings["pipe"], False)  # noqa: FBT003  (its only form)
    reporter = Reporter(settings["pipe"], settings["secret"])
    signal.alarm(settings["seconds"] + GRACE)  # should whoever started this be gone by then
    set_limits(settings["seconds"], settings["memory"], settings["file_size"])
    reporter.tell(ready=True)
    run_tests(reporter)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    reporter.tell(end=True)
    os._exit(0)


if __name__ == "__main__":
    main()
