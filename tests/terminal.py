"""The command as a process, and terminals: real ones, and standard output that is taken for one."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("correction-graphs"))


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command, begun, with pipes for what it prints unless `options` say otherwise."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([PROGRAM, *arguments], **{**pipes, **options})


def shown_by(*arguments: str, timeout: float = 60) -> str:
    """What a terminal shows of the command until it ends, which has to be without an error."""
    control, terminal = pty.openpty()
    run = command(*arguments, stdout=terminal, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"})
    os.close(terminal)
    shown = b""
    while select.select([control], [], [], timeout)[0]:
        try:
            part = os.read(control, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(control)
    with run.stderr as stderr:
        assert (run.wait(timeout), stderr.read()) == (0, "")
    return plain(shown.decode(errors="replace"))


def plain(text: str) -> str:
    """The text without what steers a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def as_terminal(monkeypatch: Any) -> None:
    """Have standard output taken for a terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def without_rich(monkeypatch: Any) -> None:
    """Have rich not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
