"""An OpenAI-compatible server on this machine: llama-cpp-python's own, with a small model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

NEEDED = ("llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
SECONDS_TO_START = 120


class Server:
    """A server process. Its log is in a file, and shown when a test that used it fails."""

    def __init__(self, model: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.log = log
        options = {"host": "127.0.0.1", "port": self.port, "n_ctx": 2048, "interrupt_requests": False, "verbose": False}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "llama_cpp.server", "--model", str(model), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5) as reply:
                    assert json.load(reply)["data"]
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        code = self.process.poll()
        self.kill()
        pytest.fail(f"the server did not start within {SECONDS_TO_START} s (exit status {code}):\n{self.tail()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@pytest.fixture(scope="session")
def start_server(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Server]]:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"the server needs {', '.join(missing)}: pip install --group server")
    started: list[Server] = []

    def start() -> Server:
        started.append(Server(smollm2_path, tmp_path_factory.mktemp("server") / "log.txt"))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def shared_server(start_server: Callable[[], Server]) -> Server:
    return start_server()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A server that several tests use: leave it alive."""
    yield shared_server
    print(f"--- the server's log ends in:\n{shared_server.tail()}")  # noqa: T201  (shown if the test failed)


@pytest.fixture
def mortal_server(start_server: Callable[[], Server]) -> Iterator[Server]:
    """A server of one's own, to be killed."""
    server = start_server()
    yield server
    server.kill()
    print(f"--- the server's log ends in:\n{server.tail()}")  # noqa: T201
