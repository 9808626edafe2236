"""What the commands share: models from options, how a run is watched and told, and what may go to a terminal."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TextIO, TypeVar

from typing_extensions import override

from correction_graphs import __version__
from correction_graphs.errors import CorrectionError, RunError, SearchError, SettingsError, carry
from correction_graphs.html_page import UNPRINTABLE, printable
from correction_graphs.results import CacResult, RainResult, S2AResult

Result = CacResult | RainResult | S2AResult
_Done = TypeVar("_Done", CacResult, RainResult, S2AResult)
_View = TypeVar("_View", bound="View")

INTERRUPTED = 130  # what shells report after Ctrl-C


def say(text: str, file: TextIO | None = None, *, end: str = "\n") -> None:
    """Write a line, to standard output by default, at once, so that a reader sees progress.

    Texts of models, servers and files are in it, so a terminal gets nothing that it would obey.
    """
    print(printable(text), file=file, end=end, flush=True)


def _asked(options: argparse.Namespace) -> str:
    """Return the question, from standard input if it is "-"."""
    if options.question == "-" and sys.stdin is None:  # it was closed
        raise SettingsError("the question is to be read from standard input, and there is none")
    question = _standard_input() if options.question == "-" else str(options.question)
    if not question.strip():
        raise SettingsError("the question is empty; give one, or - and write it to standard input")
    _require_text("the question", question)
    _require_text("--system", options.system or "")
    return question


def _standard_input() -> str:
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the question on standard input is not {error.encoding.upper()} text; convert it to that first"
        ) from error
    except OSError as error:  # such as a folder
        raise SettingsError(f"the question on standard input cannot be read: {reason(error)}") from error


def _require_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # Python keeps bytes that it cannot decode as lone surrogates
        raise SettingsError(f"{name} is not UTF-8 text; convert it to that first") from error


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
    run: Callable[[str], Result],
    *,
    answer: Callable[[], str] | None = None,
) -> int:
    """Read the question, run, write the page and the JSON document that `options` ask for, and return the exit status.

    Args:
        method: Its name, which is the key of the result in the document.
        options: With `question`, `system`, `model`, `json`, and `html` where the result can be a page.
        run: Answers the question. What it raises may carry the `result` so far.
        answer: Tells what was answered, as far as it got, where the result does not.

    Raises:
        CorrectionError: If anything is wrong, and there is no JSON document to say so; likewise KeyboardInterrupt.
    """
    path = getattr(options, "html", None)
    said, question = answer or (lambda: ""), ""
    try:
        question = _asked(options)
        require_writable(path)
        result = run(question)
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
    """Write a JSON document to standard output. What must not go there, or cannot, is in it in JSON's own spelling."""
    encoding = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name
    text = json.dumps(document, ensure_ascii=encoding != "utf-8", indent=2)
    say(UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


# Watching a run


class View:
    """Follows a run, and shows nothing of it: it is told at the end."""

    def waiting(self, what: str) -> AbstractContextManager[Any]:
        """Show that something is going on until the context is left."""
        del what
        return nullcontext()

    def ended(self, result: Any) -> None:
        """Show what came out."""

    def stopped(self, result: Any) -> None:
        """Show what there was when the run stopped."""


class RichView(View):
    """Panels and a spinner, for terminals."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console  # noqa: PLC0415  (an optional dependency)

        self._console = Console(highlight=False)
        self._status: Any = None

    @override
    def waiting(self, what: str) -> AbstractContextManager[Any]:
        from rich.text import Text  # noqa: PLC0415

        self._status = status = self._console.status(Text(printable(f"{what} …")))  # a path may look like markup
        return status

    def _panel(self, heading: str, content: Any, style: str) -> None:
        from rich.panel import Panel  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        shown = Text(printable(content)) if isinstance(content, str) else content
        title = Text(printable(heading))
        self._console.print(Panel(shown, title=title, title_align="left", border_style=style))

    def _note(self, text: str) -> None:
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(text, style="dim"))


def choose_view(
    options: argparse.Namespace, view: Callable[[], _View], rich: Callable[[], _View], plain: Callable[[], _View]
) -> _View:
    """Return the view for standard output: one that shows nothing for a JSON document, a rich one for a terminal."""
    if options.json:
        return view()
    if sys.stdout.isatty():
        try:
            return rich()
        except ImportError:
            pass
    return plain()


def watched(run: Callable[[], _Done], view: View, unfinished: Callable[[], _Done]) -> _Done:
    """Run, and show how it ended. What stops it on the way carries the `result` so far.

    Args:
        run: Does it.
        view: Shows it.
        unfinished: Returns what there is after Ctrl-C, which knows of no result.
    """
    try:
        result = run()
    except KeyboardInterrupt as error:
        so_far = unfinished()
        carry(error, so_far)
        view.stopped(so_far)
        raise
    except (RunError, SearchError) as error:
        view.stopped(error.result)
        raise
    view.ended(result)
    return result
