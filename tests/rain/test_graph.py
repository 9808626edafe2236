"""The RAIN graph: what it returns and streams, what a checkpoint keeps, how it ends, and RAIN inside other graphs."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, get_args, get_type_hints

import gguf_models
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from talkers import choosing, liking, open_branches, small, variety, watchdog

from correction_graphs import ChatLlama, Verdict, create_cac_graph
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.checkers.adapters import as_checker
from correction_graphs.errors import ConversationError, ModelFileError, SearchError, SettingsError, TemplateError
from correction_graphs.events import RainEvent
from correction_graphs.rain.chat import ChatRain
from correction_graphs.rain.graph import build_rain_graph, create_rain_graph
from correction_graphs.results import RainResult
from correction_graphs.streaming import final_only
from correction_graphs.testing import ScriptedChatModel, ToyBackend

ASK = {"messages": [HumanMessage("hi", id="question")]}
THREAD = {"configurable": {"thread_id": "1"}}


def rain(model: Any, **arguments: Any) -> Any:
    """Create a graph, by default with settings for small texts."""
    chosen = {} if isinstance(model, ChatRain) else {"settings": small()}
    return create_rain_graph(model, **{**chosen, **arguments})


SEARCH = small(max_new_tokens=40, lengths=(5,), candidates=2, max_iterations=6)
LONG = "It is good. It is so good. It is too good. Yes."


def toy(**settings: Any) -> ToyBackend:
    return ToyBackend(**{"n_cells": 16384, "n_sequences": 256, **settings})


def talking(text: str = LONG, **settings: Any) -> Any:
    """A graph that says `text`, a sentence a step."""
    return rain(choosing("It is bad.", text), judge=liking("good"), **settings)


def plain(result: RainResult) -> dict[str, Any]:
    """A result without its time."""
    return result.model_dump(exclude={"seconds"})


def rained(out: dict[str, Any]) -> RainResult:
    assert isinstance(out["rain"], RainResult)
    return out["rain"]


# What it returns


async def test_every_way_of_asking_agrees() -> None:
    graph = rain(toy(), judge=variety, settings=SEARCH)
    outs = [
        graph.invoke(ASK),
        await graph.ainvoke(ASK),
        *graph.batch([ASK, ASK]),
        *await graph.abatch([ASK, ASK]),
        list(graph.stream(ASK, stream_mode="values"))[-1],
        [part async for part in graph.astream(ASK, stream_mode="values")][-1],
    ]
    texts = {out["messages"][-1].text for out in outs}
    assert len(texts) == 1
    assert {rained(out).text for out in outs} == texts
    first = plain(outs[0]["rain"])
    forwarded = "forwarded_tokens"
    for out in outs[1:]:  # how much was computed depends on what is in the cache
        for one, other in zip(plain(out["rain"])["commits"], first["commits"], strict=True):
            assert {**one, forwarded: 0} == {**other, forwarded: 0}


def test_it_returns_one_message_and_the_story_of_it() -> None:
    backend = choosing("It is bad.", LONG)
    out = rain(backend, judge=liking("good")).invoke(ASK)

    question, answer = out["messages"]
    assert question == ASK["messages"][0]
    assert answer.text == rained(out).text == LONG
    assert set(out) == {"messages", "rain"}
    assert answer.response_metadata["rain"] == out["rain"].summary()
    assert answer.usage_metadata["total_tokens"] == out["rain"].prompt_tokens + out["rain"].output_tokens
    assert "".join(commit.text for commit in out["rain"].commits) == LONG
    assert out["rain"].stop_reason == "stop"
    assert out["rain"].rewinds >= 1
    rejected = [node.text for node in out["rain"].commits[0].searched if not node.committed]
    assert "It is bad." in rejected


def test_it_says_what_the_chat_model_says() -> None:
    chat = ChatRain(backend=toy(), judge=variety, settings=SEARCH)
    assert rain(chat).invoke(ASK)["messages"][-1].text == chat.invoke("hi").text


@pytest.mark.parametrize("kind", ["backend", "ChatLlama", "ChatRain"])
def test_any_local_model_will_do(kind: str) -> None:
    backend = choosing("It is bad.", LONG)
    model = {
        "backend": backend,
        "ChatLlama": ChatLlama(backend=backend),
        "ChatRain": ChatRain(backend=backend, judge=lambda text: -1.0, stop=["never"]),
    }[kind]
    assert rain(model, judge=liking("good")).invoke(ASK)["messages"][-1].text == LONG


def test_stop_texts_of_the_chat_model_hold() -> None:
    chat = ChatRain(backend=choosing(LONG), judge=lambda text: 1.0, stop=["so", ""])
    assert rain(chat).invoke(ASK)["messages"][-1].text == "It is good. It is "


@pytest.mark.gguf
def test_a_file_will_do(tmp_path: Path) -> None:
    path = gguf_models.write_llama(tmp_path / "tiny.gguf")
    settings = SEARCH.model_copy(update={"max_new_tokens": 10})
    for model in (path, str(path)):
        out = rain(model, judge=variety, settings=settings).invoke(ASK)
        assert out["rain"].output_tokens <= 10
        assert out["messages"][-1].text == out["rain"].text


@pytest.mark.parametrize(
    "model", ["openai:gpt-5-mini", "gpt", ScriptedChatModel(["Hello."]), None, 3], ids=lambda model: repr(model)[:20]
)
def test_a_model_without_logits_is_refused_with_what_to_give(model: Any) -> None:
    for make in (create_rain_graph, build_rain_graph):
        with pytest.raises(SettingsError, match=r"(?s)`model` is .*, whose logits cannot be read; .* a GGUF file"):
            make(model, judge=variety)


def test_other_wrong_arguments_are_found_when_the_graph_is_built() -> None:
    backend = choosing(LONG)
    with pytest.raises(TemplateError, match="kindly"):
        rain(backend, judge="kindly")
    with pytest.raises(SettingsError, match="value function"):
        rain(backend, judge=7)
    with pytest.raises(SettingsError, match="settings"):
        rain(backend, judge=variety, settings="paper")
    with pytest.raises(SettingsError, match="similarity"):
        rain(backend, judge=variety, similarity="cosine")
    with pytest.raises(SettingsError, match=r"^`cache` is 'x'; give a LangGraph cache, such as InMemoryCache\(\)$"):
        rain(backend, judge=variety, cache="x")
    with pytest.raises(ModelFileError, match=r"nowhere\.gguf"):
        rain("nowhere.gguf", judge=variety)


def test_a_conversation_that_cannot_be_answered_is_refused() -> None:
    with pytest.raises(ConversationError):
        talking().invoke({"messages": []})


# What it streams


async def test_events_are_those_that_are_documented() -> None:
    graph = talking()
    events = list(graph.stream(ASK, stream_mode="custom"))

    documented = {get_args(get_type_hints(kind)["type"])[0]: get_type_hints(kind) for kind in get_args(RainEvent)}
    for event in events:
        assert set(event) == set(documented[event["type"]])
    assert json.loads(json.dumps(events)) == events
    assert {event["type"] for event in events} == set(documented)
    commits = [event for event in events if event["type"] == "rain.commit"]
    assert "".join(event["text"] for event in commits) == LONG
    assert [event["index"] for event in commits] == list(range(len(commits)))
    assert [event["type"] for event in events].count("rain.end") == 1
    assert any(event["rewound"] for event in events if event["type"] == "rain.judged")
    again = [event async for event in graph.astream(ASK, stream_mode="custom")]
    assert [event["type"] for event in again] == [event["type"] for event in events]


async def test_the_message_is_streamed_as_it_is_committed() -> None:
    graph = talking()
    answer: AIMessage = graph.invoke(ASK)["messages"][-1]

    parts = [message for message, _ in graph.stream(ASK, stream_mode="messages")]
    pieces = [part.text for part in parts if isinstance(part, AIMessageChunk)]

    assert [piece for piece in pieces if piece] == _sentences(LONG)
    assert list(final_only(graph.stream(ASK, stream_mode="messages"))) == _sentences(LONG)
    assert [p async for p in final_only(graph.astream(ASK, stream_mode="messages"))] == _sentences(LONG)
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    assert whole.text == answer.text
    assert len({part.id for part in parts if part.text}) == 1
    assert whole.usage_metadata == answer.usage_metadata
    assert whole.response_metadata["rain"]["stop_reason"] == "stop"


def test_all_pieces_have_the_id_of_the_answer() -> None:
    parts = [message for message, _ in talking().stream(ASK, stream_mode="messages")]
    assert len({part.id for part in parts}) == 1
    assert [part.chunk_position for part in parts].count("last") == 1


def _sentences(text: str) -> list[str]:
    first, *others = text.split(". ")
    parts = [first, *(f" {other}" for other in others)]
    return [part if part.endswith(".") else part + "." for part in parts]


def test_what_is_streamed_comes_before_the_rest_is_searched() -> None:
    backend = choosing("It is bad.", LONG)
    calls = [
        backend.forward_calls
        for event in rain(backend, judge=liking("good")).stream(ASK, stream_mode="custom")
        if event["type"] == "rain.commit"
    ]
    assert calls == sorted(set(calls))


# Checkpoints


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_each_committed_token_set_is_a_step(mode: str) -> None:
    graph = talking(checkpointer=InMemorySaver())

    out = graph.invoke(ASK, THREAD) if mode == "sync" else await graph.ainvoke(ASK, THREAD)

    searched = [past for past in graph.get_state_history(THREAD) if past.next == ("search",)]
    done = [len(past.values["rain_progress"].result.commits) for past in searched if "rain_progress" in past.values]
    assert done[::-1] == list(range(1, len(out["rain"].commits)))
    final = graph.get_state(THREAD)
    assert final.next == ()
    assert final.values["rain"] == out["rain"]


def test_a_second_turn_starts_afresh() -> None:
    graph = talking(checkpointer=InMemorySaver())
    first = graph.invoke(ASK, THREAD)

    second = graph.invoke({"messages": [("user", "and?")]}, THREAD)

    assert [message.type for message in second["messages"]] == ["human", "ai", "human", "ai"]
    assert second["messages"][-1].text == LONG
    assert second["messages"][-1].id != first["messages"][-1].id
    assert len(second["rain"].commits) == len(first["rain"].commits)
    assert second["rain"].prompt_tokens > first["rain"].prompt_tokens


def test_a_turn_after_one_that_broke_off_starts_afresh() -> None:
    failing = [False]

    def judge(text: str) -> float:
        if failing[0] and len(text) > 20:
            raise ValueError("no idea")
        return liking("good")(text)

    graph = rain(choosing("It is bad.", LONG), judge=judge, checkpointer=InMemorySaver())
    failing[0] = True
    with pytest.raises(SearchError):
        graph.invoke(ASK, THREAD)
    failing[0] = False

    out = graph.invoke({"messages": [("user", "and?")]}, THREAD)

    assert out["messages"][-1].text == LONG
    assert "".join(commit.text for commit in out["rain"].commits) == LONG


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same graph", "another graph"])
def test_a_run_that_failed_goes_on_where_it_was(elsewhere: bool) -> None:
    saver, failing = InMemorySaver(), [True]

    def judge(text: str) -> float:
        if failing[0] and text.count(".") > 2:
            raise ValueError("no idea")
        return liking("good")(text)

    def build() -> Any:
        return rain(choosing("It is bad.", LONG), judge=judge, checkpointer=saver)

    graph = build()
    with pytest.raises(SearchError) as caught:
        graph.invoke(ASK, THREAD, durability="sync")
    assert caught.value.result.text == "It is good. It is so good."
    failing[0] = False

    out = (build() if elsewhere else graph).invoke(None, THREAD)

    assert out["messages"][-1].text == LONG
    assert out["rain"].commits[:2] == caught.value.result.commits
    assert "".join(commit.text for commit in out["rain"].commits) == LONG
    assert len(out["messages"]) == 2


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same graph", "another graph"])
def test_an_earlier_step_can_be_forked_with_other_settings(after: int, elsewhere: bool) -> None:
    saver, backend = InMemorySaver(), choosing("It is bad.", LONG)
    graph = rain(backend, judge=liking("good"), checkpointer=saver)
    ended = graph.invoke(ASK, THREAD)
    (start,) = [
        past.config
        for past in graph.get_state_history(THREAD)
        if "rain_progress" in past.values
        and past.values["rain_progress"].result
        and len(past.values["rain_progress"].result.commits) == after
    ]

    if elsewhere:
        graph = rain(choosing("?", LONG), judge=liking("good"), settings=small(stop=("too",)), checkpointer=saver)
    out = graph.invoke(None, start)

    assert out["rain"].commits[:after] == ended["rain"].commits[:after]
    assert out["messages"][-1].text == ("It is good. It is so good. It is " if elsewhere else LONG)
    assert open_branches(backend) == 0


def test_a_checkpoint_is_clean_for_strict_msgpack() -> None:
    script = """
    import warnings
    warnings.simplefilter("error")
    from langgraph.checkpoint.memory import InMemorySaver
    from correction_graphs.rain.graph import create_rain_graph
    from correction_graphs.rain.settings import RainSettings
    from correction_graphs.testing import ToyBackend
    from talkers import choosing, liking

    saver = InMemorySaver()
    graph = create_rain_graph(choosing("It is bad.", "It is good. Yes."), judge=liking("good"), checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}}
    out = graph.invoke({"messages": [("user", "hi")]}, config)
    for past in graph.get_state_history(config):
        progress = past.values.get("rain_progress")
        assert progress is None or type(progress).__name__ == "Progress", progress
        assert "rain" not in past.values or past.values["rain"] == out["rain"]
    print(out["rain"].text)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("It is good. Yes.\n", "")


