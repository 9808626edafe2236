"""What the commands share: models from options, a run's page and JSON document, and what may go to a terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from correction_graphs import __version__
from correction_graphs.errors import CorrectionError, SettingsError
from correction_graphs.results import CacResult, RainResult, S2AResult, Usage

Result = CacResult | RainResult | S2AResult

INTERRUPTED = 130  # what shells report after Ctrl-C


def say(text: str, file: TextIO | None = None, *, end: str = "\n") -> None:
    """Write a line, to standard output by default, at once, so that a reader sees progress."""
    print(text, file=file, end=end, flush=True)


def asked(options: argparse.Namespace) -> str:
    """Return the question, from standard input if it is "-".

    Raises:
        SettingsError: If it is empty, or not text.
    """
    if options.question == "-" and sys.stdin is None:  # it was closed
        raise SettingsError("the question is to be read from standard input, and there is none")
    question = _standard_input() if options.question == "-" else str(options.question)
    if not question.strip():
        raise SettingsError("the question is empty; give one, or - and write it to standard input")
    return question


def _standard_input() -> str:
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the question on standard input is not {error.encoding.upper()} text; convert it to that first"
        ) from error


def chat_model(spec: str, options: argparse.Namespace) -> Any:
    """Return the chat model that `spec` names, set as `options` say."""
    from correction_graphs.models import load_model  # noqa: PLC0415  (--help and --version need not wait for it)

    names = ["temperature", "max_tokens", "seed"]
    settings = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.base_url and spec.startswith("openai:"):
        # Servers of one's own mostly ask for no key, but the client insists on one.
        settings |= {"base_url": options.base_url, "api_key": os.environ.get("OPENAI_API_KEY", "none")}
    return load_model(spec, **settings)


def check_base_url(options: argparse.Namespace, *specs: str) -> None:
    """Raise if there is a server, and none of the models is on it.

    Raises:
        SettingsError: Names them.
    """
    if options.base_url and not options.base_url.startswith(("http://", "https://")):
        raise SettingsError(f"--base-url is {options.base_url!r}; give a URL such as http://127.0.0.1:8000/v1")
    if options.base_url and not any(spec.startswith("openai:") for spec in specs):
        given = " and ".join(map(repr, specs))
        raise SettingsError(f"--base-url goes with --model openai:NAME, not with {given}")


def tell(
    method: str,
    options: argparse.Namespace,
    question: str,
    run: Callable[[], Result],
    *,
    answer: Callable[[], str] | None = None,
) -> int:
    """Run, write the page and the JSON document that `options` ask for, and return the exit status.

    Args:
        method: Its name, which is the key of the result in the document.
        options: With `model`, `json`, and `html` where the result can be a page.
        question: What is asked.
        run: Does it. What it raises may carry the `result` so far.
        answer: Tells what was answered, as far as it got, where the result does not.

    Raises:
        CorrectionError: If the run failed, and there is no JSON document to say so; likewise KeyboardInterrupt.
    """
    path = getattr(options, "html", None)
    said = answer or (lambda: "")
    try:
        require_writable(path)
        result = run()
    except (CorrectionError, KeyboardInterrupt) as error:
        unfinished: Result | None = getattr(error, "result", None)
        _write_page(path, unfinished, question)
        if not options.json:
            raise
        _print_json(method, question, options.model, unfinished, said(), error=error)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    written = _write_page(path, result, question)
    if options.json:
        _print_json(method, question, options.model, result, said())
    return 0 if written else 1


def require_writable(path: str | None) -> None:
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
        raise SettingsError(f"--html: {path!r} cannot be written: {reason(error)}") from error


def _write_page(path: str | None, result: Result | None, question: str) -> bool:
    """Write a run as a page and tell where it is; returns False if it was not possible."""
    if path is None or result is None or isinstance(result, S2AResult):
        return True
    try:
        Path(path).write_text(result.to_html(question), encoding="utf-8")
    except OSError as error:  # such as a full disk; what else is shown of the run matters more
        say(f"correction-graphs: {path!r} could not be written: {reason(error)}", sys.stderr)
        return False
    say(f"page: {Path(path).absolute()}", sys.stderr)
    return True


def reason(error: Exception) -> str:
    """Say in a few words why a file cannot be had."""
    return getattr(error, "strerror", None) or str(error)


def _print_json(
    method: str,
    question: str,
    model: str,
    result: Result | None,
    said: str,
    *,
    error: BaseException | None = None,
) -> None:
    document = {
        "version": __version__,
        "question": question,
        "model": model,
        "answer": result.text if isinstance(result, RainResult) else getattr(result, "answer", said),
        method: result.model_dump(mode="json") if result else None,
        "error": {"type": type(error).__name__, "message": str(error)} if error else None,
    }
    say_json(document)


def say_json(document: dict[str, Any]) -> None:
    """Write a JSON document to standard output."""
    say(json.dumps(document, ensure_ascii=False, indent=2))


# All control characters but tab and newline: a terminal would obey them.
_CONTROLS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """Return a text as it may go to a terminal."""
    return text.replace("\r\n", "\n").translate(_CONTROLS)


def spent(usage: Usage, *, calls: bool = True) -> str:
    """Say what was spent."""
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    tokens = f"{usage.input_tokens}{cached} tokens in, {usage.output_tokens} out, {usage.seconds:.1f} s"
    if usage.unreported_calls:
        tokens += f" ({usage.unreported_calls} calls did not report their tokens)"
    return f"{usage.model_calls} model calls, {tokens}" if calls else tokens
