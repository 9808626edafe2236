"""The methods together: one in front of another, around agents, with RAIN as the model, through streams and interrupts."""

from __future__ import annotations

import itertools
from typing import NotRequired

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from correction_graphs import (
    Budget,
    CaCMiddleware,
    CacResult,
    HumanChecker,
    RainResult,
    S2AMiddleware,
    S2AResult,
    Verdict,
    create_cac_graph,
    create_rain_graph,
    create_s2a_graph,
)
from correction_graphs.errors import FilterError, GenerationError
from correction_graphs.rain.chat import ChatRain
from correction_graphs.streaming import final_only
from correction_graphs.testing import ScriptedChatModel
from correction_graphs.usage import SharedBudget
from tests.rain.talkers import choosing, liking, small

TEXT = "I think it is Sydney. Australia has 6 states. What is the capital of Australia?"
ASK = {"messages": [("user", TEXT)]}
FILTERED = "Context: Australia has 6 states.\nQuestion: What is the capital of Australia?"
MODES = pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])


@tool
def look_up(place: str) -> str:
    """Look a place up."""
    return f"{place}: found"


def calling(number: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "look_up", "args": {"place": str(number)}, "id": f"call{number}"}])


def is_canberra(request):
    return Verdict(passed="Canberra" in request.answer, critique="Not that one.")


async def run(graph, mode, inputs=ASK, config=None, **more):
    if mode == "invoke":
        return graph.invoke(inputs, config, **more)
    if mode == "ainvoke":
        return await graph.ainvoke(inputs, config, **more)
    if mode == "stream":
        return list(graph.stream(inputs, config, stream_mode="values", **more))[-1]
    return [part async for part in graph.astream(inputs, config, stream_mode="values", **more)][-1]


def rain_model(*texts, word):
    return ChatRain(backend=choosing(*texts), judge=liking(word), settings=small())


def layered(filterer, model, checker=is_canberra, **settings):
    """S2A in front of CaC in front of an agent."""
    checked = create_cac_graph(create_agent(model, [look_up], system_prompt="Be brief."), checker=checker)
    return create_s2a_graph(checked, filter_model=filterer, **settings)


# Results


@MODES
async def test_a_filter_before_a_check_around_an_agent(mode):
    filterer = ScriptedChatModel([FILTERED])
    model = ScriptedChatModel([calling(1), "Sydney.", calling(2), "Canberra."])
    out = await run(layered(filterer, model), mode)

    assert [message.text for message in out["messages"]] == [TEXT, "Canberra."]
    assert out["s2a"].dropped[0].text == "I think it is Sydney."
    assert not any("I think" in message.text for asked in model.asked for message in asked)
    checked = CacResult.model_validate(out["messages"][-1].response_metadata["cac"])
    assert [done.answer for done in checked.rounds] == ["Sydney.", "Canberra."]
    assert checked.usage.model_calls == 4
    assert out["s2a"].usage.model_calls == 5


@MODES
async def test_all_three_with_rain_as_the_agents_model(mode):
    chat = rain_model("Sydney it is.", "Canberra it is.", word="Canberra")
    checked = create_cac_graph(create_agent(chat), checker=is_canberra)
    graph = create_s2a_graph(checked, filter_model=ScriptedChatModel([FILTERED]))
    out = await run(graph, mode)

    answer = out["messages"][-1]
    assert answer.text == "Canberra it is."
    assert out["s2a"].filtered
    assert CacResult.model_validate(answer.response_metadata["cac"]).status == "passed"
    assert answer.response_metadata["rain"]["rewinds"] > 0


@MODES
async def test_a_check_around_a_filter_filters_each_attempt(mode):
    second = "Context: none\nQuestion: What is the capital of Australia?"
    inner = create_s2a_graph(
        ScriptedChatModel(["Sydney.", "Canberra."]), filter_model=ScriptedChatModel([FILTERED, second])
    )
    graph = create_cac_graph(inner, checker=is_canberra)
    out = await run(graph, mode)

    assert out["messages"][-1].text == "Canberra."
    assert out["cac"].usage.model_calls >= 4
    assert S2AResult.model_validate(out["messages"][-1].response_metadata["s2a"]).texts