# Limits


@pytest.mark.parametrize("limit", range(2, 31))
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_no_recursion_limit_is_too_low(limit: int, mode: str) -> None:
    graph = talking("It is good. " * 12, settings=small(max_new_tokens=200))
    config = {"recursion_limit": limit}

    out = graph.invoke(ASK, config) if mode == "sync" else await graph.ainvoke(ASK, config)

    assert out["messages"][-1].text == "It is good. " * 12
    assert len(out["rain"].commits) >= 12


def test_a_deadline_gives_the_best_text_so_far() -> None:
    backend = choosing("x" * 900, seconds_a_row=0.005)
    settings = small(lengths=(4,), max_seconds=0.3)

    out = rain(backend, judge=lambda text: 0.0, settings=settings).invoke(ASK)

    assert out["rain"].stop_reason == "deadline"
    assert 0 < len(out["messages"][-1].text) < 400
    assert out["messages"][-1].response_metadata["finish_reason"] == "timeout"


# Errors, and what is held


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("error", "told"), [(BrokenError("no idea"), "no idea"), (KeyboardInterrupt(), "KeyboardInterrupt")]
)
async def test_what_goes_wrong_carries_what_was_committed(mode: str, error: BaseException, told: str) -> None:
    if mode == "async" and isinstance(error, KeyboardInterrupt):
        pytest.skip("asyncio cancels instead")

    def judge(text: str) -> float:
        if text.count(".") > 2:
            raise error
        return liking("good")(text)

    backend = choosing("It is bad.", LONG)
    graph = rain(backend, judge=judge)

    with pytest.raises((SearchError, KeyboardInterrupt)) as caught:
        graph.invoke(ASK) if mode == "sync" else await graph.ainvoke(ASK)

    assert caught.value.result.text == "It is good. It is so good."
    assert caught.value.result.stop_reason == "failed"
    assert caught.value.result.error.endswith(told)
    assert len(caught.value.result.commits) == 2
    assert open_branches(backend) == 0


