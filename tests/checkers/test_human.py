"""A person as the checker: interrupt, resume, and what cannot be read is asked again."""

from __future__ import annotations

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from correction_graphs import HumanChecker, create_cac_graph
from correction_graphs.errors import CheckerError
from correction_graphs.testing import ScriptedChatModel

ASK = {"messages": [("user", "What is the capital of Australia?")]}
THREAD = {"configurable": {"thread_id": "1"}}


def asking(*answers, **settings):
    model = ScriptedChatModel(list(answers))
    return model, create_cac_graph(model, checker=HumanChecker(), checkpointer=InMemorySaver(), **settings)


async def run(graph, mode, said):
    return graph.invoke(said, THREAD) if mode == "sync" else await graph.ainvoke(said, THREAD)


MODES = pytest.mark.parametrize("mode", ["sync", "async"])


@MODES
async def test_the_person_sees_the_answer_and_its_story(mode):
    _, graph = asking("Sydney.", "Melbourne.")
    (first,) = (await run(graph, mode, ASK))["__interrupt__"]
    (second,) = (await run(graph, mode, Command(resume={"passed": False, "critique": "No."})))["__interrupt__"]

    assert first.value == {
        "type": "cac.review",
        "question": "What is the capital of Australia?",
        "answer": "Sydney.",
        "round": 0,
        "critiques": [],
        "error": None,
    }
    assert (second.value["answer"], second.value["round"], second.value["critiques"]) == ("Melbourne.", 1, ["No."])


@MODES
async def test_a_critique_goes_to_the_model_and_a_pass_ends_the_run(mode):
    model, graph = asking("Sydney.", "Canberra.")
    await run(graph, mode, ASK)
    await run(graph, mode, Command(resume={"passed": False, "critique": "That is the largest city."}))
    out = await run(graph, mode, Command(resume=True))

    assert (out["cac"].status, out["messages"][-1].text) == ("passed", "Canberra.")
    assert "That is the largest city." in model.asked[1][-1].text
    assert len(model.asked) == 2, "no finished model call is repeated"
    assert len(out["messages"]) == 2


@MODES
async def test_the_persons_own_answer_is_returned(mode):
    _, graph = asking("Sydney.")
    await run(graph, mode, ASK)
    out = await run(graph, mode, Command(resume={"answer": "Canberra, since 1913."}))

    assert (out["cac"].status, out["messages"][-1].text) == ("passed", "Canberra, since 1913.")
    assert [done.answer for done in out["cac"].rounds] == ["Sydney.", "Canberra, since 1913."]
    assert out["cac"].answer == "Canberra, since 1913."
    assert out["messages"][-1].id


@MODES
@pytest.mark.parametrize("said", ["yes", {"pass": True}, {"passed": "true"}, {"answer": " "}, 3])
async def test_a_review_that_cannot_be_read_is_asked_for_again(mode, said):
    model, graph = asking("Canberra.")
    await run(graph, mode, ASK)
    (again,) = (await run(graph, mode, Command(resume=said)))["__interrupt__"]
    assert "cannot be read" in again.value["error"]
    assert again.value["answer"] == "Canberra."

    out = await run(graph, mode, Command(resume={"passed": True}))
    assert out["cac"].status == "passed"
    assert len(model.asked) == 1


@MODES
async def test_a_form_that_was_sent_off_empty_is_asked_for_again(mode):
    _, graph = asking("Canberra.")
    (first,) = (await run(graph, mode, ASK))["__interrupt__"]

    (again,) = (await run(graph, mode, Command(resume={first.id: {}})))["__interrupt__"]

    assert "cannot be read" in again.value["error"]
    assert "say at least one of `passed`, `critique` and `answer`" in again.value["error"]


def test_a_person_who_cannot_tell_is_unknown_not_a_pass():
    _, graph = asking("Canberra.", max_rounds=0)
    graph.invoke(ASK, THREAD)
    out = graph.invoke(Command(resume={"critique": "I do not know."}), THREAD)
    assert (out["cac"].status, out["cac"].rounds[0].verdict.passed) == ("exhausted", None)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_without_a_checkpointer_it_says_what_is_missing(mode):
    graph = create_cac_graph(ScriptedChatModel(["a"]), checker=HumanChecker())
    asked = {"messages": [("user", "?")]}
    with pytest.raises(CheckerError, match=r"waits for a person.*`checkpointer`") as caught:
        graph.invoke(asked) if mode == "sync" else await graph.ainvoke(asked)
    assert caught.value.result.answer == "a"
