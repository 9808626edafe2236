"""Opens a model file in a process of its own first, so that one that crashes llama.cpp does not crash this process.

llama.cpp checks much of what a file says, and aborts the process on some of the rest: a header of which a few bits are
wrong can end Python without a word. A trial makes a clear error of that. It costs loading the file once more.

It is no sandbox, and a file that passes is not thereby safe:

- The trial runs with all rights of this process. A file made to take over the process that reads it can do so there.
- Such a file can also pass the trial and do its work here afterwards: it can tell the two apart.
- What crashes only on certain texts, long ones or rare tokens, is not found by the few that are tried.
- The file may be another one by the time it is opened here, where others can write to it.

Who opens files of strangers does it as a user without rights, in a container or a virtual machine, and may still want
the trial, for its errors.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

from correction_graphs.errors import BackendError, ModelFileError

_RUNNER = Path(__file__).with_name("trial_runner.py")
_START = 300.0  # seconds until Python has loaded llama.cpp; minutes, from a cold network drive
_END = 30.0  # seconds for a process to be gone after its last word
_LAST_WORDS = 300  # characters


def try_model_file(
    path: str | os.PathLike[str], *, seconds: float | None = None, memory: int | None = None, **settings: Any
) -> None:
    """Load a GGUF file in a process of its own, and compute with it; return if that went well.

    See this module's description for what such a trial does not protect from.

    Args:
        path: The file.
        seconds: How long it may take; by default a minute, and one more for each gigabyte.
        memory: Bytes that the trial may allocate, beside the file itself; by default as much as the machine has.
            Without effect on Windows.
        **settings: Of `LlamaCppBackend`; best those that the file will be opened with.

    Raises:
        ModelFileError: If the file cannot be used, or the trial crashed or did not end; says how.
        BackendError: If no trial could be started.
    """
    (problem,) = problems_of([path], seconds=seconds, memory=memory, **settings)
    if problem is not None:
        raise ModelFileError(problem)


def problems_of(
    paths: Sequence[str | os.PathLike[str]],
    *,
    seconds: float | None = None,
    memory: int | None = None,
    **settings: Any,
) -> list[str | None]:
    """Return what is wrong with each of several files, None for those that can be used.

    They share a process, whose start takes most of the time for small ones. When it dies, the file it was at is tried
    again, first of all in a new one; only if that dies, too, is the file to blame, and not what an earlier one left.

    Args:
        paths: The files.
        seconds: How long each may take; see `try_model_file`.
        memory: See `try_model_file`.
        **settings: Of `LlamaCppBackend`.

    Raises:
        BackendError: If no trial could be started.
    """
    found: list[str | None] = []
    limit = _physical_memory() if memory is None else memory
    while len(found) < len(paths):
        left = paths[len(found) :]
        with _Trial(left, limit, settings) as trial:
            for at, path in enumerate(left):
                problem, died = trial.next_problem(_seconds_for(path) if seconds is None else seconds)
                if died and at:
                    break
                found.append(f"{os.fspath(path)!r} {problem}" if died else problem)
                if died:
                    break
    return found


class _Trial:
    """A process that tries files one after the other, and says a line of JSON about each."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], memory: int | None, settings: dict[str, Any]) -> None:
        if not sys.executable:
            raise BackendError("there is no Python executable to try a model file with; open it as a trusted one")
        request = {
            "sys_path": [*map(str, sys.path)],
            "memory": memory,
            "settings": settings,
            "paths": [os.fspath(p) for p in paths],
        }
        self._said: queue.Queue[bytes] = queue.Queue()  # b"" when there will be no more
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed at the end of the trial)
        self._process = subprocess.Popen(  # noqa: S603  (this very Python, and a file of this package)
            [sys.executable, "-I", str(_RUNNER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # which would start a debugger
        )
        asked = json.dumps(request, default=int).encode()  # numbers may be numpy's
        self._reader = threading.Thread(target=self._listen, args=(asked,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            self._await_start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdout, self._complaints):
            if stream is not None:
                stream.close()

    def _await_start(self) -> None:
        said, how = self._next(_START)
        if said != "ready":
            raise BackendError(f"a process to try a model file in {how or f'said {said!r}'}")

    def next_problem(self, seconds: float) -> tuple[str | None, bool]:
        """Return what is wrong with the next file, if anything is, and whether the process died of it."""
        said, how = self._next(seconds)
        if how is not None:
            return f"is no model file to use: a process that tried it {how}", True
        return said, False

    def _next(self, seconds: float) -> tuple[str | None, str | None]:
        """Return what the process says next, or else how it ended."""
        try:
            line = self._said.get(timeout=seconds)
        except queue.Empty:
            self._process.kill()
            return None, f"did not come to an end within {seconds:g} seconds"
        try:
            return json.loads(line)["said"], None
        except (ValueError, KeyError, TypeError):
            return None, self._how_it_ended()

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_END)
        except subprocess.TimeoutExpired:
            return "stopped talking"
        if status < 0:
            known = {each.value: each.name for each in signal.Signals}
            how = f"was killed by {known.get(-status, f'signal {-status}')}"
        else:
            how = f"ended with exit status {status}"
        words = " ".join(self._last_words().split())
        return f"{how}; its last words: {words[-_LAST_WORDS:]}" if words else how

    def _last_words(self) -> str:
        size = self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, size - 4 * _LAST_WORDS))
        return self._complaints.read().decode("utf-8", errors="replace")

    def _listen(self, request: bytes) -> None:
        for line in self._lines(request):
            self._said.put(line)
        self._said.put(b"")

    def _lines(self, request: bytes) -> Iterator[bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return
        try:
            with stdin:
                stdin.write(request)
        except OSError:  # it died before it had read that; its end says more
            return
        yield from stdout


def _seconds_for(path: str | os.PathLike[str]) -> float:
    try:
        return 60 * (1 + math.ceil(Path(path).stat().st_size / 2**30))
    except (OSError, ValueError):  # which the trial will tell
        return 60


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return None
