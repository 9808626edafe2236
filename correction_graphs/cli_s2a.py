"""The command `correction-graphs run s2a "QUESTION"`: shows what is filtered out, then the answer as it is written."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.documents import Document
from typing_extensions import override

from correction_graphs.cli_output import (
    RichView,
    View,
    chat_model,
    check_base_url,
    choose_view,
    reason,
    say,
    tell,
    watched,
)
from correction_graphs.errors import SettingsError
from correction_graphs.html_page import printable
from correction_graphs.prompts import load_template
from correction_graphs.results import FilteredText, S2AResult, Violation
from correction_graphs.s2a import create_s2a_graph
from correction_graphs.streaming import final_only
from correction_graphs.trace import spent
from correction_graphs.usage import UsageMeter

Place = tuple[str, int]  # "message" or "document", and which one

_WRONG: Mapping[str, str] = {
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
    view = choose_view(options, S2AView, RichS2AView, PlainS2AView)

    def run(question: str) -> S2AResult:
        messages = [*([("system", options.system)] if options.system else []), ("user", question)]
        documents = [Document(_read(path), metadata={"source": path}) for path in options.document or ()]
        view.given["message", len(messages) - 1] = Given("question", question)
        for at, (path, document) in enumerate(zip(options.document or (), documents, strict=True)):
            view.given["document", at] = Given(path, document.page_content)
        with asyncio.Runner() as runner:  # only so can Ctrl-C stop a model in the middle of an answer
            inputs = {"messages": messages, "documents": documents}
            return _run_graph(runner, _graph(options, view), inputs, view, options)

    return tell("s2a", options, run, answer=lambda: view.answer)


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
    meter = UsageMeter()

    def run() -> S2AResult:
        with view.waiting("filtering"):
            return runner.run(_follow(graph, inputs, view, meter))

    def unfinished() -> S2AResult:
        template = load_template(options.template, method="s2a").info
        return S2AResult(texts=tuple(view.through), usage=meter.usage, template=template, error="interrupted")

    return watched(run, view, unfinished)


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


class S2AView(View):
    """Keeps what a run did so far, and shows nothing of it."""

    def __init__(self) -> None:
        self.given: dict[Place, Given] = {}
        self.through: list[FilteredText] = []
        self.answer = ""

    def rejected(self, place: Place, violations: list[Violation]) -> None:
        """Show that a reply of the filter was not used."""

    def filtered(self, text: FilteredText) -> None:
        """Show what became of a text."""
        self.through.append(text)

    def piece(self, text: str) -> None:
        """Show a piece of the answer."""
        self.answer += text


class PlainS2AView(S2AView):
    """Plain lines, for pipes and files. Each is written out at once, and the answer as it comes."""

    @override
    def rejected(self, place: Place, violations: list[Violation]) -> None:
        for told in map(_told, violations):
            say(f"[{self.given[place].name}: reply {violations[0].attempt + 1} not used] {told}")

    @override
    def filtered(self, text: FilteredText) -> None:
        super().filtered(text)
        place = (text.source, text.index)
        if last := _not_told_yet(text):
            self.rejected(place, last)
        if text.filtered:
            for span in text.dropped:
                say(f"[{self.given[place].name}: left out] {span.text}".rstrip())
            say(f"[{self.given[place].name}: kept] {text.text}".rstrip())
        else:
            say(f"[{self.given[place].name}: left as it was] {_why(text)}".rstrip())

    @override
    def piece(self, text: str) -> None:
        heading = "" if self.answer else "[answer] "
        super().piece(text)
        say(heading + text, end="")

    @override
    def ended(self, result: S2AResult) -> None:
        say("" if self.answer else "[answer]")
        say(f"[total] {spent(result.usage)}")

    @override
    def stopped(self, result: S2AResult) -> None:
        if self.answer:
            say("")
        say(f"[stopped] {len(result.texts)} text(s) filtered until then; {spent(result.usage)}")


class RichS2AView(RichView, S2AView):
    """Panels in which what is left out is struck through, for terminals."""

    @override
    def rejected(self, place: Place, violations: list[Violation]) -> None:
        told = "\n".join(map(_told, violations))
        self._told_of(place, f"reply {violations[0].attempt + 1} of the filter not used", told, "red")

    @override
    def filtered(self, text: FilteredText) -> None:
        super().filtered(text)
        place = (text.source, text.index)
        if last := _not_told_yet(text):
            self.rejected(place, last)
        if not text.filtered:
            self._told_of(place, "left as it was", _why(text), "dim" if text.skipped else "yellow")
            return
        if text.dropped:
            self._told_of(place, "what is struck through is left out", self._struck(text), "cyan")
        self._told_of(place, "kept", text.text, "green")
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
        if self.answer:
            self._console.print()
        self._console.rule()
        self._note(note)

    def _struck(self, text: FilteredText) -> Any:
        from rich.text import Text  # noqa: PLC0415

        shown, original, end = Text(), self.given[text.source, text.index].text, 0
        for span in text.dropped:
            shown.append(printable(original[end : span.start]))
            shown.append(printable(span.text), style="dim strike")
            end = span.end
        return shown.append(printable(original[end:]))

    def _told_of(self, place: Place, heading: str, content: Any, style: str) -> None:
        self._panel(f"{self.given[place].name}: {heading}", content, style)


def _not_told_yet(text: FilteredText) -> list[Violation]:
    """Return what was wrong with the last reply, after which the filter was not asked again."""
    return [violation for violation in text.violations if violation.attempt == text.attempts - 1]


def _told(violation: Violation) -> str:
    items = ", ".join(f"“{item}”" for item in violation.items)
    wrong = _WRONG.get(violation.kind, violation.kind)
    return f"{wrong}: {items}" if items else wrong


def _why(text: FilteredText) -> str:
    return "there is nothing in it to filter" if text.skipped else str(text.fallback)
