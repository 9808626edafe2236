"""What the commands share: how a run's page and JSON document are written, and what may go to a terminal."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from correction_graphs import __version__
from correction_graphs.errors import CorrectionError, SettingsError
from correction_graphs.results import CacResult, RainResult

INTERRUPTED = 130  # what shells report after Ctrl-C


def say(text: str, file: TextIO | None = None) -> None:
    """Write a line, to standard output by default, at once, so that a reader sees progress."""
    print(text, file=file, flush=True)


def asked(options: argparse.Namespace) -> str:
    """Return the question, from standard input if it is "-".

    Raises:
        SettingsError: If it is empty.
    """
    question = sys.stdin.read().strip() if options.question == "-" else str(options.question)
    if not question.strip():
        raise SettingsError("the question is empty; give one, or - and write it to standard input")
    return question


def tell(
    method: str, options: argparse.Namespace, question: str, run: Callable[[], CacResult] | Callable[[], RainResult]
) -> int:
    """Run, write the page and the JSON document that `options` ask for, and return the exit status.

    Args:
        method: Its name, which is the key of the result in the document.
        options: With `model`, `html` and `json`.
        question: What is asked.
        run: Does it. What it raises may carry the `result` so far.

    Raises:
        CorrectionError: If the run failed, and there is no JSON document to say so; likewise KeyboardInterrupt.
    """
    try:
        _require_writable(options.html)
        result = run()
    except (CorrectionError, KeyboardInterrupt) as error:
        unfinished: CacResult | RainResult | None = getattr(error, "result", None)
        _write_page(options.html, unfinished, question)
        if not options.json:
            raise
        _print_json(method, question, options.model, unfinished, error=error)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    written = _write_page(options.html, result, question)
    if options.json:
        _print_json(method, question, options.model, result)
    return 0 if written else 1


def _require_writable(path: str | None) -> None:
    """Find out before a long run whether a file can be written after it."""
    if path is None:
        return
    file = Path(path)
    try:
        new = not file.exists()
        if new or file.is_file() or file.is_dir():  # a pipe would be closed for its reader
            file.open("ab").close()
        if new:
            file.unlink()
    except (OSError, ValueError) as error:
        raise SettingsError(f"--html: {path!r} cannot be written: {_reason(error)}") from error


def _write_page(path: str | None, result: CacResult | RainResult | None, question: str) -> bool:
    """Write a run as a page and tell where it is; returns False if it was not possible."""
    if path is None or result is None:
        return True
    try:
        Path(path).write_text(result.to_html(question), encoding="utf-8")
    except OSError as error:  # such as a full disk; what else is shown of the run matters more
        say(f"correction-graphs: {path!r} could not be written: {_reason(error)}", sys.stderr)
        return False
    say(f"page: {Path(path).absolute()}", sys.stderr)
    return True


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _print_json(
    method: str,
    question: str,
    model: str,
    result: CacResult | RainResult | None,
    *,
    error: BaseException | None = None,
) -> None:
    document = {
        "version": __version__,
        "question": question,
        "model": model,
        "answer": "" if result is None else result.text if isinstance(result, RainResult) else result.answer,
        method: result.model_dump(mode="json") if result else None,
        "error": {"type": type(error).__name__, "message": str(error)} if error else None,
    }
    say(json.dumps(document, ensure_ascii=False, indent=2))


# All control characters but tab and newline: a terminal would obey them.
_CONTROLS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Return a text as it may go to a terminal."""
    return text.replace("\r\n", "\n").translate(_CONTROLS)
