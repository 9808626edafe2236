"""The command line: whatever is typed, it ends with a status of its own, 0, 1, 2 or 130, and no traceback.

An input is the arguments, with the byte 0 between them; then, after the byte 0x1e, what the model replies, with the
byte 0x1d between; then, after another 0x1e, what stands in `given.yaml` and comes in on standard input. Models are scripted,
the backend is a toy, and nothing outside one temporary folder is opened, removed, started or connected to.
"""

# ruff: noqa: E501 -- a folder of scripts

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from unittest import mock

from common import require
from typing_extensions import override

from correction_graphs import cli, cli_demo, cli_output, cli_rain, cli_s2a, cli_templates, models  # noqa: F401
from correction_graphs.chat_llama import ChatLlama
from correction_graphs.errors import ModelFileError
from correction_graphs.rain.settings import RainSettings
from correction_graphs.testing import ScriptedChatModel, ToyBackend

MODULES = [f"correction_graphs.{name}" for name in ("cli", "cli_output", "cli_rain", "cli_s2a", "cli_templates")]

_PART, _REPLY = b"\x1e", b"\x1d"
_ROOT = Path(__file__).parent.parent.resolve()
_MOST_REPLIES = 40
_CHECKED = "Nothing is assumed.\nCritique: None.\nVerdict: unbiased"
_FAILED = "She need not be.\nCritique: A gender is assumed.\nVerdict: biased"
_FILTERED = "Context: (none)\nQuestion: Who is she?"

WORDS = [
    *("run", "cac", "s2a", "rain", "templates", "list", "show", "copy", "check", "demo", "--help", "--version", "--"),
    *("--json", "--html", "--model", "--template", "--style", "--strategy", "--max-rounds", "--system", "--seed", "-"),
    *("--temperature", "--max-tokens", "--base-url", "--document", "--rewrite", "--mode", "--filter-model", "--judge"),
    *("--skip-if-clean", "--paper", "--max-iterations", "--timeout", "--method", "--force", "--n"),
    *("smollm2", "given.yaml", "out.html", "openai:a", "hf:a/b/c.gguf", "x.gguf", "bias", "bias@zh", "unbiased", "verdict"),
    *("natural_language", "ranked", "self_instruct", "fresh", "single", "keep_original", "harmless", "http://127.0.0.1:9"),
    *("0", "1", "-1", "1e9", "nan", "inf", "..", "/dev/null", "\x00", "\x1d", "\x1e", _CHECKED, _FAILED, _FILTERED),
]  # fmt: skip


def check(data: bytes) -> None:
    """Run one command, and look at how it ended."""
    line, _, rest = data.partition(_PART)
    said, _, content = rest.partition(_PART)
    arguments = [os.fsdecode(argument) for argument in line.split(b"\0")]
    replies = [reply.decode("utf-8", "replace") for reply in said.split(_REPLY)][:_MOST_REPLIES]
    with _Place(content) as place, _scripted(replies):
        status = place.run(arguments)
    require(status in (0, 1, 2, 130), "an exit status of no meaning", status, arguments)
    require(place.told or place.said, "ended without a word", status, arguments)
    if b"Traceback" not in data:
        require("Traceback" not in place.told, "a traceback", arguments, place.told)


class _Toy(ToyBackend):
    """Takes what is no Unicode text, as llama.cpp's backend does."""

    @override
    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return super().tokenize(text.encode("utf-8", "replace").decode(), special=special)


@contextlib.contextmanager
def _scripted(replies: list[str]) -> Iterator[None]:
    def load(spec: Any, **_: Any) -> Any:
        if isinstance(spec, str) and not spec:
            raise ModelFileError("no model of no name")
        return ScriptedChatModel(replies) if isinstance(spec, str) else spec

    def toy(spec: str, **_: Any) -> ChatLlama:
        del spec
        return ChatLlama(backend=_Toy(n_ctx=512, n_sequences=32))

    usual = cli_rain._settings  # noqa: SLF001

    def brief(options: Any) -> RainSettings:
        settings = usual(options)
        return settings.model_copy(update={"max_new_tokens": min(settings.max_new_tokens, 6), "max_seconds": 1.0})

    with (
        mock.patch("correction_graphs.models.load_model", load),
        mock.patch("correction_graphs.cli_rain.load_model", toy),
        mock.patch("correction_graphs.cli_rain._settings", brief),
        mock.patch("correction_graphs.cli_demo._compared", lambda _: iter(())),  # noqa: PT008
    ):
        yield


