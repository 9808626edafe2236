"""Going back to an earlier checkpoint and on from there, with other settings, another question, or as it was."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from correction_graphs import Verdict, create_cac_graph
from correction_graphs.testing import ScriptedChatModel

ASK = {"messages": [HumanMessage("Which city?", id="question")]}
THREAD = {"configurable": {"thread_id": "1"}}


def accepts(*good):
    return lambda request: Verdict(passed=request.answer in good, critique=f"Not {request.answer}.")


@pytest.fixture
def saver(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "checkpoints", check_same_thread=False)) as connection:
        yield SqliteSaver(connection)


@pytest.fixture
def graph(saver):
    """A graph that answered a, b, c, d, all of them rejected, on `THREAD`; its model has no more to say."""
    graph = create_cac_graph(
        ScriptedChatModel(["a", "b", "c", "d"]), checker=accepts(), max_rounds=3, checkpointer=saver
    )
    out = graph.invoke(ASK, THREAD, durability="sync")
    assert (out["cac"].status, answers(out)) == ("exhausted", ["a", "b", "c", "d"])
    return graph


def answers(out):
    return [done.answer for done in out["cac"].rounds]


def history(graph):
    """What is stored, by checkpoint: whatever happens later, nothing of this may change."""
    return {
        past.config["configurable"]["checkpoint_id"]: (past.values, past.next, past.parent_config, past.metadata)
        for past in graph.get_state_history(THREAD)
    }


def after_round(graph, number, *, then):
    """The configuration of the checkpoint after the verdict on answer `number`, or after it was put into context."""
    for past in graph.get_state_history(THREAD):
        done = past.values["cac_progress"].rounds if "cac_progress" in past.values else ()
        if past.next == (then,) and len(done) == number:
            return past.config
    raise AssertionError("there is no such checkpoint")


def ancestors(graph, config):
    while config is not None:
        yield config["configurable"]["checkpoint_id"]
        config = graph.get_state(config).parent_config


@pytest.mark.parametrize("then", ["recontextualize", "generate"])
def test_other_settings_finish_the_run_from_after_its_first_round_and_its_history_stays(graph, saver, then):
    before, ended, start = history(graph), graph.get_state(THREAD).config, after_round(graph, 1, then=then)
    model = ScriptedChatModel(["B", "C"])
    other = create_cac_graph(model, checker=accepts(), max_rounds=2, strategy="self_instruct", checkpointer=saver)

    out = other.invoke(None, start, durability="sync")
    assert (out["cac"].status, answers(out)) == ("exhausted", ["a", "B", "C"])
    assert [message.text for message in out["messages"]] == ["Which city?", "C"]
    assert [message.text for message in model.asked[0]][:2] == ["Which city?", "a"]
    assert "Not a." in model.asked[0][2].text

    after = history(graph)
    assert {key: after[key] for key in before} == before
    assert answers(graph.get_state(ended).values) == ["a", "b", "c", "d"], "the first run is still there"
    newest = graph.get_state(THREAD).config
    assert answers(graph.get_state(newest).values) == ["a", "B", "C"], "the thread goes on with the new one"
    assert start["configurable"]["checkpoint_id"] in ancestors(graph, newest)
    assert set(ancestors(graph, newest)) & (before.keys() - set(ancestors(graph, start))) == set()


def test_a_run_goes_on_as_it_was_from_any_of_its_checkpoints(graph, saver):
    before = history(graph)
    for past in list(graph.get_state_history(THREAD)):
        values = past.values
        done = values["cac_progress"].rounds if "cac_progress" in values else ()
        model = ScriptedChatModel([] if "cac" in values else ["a", "b", "c", "d"][len(done) :])
        out = create_cac_graph(model, checker=accepts(), max_rounds=3, checkpointer=saver).invoke(None, past.config)
        assert (out["cac"].status, answers(out)) == ("exhausted", ["a", "b", "c", "d"])
        assert len(model.asked) == len(model.replies)
    after = history(graph)
    assert {key: after[key] for key in before} == before


def test_more_rounds_go_on_where_the_limit_was(graph, saver):
    start = after_round(graph, 3, then="recontextualize")
    model = ScriptedChatModel(["d", "e", "f"])
    other = create_cac_graph(model, checker=accepts("f"), max_rounds=9, checkpointer=saver)
    out = other.invoke(None, start)
    assert (out["cac"].status, answers(out)) == ("passed", ["a", "b", "c", "d", "e", "f"])


@pytest.mark.parametrize("then", ["recontextualize", "generate"])
def test_a_question_that_is_edited_after_the_first_round_is_answered_and_the_history_stays(graph, saver, then):
    before, ended = history(graph), graph.get_state(THREAD).config
    model = ScriptedChatModel(["A", "B"])
    other = create_cac_graph(model, checker=accepts("B"), checkpointer=saver)

    edit = {"messages": [HumanMessage("Which town?", id="question")]}
    fork = other.update_state(after_round(graph, 1, then=then), edit)
    out = other.invoke(None, fork, durability="sync")
    assert [message.text for message in out["messages"]] == ["Which town?", "B"]
    assert out["cac"].status == "passed"
    assert [asked[0].text for asked in model.asked] == ["Which town?"] * 2

    after = history(graph)
    assert {key: after[key] for key in before} == before
    first = graph.get_state(ended).values
    assert answers(first) == ["a", "b", "c", "d"]
    assert first["messages"][0].text == "Which city?"
