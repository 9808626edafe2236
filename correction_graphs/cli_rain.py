"""The command `correction-graphs run rain "PROMPT"`: a search, shown while it goes on."""

from __future__ import annotations

import argparse
import time
from typing import Any, Self

from typing_extensions import override

from correction_graphs.backends.base import RewindableBackend
from correction_graphs.cli_output import RichView, View, choose_view, say, tell, watched
from correction_graphs.errors import SettingsError
from correction_graphs.html_page import printable
from correction_graphs.local_chat import LocalChatModel
from correction_graphs.models import is_local, load_model
from correction_graphs.rain.runs import Searcher
from correction_graphs.rain.search import Commit, Judged
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.similarity import as_similarity
from correction_graphs.rain.values import as_value_function
from correction_graphs.results import RainResult

_GOOD, _BAD = 0.2, -0.2  # values beyond these are shown in colour
_CANDIDATES = 6  # shown at a time
_TAIL = 1500  # characters of the reply that are shown while it grows


def run_rain(options: argparse.Namespace) -> int:
    """Search for an answer as `options` say; returns the exit status."""
    view = choose_view(options, RainView, RichRainView, PlainRainView)
    system = [{"role": "system", "content": options.system}] if options.system else []

    def run(question: str) -> RainResult:
        settings, judge = _settings(options), as_value_function(options.judge)
        with view.waiting(f"loading {options.model}"):
            backend = _backend(options.model)
        similarity = as_similarity("trigrams" if settings.needs_embeddings else None)
        searcher = Searcher(backend, settings, judge, similarity)
        return _search(searcher, [*system, {"role": "user", "content": question}], view)

    return tell("rain", options, run)


def _settings(options: argparse.Namespace) -> RainSettings:
    make = RainSettings.paper if options.paper else RainSettings
    names = {
        "temperature": "temperature",
        "max_tokens": "max_new_tokens",
        "max_iterations": "max_iterations",
        "seed": "seed",
        "timeout": "max_seconds",
    }
    changes = {name: getattr(options, option) for option, name in names.items() if getattr(options, option) is not None}
    if options.max_iterations is not None:  # what goes with it follows
        usual = make()
        changes["fresh_iterations"] = max(1, min(usual.fresh_iterations, options.max_iterations))
        changes["accept_visits"] = max(0, min(usual.accept_visits, options.max_iterations - 1))
    try:
        return make(**changes)
    except SettingsError as error:
        wrong = [option for option, name in names.items() if f" {name}: " in str(error)]
        given = "".join(f"--{option.replace('_', '-')} {getattr(options, option)}: " for option in wrong)
        raise SettingsError(f"{given}{error}") from error


def _backend(spec: str) -> RewindableBackend:
    model = load_model(spec) if is_local(spec) else None
    if not isinstance(model, LocalChatModel):
        raise SettingsError(
            f"--model is {spec!r}; this command searches on local models, whose logits it reads: give the path of a "
            ".gguf file, 'hf:OWNER/REPO/FILE.gguf', or 'smollm2'. In Python, OpenAICompletionsBackend searches on a "
            "server"
        )
    backend: RewindableBackend = model.backend
    return backend


def _search(searcher: Searcher, messages: list[dict[str, str]], view: RainView) -> RainResult:
    search = searcher.start(messages, on_event=view.show)

    def run() -> RainResult:
        with view:
            while search.advance() is not None:
                pass
        return search.result()

    try:
        return watched(run, view, lambda: search.result("failed", error="interrupted"))
    finally:
        search.close()


# What is shown


class RainView(View):
    """Keeps what a search did so far, and shows nothing of it. A context: the search runs inside."""

    def __init__(self) -> None:
        self.text = ""
        self.candidates: dict[str, float] = {}
        self.tokens = 0
        self.judged = 0
        self.rewinds = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self, event: Judged | Commit) -> None:
        """Take in what the search did."""
        if isinstance(event, Judged):
            self.candidates[event.text.removeprefix(self.text)] = event.value
            self.judged += 1
            self.rewinds += event.rewound
        else:
            self.text += event.text
            self.tokens += len(event.tokens)
            self.candidates = {}

    @property
    def progress(self) -> str:
        """What was done so far, in a line."""
        speed = self.tokens / max(time.monotonic() - self._began, 1e-9)
        return f"{self.tokens} tokens, {speed:.1f} a second; {self.judged} judged, {self.rewinds} rewinds"


class PlainRainView(RainView):
    """Plain lines, for pipes and files: one for each token set that was committed, written out at once."""

    @override
    def show(self, event: Judged | Commit) -> None:
        super().show(event)
        if isinstance(event, Commit):
            done = f"{event.counts.evaluations} judged, {event.counts.rewinds} rewinds"
            say(f"[{event.value:+.2f}, {done}] {event.text.strip()}".rstrip())

    @override
    def ended(self, result: RainResult) -> None:
        say(f"[final, {result.stop_reason}] {result.text}".rstrip())
        say(f"[total] {_spent(result)}")

    @override
    def stopped(self, result: RainResult) -> None:
        say(f"[stopped] {len(result.commits)} token set(s) until then; {_spent(result)}")
        if result.text:
            say(f"[text so far] {result.text}".rstrip())


class RichRainView(RichView, RainView):
    """A picture that is drawn anew as the search goes on, for terminals."""

    def __init__(self) -> None:
        super().__init__()
        from rich.live import Live  # noqa: PLC0415  (an optional dependency)

        self._live = Live(console=self._console, get_renderable=self._picture, transient=True, refresh_per_second=8)

    @override
    def __enter__(self) -> Self:
        super().__enter__()
        self._live.start()
        return self

    @override
    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @override
    def ended(self, result: RainResult) -> None:
        self._last(f"final, {result.stop_reason}", result, "green" if result.stop_reason == "stop" else "yellow")

    @override
    def stopped(self, result: RainResult) -> None:
        self._last("text so far", result, "yellow")

    def _picture(self) -> Any:
        from rich.console import Group  # noqa: PLC0415
        from rich.panel import Panel  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        text = self.text if len(self.text) <= _TAIL else f"…{self.text[-_TAIL:]}"
        shown = Text(printable(text) or "…")
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(justify="right", width=6, no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        ranked = sorted(self.candidates.copy().items(), key=lambda each: -each[1])[:_CANDIDATES]
        for candidate, value in ranked:
            style = "blue" if value > _GOOD else "yellow" if value < _BAD else "dim"
            table.add_row(Text(f"{value:+.2f}", style=style), Text(" ".join(printable(candidate).split())))
        panel = Panel(shown, title="committed", title_align="left", border_style="cyan")
        return Group(panel, table, Text(self.progress, style="dim"))

    def _last(self, heading: str, result: RainResult, style: str) -> None:
        self._panel(heading, result.text or "(no text yet)", f"bold {style}")
        self._note(_spent(result))


def _spent(result: RainResult) -> str:
    value = "" if result.value is None else f"value {result.value:+.2f}; "
    speed = result.output_tokens / result.seconds if result.seconds else 0.0
    return (
        f"{value}{result.output_tokens} tokens, {speed:.1f} a second; {result.iterations} iterations, "
        f"{result.evaluations} judged, {result.rewinds} rewinds; {result.forwarded_tokens} tokens computed, "
        f"{result.judge_tokens} of them by the judge; {result.seconds:.1f} s"
    )
