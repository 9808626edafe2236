"""What the CaC graph does when functions, models and inputs are not as expected: nothing is lost, leaked or swallowed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from pydantic import ValidationError

from correction_graphs import LLMCritic, Verdict, create_cac_graph, create_rain_graph, create_s2a_graph
from correction_graphs.checkers.base import Checker
from correction_graphs.errors import (
    CheckerError,
    ConversationError,
    GenerationError,
    RunError,
    SettingsError,
    StrategyError,
)
from correction_graphs.testing import ScriptedChatModel, ToyBackend

ASK = {"messages": [HumanMessage("Which city?", id="question")]}
THREAD = {"configurable": {"thread_id": "1"}}


def never(_):
    return Verdict(passed=False, critique="Try again.")


def accepts(*good):
    return lambda request: Verdict(passed=request.answer in good, critique="Try again.")


async def run(graph, mode, inputs=ASK, config=None):
    return graph.invoke(inputs, config) if mode == "invoke" else await graph.ainvoke(inputs, config)


WAYS = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])


# Models that are called inside functions of the user's


class IgnoresItsConfig(Checker):
    def __init__(self, judge):
        self.judge = judge

    def check(self, request, config=None):
        return Verdict(passed=self.judge.invoke("Is it right?").text == "yes", critique="Try again.")


def checkers_that_call(judge):
    async def asks_asynchronously(request):
        reply, _ = await asyncio.gather(judge.ainvoke("Is it right?"), asyncio.sleep(0))
        return Verdict(passed=reply.text == "yes", critique="Try again.")

    return {
        "function": lambda _: Verdict(passed=judge.invoke("Is it right?").text == "yes", critique="Try again."),
        "async function": asks_asynchronously,
        "checker class": IgnoresItsConfig(judge),
    }


@pytest.mark.parametrize("mode", ["stream", "astream"])
@pytest.mark.parametrize("kind", checkers_that_call(None))
async def test_a_model_called_inside_a_checker_is_counted_and_stays_out_of_the_message_stream(kind, mode):
    def build():
        judge = GenericFakeChatModel(messages=iter(["no, secretly", "yes"]))
        return create_cac_graph(ScriptedChatModel(["a", "b"]), checker=checkers_that_call(judge)[kind])

    if mode == "stream":
        parts = list(build().stream(ASK, stream_mode="messages"))
        out = build().invoke(ASK)
    else:
        parts = [part async for part in build().astream(ASK, stream_mode="messages")]
        out = await build().ainvoke(ASK)
    assert [message.text for message, _ in parts] == ["b"]
    assert out["cac"].usage.model_calls == 4
    assert [done.usage.model_calls for done in out["cac"].rounds] == [2, 2]


@WAYS
async def test_a_model_called_inside_a_strategy_is_counted_and_stays_out_of_the_message_stream(mode):
    def build():
        writer = ScriptedChatModel(["a summary"])
        return create_cac_graph(
            ScriptedChatModel(["a", "b"]),
            checker=accepts("b"),
            strategy=lambda _: [HumanMessage(writer.invoke("Summarize.").text)],
        )

    assert [message.text for message, _ in build().stream(ASK, stream_mode="messages")] == ["b"]
    assert (await run(build(), mode))["cac"].usage.model_calls == 3


def test_a_model_called_inside_a_runnable_that_passes_no_config_on_stays_out_of_the_message_stream():
    class Wrapped(Runnable):
        model = ScriptedChatModel(["a", "b"])

        def invoke(self, input, config=None, **_):  # noqa: A002
            return self.model.invoke(input)

    graph = create_cac_graph(Wrapped(), checker=accepts("b"))
    parts = list(graph.stream(ASK, stream_mode="messages"))
    assert [message.text for message, _ in parts] == ["b"]


# Strategies


@WAYS
@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("Improve it.", "returned 'Improve it.'; a strategy returns a list of messages"),
        (None, "returned None"),
        (HumanMessage("Improve it."), "a strategy returns a list of messages"),
        ({"messages": []}, "a strategy returns a list of messages"),
        ([], "returned no messages"),
        ([3], "Unsupported message type"),
    ],
)
async def test_a_strategy_that_returns_no_messages_is_an_error_that_carries_the_answer(returned, words, mode):
    graph = create_cac_graph(ScriptedChatModel(["a"]), checker=never, strategy=lambda _: returned)
    with pytest.raises(StrategyError, match=words) as caught:
        await run(graph, mode)
    assert caught.value.result.answer == "a"
    assert caught.value.result.rounds[0].verdict.passed is False


@WAYS
async def test_a_strategy_that_raises_is_an_error_that_carries_the_answer(mode):
    def broken(_):
        raise ZeroDivisionError("by zero")

    with pytest.raises(StrategyError, match="strategy 'broken' failed: ZeroDivisionError") as caught:
        await run(create_cac_graph(ScriptedChatModel(["a"]), checker=never, strategy=broken), mode)
    assert isinstance(caught.value, RunError)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.result.answer == "a"


def test_ctrl_c_in_a_strategy_carries_what_was_done():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        create_cac_graph(ScriptedChatModel(["a"]), checker=never, strategy=interrupted).invoke(ASK)
    assert caught.value.result.answer == "a"


def test_a_strategy_may_return_all_that_langchain_takes_for_messages():
    def generator(_):
        yield HumanMessage("x")
        yield ("user", "y")
        yield {"role": "user", "content": "z"}

    model = ScriptedChatModel(["a", "b"])
    graph = create_cac_graph(model, checker=accepts("b"), strategy=generator, checkpointer=InMemorySaver())
    assert graph.invoke(ASK, THREAD)["cac"].status == "passed"
    assert model.asked[1] == [HumanMessage("x"), HumanMessage("y"), HumanMessage("z")]


# Checkers


@WAYS
async def test_a_checker_that_runs_out_of_an_iterator_is_an_error_and_does_not_hang(mode):
    exhausted = iter(())
    graph = create_cac_graph(ScriptedChatModel(["a"]), checker=lambda _: next(exhausted))
    with pytest.raises(CheckerError) as caught:
        await asyncio.wait_for(run(graph, mode), 20)
    assert caught.value.result.answer == "a"


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
def test_ctrl_c_does_not_wait_for_an_async_checker():
    async def slow(_):
        await asyncio.sleep(60)

    def press():
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, press)
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        create_cac_graph(ScriptedChatModel(["a"]), checker=slow).invoke(ASK)
    assert time.monotonic() - began < 30
    assert caught.value.result.answer == "a"


async def test_an_async_checker_works_where_an_event_loop_is_running_as_in_a_notebook():
    async def judge(request):
        await asyncio.sleep(0)
        return request.answer == "b"

    assert create_cac_graph(ScriptedChatModel(["a", "b"]), checker=judge).invoke(ASK)["cac"].status == "passed"


def test_an_async_checker_leaves_the_event_loop_of_the_thread_alone():
    async def judge(_):
        return True

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        create_cac_graph(ScriptedChatModel(["a"]), checker=judge).invoke(ASK)
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@WAYS
async def test_a_human_answers_an_interrupt_inside_a_checker(mode):
    def human(request):
        said = interrupt({"answer": request.answer})
        return Verdict(passed=said == "good", critique=said)

    model = ScriptedChatModel(["a", "b"])
    graph = create_cac_graph(model, checker=human, on_checker_error="accept", checkpointer=InMemorySaver())
    assert (await run(graph, mode, ASK, THREAD))["__interrupt__"][0].value == {"answer": "a"}
    assert (await run(graph, mode, Command(resume="longer"), THREAD))["__interrupt__"][0].value == {"answer": "b"}
    out = await run(graph, mode, Command(resume="good"), THREAD)

    assert (out["cac"].status, out["messages"][-1].text) == ("passed", "b")
    assert len(model.asked) == 2, "no answer is written twice"
    assert "longer" in model.asked[1][-1].text


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_cannot_be_ranked_or_stored_is_refused(score):
    with pytest.raises(ValidationError, match="finite"):
        Verdict(passed=False, score=score)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"checker": ScriptedChatModel([])}, r"give LLMCritic\(model\)"),
        ({"checker": "openai:gpt-5-mini"}, r"give LLMCritic\(model\)"),
        ({"checker": LLMCritic}, "`checker` is <class"),
        ({"checker": lambda: True}, "called with a CheckRequest alone"),
        (
            {"checker": lambda _, answer: True},
            "called with a CheckRequest alone: missing a required argument: 'answer'",
        ),
        ({"strategy": lambda: [HumanMessage("x")]}, "called with a RevisionRequest alone"),
        ({"strategy": ["self"]}, "`strategy` is \\['self'\\]; it is one of"),
        ({"keep_best": "no"}, "`keep_best` is 'no'"),
    ],
)
def test_arguments_that_could_never_work_fail_when_the_graph_is_built(arguments, words):
    with pytest.raises(SettingsError, match=words):
        create_cac_graph(ScriptedChatModel([]), **arguments)


# Answers


@pytest.mark.parametrize(
    "refusal",
    [
        AIMessage([{"type": "refusal", "refusal": "I cannot."}]),
        AIMessage("", additional_kwargs={"refusal": "I cannot."}),
    ],
)
def test_a_refusal_is_an_answer_and_not_an_empty_one(refusal):
    out = create_cac_graph(ScriptedChatModel([refusal]), checker=accepts("I cannot.")).invoke(ASK)
    assert (out["cac"].status, out["cac"].answer) == ("passed", "I cannot.")


@pytest.mark.parametrize(
    "graph",
    [
        create_cac_graph(ScriptedChatModel([]), checker=lambda _: True),
        create_s2a_graph(ScriptedChatModel([])),
        create_rain_graph(ToyBackend(), judge=lambda text: 1.0),
    ],
)
def test_a_conversation_of_system_messages_is_refused(graph):
    with pytest.raises(ConversationError, match="system messages only"):
        graph.invoke({"messages": [("system", "Be brief.")]})


HALF = "blue \ud83d"


@pytest.mark.parametrize(
    "given",
    [
        lambda: create_s2a_graph(ScriptedChatModel(["Context: none\nQuestion: What is it?", "Red."])),
        lambda: create_cac_graph(
            ScriptedChatModel(["a", "b", "c"]), checker=lambda _: {"passed": False, "critique": HALF}
        ),
        lambda: create_cac_graph(ScriptedChatModel(["a"]), checker=lambda _: Verdict(passed=True, reasoning=HALF)),
    ],
)
def test_half_a_surrogate_pair_from_outside_leaves_results_that_go_through_json(given):
    out = given().invoke({"messages": [HumanMessage(f"I think it is {HALF}. What is it?")]})
    result = out.get("cac", out.get("s2a"))
    assert type(result).model_validate_json(result.model_dump_json()) == result


def test_an_answer_with_half_a_surrogate_pair_is_not_lost():
    out = create_cac_graph(ScriptedChatModel(["a\ud83d"]), checker=lambda _: True).invoke(ASK)
    assert out["cac"].answer == "a?"
    assert out["cac"].model_dump_json()


def test_a_blank_answer_is_put_before_the_model_as_no_answer():
    model = ScriptedChatModel([" \n", "b"])
    create_cac_graph(model, checker=accepts("b")).invoke(ASK)
    assert model.asked[1][1].text == "(no answer)"


def test_an_answer_never_replaces_a_message_whose_id_it_repeats():
    model = ScriptedChatModel([AIMessage("one", id="same"), AIMessage("two", id="same")])
    graph = create_cac_graph(model, checker=lambda _: True, checkpointer=InMemorySaver())
    graph.invoke(ASK, THREAD)
    out = graph.invoke({"messages": [("user", "And then?")]}, THREAD)
    assert [message.text for message in out["messages"]] == ["Which city?", "one", "And then?", "two"]


# Turns


def test_the_same_message_sent_again_after_a_crash_starts_fresh():
    verdicts = iter([ConnectionError("down"), False, False])

    def checker(_):
        verdict = next(verdicts)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    graph = create_cac_graph(
        ScriptedChatModel(["a", "b", "c"]), checker=checker, max_rounds=1, checkpointer=InMemorySaver()
    )
    with pytest.raises(CheckerError):
        graph.invoke(ASK, THREAD)
    out = graph.invoke(ASK, THREAD)
    assert [done.answer for done in out["cac"].rounds] == ["b", "c"]


def test_a_run_stopped_while_revising_resumes_with_its_rounds_and_starts_fresh_with_an_edited_question():
    for edited in (False, True):
        model = ScriptedChatModel(["a", KeyboardInterrupt(), "b"])
        graph = create_cac_graph(model, checker=accepts("b"), checkpointer=InMemorySaver())
        with pytest.raises(KeyboardInterrupt):
            graph.invoke(ASK, THREAD, durability="sync")
        edit = {"messages": [HumanMessage("Which town?", id="question")]}
        out = graph.invoke(edit if edited else None, THREAD, durability="sync")

        assert [done.answer for done in out["cac"].rounds] == (["b"] if edited else ["a", "b"])
        assert model.asked[2][0].text == ("Which town?" if edited else "Which city?")


def test_a_question_edited_in_the_history_is_answered_anew():
    model = ScriptedChatModel(["a", "b", "c", "d", "e"])
    graph = create_cac_graph(model, checker=accepts("b", "d", "e"), checkpointer=InMemorySaver())
    graph.invoke(ASK, THREAD)
    (revising, _) = (past.config for past in graph.get_state_history(THREAD) if past.next == ("generate",))

    fork = graph.update_state(revising, {"messages": [HumanMessage("Which town?", id="question")]})
    out = graph.invoke(None, fork)
    assert [message.text for message in out["messages"]] == ["Which town?", "d"]
    assert [done.answer for done in out["cac"].rounds] == ["c", "d"]

    out = graph.invoke(None, revising)
    assert [done.answer for done in out["cac"].rounds] == ["a", "e"], "without an edit, the rounds stand"


@pytest.mark.parametrize("killed_in", ["generate 1", "check 1", "generate 2", "check 2"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_killed_process_is_resumed_by_another_without_repeating_a_finished_call(killed_in, nested, tmp_path):
    code = """
        import os, sqlite3, sys
        from langchain_core.messages import AIMessage
        from langchain_core.runnables import Runnable, RunnableLambda
        from langgraph.checkpoint.sqlite import SqliteSaver
        from langgraph.graph import START, MessagesState, StateGraph
        from correction_graphs import Verdict, create_cac_graph

        killed_in, nested, folder = sys.argv[1], sys.argv[2] == "True", sys.argv[3]
        log, first = f"{folder}/log", not os.path.exists(f"{folder}/log")

        def step(kind, number):
            if first and killed_in == f"{kind} {number}":
                os._exit(9)
            with open(log, "a") as file:
                print(f"{kind} {number}", file=file)

        def model(messages):
            step("generate", len(messages) // 2 + 1)
            return AIMessage(f"answer {len(messages) // 2 + 1}")

        def checker(request):
            step("check", len(request.rounds) + 1)
            return Verdict(passed=len(request.rounds) == 1, critique="Again.", score=0.5)

        open(log, "a").close()
        saver = SqliteSaver(sqlite3.connect(f"{folder}/checkpoints", check_same_thread=False))
        graph = create_cac_graph(RunnableLambda(model), checker=checker, checkpointer=None if nested else saver)
        if nested:
            parent = StateGraph(MessagesState)
            parent.add_node(graph)
            parent.add_edge(START, "cac")
            graph = parent.compile(checkpointer=saver)
        inputs = {"messages": [("user", "Which city?")]} if first else None
        out = graph.invoke(inputs, {"configurable": {"thread_id": "1"}}, durability="sync")
        print(out["messages"][-1].text, len(out["messages"]))
    """
    runs = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), killed_in, str(nested), str(tmp_path)],
            env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"},
            capture_output=True,
            text=True,
            check=False,
        )
        for _ in range(2)
    ]
    assert [done.returncode for done in runs] == [9, 0], runs[-1].stderr
    assert runs[1].stdout == "answer 2 2\n"
    assert (tmp_path / "log").read_text().splitlines() == ["generate 1", "check 1", "generate 2", "check 2"]


async def test_a_cancelled_revision_is_not_taken_for_a_failed_one():
    async def model(messages):
        if len(messages) > 1:
            await asyncio.sleep(60)
        return AIMessage("a")

    task = asyncio.create_task(create_cac_graph(RunnableLambda(model), checker=never).ainvoke(ASK))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Usage


class OddUsage(ScriptedChatModel):
    """Reports usage as some integrations do: keys without values."""

    def _generate(self, *args, **kwargs):
        result = super()._generate(*args, **kwargs)
        odd = {"input_tokens": 5, "output_tokens": None, "total_tokens": 5, "input_token_details": None}
        result.generations[0].message.usage_metadata = odd
        return result


def test_usage_that_is_reported_in_part_is_counted_in_part():
    usage = create_cac_graph(OddUsage(["a"]), checker=lambda _: True).invoke(ASK)["cac"].usage
    assert (usage.model_calls, usage.input_tokens, usage.output_tokens) == (1, 5, 0)


def test_what_was_spent_on_a_step_that_crashed_is_counted():
    judge = ScriptedChatModel(["hm"])

    def checker(_):
        judge.invoke("Is it right?")
        raise ConnectionError("down")

    with pytest.raises(CheckerError) as caught:
        create_cac_graph(ScriptedChatModel(["a"]), checker=checker).invoke(ASK)
    assert caught.value.result.usage.model_calls == 2

    model = ScriptedChatModel(["thinking", ConnectionError("down")])
    agent = StateGraph(MessagesState)
    agent.add_node("answer", lambda _: {"messages": [model.invoke("one"), model.invoke("two")]})
    agent.add_edge(START, "answer")
    with pytest.raises(GenerationError) as caught:
        create_cac_graph(agent.compile()).invoke(ASK)
    assert caught.value.result.usage.model_calls == 2  # one that failed was made, too