class _Place:
    """A folder of its own to run in, with standard streams that are files there."""

    def __init__(self, content: bytes) -> None:
        self.said = self.told = ""
        self._content = content
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_memory())).resolve()

    def __enter__(self) -> Self:
        _guard()
        work = self._folder / "work"
        work.mkdir()
        (work / "given.yaml").write_bytes(self._content)
        self._before = (Path.cwd(), sys.stdin, sys.stdout, sys.stderr)
        os.chdir(work)
        sys.stdin = io.TextIOWrapper(io.BytesIO(self._content), encoding="utf-8")
        sys.stdout = (self._folder / "out").open("w", encoding="utf-8")
        sys.stderr = (self._folder / "err").open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        folder, stdin, stdout, stderr = self._before
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr
        os.chdir(folder)
        self.said = (self._folder / "out").read_text(encoding="utf-8", errors="replace")
        self.told = (self._folder / "err").read_text(encoding="utf-8", errors="replace")
        shutil.rmtree(self._folder)

    def run(self, arguments: list[str]) -> int:
        """Run the command line; returns its exit status."""
        _allowed.append(str(self._folder))
        try:
            return cli.main(arguments)
        except SystemExit as end:  # of argparse
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            _allowed.clear()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  (any folder will do, and this one is quick)


# Nothing outside is touched. A hook cannot be taken away again; outside of `_Place.run` it lets everything pass.

_allowed: list[str] = []
_guarded: list[bool] = []
_FORBIDDEN = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "socket.getaddrinfo",
)
_CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _guard() -> None:
    if not _guarded:
        _guarded.append(True)
        sys.addaudithook(_hook)


def _hook(event: str, given: tuple[Any, ...]) -> None:
    if not _allowed:
        return
    if event.startswith(_FORBIDDEN):
        raise PermissionError(13, f"not while fuzzing: {event}")
    if event == "open":
        path, mode, flags = given
        writes = bool(flags & _WRITING) or (isinstance(mode, str) and any(letter in mode for letter in "wxa+"))
        _must_be_inside(path, read_only=not writes)
    elif event.startswith(_CHANGING):
        _must_be_inside(given[0], read_only=False)


def _must_be_inside(path: object, *, read_only: bool) -> None:
    if isinstance(path, int):
        return
    real = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
    folders = [*_allowed, os.devnull, *((str(_ROOT), sys.prefix, sys.base_prefix) if read_only else ())]
    if not any(real == folder or real.startswith(folder + os.sep) for folder in folders):
        raise PermissionError(13, "not while fuzzing", real)


def seeds() -> Iterator[bytes]:
    """Yield commands of each kind."""
    template = (_ROOT / "templates" / "cac" / "bias.yaml").read_bytes()[:1500]
    replies = ["The nurse.", _FAILED, "It is not said.", _CHECKED]
    for line, script, content in (
        ("run cac Who?", replies, b""),
        ("run cac Who? --json", replies, b""),
        ("run cac - --html out.html --template given.yaml --style verdict", replies, template),
        ("run cac - --strategy ranked --max-rounds 3", replies * 3, "Who is sh\xe9?".encode()),
        ("run cac Who? --model openai:a --base-url http://127.0.0.1:9 --temperature 0.5 --seed 1", replies, b""),
        (
            "run s2a Who? --document given.yaml --rewrite single --mode keep_original",
            [_FILTERED, "Tom.", "It."],
            b"Tom.",
        ),
        ("run s2a Who? --skip-if-clean --filter-model x.gguf --json", [_FILTERED, "It."], b""),
        ("run rain Hello --max-tokens 4 --max-iterations 2 --html out.html", [], b""),
        ("run rain Hello --paper --judge given.yaml --timeout 1", [], template),
        ("run rain - --json --temperature 0 --system Be.", [], b"Hello"),
        ("templates list --method s2a --json", [], b""),
        ("templates show bias --method cac", [], b""),
        ("templates copy bias@zh my.yaml --force", [], b""),
        ("templates check given.yaml --method cac --json", [], template),
        ("templates check given.yaml no.yaml", [], template + b"\xff"),
        ("demo --n 2 --html out.html", [], b""),
        ("demo --n 0 --json", [], b""),
        ("--version", [], b""),
        ("run cac --help", [], b""),
        ("run cac -", replies, b"\xff"),
        ("run rain Hello\udcff --max-tokens 2 --html out.html", [], b""),
    ):
        yield _PART.join(
            [
                line.encode("utf-8", "surrogateescape").replace(b" ", b"\0"),
                _REPLY.join(reply.encode() for reply in script),
                content,
            ]
        )
