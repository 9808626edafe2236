"""What the CaC graph costs by itself: against a hand-written LangGraph loop that makes the same calls.

The model answers at once, so that nothing but the graph is measured. First one run at a time, both graphs in turn in
one process. Then many runs at once, in a fresh process for each graph: with a model that takes 50 ms, and with one that
waits until all runs are in flight, which is when memory is read.

    python benchmarks/bench_overhead.py [--repeats N] [--runs N] [--processes N]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

os.environ["LANGSMITH_TRACING"] = "false"  # read when LangChain is imported, so before that

import numpy as np
import psutil  # type: ignore[import-untyped]
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph, add_messages
from typing_extensions import TypedDict

from correction_graphs import create_cac_graph

ASK = {"messages": [("user", "What is the capital of Australia?")]}
ANSWER = "It is Canberra."
GRAPHS = ("correction_graphs", "hand-written")
SECONDS = 0.05


class InstantChatModel(BaseChatModel):
    """Answers at once; when awaited, after what `wait` does."""

    wait: Callable[[], Awaitable[Any]] | None = None

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:  # noqa: ARG002
        return ChatResult(generations=[ChatGeneration(message=AIMessage(ANSWER))])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if self.wait is not None:
            await self.wait()
        return self._generate(messages)


def judge(request: Any) -> bool:
    return bool(request.answer == ANSWER)


async def ajudge(request: Any) -> bool:
    return judge(request)


# The same loop, written by hand


class LoopState(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    context: list[AnyMessage]
    draft: AIMessage
    revisions: int


def hand_written(model: BaseChatModel, *, asynchronous: bool) -> Any:
    """generate → check → recontextualize → generate …, without policies, records, events or costs."""

    def prompt(state: LoopState) -> list[AnyMessage]:
        return state.get("context") or state["messages"]

    def generate(state: LoopState) -> dict[str, Any]:
        return {"draft": model.invoke(prompt(state))}

    async def agenerate(state: LoopState) -> dict[str, Any]:
        return {"draft": await model.ainvoke(prompt(state))}

    def judged(state: LoopState, *, passed: bool) -> dict[str, Any]:
        return {"messages": [state["draft"]]} if passed or state.get("revisions", 0) == 2 else {}

    def check(state: LoopState) -> dict[str, Any]:
        return judged(state, passed=judge(SimpleNamespace(answer=state["draft"].text)))

    async def acheck(state: LoopState) -> dict[str, Any]:
        return judged(state, passed=await ajudge(SimpleNamespace(answer=state["draft"].text)))

    def recontextualize(state: LoopState) -> dict[str, Any]:
        context = [*prompt(state), state["draft"], HumanMessage("That was rejected. Answer again.")]
        return {"context": context, "revisions": state.get("revisions", 0) + 1}

    def route(state: LoopState) -> str:
        return END if isinstance(state["messages"][-1], AIMessage) else "recontextualize"

    graph = StateGraph(LoopState)
    graph.add_node("generate", agenerate if asynchronous else generate)
    graph.add_node("check", acheck if asynchronous else check)
    graph.add_node("recontextualize", recontextualize)
    graph.add_edge(START, "generate")
    graph.add_edge("generate", "check")
    graph.add_conditional_edges("check", route, ["recontextualize", END])
    graph.add_edge("recontextualize", "generate")
    return graph.compile()


def graph_named(name: str, model: BaseChatModel, *, asynchronous: bool) -> Any:
    if name == "hand-written":
        return hand_written(model, asynchronous=asynchronous)
    return create_cac_graph(model, checker=ajudge if asynchronous else judge)


# One run at a time


class Compared(NamedTuple):
    medians: list[float]
    ratio: float
    interval: tuple[float, float]


def compared(seconds: Sequence[Sequence[float]]) -> Compared:
    """Medians, their ratio, and its 95 % interval: a bootstrap over the pairs of neighbouring runs."""
    pairs = np.asarray(seconds)
    picks = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
    resampled = np.median(pairs[picks], axis=1)
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], [0.025, 0.975])
    ours, theirs = np.median(pairs, axis=0)
    return Compared([float(ours), float(theirs)], float(ours / theirs), (float(low), float(high)))


def expect_the_answer(out: dict[str, Any]) -> None:
    if out["messages"][-1].text != ANSWER:
        raise RuntimeError(f"a run answered {out['messages'][-1].text!r}")


def one_at_a_time(repeats: int) -> Compared:
    graphs = [graph_named(name, InstantChatModel(), asynchronous=False) for name in GRAPHS]
    seconds = []
    for repeat in range(-20, repeats):  # the first ones warm up
        pair = [0.0, 0.0]
        for which in (0, 1) if repeat % 2 else (1, 0):
            began = time.perf_counter()
            out = graphs[which].invoke(ASK)
            pair[which] = time.perf_counter() - began
            expect_the_answer(out)
        if repeat >= 0:
            seconds.append(pair)
    return compared(seconds)


async def one_at_a_time_awaited(repeats: int) -> Compared:
    graphs = [graph_named(name, InstantChatModel(), asynchronous=True) for name in GRAPHS]
    seconds = []
    for repeat in range(-20, repeats):
        pair = [0.0, 0.0]
        for which in (0, 1) if repeat % 2 else (1, 0):
            began = time.perf_counter()
            out = await graphs[which].ainvoke(ASK)
            pair[which] = time.perf_counter() - began
            expect_the_answer(out)
        if repeat >= 0:
            seconds.append(pair)
    return compared(seconds)


# Many runs at once, in a process of their own


async def at_once(name: str, runs: int) -> dict[str, float]:
    async def sleep() -> None:
        await asyncio.sleep(SECONDS)

    graph = graph_named(name, InstantChatModel(wait=sleep), asynchronous=True)
    for _ in range(5):
        await graph.ainvoke(ASK)
    gc.collect()
    began, busy = time.perf_counter(), time.process_time()
    outs = await asyncio.gather(*(graph.ainvoke(ASK) for _ in range(runs)), return_exceptions=True)
    wall, busy = time.perf_counter() - began, time.process_time() - busy
    good = sum(isinstance(out, dict) and out["messages"][-1].text == ANSWER for out in outs)
    return {"errors": runs - good, "wall_s": wall, "cpu_ms_per_run": busy / runs * 1000}


async def in_flight(name: str, runs: int) -> dict[str, float]:
    memory = psutil.Process().memory_info
    waiting, at_peak, all_there = 0, 0, asyncio.Event()

    async def meet() -> None:
        nonlocal waiting, at_peak
        waiting += 1
        if waiting == runs:
            at_peak = memory().rss
            all_there.set()
        await all_there.wait()

    graph = graph_named(name, InstantChatModel(wait=meet), asynchronous=True)

    # A few runs that do not wait, so that what is loaded once is not counted.
    all_there.set()
    for _ in range(5):
        await graph.ainvoke(ASK)
    waiting = 0
    all_there.clear()
    gc.collect()
    before = memory().rss
    await asyncio.gather(*(graph.ainvoke(ASK) for _ in range(runs)))
    return {"kib_per_run": (at_peak - before) / runs / 1024}


def in_a_fresh_process(what: str, name: str, runs: int) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", what, name, "--runs", str(runs)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500, help="pairs of runs, one at a time")
    parser.add_argument("--runs", type=int, default=1000, help="runs at once")
    parser.add_argument("--processes", type=int, default=3, help="how often the runs at once are repeated")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, name = options.measure
        print(json.dumps(asyncio.run({"at_once": at_once, "in_flight": in_flight}[what](name, options.runs))))
        return

    singles = {
        "invoke": one_at_a_time(options.repeats),
        "ainvoke": asyncio.run(one_at_a_time_awaited(options.repeats)),
    }
    print(f"One run at a time, one answer that passes; medians of {options.repeats} runs in turn")
    print(f"{'':<10}{GRAPHS[0]:>20} ms{GRAPHS[1]:>17} ms   ratio   95 % interval")
    for way, found in singles.items():
        ours, theirs = (1000 * seconds for seconds in found.medians)
        low, high = found.interval
        print(f"{way:<10}{ours:>23.3f}{theirs:>20.3f}{found.ratio:>8.2f}   {low:.2f} to {high:.2f}")

    many: dict[str, list[dict[str, float]]] = {name: [] for name in GRAPHS}
    for _ in range(options.processes):
        for name in GRAPHS:
            both = [in_a_fresh_process(what, name, options.runs) for what in ("at_once", "in_flight")]
            many[name].append({key: value for part in both for key, value in part.items()})

    print(f"\n{options.runs} runs at once; median (least to most) of {options.processes} processes")
    print(f"{'':<20}{'errors':>8}{'seconds':>24}{'processor ms a run':>24}{'KiB a run in flight':>24}")
    for name, found_ in many.items():
        cells = []
        for key in ("wall_s", "cpu_ms_per_run", "kib_per_run"):
            values = [measured[key] for measured in found_]
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        errors = sum(int(measured["errors"]) for measured in found_)
        print(f"{name:<20}{errors:>8}" + "".join(f"{cell:>24}" for cell in cells))

    print(
        json.dumps(
            {
                "schema": 1,
                "benchmark": "overhead",
                "python": sys.version.split()[0],
                "processors": os.cpu_count(),
                "repeats": options.repeats,
                "runs_at_once": options.runs,
                "one_at_a_time": {
                    way: {
                        "ms": dict(zip(GRAPHS, (round(1000 * s, 4) for s in found.medians), strict=True)),
                        "ratio": round(found.ratio, 4),
                        "interval": [round(end, 4) for end in found.interval],
                    }
                    for way, found in singles.items()
                },
                "at_once": {
                    name: [{key: round(value, 3) for key, value in measured.items()} for measured in found_]
                    for name, found_ in many.items()
                },
            }
        )
    )
    if any(measured["errors"] for found_ in many.values() for measured in found_):
        sys.exit("some runs failed")


if __name__ == "__main__":
    main()