@MODES
async def test_an_agents_middleware_tells_its_results_through_a_graph_around_it(mode):
    model = ScriptedChatModel([FILTERED, "Sydney.", "Canberra."])
    agent = create_agent(model, [look_up], middleware=[S2AMiddleware(), CaCMiddleware(is_canberra)])
    out = await run(create_cac_graph(agent, checker=lambda request: "Canberra" in request.answer), mode)

    told = out["messages"][-1].response_metadata
    assert S2AResult.model_validate(told["s2a"]).filtered
    assert len(CacResult.model_validate(told["cac"]).rounds) == 2
    assert out["cac"].rounds[0].answer == "Canberra."
    assert out["cac"].usage.model_calls == 3


@tool(return_direct=True)
def say(text: str) -> str:
    """Say it."""
    return text


class City(BaseModel):
    """A city."""

    name: str


@MODES
async def test_a_tool_may_have_an_agents_last_word(mode):
    def saying(text):
        return AIMessage("", tool_calls=[{"name": "say", "args": {"text": text}, "id": text}])

    agent = create_agent(ScriptedChatModel([saying("Sydney."), saying("Canberra.")]), [say])
    out = await run(create_cac_graph(agent, checker=is_canberra), mode)
    assert [done.answer for done in out["cac"].rounds] == ["Sydney.", "Canberra."]
    assert out["messages"][-1].text == "Canberra."
    assert not out["messages"][-1].tool_calls


@MODES
async def test_structured_output_of_an_agent_is_an_answer_as_json(mode):
    def city(name):
        return AIMessage("", tool_calls=[{"name": "City", "args": {"name": name}, "id": name}])

    agent = create_agent(
        ScriptedChatModel([city("Sydney"), city("Canberra")]), [look_up], response_format=ToolStrategy(City)
    )
    out = await run(create_cac_graph(agent, checker=is_canberra), mode)
    assert [done.answer for done in out["cac"].rounds] == ['{"name": "Sydney"}', '{"name": "Canberra"}']
    assert City.model_validate_json(out["messages"][-1].text).name == "Canberra"


class Everything(MessagesState):
    s2a: NotRequired[S2AResult]
    cac: NotRequired[CacResult]
    rain: NotRequired[RainResult]


@MODES
async def test_all_three_as_nodes_of_one_graph(mode):
    """A question a node, so that each method has one to answer."""
    parent = StateGraph(Everything)
    parent.add_node("s2a", create_s2a_graph(ScriptedChatModel([FILTERED, "Canberra."])))
    parent.add_node("doubt", lambda _: {"messages": [("user", "Are you sure?")]})
    parent.add_node("cac", create_cac_graph(ScriptedChatModel(["No.", "Canberra, yes."]), checker=is_canberra))
    parent.add_node("insist", lambda _: {"messages": [("user", "Say it in other words.")]})
    chat = rain_model("It is Sydney.", "It is Canberra.", word="Canberra")
    parent.add_node("rain", create_rain_graph(chat))
    order = [START, "s2a", "doubt", "cac", "insist", "rain", END]
    for one, other in itertools.pairwise(order):
        parent.add_edge(one, other)
    out = await run(parent.compile(), mode)

    assert [m.text for m in out["messages"] if isinstance(m, AIMessage)] == [
        "Canberra.",
        "Canberra, yes.",
        "It is Canberra.",
    ]
    assert out["s2a"].filtered
    assert out["cac"].status == "passed"
    assert out["rain"].text == "It is Canberra."


# The stream


@pytest.mark.parametrize("awaited", [False, True])
async def test_only_the_answer_is_streamed_once_through_all_layers(awaited):
    def graph():
        return layered(ScriptedChatModel([FILTERED]), ScriptedChatModel([calling(1), "Sydney.", "Canberra it is."]))

    if awaited:
        parts = [part async for part in graph().astream(ASK, stream_mode="messages")]
        pieces = [piece async for piece in final_only(graph().astream(ASK, stream_mode="messages"))]
    else:
        parts = list(graph().stream(ASK, stream_mode="messages"))
        pieces = list(final_only(graph().stream(ASK, stream_mode="messages")))
    assert "".join(m.text for m, _ in parts if isinstance(m, AIMessage | AIMessageChunk)) == "Canberra it is."
    assert "".join(pieces) == "Canberra it is."


