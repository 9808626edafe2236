"""The command `correction-graphs run s2a "QUESTION"`: shows what is filtered out, then the answer as it is written."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.documents import Document
from typing_extensions import override

from correction_graphs.cli_output import asked, chat_model, check_base_url, printable, reason, say, spent, tell
from correction_graphs.errors import RunError, SettingsError
from correction_graphs.filtering.guards import Kind
from correction_graphs.prompts import load_template
from correction_graphs.results import FilteredText, S2AResult, Violation
from correction_graphs.s2a import create_s2a_graph
from correction_graphs.streaming import final_only
from correction_graphs.usage import UsageMeter

Place = tuple[str, int]  # "message" or "document", and which one

_WRONG: Mapping[Kind, str] = {
    "labels": "its parts cannot be told apart",
    "empty": "it is empty",
    "cut": "it broke off (a larger --max-tokens may help)",
    "added": "it has what the original has not",
    "lost": "it lost a number or a name",
    "question": "the question is not asked any more",
    "negation": "a negation is gone or new",
    "longer": "it is much longer than the original",
}
"""What is wrong with a reply of the filter, in words."""


def run_s2a(options: argparse.Namespace) -> int:
    """Filter and answer as `options` say; returns the exit status."""
    question = asked(options)
    messages = [*([("system", options.system)] if options.system else []), ("user", question)]
    view = S2AView() if options.json else _view()

    def run() -> S2AResult:
        documents = [Document(_read(path), metadata={"source": path}) for path in options.document or ()]
        view.given["message", len(messages) - 1] = Given("question", question)
        for at, (path, document) in enumerate(zip(options.document or (), documents, strict=True)):
            view.given["document", at] = Given(path, document.page_content)
        with asyncio.Runner() as runner:  # only so can Ctrl-C stop a model in the middle of an answer
            inputs = {"messages": messages, "documents": documents}
            return _run_graph(runner, _graph(options, view), inputs, view, options)

    return tell("s2a", options, question, run, answer=lambda: view.answer)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"--document: {path!r} is not UTF-8 text; convert it to that first") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"--document: {path!r} cannot be read: {reason(error)}") from error


def _graph(options: argparse.Namespace, view: S2AView) -> Any:
    template = load_template(options.template, method="s2a")  # a wrong name is told before a model is loaded
    specs = list(dict.fromkeys([options.model, options.filter_model or options.model]))
    check_base_url(options, *specs)
    models = {}
    for spec in specs:
        with view.waiting(f"loading {spec}"):
            models[spec] = chat_model(spec, options)
    return create_s2a_graph(
        models[specs[0]],
        filter_model=models[specs[-1]],
        template=template,
        rewrite=options.rewrite,
        mode=options.mode,
        skip_if="clean" if options.skip_if_clean else None,
    )


def _run_graph(
    runner: asyncio.Runner, graph: Any, inputs: dict[str, Any], view: S2AView, options: argparse.Namespace
) -> S2AResult:
    """Run the graph, and show it. What stops it on the way carries the `result` so far."""
    meter = UsageMeter()
    try:
        with view.waiting("filtering"):
            result = runner.run(_follow(graph, inputs, view, meter))
    except KeyboardInterrupt as error:
        template = load_template(options.template, method="s2a").info
        unfinished = S2AResult(texts=tuple(view.through), usage=meter.usage, template=template, error="interrupted")
        error.result = unfinished  # type: ignore[attr-defined]
        view.stopped(unfinished)
        raise
    except RunError as error:
        if isinstance(error.result, S2AResult):
            view.stopped(error.result)
        raise
    view.ended(result)
    return result


async def _follow(graph: Any, inputs: dict[str, Any], view: S2AView, meter: UsageMeter) -> S2AResult:
    result: S2AResult | None = None
    modes = ["custom", "messages", "values"]
    async for mode, part in graph.astream(inputs, {"callbacks": [meter]}, stream_mode=modes):
        if mode == "custom" and part["type"] == "s2a.rejected":
            view.rejected((part["source"], part["index"]), [Violation(**each) for each in part["violations"]])
        elif mode == "custom" and part["type"] == "s2a.filtered":
            view.filtered(FilteredText.model_validate({name: part[name] for name in FilteredText.model_fields}))
        elif mode == "values":
            result = part.get("s2a", result)
        for piece in final_only([(mode, part)]):
            view.piece(piece)
    if result is None:
        raise SettingsError("the graph ended without a result")
    return result


# What is shown


class Given(NamedTuple):
    """A text as it was before it was filtered, and what to call it."""

    name: str
    text: str


class S2AView:
    """Keeps what a run did so far, and shows nothing of it."""

    def __init__(self) -> None:
        self.given: dict[Place, Given] = {}
        self.through: list[FilteredText] = []
        self.answer = ""

    def waiting(self, what: str) -> AbstractContextManager[Any]:
        """Show that something is going on until the context is left."""
        del what
        return nullcontext()

    def rejected(self, place: Place, violations: list[Violation]) -> None:
        """Show that a reply of the filter was not used."""

    def filtered(self, text: FilteredText) -> None:
        """Show what became of a text."""
        self.through.append(text)

    def piece(self, text: str) -> None:
        """Show a piece of the answer."""
        self.answer += text

    def ended(self, result: S2AResult) -> None:
        """Show that the answer is complete."""

    def stopped(self, result: S2AResult) -> None:
        """Show what there was when the run stopped."""


def _view() -> S2AView:
    if sys.stdout.isatty():
        try:
            return RichS2AView()
        except ImportError:
            pass
    return PlainS2AView()


class PlainS2AView(S2AView):
    """Plain lines, for pipes and files. Each is written out at once, and the answer as it comes."""

    @override
    def rejected(self, place: Place, violations: list[Violation]) -> None:
        for told in map(_told, violations):
            self._line(f"[{self.given[place].name}: reply {violations[0].attempt + 1} not used] {told}")

    @override
    def filtered(self, text: FilteredText) -> None:
        super().filtered(text)
        place = (text.source, text.index)
        if last := _not_told_yet(text):
            self.rejected(place, last)
        if text.filtered:
            for span in text.dropped:
                self._line(f"[{self.given[place].name}: left out] {span.text}")
            self._line(f"[{self.given[place].name}: kept] {text.text}")
        else:
            self._line(f"[{self.given[place].name}: left as it was] {_why(text)}")

    @override
    def piece(self, text: str) -> None:
        heading = "" if self.answer else "[answer] "
        super().piece(text)
        say(heading + printable(text), end="")

    @override
    def ended(self, result: S2AResult) -> None:
        self._line("" if self.answer else "[answer]")
        self._line(f"[total] {spent(result.usage)}")

    @override
    def stopped(self, result: S2AResult) -> None:
        if self.answer:
            self._line("")
        self._line(f"[stopped] {len(result.texts)} text(s) filtered until then; {spent(result.usage)}")

    @staticmethod
    def _line(text: str) -> None:
        say(printable(text).rstrip())


class RichS2AView(S2AView):
    """Panels in which what is left out is struck through, for terminals."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console  # noqa: PLC0415  (an optional dependency)

        self._console = Console(highlight=False)
        self._status: Any = None

    @override
    def waiting(self, what: str) -> AbstractContextManager[Any]:
        self._status = self._console.status(f"{what} …")
        status: AbstractContextManager[Any] = self._status
        return status

    @override
    def rejected(self, place: Place, violations: list[Violation]) -> None:
        told = "\n".join(map(_told, violations))
        self._panel(f"{self.given[place].name}: reply {violations[0].attempt + 1} of the filter not used", told, "red")

    @override
    def filtered(self, text: FilteredText) -> None:
        super().filtered(text)
        place = (text.source, text.index)
        if last := _not_told_yet(text):
            self.rejected(place, last)
        if not text.filtered:
            self._panel(f"{self.given[place].name}: left as it was", _why(text), "dim" if text.skipped else "yellow")
            return
        if text.dropped:
            self._panel(f"{self.given[place].name}: what is struck through is left out", self._struck(text), "cyan")
        self._panel(f"{self.given[place].name}: kept", text.text, "green")
        if len(self.through) == len(self.given):
            self._status.update("answering …")

    @override
    def piece(self, text: str) -> None:
        if not self.answer:
            self._status.stop()
            self._console.rule("answer", align="left", style="bold green")
        super().piece(text)
        self._console.out(printable(text), end="", highlight=False)

    @override
    def ended(self, result: S2AResult) -> None:
        self._close(spent(result.usage))

    @override
    def stopped(self, result: S2AResult) -> None:
        self._close(f"stopped: {len(result.texts)} text(s) filtered until then; {spent(result.usage)}")

    def _close(self, note: str) -> None:
        from rich.text import Text  # noqa: PLC0415

        if self.answer:
            self._console.print()
        self._console.rule()
        self._console.print(Text(note, style="dim"))

    def _struck(self, text: FilteredText) -> Any:
        from rich.text import Text  # noqa: PLC0415

        shown, original, end = Text(), self.given[text.source, text.index].text, 0
        for span in text.dropped:
            shown.append(printable(original[end : span.start]))
            shown.append(printable(span.text), style="dim strike")
            end = span.end
        return shown.append(printable(original[end:]))

    def _panel(self, heading: str, text: Any, style: str) -> None:
        from rich.panel import Panel  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        content = Text(printable(text)) if isinstance(text, str) else text
        title = Text(printable(heading))
        self._console.print(Panel(content, title=title, title_align="left", border_style=style))


def _not_told_yet(text: FilteredText) -> list[Violation]:
    """Return what was wrong with the last reply, after which the filter was not asked again."""
    return [violation for violation in text.violations if violation.attempt == text.attempts - 1]


def _told(violation: Violation) -> str:
    items = ", ".join(f"“{item}”" for item in violation.items)
    wrong = _WRONG.get(violation.kind, violation.kind)  # type: ignore[call-overload]
    return f"{wrong}: {items}" if items else str(wrong)


def _why(text: FilteredText) -> str:
    return "there is nothing in it to filter" if text.skipped else str(text.fallback)
