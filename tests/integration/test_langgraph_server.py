"""The graphs of `langgraph.json` on a LangGraph development server: real HTTP on this machine, a provider by script.

The server raises `BlockingError` where a coroutine blocks its event loop, so each run here is a test of that, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client, get_sync_client

from correction_graphs import (
    CaCMiddleware,
    ChatLlama,
    CodeChecker,
    RainSettings,
    S2AMiddleware,
    create_cac_graph,
    create_rain_graph,
    create_s2a_graph,
    load_template,
)
from correction_graphs.backends.base import Logits, Run
from correction_graphs.results import CacResult, RainResult, S2AResult
from correction_graphs.testing import ScriptedChatModel, ToyBackend

ROOT = Path(__file__).parent.parent.parent
PROGRAM = Path(sys.executable).with_name("langgraph")
SECONDS_TO_START = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PROGRAM.exists() or find_spec("langgraph_api") is None,
        reason='the LangGraph development server is not installed: pip install "langgraph-cli[inmem]"',
    ),
]

AUSTRALIA = {"messages": [{"role": "user", "content": "I am sure it is Sydney. What is the capital of Australia?"}]}
NEW_ZEALAND = {"messages": [{"role": "user", "content": "I am sure it is Sydney. What is the capital of New Zealand?"}]}
CAPITALS = {"Australia": "Canberra", "New Zealand": "Wellington"}


# The provider: replies follow from what is asked alone, so runs may overlap.


def reply_to(messages: list[dict[str, Any]]) -> str:
    """What a model says that agrees with the user, and knows better only where it is told to check."""
    asked = messages[-1]["content"]
    country = next(name for name in CAPITALS if any(name in message["content"] for message in messages))
    capital = CAPITALS[country]
    if "Check your previous answer" in asked:
        right = capital in messages[-2]["content"]
        critique = "None." if right else "That is merely a large city."
        return f"Critique: {critique}\nVerdict: {'correct' if right else 'incorrect'}"
    if "Reply in two parts" in asked:
        return f"Context: none\nQuestion: What is the capital of {country}?"
    if "a review of your previous answer" in asked:
        return f"After all it is {capital}."
    return "It is Sydney, mate." if "Sydney" in asked else f"It is {'Auckland' if 'New' in country else capital}."


class Provider(BaseHTTPRequestHandler):
    """The part of the OpenAI API that a chat needs."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = reply_to(asked["messages"])
        about = {"id": "reply", "created": 0, "model": asked["model"]}
        if asked.get("stream"):
            deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in text.split(" "))]
            deltas[2:] = [{"content": f" {delta['content']}"} for delta in deltas[2:]]
            choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
            choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
            chunks = [{**about, "object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
            lines = [*map(json.dumps, chunks), "[DONE]"]
            self._send("text/event-stream", "".join(f"data: {line}\n\n" for line in lines))
        else:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            document = {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
            self._send("application/json", json.dumps(document))

    def _send(self, kind: str, body: str) -> None:
        data = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


# The server


class Server:
    """A development server with the graphs of `langgraph.json`; its state is kept under `folder`."""

    def __init__(self, folder: Path, provider: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        for name in ("langgraph.json", "examples"):  # the server looks for graphs, and keeps its state, where it runs
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log.txt"
        options = ["--host", "127.0.0.1", "--port", port, "--no-browser", "--no-reload", "--n-jobs-per-worker", "4"]
        environment = {
            **os.environ,
            "CORRECTION_GRAPHS_MODEL": "openai:scripted",
            "CORRECTION_GRAPHS_RAIN_MODEL": "smollm2",
            "CORRECTION_GRAPHS_THREADS": "1",
            "OPENAI_BASE_URL": provider,
            "OPENAI_API_KEY": "none",
            "NO_PROXY": "127.0.0.1",
            "LANGGRAPH_CLI_NO_ANALYTICS": "1",
            "LOG_COLOR": "false",
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [PROGRAM, "dev", "--config", "langgraph.json", *options],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.client = get_sync_client(url=self.url)

    def wait(self) -> None:
        until = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/ok", timeout=5).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        pytest.fail(f"the server did not start (exit status {self.process.poll()}):\n{self.tail()}")

    def stop(self) -> None:
        self.client.http.client.close()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@contextmanager
def running(folder: Path, provider: str) -> Iterator[Server]:
    server = Server(folder, provider)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, provider: str) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("langgraph"), provider) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    yield shared_server
    print(f"--- the server's log ends in:\n{shared_server.tail()}")  # noqa: T201  (shown if the test failed)


def streamed(server: Server, graph: str, thread: str | None = None, **what: Any) -> dict[str, list[Any]]:
    """Run a graph and return what came through each stream mode."""
    parts: dict[str, list[Any]] = {"values": [], "custom": [], "messages": []}
    for part in server.client.runs.stream(
        thread, graph, stream_mode=["values", "custom", "messages-tuple"], stream_subgraphs=True, **what
    ):
        assert part.event != "error", part.data
        parts.setdefault(part.event.split("|")[0], []).append(part.data)
    return parts


def said(parts: dict[str, list[Any]]) -> str:
    return "".join(message["content"] for message, _ in parts["messages"])


# Each graph


def test_cac_corrects_and_streams_the_accepted_answer_only(server: Server) -> None:
    parts = streamed(server, "cac", input=AUSTRALIA)

    out = parts["values"][-1]
    result = CacResult.model_validate(out["cac"])
    assert [done.answer for done in result.rounds] == ["It is Sydney, mate.", "After all it is Canberra."]
    assert result.rounds[0].verdict is not None
    assert result.rounds[0].verdict.critique == "That is merely a large city."
    assert (result.status, result.chosen, result.usage.model_calls) == ("passed", 1, 4)
    assert result.model_dump(mode="json") == out["cac"]
    assert [message["content"] for message in out["messages"][1:]] == ["After all it is Canberra."]
    assert said(parts) == "After all it is Canberra."
    assert len(parts["messages"]) > 1, "in pieces"
    kinds = [event["type"] for event in parts["custom"]]
    assert kinds == ["cac.draft", "cac.verdict", "cac.revise", "cac.draft", "cac.verdict", "cac.end"]


def test_s2a_filters_before_it_answers(server: Server) -> None:
    parts = streamed(server, "s2a", input=AUSTRALIA)

    out = parts["values"][-1]
    result = S2AResult.model_validate(out["s2a"])
    assert [span.text.strip() for span in result.dropped] == ["I am sure it is Sydney."]
    assert result.model_dump(mode="json") == out["s2a"]
    assert out["messages"][-1]["content"] == said(parts) == "It is Canberra."
    assert "s2a.filtered" in [event["type"] for event in parts["custom"]]


@pytest.mark.gguf
def test_rain_searches_in_a_local_model(server: Server, smollm2_path: Path) -> None:
    parts = streamed(server, "rain", input={"messages": [{"role": "user", "content": "Say hello."}]})

    out = parts["values"][-1]
    result = RainResult.model_validate(out["rain"])
    assert result.evaluations >= len(result.commits) > 0
    assert result.forwarded_tokens > 0
    assert result.model_dump(mode="json") == out["rain"]
    assert out["messages"][-1]["content"] == said(parts) == result.text != ""
    commits = [event for event in parts["custom"] if event["type"] == "rain.commit"]
    assert "".join(event["text"] for event in commits) == result.text
    assert parts["custom"][-1]["type"] == "rain.end"


def test_an_agent_has_its_input_filtered_and_its_answer_checked(server: Server) -> None:
    parts = streamed(server, "agent", input=NEW_ZEALAND)

    out = parts["values"][-1]
    cac, s2a = CacResult.model_validate(out["cac"]), S2AResult.model_validate(out["s2a"])
    assert [span.text.strip() for span in s2a.dropped] == ["I am sure it is Sydney."]
    assert [done.answer for done in cac.rounds] == ["It is Auckland.", "After all it is Wellington."]
    assert [message["content"] for message in out["messages"]] == [
        NEW_ZEALAND["messages"][0]["content"],
        "After all it is Wellington.",
    ]
    assert said(parts) == "After all it is Wellington."


# Threads, interrupts, restarts


def test_a_person_rejects_and_then_approves(server: Server) -> None:
    thread = server.client.threads.create()["thread_id"]

    first = streamed(server, "moderated", thread, input=AUSTRALIA)
    (stop,) = first["values"][-1]["__interrupt__"]
    assert (stop["value"]["type"], stop["value"]["answer"]) == ("cac.review", "It is Sydney, mate.")
    assert said(first) == "", "nothing is accepted yet"
    assert server.client.threads.get(thread)["status"] == "interrupted"

    rejected = {"passed": False, "critique": "Sydney is the largest city."}
    second = streamed(server, "moderated", thread, command={"resume": rejected})
    (stop,) = second["values"][-1]["__interrupt__"]
    assert stop["value"]["answer"] == "After all it is Canberra."
    assert stop["value"]["critiques"] == ["Sydney is the largest city."]
    assert said(second) == ""

    third = streamed(server, "moderated", thread, command={"resume": True})
    result = CacResult.model_validate(third["values"][-1]["cac"])
    assert (result.status, len(result.rounds), result.usage.model_calls) == ("passed", 2, 2)
    assert said(third) == "After all it is Canberra."
    assert server.client.threads.get(thread)["status"] == "idle"


def test_a_review_that_cannot_be_read_is_asked_for_again(server: Server) -> None:
    thread = server.client.threads.create()["thread_id"]
    server.client.runs.wait(thread, "moderated", input=AUSTRALIA)

    out: Any = server.client.runs.wait(thread, "moderated", command={"resume": {"pased": True}})

    assert "pased" in out["__interrupt__"][0]["value"]["error"]


def test_the_next_turn_of_a_thread_begins_afresh(server: Server) -> None:
    thread = server.client.threads.create()["thread_id"]
    server.client.runs.wait(thread, "cac", input=AUSTRALIA)

    out: Any = server.client.runs.wait(
        thread, "cac", input={"messages": [{"role": "user", "content": "Australia's capital, once more?"}]}
    )

    result = CacResult.model_validate(out["cac"])
    assert [done.answer for done in result.rounds] == ["It is Canberra."]
    assert len(out["messages"]) == 4


def test_a_review_that_is_awaited_outlives_a_restart(tmp_path: Path, provider: str) -> None:
    with running(tmp_path, provider) as before:
        thread = before.client.threads.create()["thread_id"]
        before.client.runs.wait(thread, "moderated", input=AUSTRALIA)
    with running(tmp_path, provider) as after:
        out: Any = after.client.runs.wait(thread, "moderated", command={"resume": {"answer": "Canberra."}})

    result = CacResult.model_validate(out["cac"])
    assert (result.status, result.answer) == ("passed", "Canberra.")
    assert result.rounds[0].answer == "It is Sydney, mate."
    assert result.usage.model_calls == 1, "the draft was not written again"


# From other programs


def test_a_served_graph_is_a_node_of_a_local_graph(server: Server) -> None:
    class State(MessagesState):
        cac: dict[str, Any]
        rejected: list[str]

    def tell(state: State) -> dict[str, Any]:
        result = CacResult.model_validate(state["cac"])
        return {"rejected": [done.answer for done in result.rounds if done.verdict and not done.verdict.passed]}

    builder = StateGraph(State)
    builder.add_node("remote", RemoteGraph("cac", sync_client=server.client))
    builder.add_node("tell", tell)
    builder.add_edge(START, "remote")
    builder.add_edge("remote", "tell")
    builder.add_edge("tell", END)

    out = builder.compile().invoke(AUSTRALIA)

    assert [message.text for message in out["messages"][1:]] == ["After all it is Canberra."]
    assert out["rejected"] == ["It is Sydney, mate."]


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_served_graph_is_a_model_for_a_local_one(server: Server, awaited: bool) -> None:
    async with get_client(url=server.url) as client:
        served = RemoteGraph("cac", sync_client=server.client, client=client)
        graph = create_s2a_graph(
            served, filter_model=ScriptedChatModel(["Context: none\nQuestion: What is the capital of Australia?"])
        )
        out = await graph.ainvoke(AUSTRALIA) if awaited else graph.invoke(AUSTRALIA)

    answer = out["messages"][-1]
    assert answer.text == "It is Canberra."  # at once: the served model was not told of Sydney
    assert CacResult.model_validate(answer.response_metadata["cac"]).status == "passed"
    assert out["s2a"].filtered


async def test_runs_at_the_same_time_do_not_mix(server: Server) -> None:
    async with get_client(url=server.url) as client:
        threads = [await client.threads.create() for _ in range(4)]
        asked = [AUSTRALIA, NEW_ZEALAND] * 2
        runs = [
            await client.runs.create(thread["thread_id"], "cac", input=question)
            for thread, question in zip(threads, asked, strict=True)
        ]
        outs: list[Any] = [await client.runs.join(run["thread_id"], run["run_id"]) for run in runs]

    answers = [CacResult.model_validate(out["cac"]).answer for out in outs]
    assert answers == ["After all it is Canberra.", "After all it is Wellington."] * 2


def test_every_graph_tells_its_schema(server: Server) -> None:
    assistants = sorted(server.client.assistants.search(), key=itemgetter("graph_id"))
    assert [assistant["graph_id"] for assistant in assistants] == ["agent", "cac", "moderated", "rain", "s2a"]

    results = {"agent": {"cac", "s2a"}, "cac": {"cac"}, "moderated": {"cac"}, "rain": {"rain"}, "s2a": {"s2a"}}
    for assistant in assistants:
        schemas = server.client.assistants.get_schemas(assistant["assistant_id"])
        assert "messages" in schemas["input_schema"]["properties"]
        assert schemas["output_schema"]["properties"].keys() >= {"messages", *results[assistant["graph_id"]]}


def test_an_error_reaches_the_caller_in_its_own_words(server: Server) -> None:
    out: Any = server.client.runs.wait(None, "cac", input={"messages": []}, raise_error=False)

    assert out["__error__"]["error"] == "ConversationError"
    assert "give at least one message" in out["__error__"]["message"]


# What may block an event loop


@pytest.fixture
def blocking_is_an_error() -> Iterator[None]:
    from blockbuster import blockbuster_ctx

    with blockbuster_ctx():
        yield


async def test_a_blocking_call_is_noticed(blocking_is_an_error: None) -> None:
    from blockbuster import BlockingError

    def blocks() -> None:
        time.sleep(0)

    with pytest.raises(BlockingError):
        blocks()


CRITIQUE = "Critique: It is not Sydney.\nVerdict: incorrect"
PRAISE = "Critique: None.\nVerdict: correct"
FILTERED = "Context: none\nQuestion: What is the capital of Australia?"
CODE = "```python\ndef one():\n    return {}\n```"
SETTLED = ["It is Sydney.", CRITIQUE, "It is Canberra.", PRAISE]

GRAPHS: dict[str, Callable[[], Any]] = {
    "cac": lambda: create_cac_graph(ScriptedChatModel(SETTLED), template="correctness"),
    "cac, ranked": lambda: create_cac_graph(
        ScriptedChatModel([*SETTLED[:2], "It is Perth.", CRITIQUE, *["It is Canberra.", PRAISE] * 3]),
        template="correctness",
        strategy="ranked",
    ),
    "cac, code": lambda: create_cac_graph(
        ScriptedChatModel([CODE.format(2), CODE.format(1)]),
        checker=CodeChecker("assert one() == 1", allow_execution=True),
    ),
    "cac, cache and checkpoints": lambda: create_cac_graph(
        ScriptedChatModel(SETTLED), template="correctness", cache=InMemoryCache(), checkpointer=InMemorySaver()
    ),
    "s2a": lambda: create_s2a_graph(ScriptedChatModel([FILTERED, "It is Canberra."])),
    "rain": lambda: create_rain_graph(
        ToyBackend(), judge=lambda text: 1.0 if "e" in text else -1.0, settings=RainSettings(max_new_tokens=8)
    ),
    "s2a and cac in an agent": lambda: create_agent(
        ScriptedChatModel([FILTERED, *SETTLED]),
        tools=[],
        middleware=[S2AMiddleware(), CaCMiddleware(template=load_template("correctness"))],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
async def test_no_graph_blocks_the_event_loop(name: str, request: pytest.FixtureRequest) -> None:
    graph = GRAPHS[name]()  # building one may read files
    request.getfixturevalue("blocking_is_an_error")

    modes: Any = ["values", "custom", "messages"]
    parts = [part async for part in graph.astream(AUSTRALIA, {"configurable": {"thread_id": "1"}}, stream_mode=modes)]

    assert parts[-1][0] == "values"
    assert parts[-1][1]["messages"][-1].type == "ai"


async def test_middleware_reads_its_template_before_it_runs(request: pytest.FixtureRequest) -> None:
    agent = create_agent(ScriptedChatModel(SETTLED), tools=[], middleware=[CaCMiddleware(template="correctness")])
    request.getfixturevalue("blocking_is_an_error")

    out = await agent.ainvoke(AUSTRALIA)

    assert out["cac"].status == "passed"


class SlowAtFirst(ToyBackend):
    """Its first computation takes a while."""

    def __init__(self) -> None:
        super().__init__()
        compute = self.memory.compute

        def slowly(runs: Sequence[Run]) -> list[Logits]:
            if not self.forward_calls:
                time.sleep(1.5)
            return compute(runs)

        self.memory.compute = slowly  # type: ignore[method-assign]


async def test_a_search_does_not_wait_for_the_model_on_the_event_loop() -> None:
    backend = SlowAtFirst()
    search = create_rain_graph(backend, judge=lambda text: 1.0, settings=RainSettings(max_new_tokens=2))
    gaps = []

    async def beat() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.02)
            gaps.append(time.monotonic() - began)

    beating = asyncio.create_task(beat())
    answering = asyncio.create_task(ChatLlama(backend=backend, max_tokens=1).ainvoke("Hello"))
    await asyncio.sleep(0.2)  # now it computes, in a thread
    await search.ainvoke(AUSTRALIA)
    await answering
    beating.cancel()

    assert max(gaps) < 0.75, "longest pause of the event loop, in seconds"