async def test_a_cancelled_run_holds_nothing() -> None:
    backend = choosing("x" * 900, seconds_a_row=0.003)
    graph = rain(backend, judge=lambda text: 0.0)
    run = asyncio.create_task(graph.ainvoke(ASK))
    await asyncio.sleep(0.3)

    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert open_branches(backend) == 0
    steps = backend.forward_calls
    await asyncio.sleep(0.1)
    assert backend.forward_calls == steps > 0


async def test_runs_that_are_abandoned_hold_nothing_once_the_graph_is_gone() -> None:
    backend = choosing("It is bad.", LONG)
    graph = rain(backend, judge=liking("good"), checkpointer=InMemorySaver())
    for number in range(30):
        config = {"configurable": {"thread_id": str(number)}}
        for _ in graph.stream(ASK, config, stream_mode="updates"):
            break
    async for _ in graph.astream(ASK, THREAD, stream_mode="updates"):
        break
    await asyncio.sleep(0.05)
    held = open_branches(backend)
    assert held <= 16, "of the newest runs only"

    del graph
    gc.collect()
    assert open_branches(backend) == 0


def test_an_interrupt_between_steps_and_a_resume_use_the_same_search() -> None:
    """The tree survives between steps: nothing that was computed is computed again."""
    backend = choosing("It is bad.", LONG)
    undisturbed = rain(backend, judge=liking("good"))
    whole = undisturbed.invoke(ASK)
    other = choosing("It is bad.", LONG)
    graph = rain(other, judge=liking("good"), checkpointer=InMemorySaver())
    out = graph.invoke(ASK, THREAD, interrupt_after=["search"])
    steps = 0
    while graph.get_state(THREAD).next:
        out = graph.invoke(None, THREAD, interrupt_after=["search"])
        steps += 1

    assert steps == len(whole["rain"].commits) - 1
    assert plain(out["rain"]) == plain(whole["rain"])
    assert other.forwarded_tokens == backend.forwarded_tokens
    assert open_branches(other) == 0


