"""What `CaCMiddleware` and `S2AMiddleware` add to an agent of LangChain's, for each model call.

The model answers at once, so that nothing but the agent is measured. All agents run in turn in one process, each as
often; a run's time is divided by the model calls in it, those of critics and filters included. Where `deepagents` is
installed, its `RubricMiddleware` runs beside them. Whatever checks with a model makes one call for each check.

    python benchmarks/bench_middleware.py [--repeats N] [--tool-calls N]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

os.environ["LANGSMITH_TRACING"] = "false"  # read when LangChain is imported, so before that

import numpy as np
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from correction_graphs import CaCMiddleware, LLMCritic, S2AMiddleware

try:
    RubricMiddleware = importlib.import_module("deepagents.middleware.rubric").RubricMiddleware
except ImportError:
    RubricMiddleware = None

QUESTION = "What is the capital of Australia?"
PASSED = {"result": "satisfied", "explanation": "It is.", "criteria": [{"name": "True", "passed": True}]}


class InstantChatModel(BaseChatModel):
    """Calls its tool so often after each question, then answers; all at once."""

    tool_calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "instant"

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        reply = calling("look_up", {"place": "Canberra"}, done) if done < self.tool_calls else AIMessage("Canberra.")
        return ChatResult(generations=[ChatGeneration(message=reply)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


class InstantCritic(InstantChatModel):
    """Says in the words of whoever asks that the answer may stand."""

    rubric: bool = False

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        reply = calling("GraderResponse", PASSED, 0) if self.rubric else AIMessage("Verdict: not biased")
        return ChatResult(generations=[ChatGeneration(message=reply)])


class InstantFilter(InstantChatModel):
    """Finds nothing to leave out."""

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"Context: none\nQuestion: {QUESTION}"))])


def calling(name: str, args: dict[str, Any], number: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call{number}"}])


@tool
async def look_up(place: str) -> str:
    """Look a place up."""
    return place


@tool("look_up")
def look_up_now(place: str) -> str:
    """Look a place up."""
    return place


def says_canberra(request: Any) -> bool:
    return "Canberra" in request.answer


async def asays_canberra(request: Any) -> bool:
    return says_canberra(request)


class Through(AgentMiddleware[Any, Any, Any]):
    """A middleware around the model call that does nothing: what LangChain itself takes for one."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


class Contender(NamedTuple):
    """An agent, and how many calls of models it makes besides those that a bare one makes."""

    middleware: Callable[[bool], Sequence[Any]]
    checks: int
    inputs: dict[str, Any]


def contenders() -> dict[str, Contender]:
    ask = {"messages": [("user", QUESTION)]}
    critic = LLMCritic(InstantCritic(), style="verdict")
    found = {
        "bare": Contender(lambda _: [], 0, ask),
        "wrap alone": Contender(lambda _: [Through()], 0, ask),
        "CaC, function": Contender(
            lambda awaited: [CaCMiddleware(asays_canberra if awaited else says_canberra)], 0, ask
        ),
        "CaC, critic": Contender(lambda _: [CaCMiddleware(critic)], 1, ask),
        "S2A": Contender(lambda _: [S2AMiddleware(InstantFilter())], 1, ask),
        "S2A and CaC": Contender(lambda _: [S2AMiddleware(InstantFilter()), CaCMiddleware(critic)], 2, ask),
    }
    if RubricMiddleware is not None:
        rubric = {**ask, "rubric": "The answer is true."}
        grader = InstantCritic(rubric=True)
        found["Rubric"] = Contender(lambda _: [RubricMiddleware(model=grader)], 1, rubric)
    return found


async def awaited_run(agent: Any, inputs: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    out = await agent.ainvoke(inputs)
    return time.perf_counter() - began, out


def run(agent: Any, inputs: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    out = agent.invoke(inputs)
    return time.perf_counter() - began, out


def measured(repeats: int, tool_calls: int, *, awaited: bool) -> dict[str, Any]:
    """Seconds for each model call, of each agent in each round."""
    racing = contenders()
    model, tools = InstantChatModel(tool_calls=tool_calls), [look_up if awaited else look_up_now]
    agents = {name: create_agent(model, tools, middleware=each.middleware(awaited)) for name, each in racing.items()}
    seconds: dict[str, list[float]] = {name: [] for name in racing}
    with asyncio.Runner() as runner:
        for repeat in range(-20, repeats):  # the first ones warm up
            first = repeat % len(racing)
            for name in [*racing][first:] + [*racing][:first]:
                job = agents[name], racing[name].inputs
                took, out = runner.run(awaited_run(*job)) if awaited else run(*job)
                if out["messages"][-1].text != "Canberra.":
                    raise RuntimeError(f"{name} answered {out['messages'][-1].text!r}")
                if repeat >= 0:
                    seconds[name].append(took / (tool_calls + 1 + racing[name].checks))
    return {name: np.asarray(values) for name, values in seconds.items()}


def ratio(ours: Any, bare: Any) -> tuple[float, float, float]:
    """Ratio of the medians, and its 95 % interval: a bootstrap over the rounds."""
    picks = np.random.default_rng(0).integers(len(bare), size=(2000, len(bare)))
    low, high = np.quantile(np.median(ours[picks], axis=1) / np.median(bare[picks], axis=1), [0.025, 0.975])
    return float(np.median(ours) / np.median(bare)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="runs of each agent")
    parser.add_argument("--tool-calls", type=int, default=9, help="tool calls before the answer, in the longer run")
    options = parser.parse_args()

    rows: list[dict[str, Any]] = []
    print(
        f"Milliseconds for each model call, and the ratio to the bare agent; medians of {options.repeats} runs in turn"
    )
    for tool_calls in (0, options.tool_calls):
        for awaited in (False, True):
            way = "ainvoke" if awaited else "invoke"
            print(f"\n{way}, {tool_calls} tool calls and an answer that passes")
            found = measured(options.repeats, tool_calls, awaited=awaited)
            for name, seconds in found.items():
                times, low, high = ratio(seconds, found["bare"])
                milliseconds = float(np.median(seconds)) * 1000
                print(f"{name:<16}{milliseconds:>9.3f} ms{times:>8.2f}   {low:.2f} to {high:.2f}")
                rows.append(
                    {"way": way, "tool_calls": tool_calls, "agent": name, "ms": round(milliseconds, 4)}
                    | {"ratio": round(times, 4), "interval": [round(low, 4), round(high, 4)]}
                )
    if RubricMiddleware is None:
        print("\ndeepagents is not installed, so its RubricMiddleware is not measured")
    print(
        json.dumps(
            {
                "schema": 1,
                "benchmark": "middleware",
                "python": sys.version.split()[0],
                "processors": os.cpu_count(),
                "repeats": options.repeats,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
