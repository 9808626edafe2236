"""A process for code that may do anything: its limits, what it tells, and the end of all that it started."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_MAX_OUTPUT = 20_000
_POLL = 0.02


@dataclass
class Run:
    """What became of a run.

    Attributes:
        report: What the runner told, in order.
        output: The end of what was printed.
        exit_code: As `subprocess` tells it; None if the process had to be ended because its time was up.
    """

    report: list[dict[str, Any]] = field(default_factory=list)
    output: str = ""
    exit_code: int | None = None


def run_process(
    command: Sequence[str],
    settings: dict[str, int],
    folder: Path,
    *,
    seconds: float,
    max_report: int,
    stop: threading.Event,
) -> Run:
    """Run the runner in a folder until it ends, its time is up, or `stop` is set; nothing of it is left running."""
    deadline = time.monotonic() + seconds
    secret, mark = secrets.token_hex(16), secrets.token_hex(16)
    with _pipe() as (report_end, told_end):
        environment = _environment(folder, mark)
        process = subprocess.Popen(  # noqa: S603  (running this code is the purpose; the user has allowed it)
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[told_end.fileno()],
            start_new_session=True,
        )
        assert process.stdin is not None  # noqa: S101  (for type checkers)
        assert process.stdout is not None  # noqa: S101
        output, report = Tail(process.stdout, _MAX_OUTPUT), Tail(report_end, max_report)
        try:
            with suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps({**settings, "pipe": told_end.fileno(), "secret": secret}).encode())
            told_end.close()
            in_time = _listen(process, [output, report], deadline, stop)
        finally:
            _end(process, mark)
        output.read()
        report.read()
        process.stdout.close()
    return Run(
        report=read_report(report.text, secret),
        output=output.text.replace(f"{folder}{os.sep}", "").strip(),
        exit_code=process.returncode if in_time else None,
    )


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as target:  # noqa: PTH123
        yield source, target


class Tail:
    """Reads a pipe without waiting, and keeps the end of what came."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        self.pipe = pipe
        self.limit = limit
        self._kept = bytearray()
        os.set_blocking(pipe.fileno(), False)

    def read(self) -> bool:
        """Read what there is; return whether there can be more."""
        with suppress(BlockingIOError):
            for _ in range(64):  # then look at the clock again, however fast it is filled
                chunk = os.read(self.pipe.fileno(), 2**16)
                if not chunk:
                    return False
                self._kept += chunk
                del self._kept[: -self.limit]
        return True

    @property
    def text(self) -> str:
        """What was kept."""
        return self._kept.decode("utf-8", "replace")


def _environment(folder: Path, mark: str) -> dict[str, str]:
    """Return the environment of the process: nothing of the caller's but where programs are."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",  # equal answers get equal verdicts
        # A thread for each core would fill the address space before any work is done.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        _MARK: mark,
    }


_MARK = "CORRECTION_GRAPHS_RUN"


def _listen(process: subprocess.Popen[bytes], pipes: list[Tail], deadline: float, stop: threading.Event) -> bool:
    """Read the pipes until the process ends; return False if its time was up, or it was stopped, before that."""
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe.pipe, selectors.EVENT_READ, pipe)
        while not _has_ended(process):
            left = deadline - time.monotonic()
            if left <= 0 or stop.is_set():
                return False
            for key, _ in selector.select(min(left, _POLL)):
                if not key.data.read():
                    selector.unregister(key.fileobj)
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process has ended, and leave it as a zombie: its id must not go to another process yet."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else has waited for it
        return True


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End the process and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    clean = 0
    for _ in range(40):
        strays = _marked_processes(mark)
        for stray in strays:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(stray, signal.SIGKILL)
        clean = 0 if strays else clean + 1
        if clean == 2:  # noqa: PLR2004  (one look may miss a process that another has just started)
            return
        time.sleep(0.001)


def _marked_processes(mark: str) -> list[int]:
    """Return the processes that left the group but have its environment, where the system shows that."""
    marked, entry = [], f"{_MARK}={mark}".encode()
    with suppress(OSError):
        for process in Path("/proc").iterdir():
            with suppress(OSError):  # it is another user's, or has ended
                if process.name.isdigit() and entry in (process / "environ").read_bytes().split(b"\0"):
                    marked.append(int(process.name))
    return marked


def read_report(text: str, secret: str) -> list[dict[str, Any]]:
    """Return the records that carry the secret; other lines are not the runner's."""
    records = []
    for line in text.split("\n"):
        if line.startswith(f"{secret} "):
            with suppress(ValueError):
                record = json.loads(line[len(secret) + 1 :])
                records.append(record)
    return records