def test_a_run_that_stopped_can_be_forked_from_an_earlier_step() -> None:
    """What the graph still holds of it is ahead of that step, and is let go."""
    backend = choosing("It is bad.", LONG)
    graph = rain(backend, judge=liking("good"), checkpointer=InMemorySaver())
    for _ in range(3):
        graph.invoke(None if graph.get_state(THREAD).next else ASK, THREAD, interrupt_after=["search"])
    (start,) = [
        past.config
        for past in graph.get_state_history(THREAD)
        if (progress := past.values.get("rain_progress")) and progress.result and len(progress.result.commits) == 1
    ]
    assert open_branches(backend) > 0

    out = graph.invoke(None, start)

    assert out["messages"][-1].text == LONG
    assert open_branches(backend) == 0


# Inside other graphs


async def test_as_a_node_of_another_graph() -> None:
    rain = talking()
    outer = StateGraph(MessagesState).add_node("rain", rain).add_edge(START, "rain").add_edge("rain", END).compile()

    assert outer.invoke(ASK)["messages"][-1].text == LONG
    assert (await outer.ainvoke(ASK))["messages"][-1].text == LONG
    stream = outer.stream(ASK, stream_mode="messages", subgraphs=True)
    assert list(final_only(stream)) == _sentences(LONG)
    events = [event for _, event in outer.stream(ASK, stream_mode="custom", subgraphs=True)]
    assert events[-1]["type"] == "rain.end"


