"""Streaming: the accepted answer goes out in pieces, nothing else does, and all ways of streaming agree."""

import asyncio
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.tracers import BaseTracer
from langgraph.graph import END, START, StateGraph, add_messages
from typing_extensions import TypedDict

from correction_graphs import create_cac_graph
from correction_graphs.streaming import ANSWER_TAG, final_only, pieces_of
from correction_graphs.testing import ScriptedChatModel

ASK = {"messages": [("user", "What is the capital of Australia?")]}
DRAFT, ANSWER = "It is Sydney, of course.", "It is Canberra.\n\nNot  Sydney."


def names_the_capital(request):
    return "Canberra" in request.answer


def corrected(**settings):
    return create_cac_graph(ScriptedChatModel([DRAFT, ANSWER]), checker=names_the_capital, **settings)


def added(chunks):
    first, *rest = chunks
    return sum(rest, first)


messages = st.builds(
    AIMessage,
    content=st.one_of(
        st.text(),
        st.sampled_from(["", " ", "它是堪培拉。不是悉尼。", "a\u3000b", [{"type": "text", "text": "Two words."}]]),
    ),
    id=st.just("answer-1"),
    usage_metadata=st.none() | st.just({"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}),
    response_metadata=st.just({"model_name": "m"}) | st.just({}),
    tool_calls=st.just([]) | st.just([{"name": "search", "args": {"q": "x"}, "id": "c1", "type": "tool_call"}]),
    additional_kwargs=st.just({}) | st.just({"refusal": "No."}),
)


@given(messages)
def test_pieces_add_up_to_the_message(message):
    pieces = pieces_of(message)
    whole = added(pieces)
    assert isinstance(whole, AIMessageChunk)
    assert {piece.id for piece in pieces} == {"answer-1"}
    for field in ("content", "usage_metadata", "response_metadata", "tool_calls", "additional_kwargs", "id"):
        assert getattr(whole, field) == getattr(message, field)
    assert [piece.chunk_position for piece in pieces] == [*[None] * (len(pieces) - 1), "last"]


def test_a_text_without_spaces_is_sent_in_pieces_too():
    assert [piece.text for piece in pieces_of(AIMessage("它是堪培拉。"))] == list("它是堪培拉。")


async def streamed(graph, mode, **options):
    if mode == "stream":
        return list(graph.stream(ASK, **options))
    return [part async for part in graph.astream(ASK, **options)]


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_the_accepted_answer_is_streamed_in_pieces_once(mode):
    parts = await streamed(corrected(), mode, stream_mode=["messages", "values"])
    chunks = [chunk for kind, (chunk, _) in (part for part in parts if part[0] == "messages")]
    (final,) = {state["messages"][-1].id for kind, state in parts if kind == "values" and "cac" in state}
    assert [chunk.text for chunk in chunks] == ["It", " is", " Canberra.", "\n\nNot", "  Sydney."]
    assert {chunk.id for chunk in chunks} == {final}
    assert added(chunks).text == ANSWER


@pytest.mark.parametrize("mode", ["stream", "astream"])
@pytest.mark.parametrize(
    "options",
    [
        {"stream_mode": "messages"},
        {"stream_mode": ["custom", "messages", "updates"]},
        {"stream_mode": "messages", "subgraphs": True},
        {"stream_mode": ["values", "messages"], "subgraphs": True},
        {"stream_mode": ["values", "messages"], "version": "v2"},
        {"stream_mode": "messages", "version": "v2"},
    ],
    ids=str,
)
async def test_final_only_reads_every_form_of_stream(mode, options):
    if mode == "stream":
        pieces = list(final_only(corrected().stream(ASK, **options)))
    else:
        pieces = [piece async for piece in final_only(corrected().astream(ASK, **options))]
    assert "".join(pieces) == ANSWER
    assert len(pieces) == 5


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def test_streaming_does_not_spell_the_answer_out_for_nobody(monkeypatch):
    spelled = []
    monkeypatch.setattr(AIMessageChunk, "__repr__", lambda chunk: spelled.append(chunk) or "")
    assert "".join(final_only(corrected().stream(ASK, stream_mode="messages"))) == ANSWER
    assert spelled == [], "a tenth of a second for an answer of a page"


def test_what_a_function_says_as_a_chunk_is_streamed_too():
    graph = create_cac_graph(
        ScriptedChatModel([DRAFT]),
        checker=names_the_capital,
        max_rounds=0,
        on_exhausted=lambda _: AIMessageChunk("Ask a person."),
    )
    assert list(final_only(graph.stream(ASK, stream_mode="messages"))) == ["Ask", " a", " person."]


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_final_only_leaves_out_what_other_nodes_say(mode):
    small_talk = ScriptedChatModel(["Good question!"])

    def greet(state):
        return {"messages": [small_talk.invoke(state["messages"]), ("user", "Go on.")]}

    graph = StateGraph(Chat)
    graph.add_node("greet", greet)
    graph.add_node("cac", corrected())
    graph.add_edge(START, "greet")
    graph.add_edge("greet", "cac")
    graph.add_edge("cac", END)
    parts = await streamed(graph.compile(), mode, stream_mode="messages", subgraphs=True)
    assert any(chunk.text == "Good question!" for _, (chunk, _) in parts)
    assert "".join(final_only(parts)) == ANSWER
    everything = "".join(chunk.text for _, (chunk, _) in parts if isinstance(chunk, AIMessage))
    assert everything == "Good question!" + ANSWER


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_a_graph_inside_another_one_streams_nothing_before_the_outer_one_accepts(mode):
    graph = create_cac_graph(corrected(), checker=lambda _: False, max_rounds=0)
    pieces = [chunk.text for chunk, _ in await streamed(graph, mode, stream_mode="messages")]
    assert pieces == ["It", " is", " Canberra.", "\n\nNot", "  Sydney."]


class Runs(BaseTracer):
    def __init__(self):
        super().__init__()
        self.models = []

    def _persist_run(self, run):
        pass

    def on_chat_model_start(self, *args, **kwargs):
        self.models.append(kwargs.get("name"))
        return super().on_chat_model_start(*args, **kwargs)


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_streaming_the_answer_is_no_model_call_to_those_who_count_them(mode):
    usage, runs = UsageMetadataCallbackHandler(), Runs()
    model = ScriptedChatModel([DRAFT, ANSWER])
    graph = create_cac_graph(model, checker=names_the_capital)
    config = {"callbacks": [usage, runs]}
    if mode == "stream":
        parts = list(graph.stream(ASK, config, stream_mode=["messages", "values"]))
    else:
        parts = [part async for part in graph.astream(ASK, config, stream_mode=["messages", "values"])]
    result = parts[-1][1]["cac"]
    assert len(runs.models) == result.usage.model_calls == 2
    assert sum(counted["total_tokens"] for counted in usage.usage_metadata.values()) in (
        0,
        result.usage.input_tokens + result.usage.output_tokens,
    )


async def test_events_of_astream_events_hold_the_answer_piece_by_piece():
    pieces = [
        event["data"]["chunk"].text
        async for event in corrected().astream_events(ASK, version="v2")
        if event["event"] == "on_chat_model_stream" and ANSWER_TAG in event["tags"]
    ]
    assert "".join(pieces) == ANSWER


def plain(part):
    """What of a part of a stream does not differ from run to run."""
    kind, data = part
    if kind == "messages":
        return kind, data[0].text, data[1]["langgraph_node"]
    if kind == "custom":
        return kind, {key: value for key, value in data.items() if key != "usage"}
    if kind == "updates":
        ((node, update),) = data.items()
        return kind, node, sorted(update or ()), [m.text for m in (update or {}).get("messages", ())]
    return kind, [message.text for message in data["messages"]], data["cac"].status if "cac" in data else None


@pytest.mark.parametrize("strategy", ["self", "self_instruct", "fresh"])
@pytest.mark.parametrize(
    "answers", [[ANSWER], [DRAFT, ANSWER], [DRAFT, "Perth?", "Hobart?"], [DRAFT, DRAFT], ["", ANSWER]]
)
def test_all_stream_modes_agree_between_sync_and_async(strategy, answers):
    modes = ["values", "updates", "messages", "custom"]

    def graph():
        return create_cac_graph(ScriptedChatModel(answers), checker=names_the_capital, strategy=strategy)

    async def awaited():
        return [plain(part) async for part in graph().astream(ASK, stream_mode=modes)]

    sync = [plain(part) for part in graph().stream(ASK, stream_mode=modes)]
    assert sync == asyncio.run(awaited())
    assert {kind for kind, *_ in sync} == set(modes)
    for mode in modes:  # and each mode shows the same alone as in company
        alone = [plain((mode, part)) for part in graph().stream(ASK, stream_mode=mode)]
        assert alone == [part for part in sync if part[0] == mode]
