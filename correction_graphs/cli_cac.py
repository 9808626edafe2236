"""The command `correction-graphs run cac "QUESTION"`: shows every answer and what was said of it."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from typing_extensions import override

from correction_graphs.cac import create_cac_graph
from correction_graphs.cac_rules import best_round
from correction_graphs.cli_output import (
    RichView,
    View,
    chat_model,
    check_base_url,
    choose_view,
    say,
    tell,
    watched,
)
from correction_graphs.errors import SettingsError
from correction_graphs.prompts import load_template
from correction_graphs.results import CacResult, Round, Usage, Verdict
from correction_graphs.trace import spent


def run_cac(options: argparse.Namespace) -> int:
    """Answer, check and revise as `options` say; returns the exit status."""
    view = choose_view(options, CacView, RichCacView, PlainCacView)
    system = [("system", options.system)] if options.system else []
    settings = {"template": options.template, "style": options.style, "strategy": options.strategy}

    def run(question: str) -> CacResult:
        load_template(options.template)  # a wrong name is told before a model is loaded
        with asyncio.Runner() as runner:
            model = _model(options, view)
            return _run_graph(runner, model, [*system, ("user", question)], view, options.max_rounds, **settings)

    return tell("cac", options, run)


def _model(options: argparse.Namespace, view: CacView) -> Any:
    check_base_url(options, options.model)
    with view.waiting(f"loading {options.model}"):
        return chat_model(options.model, options)


def _run_graph(
    runner: asyncio.Runner, model: Any, messages: list[tuple[str, str]], view: CacView, max_rounds: int, **settings: Any
) -> CacResult:
    """Run the graph, showing its events as they come.

    It runs asynchronously because only then can Ctrl-C stop a model in the middle of an answer.
    """
    graph = create_cac_graph(model, max_rounds=max_rounds, **settings)
    events: list[dict[str, Any]] = []

    def run() -> CacResult:
        with view.waiting("writing an answer"):
            return runner.run(_follow(graph, messages, view, events))

    return watched(run, view, lambda: _so_far(events, **settings))


async def _follow(
    graph: Any, messages: list[tuple[str, str]], view: CacView, events: list[dict[str, Any]]
) -> CacResult:
    result: CacResult | None = None
    async for mode, part in graph.astream({"messages": messages}, stream_mode=["custom", "values"]):
        if mode == "custom":
            events.append(part)
            view.show(part)
        else:
            result = part.get("cac", result)
    if result is None:
        raise SettingsError("the graph ended without a result")
    return result


def _so_far(events: list[dict[str, Any]], *, template: str, strategy: str = "self", **_: Any) -> CacResult:
    """Put together what is known of a run that was interrupted."""
    rounds: list[Round] = []
    for event in events:
        if event["type"] == "cac.draft":
            rounds.append(Round(answer=event["answer"], usage=Usage(**event["usage"])))
        elif event["type"] == "cac.verdict":
            usage = rounds[-1].usage + Usage(**event["usage"])
            rounds[-1] = Round(answer=rounds[-1].answer, verdict=_verdict(event), usage=usage)
    return CacResult(
        status="failed",
        rounds=tuple(rounds),
        chosen=best_round(tuple(rounds)),
        usage=sum((done.usage for done in rounds), Usage()),
        strategy=strategy,
        template=load_template(template).info,
        error="interrupted",
    )


def _verdict(event: dict[str, Any]) -> Verdict:
    return Verdict(**{name: event[name] for name in ("passed", "critique", "score", "reasoning", "votes")})


# What is shown


class CacView(View):
    """Shows nothing of a run."""

    def show(self, event: dict[str, Any]) -> None:
        """Show an event of the graph."""


class PlainCacView(CacView):
    """Plain lines, for pipes and files. Each is written out at once, so that a reader sees progress."""

    @override
    def show(self, event: dict[str, Any]) -> None:
        for heading, text, _ in _described(event):
            say(f"[{heading}] {text}".rstrip())

    @override
    def ended(self, result: CacResult) -> None:
        say(f"[final, {_status(result)}] {result.answer}")
        say(f"[total] {spent(result.usage)}")

    @override
    def stopped(self, result: CacResult) -> None:
        say(f"[stopped] {len(result.rounds)} answer(s) until then; {spent(result.usage)}")
        if result.answer:
            say(f"[best so far] {result.answer}")


class RichCacView(RichView, CacView):
    """Panels and a spinner, for terminals."""

    @override
    def show(self, event: dict[str, Any]) -> None:
        for heading, text, style in _described(event):
            self._panel(heading, text, style)
        following = {"cac.draft": "checking it", "cac.revise": "writing the next answer", "cac.verdict": "going on"}
        if self._status is not None and event["type"] in following:
            self._status.update(f"{following[event['type']]} …")

    @override
    def ended(self, result: CacResult) -> None:
        style = "bold green" if result.status == "passed" else "bold yellow"
        self._panel(f"final, {_status(result)}", result.answer, style)
        self._console.rule()
        self._note(spent(result.usage))

    @override
    def stopped(self, result: CacResult) -> None:
        self._panel("best so far", result.answer or "(no answer yet)", "bold yellow")
        self._console.rule()
        self._note(f"{len(result.rounds)} answer(s) until then; {spent(result.usage)}")


def _described(event: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Say what an event means: heading, text and colour."""
    answer = f"answer {event['round'] + 1}"
    if event["type"] == "cac.draft":
        return [(f"{answer}, {spent(Usage(**event['usage']), calls=False)}", event["answer"], "cyan")]
    if event["type"] == "cac.verdict":
        verdict = _verdict(event)
        word, style = {True: ("passed", "green"), False: ("failed", "red"), None: ("unclear", "yellow")}[verdict.passed]
        tokens = spent(Usage(**event["usage"]), calls=False)
        return [(f"check of {answer}: {word}, {tokens}", verdict.critique, style)]
    return []


def _status(result: CacResult) -> str:
    chosen = f"answer {result.chosen + 1} of {len(result.rounds)}" if result.chosen is not None else "no answer"
    return f"{result.status}: {chosen}" + (f"; {result.error}" if result.error else "")