def test_an_uncompiled_graph_can_be_extended() -> None:
    builder = build_rain_graph(choosing(LONG), judge=lambda text: 1.0)
    builder.add_node("note", lambda state: {"messages": [AIMessage("noted")]})
    graph = builder.compile(name="mine")

    assert graph.invoke(ASK)["messages"][-1].text == LONG
    assert talking(name="searching").name == "searching"
    assert talking().name == "rain"


def corrected(first: str, second: str) -> ToyBackend:
    """A backend that says `first` to a question, and `second` when it is asked again; both after something bad."""
    backend = choosing(n_ctx=4096)
    before, after = choosing("It is bad.", first), choosing("It is bad.", second)

    def logits(tokens: list[int]) -> Any:
        asked_once = tokens.count(ToyBackend.END) <= 1 + (tokens[-1] == ToyBackend.END)
        return (before if asked_once else after).memory.logits(tokens)

    backend.memory.logits = logits
    return backend


def second_only(seen: list[str]) -> Any:
    def checker(request: Any) -> Verdict:
        seen.append(request.answer)
        return Verdict(passed="Very" in request.answer, critique="Say it again.")

    return checker


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_rain_writes_the_answers_of_a_cac_graph(mode: str) -> None:
    backend, seen = corrected("It is good.", "It is good. Very good."), []
    chat = ChatRain(backend=backend, judge=liking("good"))
    graph = create_cac_graph(chat, checker=second_only(seen), template="correctness")

    out = graph.invoke(ASK) if mode == "sync" else await graph.ainvoke(ASK)

    assert seen == ["It is good.", "It is good. Very good."]
    assert out["messages"][-1].text == "It is good. Very good."
    assert out["messages"][-1].response_metadata["rain"]["rewinds"] >= 1
    assert out["cac"].status == "passed"
    assert out["cac"].usage.model_calls == 2
    assert out["cac"].usage.output_tokens > out["messages"][-1].usage_metadata["output_tokens"] > 0
    if mode == "sync":
        streamed = [message for message, _ in graph.stream(ASK, stream_mode="messages")]
    else:
        streamed = [message async for message, _ in graph.astream(ASK, stream_mode="messages")]
    assert "".join(piece.text for piece in streamed) == "It is good. Very good.", "and the draft is not in it"
    assert open_branches(backend) == 0


