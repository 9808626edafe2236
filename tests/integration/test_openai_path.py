"""CaC on a model behind an OpenAI-compatible API: a real client, a real server, real HTTP on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_openai import ChatOpenAI

from correction_graphs import CheckRequest, Verdict, create_cac_graph
from correction_graphs.errors import CheckerError, GenerationError
from correction_graphs.results import CacResult

pytestmark = [pytest.mark.gguf, pytest.mark.slow]

ASK = {"messages": [("user", "Name a colour.")]}


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Any], ChatOpenAI]]:
    """Makes clients of a server; their connections are closed with the test."""
    with httpx.Client() as http:
        async with httpx.AsyncClient() as async_http:

            def client(server: Any) -> ChatOpenAI:
                return ChatOpenAI(
                    base_url=server.url,
                    api_key="none",
                    model="local",
                    extra_body={"max_tokens": 16},  # this server does not know the newer name that the client sends
                    temperature=0,
                    max_retries=0,
                    http_client=http,
                    http_async_client=async_http,
                )

            yield client


def fails(request: CheckRequest) -> Verdict:
    return Verdict(passed=False, critique="Name another colour.")


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_answers_are_checked_and_usage_is_summed(server, connect, mode: str) -> None:
    graph = create_cac_graph(connect(server), max_rounds=1)
    counted = UsageMetadataCallbackHandler()
    config = {"callbacks": [counted]}

    out = graph.invoke(ASK, config) if mode == "sync" else await graph.ainvoke(ASK, config)

    result: CacResult = out["cac"]
    (spent,) = counted.usage_metadata.values()
    assert result.status in {"passed", "exhausted", "plateau"}, "which one is up to the model"
    assert len(out["messages"]) == 2
    assert out["messages"][-1].text == result.answer != ""
    assert result.usage.model_calls == 2 * len(result.rounds) - (result.status == "plateau")
    assert result.usage.input_tokens == spent["input_tokens"] > 0
    assert result.usage.output_tokens == spent["output_tokens"] > 0
    assert sum(done.usage.output_tokens for done in result.rounds) == result.usage.output_tokens


async def test_a_revision_is_written_with_the_critique_in_view(server, connect) -> None:
    result = create_cac_graph(connect(server), checker=fails, max_rounds=1).invoke(ASK)["cac"]

    first, second = result.rounds
    assert result.status in {"exhausted", "plateau"}, "which one is up to the model"
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_only_the_final_answer_is_streamed(server, connect, mode: str) -> None:
    graph = create_cac_graph(connect(server), max_rounds=1)
    modes = ["messages", "custom", "values"]

    if mode == "sync":
        parts = list(graph.stream(ASK, stream_mode=modes))
    else:
        parts = [part async for part in graph.astream(ASK, stream_mode=modes)]

    result = [part for kind, part in parts if kind == "values"][-1]["cac"]
    said = "".join(message.text for kind, (message, *_) in ((k, p) for k, p in parts if k == "messages"))
    events = [part for kind, part in parts if kind == "custom"]
    assert said == result.answer
    assert [event["type"] for event in events][:2] == ["cac.draft", "cac.verdict"]
    assert events[-1]["type"] == "cac.end"
    assert result.usage.model_calls == 2 * len(result.rounds) - (result.status == "plateau")
    assert [event["answer"] for event in events if event["type"] == "cac.draft"] == [
        done.answer for done in result.rounds
    ]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_server_that_dies_before_the_revision_costs_no_answer(mortal_server, connect, mode: str) -> None:
    def kills(request: CheckRequest) -> Verdict:
        mortal_server.kill()
        return fails(request)

    graph = create_cac_graph(connect(mortal_server), checker=kills, max_rounds=1)

    out = graph.invoke(ASK) if mode == "sync" else await graph.ainvoke(ASK)

    result = out["cac"]
    assert (result.status, result.chosen, len(result.rounds)) == ("failed", 0, 1)
    assert out["messages"][-1].text == result.answer != ""
    assert "onnection" in result.error


async def test_a_server_that_dies_before_the_check_costs_no_answer(mortal_server, connect) -> None:
    stream = create_cac_graph(connect(mortal_server), max_rounds=1).stream(ASK, stream_mode="custom")
    draft = next(stream)
    mortal_server.kill()

    with pytest.raises(CheckerError) as caught:
        next(stream)

    assert caught.value.result.answer == draft["answer"] != ""
    assert "onnection" in str(caught.value)


async def test_a_server_that_is_gone_is_an_error_of_ours(mortal_server, connect) -> None:
    mortal_server.kill()
    graph = create_cac_graph(connect(mortal_server))

    with pytest.raises(GenerationError) as caught:
        await graph.ainvoke(ASK)

    assert caught.value.result.rounds == ()
    assert caught.value.__cause__ is not None


def command_line(server: Any, *options: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("correction-graphs"))
    model = ["--model", "openai:local", "--base-url", server.url, "--max-tokens", "24", "--max-rounds", "1"]
    return subprocess.run(
        [program, "run", "cac", "Name a colour.", *model, *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_line_reaches_the_server(server) -> None:
    run = command_line(server)

    assert (run.returncode, run.stderr) == (0, "")
    assert "[answer 1, " in run.stdout
    assert "[final, " in run.stdout


def test_the_command_line_prints_json(server) -> None:
    run = command_line(server, "--json", "--temperature", "0")

    document = json.loads(run.stdout)
    result = CacResult.model_validate(document["cac"])
    assert (run.returncode, run.stderr, document["error"]) == (0, "", None)
    assert document["answer"] == result.answer != ""
    assert result.usage.model_calls == 2 * len(result.rounds) - (result.status == "plateau")
    assert 0 < result.usage.output_tokens <= 24 * result.usage.model_calls, "--max-tokens reaches the server"