@pytest.mark.parametrize("awaited", [False, True])
async def test_events_of_all_layers_can_be_watched(awaited):
    graph = layered(ScriptedChatModel([FILTERED]), ScriptedChatModel(["Sydney.", "Canberra."]))
    if awaited:
        events = [e async for _, e in graph.astream(ASK, stream_mode="custom", subgraphs=True)]
    else:
        events = [e for _, e in graph.stream(ASK, stream_mode="custom", subgraphs=True)]
    kinds = [event["type"] for event in events]
    assert kinds == [
        "s2a.filtered",
        "cac.draft",
        "cac.verdict",
        "cac.revise",
        "cac.draft",
        "cac.verdict",
        "cac.end",
        "s2a.end",
    ]


# Interrupts


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_person_inside_is_asked_through_all_layers_and_nothing_is_done_twice(awaited):
    filterer, model = ScriptedChatModel([FILTERED]), ScriptedChatModel([calling(1), "Sydney.", "Canberra."])
    graph = layered(filterer, model, HumanChecker(), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    mode = "ainvoke" if awaited else "invoke"

    asked = (await run(graph, mode, config=config))["__interrupt__"]
    assert asked[0].value["answer"] == "Sydney."
    told = Command(resume={"passed": False, "critique": "No."})
    asked = (await run(graph, mode, told, config))["__interrupt__"]
    assert asked[0].value["answer"] == "Canberra."
    out = await run(graph, mode, Command(resume=True), config)

    assert out["messages"][-1].text == "Canberra."
    assert (len(filterer.asked), len(model.asked)) == (1, 3)
    assert len(out["messages"][-1].response_metadata["cac"]["rounds"]) == 2


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_person_who_judges_what_rain_writes_is_asked_through_the_check(awaited):
    asked = []

    def person(text):
        asked.append(text)
        return 1.0 if interrupt(text) else -1.0

    chat = ChatRain(
        backend=choosing("Sydney it is.", "Canberra it is."),
        judge=RunnableLambda(person),
        settings=small(leaves=1, add=1),
    )
    graph = create_cac_graph(chat, checker=is_canberra, checkpointer=InMemorySaver())
    config, mode = {"configurable": {"thread_id": "1"}}, "ainvoke" if awaited else "invoke"

    out = await run(graph, mode, config=config)
    while "__interrupt__" in out:
        out = await run(graph, mode, Command(resume="Canberra" in out["__interrupt__"][0].value), config)
    assert out["messages"][-1].text == "Canberra it is."
    assert any("Sydney" in text for text in asked)


# Budgets and failures


def test_one_account_for_all_layers():
    shared = SharedBudget(Budget(model_calls=3))
    graph = layered(ScriptedChatModel([FILTERED]), ScriptedChatModel(["Sydney.", "Perth.", "never asked for"]))
    out = graph.invoke(ASK, context={"budget": shared})
    assert shared.spent.model_calls == 3
    assert out["messages"][-1].response_metadata["cac"]["status"] == "budget"


def test_a_budget_outside_holds_inside():
    graph = layered(
        ScriptedChatModel([FILTERED]), ScriptedChatModel(["Sydney.", "never asked for"]), budget=Budget(model_calls=2)
    )
    out = graph.invoke(ASK)
    assert out["s2a"].usage.model_calls == 2
    assert out["messages"][-1].text == "Sydney."


def test_what_fails_inside_says_so_outside_with_all_that_was_done():
    graph = layered(ScriptedChatModel([FILTERED]), ScriptedChatModel([ConnectionError("gone")]))
    with pytest.raises(GenerationError, match="gone") as caught:
        graph.invoke(ASK)
    assert caught.value.result.filtered  # the outer method's
    inner = caught.value.__cause__
    assert isinstance(inner, GenerationError)
    assert isinstance(inner.result, CacResult)


def test_a_filter_that_fails_inside_a_check():
    inner = create_s2a_graph(
        ScriptedChatModel([]), filter_model=ScriptedChatModel([ValueError("no")]), on_filter_failure="raise"
    )
    with pytest.raises(GenerationError, match="no") as caught:
        create_cac_graph(inner, checker=is_canberra).invoke(ASK)
    assert isinstance(caught.value.__cause__, FilterError)