def test_a_rain_graph_writes_the_answers_of_a_cac_graph() -> None:
    seen: list[str] = []
    writer = rain(corrected("It is good.", "It is good. Very good."), judge=liking("good"))
    graph = create_cac_graph(writer, checker=second_only(seen), template="correctness")

    streamed = [message for message, _ in graph.stream(ASK, stream_mode="messages")]

    assert seen == ["It is good.", "It is good. Very good."]
    assert "".join(piece.text for piece in streamed) == "It is good. Very good."


@pytest.mark.gguf
def test_rain_on_a_llama_inside_cac(tmp_path: Path) -> None:
    path = gguf_models.write_llama(tmp_path / "tiny.gguf")
    with LlamaCppBackend(path, n_threads=1) as backend:
        chat = ChatRain(backend=backend, judge=variety, settings=SEARCH, max_tokens=10)
        graph = create_cac_graph(
            chat,
            checker=lambda request: Verdict(passed=len(request.rounds) == 1, critique="No."),
            template="correctness",
        )
        out = graph.invoke(ASK)
        assert [done.verdict.passed for done in out["cac"].rounds] == [False, True]
        assert out["cac"].usage.model_calls == 2
        assert open_branches(backend) == 0


async def test_runs_of_one_graph_at_the_same_time_share_batches() -> None:
    questions = [{"messages": [("user", f"question {number}")]} for number in range(6)]
    backend = toy()
    graph = rain(backend, judge=variety, settings=SEARCH)
    alone = [graph.invoke(question)["messages"][-1].text for question in questions]
    calls = backend.forward_calls
    for mode in ("batch", "abatch"):
        fresh = toy()
        graph = rain(fresh, judge=variety, settings=SEARCH)
        with watchdog():
            outs = graph.batch(questions) if mode == "batch" else await graph.abatch(questions)
        assert [out["messages"][-1].text for out in outs] == alone
        assert fresh.forward_calls < 0.6 * calls
        assert open_branches(fresh) == 0


def test_a_checker_that_asks_a_person_interrupts_and_goes_on() -> None:
    from langgraph.types import Command, interrupt

    asked: list[str] = []

    def person(request: Any) -> Verdict:
        asked.append(request.answer)
        return Verdict(passed=interrupt(request.answer) == "yes")

    one_by_one = small(leaves=1, add=1)  # those that are judged together would be asked about in any order
    graph = rain(
        choosing("It is bad.", "It is good. Yes."),
        judge=as_checker(person),
        settings=one_by_one,
        checkpointer=InMemorySaver(),
    )
    out = graph.invoke(ASK, THREAD)
    for _ in range(20):
        if "__interrupt__" not in out:
            break
        shown = out["__interrupt__"][0].value
        out = graph.invoke(Command(resume="yes" if "good" in shown else "no"), THREAD)
    assert out["messages"][-1].text == "It is good. Yes."


def test_threads_on_one_checkpointed_graph_do_not_meet() -> None:
    backend = toy()
    graph = rain(backend, judge=variety, settings=SEARCH, checkpointer=InMemorySaver())
    outs: dict[int, str] = {}

    def ask(number: int) -> None:
        config = {"configurable": {"thread_id": str(number)}}
        outs[number] = graph.invoke({"messages": [("user", f"q{number % 2}")]}, config)["messages"][-1].text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    with watchdog():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(outs) == 8
    assert len(set(outs.values())) == 2
    assert open_branches(backend) == 0
