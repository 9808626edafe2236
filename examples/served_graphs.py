"""The graphs that `langgraph.json` serves: one for each method, an agent with two of them, one that asks a person.

langgraph dev --no-browser             # serves them at http://127.0.0.1:2024, see docs/deploying.md
python examples/served_graphs.py       # asks `cac` in this process, to see that the model works before it is served

A graph is built, and its model loaded, when it is first used; graphs that name the same model share it. The environment
says what is loaded:

CORRECTION_GRAPHS_MODEL                # "openai:gpt-5-mini", "model.gguf", …; by default the embedded "smollm2"
CORRECTION_GRAPHS_RAIN_MODEL           # a local model for `rain`; by default the one above
CORRECTION_GRAPHS_THREADS              # CPU threads of a local model; by default one for each core
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langgraph.graph.state import CompiledStateGraph

from correction_graphs import CaCMiddleware, HumanChecker, RainSettings, S2AMiddleware
from correction_graphs.cac import create_cac_graph
from correction_graphs.models import is_local, load_model
from correction_graphs.rain.graph import create_rain_graph
from correction_graphs.s2a import create_s2a_graph

Graph = CompiledStateGraph[Any, Any, Any, Any]

MODEL = os.environ.get("CORRECTION_GRAPHS_MODEL") or "smollm2"
RAIN_MODEL = os.environ.get("CORRECTION_GRAPHS_RAIN_MODEL") or MODEL
THREADS = os.environ.get("CORRECTION_GRAPHS_THREADS")
MAX_TOKENS = 200
QUESTION = "I am sure that it is Sydney. What is the capital of Australia?"

_building = threading.Lock()


def served(build: Callable[[], Graph]) -> Callable[[], Coroutine[Any, Any, Graph]]:
    """Make a factory for the server, which calls it for each run and each look at a schema.

    The graph is built once, in a thread: what loads a model would stop everything else on the server's event loop. One
    is built at a time, so that two that share a model do not load it twice.
    """
    build_once = cache(build)

    def built() -> Graph:
        with _building:
            return build_once()

    async def factory() -> Graph:
        return await asyncio.to_thread(built)

    return factory


@cache
def load(spec: str) -> Any:
    """Load a model, once for all graphs."""
    settings = {"n_threads": int(THREADS)} if THREADS and is_local(spec) else {}
    return load_model(spec, max_tokens=MAX_TOKENS, **settings)


# None of them has a checkpointer: the server brings its own, and does not start with a graph that has one.


@served
def cac() -> Graph:
    return create_cac_graph(load(MODEL), template="correctness")


@served
def s2a() -> Graph:
    return create_s2a_graph(load(MODEL), template="unbiased")


@served
def rain() -> Graph:
    settings = RainSettings(max_new_tokens=MAX_TOKENS)
    return create_rain_graph(load(RAIN_MODEL), judge="harmless", settings=settings)


@served
def agent() -> Graph:
    chat: BaseChatModel = load(MODEL)
    # Tools would go here. There are none, so that it runs on local models, too, which call no tools.
    checked = CaCMiddleware(template="correctness")
    return create_agent(chat, tools=[], middleware=[S2AMiddleware(template="unbiased"), checked])


@served
def moderated() -> Graph:
    # What a person rejected never goes out, also when the model has nothing else to say.
    return create_cac_graph(load(MODEL), checker=HumanChecker(), on_exhausted="refuse", name="moderated")


async def main() -> None:
    graph = await cac()
    out = await graph.ainvoke({"messages": [("user", QUESTION)]})
    result = out["cac"]
    for number, done in enumerate(result.rounds, 1):
        print(f"answer {number}: {done.answer}")
        print("passed" if done.verdict.passed else done.verdict.critique)
    print(f"returned: answer {result.chosen + 1} ({result.status}), {result.usage.model_calls} calls")


if __name__ == "__main__":
    asyncio.run(main())
