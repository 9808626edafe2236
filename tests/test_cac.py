"""The CaC loop: what the model is shown, what comes back, and that no answer is lost on the way."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from correction_graphs import (
    CacResult,
    CheckRequest,
    LLMCritic,
    Round,
    Usage,
    Verdict,
    as_checker,
    build_cac_graph,
    create_cac_graph,
)
from correction_graphs.cac_rules import best_round
from correction_graphs.errors import (
    CheckerError,
    ConversationError,
    CorrectionError,
    GenerationError,
    SettingsError,
    TemplateError,
)
from correction_graphs.messages import fence
from correction_graphs.testing import ScriptedChatModel

ASK = {"messages": [("user", "The doctor met the nurse. Who is she?")]}
FAILED = "She could be either.\nCritique: A gender is assumed.\nVerdict: biased"
PASSED = "Nothing is assumed.\nCritique: None.\nVerdict: unbiased"
SCRIPT = ["The nurse.", FAILED, "It is not said.", PASSED]


async def run(graph, mode, inputs=ASK, config=None):
    """Invoke a graph in one of the ways a user can."""
    if mode == "invoke":
        return graph.invoke(inputs, config)
    if mode == "ainvoke":
        return await graph.ainvoke(inputs, config)
    if mode == "stream":
        return list(graph.stream(inputs, config, stream_mode="values"))[-1]
    return [part async for part in graph.astream(inputs, config, stream_mode="values")][-1]


WAYS = pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])


def fails_until(*good):
    return lambda request: Verdict(passed=request.answer in good, critique="Try again.")


def scored(**scores):
    return lambda request: Verdict(passed=False, critique="Not yet.", score=scores[request.answer])


# What comes out


@WAYS
async def test_exactly_one_message_is_added_and_the_result_tells_every_round(mode):
    out = await run(create_cac_graph(ScriptedChatModel(SCRIPT)), mode)

    question, answer = out["messages"]
    assert isinstance(question, HumanMessage)
    assert isinstance(answer, AIMessage)
    assert answer.text == "It is not said."
    result = out["cac"]
    assert isinstance(result, CacResult)
    assert (result.status, result.chosen, result.answer) == ("passed", 1, "It is not said.")
    assert [done.answer for done in result.rounds] == ["The nurse.", "It is not said."]
    assert [done.verdict.passed for done in result.rounds] == [False, True]
    assert result.rounds[0].verdict.critique == "A gender is assumed."
    assert result.usage.model_calls == 4
    assert result.usage.output_tokens == sum(len(reply.split()) for reply in SCRIPT)
    assert result.usage == result.rounds[0].usage + result.rounds[1].usage
    assert (result.template.name, result.template.language, len(result.template.sha256)) == ("bias", "en", 64)
    if mode.endswith("invoke"):
        assert set(out) == {"messages", "cac"}


async def test_all_ways_to_run_agree():
    outs = [
        await run(create_cac_graph(ScriptedChatModel(SCRIPT)), mode)
        for mode in ("invoke", "ainvoke", "stream", "astream")
    ]
    outs.append(create_cac_graph(ScriptedChatModel(SCRIPT)).batch([ASK])[0])
    outs += await create_cac_graph(ScriptedChatModel(SCRIPT)).abatch([ASK])

    def told(out):
        untimed = out["cac"].model_copy(
            update={"usage": None, "rounds": [r.model_copy(update={"usage": None}) for r in out["cac"].rounds]}
        )
        return untimed, [message.text for message in out["messages"]]

    assert all(told(out) == told(outs[0]) for out in outs)


def test_the_returned_message_is_the_models_own():
    message = AIMessage("Canberra.", id="the-models-id", response_metadata={"model_name": "m"})
    out = create_cac_graph(ScriptedChatModel([message]), checker=lambda _: True).invoke(ASK)

    assert out["messages"][-1].id == "the-models-id"
    assert out["messages"][-1].response_metadata == {"model_name": "m"}


def test_a_pass_at_once_costs_one_answer_and_one_check():
    model = ScriptedChatModel(["It is not said.", PASSED])
    out = create_cac_graph(model).invoke(ASK)

    assert out["cac"].status == "passed"
    assert len(model.asked) == 2


def test_max_rounds_counts_revisions_and_zero_still_checks():
    model = ScriptedChatModel(["a", FAILED])
    out = create_cac_graph(model, max_rounds=0).invoke(ASK)
    assert (out["cac"].status, len(out["cac"].rounds)) == ("exhausted", 1)
    assert out["messages"][-1].text == "a"

    model = ScriptedChatModel(["a", "b", "c", "d"])
    out = create_cac_graph(model, checker=lambda _: False, max_rounds=3).invoke(ASK)
    assert [done.answer for done in out["cac"].rounds] == ["a", "b", "c", "d"]


# What the model is shown


def test_the_critic_sees_the_conversation_and_the_answer_as_the_assistants_turn():
    model = ScriptedChatModel(SCRIPT)
    create_cac_graph(model).invoke(ASK)

    first, check, _, recheck = model.asked
    assert [message.text for message in first] == [ASK["messages"][0][1]]
    assert [message.type for message in check] == ["human", "ai", "human"]
    assert check[1].text == "The nurse."
    assert "Verdict: unbiased" in check[2].text or "unbiased" in check[2].text
    assert [message.text for message in recheck[:2]] == [ASK["messages"][0][1], "It is not said."]


def test_self_repeats_the_question_after_answer_and_critique():
    model = ScriptedChatModel(SCRIPT)
    create_cac_graph(model, strategy="self").invoke(ASK)

    question, answer, revise = model.asked[2]
    assert question.text == ASK["messages"][0][1]
    assert answer.text == "The nurse."
    assert fence("A gender is assumed.", "critique") in revise.text
    assert ASK["messages"][0][1] in revise.text
    assert "She could be either" not in revise.text, "the critic's reasoning is recorded, never fed back"


def test_self_instruct_does_not_repeat_the_question():
    model = ScriptedChatModel(SCRIPT)
    create_cac_graph(model, strategy="self_instruct").invoke(ASK)

    revise = model.asked[2][-1]
    assert "A gender is assumed." in revise.text
    assert ASK["messages"][0][1] not in revise.text


def test_each_context_is_the_beginning_of_the_next_and_grows_by_one_round():
    model = ScriptedChatModel(["a", "b", "c", "d"])
    create_cac_graph(model, checker=fails_until("d"), max_rounds=3).invoke(ASK)

    contexts = [[message.text for message in asked] for asked in model.asked]
    for shorter, longer in pairwise(contexts):
        assert longer[: len(shorter)] == shorter
        assert len(longer) == len(shorter) + 2


def test_a_strategy_of_the_users_own_writes_the_context():
    def only_the_critique(request):
        return [HumanMessage(f"{request.rounds[-1].verdict.critique} {len(request.messages)}")]

    model = ScriptedChatModel(["a", "b"])
    out = create_cac_graph(model, checker=fails_until("b"), strategy=only_the_critique).invoke(ASK)

    assert [message.text for message in model.asked[1]] == ["Try again. 1"]
    assert out["cac"].strategy == "only_the_critique"


def test_the_whole_conversation_is_answered_with_its_system_message():
    conversation = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello."), HumanMessage("Who is she?")]
    model = ScriptedChatModel(["a", "b"])
    out = create_cac_graph(model, checker=fails_until("b")).invoke({"messages": conversation})

    assert [message.text for message in model.asked[0]] == ["Be brief.", "Hi", "Hello.", "Who is she?"]
    assert "Who is she?" in model.asked[1][-1].text
    assert len(out["messages"]) == 5


def test_text_that_looks_like_a_slot_or_a_closing_tag_stays_text():
    nasty = "{question} </critique> {{critique}} \\1 %s"
    model = ScriptedChatModel(["a", "b"])
    checker = lambda request: Verdict(passed=request.answer == "b", critique=nasty)  # noqa: E731
    create_cac_graph(model, checker=checker).invoke(ASK)

    assert fence(nasty, "critique") in model.asked[1][-1].text


def test_a_function_checker_sees_the_conversation_the_answer_and_the_earlier_rounds():
    seen: list[CheckRequest] = []

    def checker(request):
        seen.append(request)
        return Verdict(passed=len(seen) == 2, critique="Once more.")

    create_cac_graph(ScriptedChatModel(["a", "b"]), checker=checker).invoke(ASK)

    assert [request.answer for request in seen] == ["a", "b"]
    assert [message.text for message in seen[1].messages] == [ASK["messages"][0][1]]
    assert [done.answer for done in seen[1].rounds] == ["a"]
    assert seen[1].rounds[0].verdict.critique == "Once more."


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_checkers_may_be_sync_async_or_runnables(mode):
    async def judge(request):
        await asyncio.sleep(0)
        return Verdict(passed=request.answer == "b")

    for checker in (
        judge,
        as_checker(judge),
        RunnableLambda(lambda request: Verdict(passed=request.answer == "b")),
        lambda request: request.answer == "b",
    ):
        out = await run(create_cac_graph(ScriptedChatModel(["a", "b"]), checker=checker), mode)
        assert out["cac"].status == "passed"
        assert out["cac"].rounds[1].answer == "b"


def test_the_critic_may_be_another_model():
    writer, judge = ScriptedChatModel(["a"]), ScriptedChatModel(["Verdict: unbiased"])
    out = create_cac_graph(writer, checker=LLMCritic(judge, style="verdict")).invoke(ASK)

    assert out["cac"].status == "passed"
    assert (len(writer.asked), len(judge.asked)) == (1, 1)
    assert out["cac"].usage.model_calls == 2


@pytest.mark.parametrize(
    ("style", "reply", "passed", "critique"),
    [
        ("verdict", "Verdict: biased", False, "Verdict: biased"),
        ("natural_language", "It assumes a gender.", None, "It assumes a gender."),
        ("chain_of_thought", FAILED, False, "A gender is assumed."),
    ],
)
def test_each_critique_style_is_fed_back(style, reply, passed, critique):
    model = ScriptedChatModel(["a", reply, "b", reply])
    out = create_cac_graph(model, style=style, max_rounds=1).invoke(ASK)

    assert out["cac"].rounds[0].verdict.passed is passed
    assert critique in model.asked[2][-1].text


# Which answer is returned


def test_the_best_scored_answer_is_returned_not_the_last():
    checker = scored(a=0.2, b=0.9, c=0.1)
    out = create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=checker).invoke(ASK)
    assert (out["cac"].status, out["messages"][-1].text) == ("exhausted", "b")

    out = create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=checker, keep_best=False).invoke(ASK)
    assert out["messages"][-1].text == "c"


def test_equal_scores_keep_the_earlier_answer_and_no_scores_the_last():
    equal = scored(a=0.5, b=0.5, c=0.5)
    assert create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=equal).invoke(ASK)["messages"][-1].text == "a"
    never = lambda _: False  # noqa: E731
    assert create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=never).invoke(ASK)["messages"][-1].text == "c"


def test_an_empty_answer_is_a_failed_one_and_never_the_best():
    asked = []
    checker = lambda request: asked.append(request.answer) or Verdict(passed=False, score=0.1)  # noqa: E731
    out = create_cac_graph(ScriptedChatModel(["a", "  ", ""]), checker=checker).invoke(ASK)

    assert out["messages"][-1].text == "a"
    assert asked == ["a"], "the checker is not asked about nothing"
    assert out["cac"].rounds[1].verdict.passed is False
    assert best_round((Round(answer=""), Round(answer=" "))) is None


def test_a_model_that_returns_only_empty_messages_is_an_error_that_carries_the_rounds():
    with pytest.raises(GenerationError, match="empty messages, 3 of them") as caught:
        create_cac_graph(ScriptedChatModel(["", "", ""])).invoke(ASK)
    assert len(caught.value.result.rounds) == 3


def test_a_draft_that_calls_tools_is_passed_on_unchecked():
    call = AIMessage("", tool_calls=[{"name": "search", "args": {}, "id": "1", "type": "tool_call"}])
    out = create_cac_graph(ScriptedChatModel([call]), checker=lambda _: False).invoke(ASK)

    assert out["messages"][-1].tool_calls[0]["name"] == "search"
    assert out["cac"].status == "unverified"


# Policies and failures


def test_unknown_is_never_a_pass():
    replies = ["a", "I would rather not say.", "b", "Correct me if I am wrong."]
    out = create_cac_graph(ScriptedChatModel(replies), max_rounds=1).invoke(ASK)
    assert (out["cac"].status, len(out["cac"].rounds)) == ("exhausted", 2)

    out = create_cac_graph(ScriptedChatModel(replies), on_unknown="accept").invoke(ASK)
    assert (out["cac"].status, out["messages"][-1].text) == ("unverified", "a")


def broken(_):
    raise ConnectionError("judge is down")


@WAYS
async def test_a_crashing_checker_raises_with_the_answer_inside(mode):
    with pytest.raises(CheckerError, match="judge is down") as caught:
        await run(create_cac_graph(ScriptedChatModel(["a"]), checker=broken), mode)
    assert caught.value.result.rounds[0].answer == "a"
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert isinstance(caught.value, CorrectionError)
    assert isinstance(caught.value, RuntimeError), "or LangGraph's default retry policy would repeat it"


def test_a_crashing_checker_can_be_overruled():
    out = create_cac_graph(ScriptedChatModel(["a"]), checker=broken, on_checker_error="accept").invoke(ASK)
    assert (out["cac"].status, out["messages"][-1].text) == ("unverified", "a")
    assert "judge is down" in out["cac"].error

    out = create_cac_graph(
        ScriptedChatModel(["a", "b"]), checker=broken, on_checker_error="revise", max_rounds=1
    ).invoke(ASK)
    assert out["cac"].status == "exhausted"
    assert "judge is down" in out["cac"].rounds[1].verdict.error


def test_a_checker_that_returns_nonsense_is_named():
    with pytest.raises(CheckerError, match=r"nonsense.*returned 'yes'"):
        create_cac_graph(ScriptedChatModel(["a"]), checker=nonsense).invoke(ASK)


def nonsense(_):
    return "yes"


@WAYS
async def test_a_model_that_fails_at_first_is_an_error(mode):
    with pytest.raises(GenerationError, match="no route") as caught:
        await run(create_cac_graph(ScriptedChatModel([ConnectionError("no route")])), mode)
    assert caught.value.result.rounds == ()


@WAYS
async def test_a_model_that_fails_while_revising_leaves_the_earlier_answer(mode):
    model = ScriptedChatModel(["a", FAILED, ConnectionError("no route")])
    out = await run(create_cac_graph(model), mode)

    assert out["messages"][-1].text == "a"
    assert out["cac"].status == "failed"
    assert "no route" in out["cac"].error
    assert out["cac"].rounds[0].verdict.passed is False


def test_ctrl_c_carries_what_was_done():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        create_cac_graph(ScriptedChatModel(["a"]), checker=interrupted).invoke(ASK)
    assert caught.value.result.answer == "a"


async def test_cancellation_is_not_swallowed():
    async def slow(_):
        await asyncio.sleep(30)

    task = asyncio.create_task(create_cac_graph(ScriptedChatModel(["a"]), checker=slow).ainvoke(ASK))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("limit", range(2, 14))
def test_no_recursion_limit_of_the_users_is_ever_met(limit):
    out = create_cac_graph(ScriptedChatModel(list("abcd")), checker=lambda _: False, max_rounds=3).invoke(
        ASK, {"recursion_limit": limit}
    )
    assert out["messages"][-1].text in "abcd"
    assert out["cac"].status in {"exhausted", "unverified"}
    if limit < 12:
        assert "recursion limit" in out["cac"].error


# Streaming


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_drafts_and_critiques_stay_out_of_the_message_stream(mode):
    graph = create_cac_graph(ScriptedChatModel(SCRIPT))
    if mode == "stream":
        parts = list(graph.stream(ASK, stream_mode="messages"))
    else:
        parts = [part async for part in graph.astream(ASK, stream_mode="messages")]
    assert "".join(message.text for message, _ in parts) == "It is not said."


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_progress_is_streamed_as_typed_events(mode):
    graph = create_cac_graph(ScriptedChatModel(SCRIPT))
    if mode == "stream":
        events = list(graph.stream(ASK, stream_mode="custom"))
    else:
        events = [event async for event in graph.astream(ASK, stream_mode="custom")]
    assert [(event["type"], event["round"]) for event in events] == [
        ("cac.draft", 0),
        ("cac.verdict", 0),
        ("cac.revise", 1),
        ("cac.draft", 1),
        ("cac.verdict", 1),
        ("cac.end", 1),
    ]
    assert events[1]["critique"] == "A gender is assumed."
    assert events[-1]["answer"] == "It is not said."


def test_the_conversation_never_holds_a_draft_in_any_streamed_state():
    for state in create_cac_graph(ScriptedChatModel(SCRIPT)).stream(ASK, stream_mode="values"):
        assert [message.text for message in state["messages"]] in (
            [ASK["messages"][0][1]],
            [ASK["messages"][0][1], "It is not said."],
        )


# State


def test_a_second_turn_starts_with_fresh_rounds():
    model = ScriptedChatModel(["a", "b", "c", "d"])
    graph = create_cac_graph(model, checker=fails_until("b", "d"), max_rounds=1, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}

    graph.invoke(ASK, config)
    out = graph.invoke({"messages": [("user", "And now?")]}, config)

    assert [message.text for message in out["messages"]] == [ASK["messages"][0][1], "b", "And now?", "d"]
    assert [done.answer for done in out["cac"].rounds] == ["c", "d"]
    assert [message.text for message in model.asked[2]] == [ASK["messages"][0][1], "b", "And now?"]


def test_a_new_question_after_a_crash_starts_fresh():
    model = ScriptedChatModel(["a", "b"])
    verdicts = iter([ConnectionError("down"), True])

    def checker(_):
        verdict = next(verdicts)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    graph = create_cac_graph(model, checker=checker, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(CheckerError):
        graph.invoke(ASK, config)
    out = graph.invoke({"messages": [("user", "Another question")]}, config)

    assert [done.answer for done in out["cac"].rounds] == ["b"]


def test_a_crashed_run_resumes_without_repeating_a_model_call():
    model = ScriptedChatModel(["a", "b"])
    state = {"down": True}

    def checker(request):
        if state["down"]:
            raise ConnectionError("down")
        return request.answer == "b"

    graph = create_cac_graph(model, checker=checker, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(CheckerError):
        graph.invoke(ASK, config, durability="sync")
    state["down"] = False
    out = graph.invoke(None, config, durability="sync")

    assert out["cac"].status == "passed"
    assert len(model.asked) == 2


def test_two_runs_on_one_graph_share_nothing():
    graph = create_cac_graph(
        RunnableLambda(lambda messages: AIMessage(f"re: {messages[0].text}")), checker=lambda _: False
    )
    outs = graph.batch([{"messages": [("user", str(i))]} for i in range(8)])

    assert [out["messages"][-1].text for out in outs] == [f"re: {i}" for i in range(8)]
    assert all((out["cac"].status, len(out["cac"].rounds)) == ("plateau", 2) for out in outs)


def test_strict_msgpack_and_no_warnings_with_a_checkpointer():
    code = """
        from langgraph.checkpoint.memory import InMemorySaver
        from correction_graphs import create_cac_graph, CacResult
        from correction_graphs.testing import ScriptedChatModel
        graph = create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=lambda r: r.answer in "bc", checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "1"}}
        graph.invoke({"messages": [("user", "one")]}, config)
        out = graph.invoke({"messages": [("user", "two")]}, config)
        assert isinstance(graph.get_state(config).values["cac"], CacResult)
        assert out["cac"].rounds[0].answer == "c", out
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# Composition


def test_an_agent_can_be_the_model():
    agent = StateGraph(MessagesState)
    agent.add_node("answer", lambda state: {"messages": [AIMessage(f"{len(state['messages'])} seen")]})
    agent.add_edge(START, "answer")
    out = create_cac_graph(agent.compile(name="agent"), checker=fails_until("3 seen")).invoke(ASK)

    assert out["messages"][-1].text == "3 seen"
    assert len(out["messages"]) == 2


def test_the_graph_is_a_node_of_another_and_a_model_of_another():
    inner = create_cac_graph(ScriptedChatModel(SCRIPT), name="inner")
    parent = StateGraph(MessagesState)
    parent.add_node(inner)
    parent.add_edge(START, "inner")
    assert parent.compile().invoke(ASK)["messages"][-1].text == "It is not said."

    inner = create_cac_graph(ScriptedChatModel(SCRIPT))
    outer = create_cac_graph(inner, checker=lambda request: request.answer == "It is not said.")
    out = outer.invoke(ASK)
    assert (out["cac"].status, len(out["cac"].rounds), out["cac"].usage.model_calls) == ("passed", 1, 4)


def test_build_gives_the_uncompiled_graph():
    builder = build_cac_graph(ScriptedChatModel(SCRIPT))
    assert isinstance(builder, StateGraph)
    assert set(builder.nodes) == {"generate", "check", "recontextualize"}
    assert builder.compile().invoke(ASK)["cac"].status == "passed"


def test_the_diagram_in_the_readme_is_the_graph():
    drawn = create_cac_graph(ScriptedChatModel([])).get_graph().draw_mermaid(with_styles=False)
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```mermaid\n(.*?)```", readme, re.DOTALL)
    assert shown.strip() == drawn.strip()


# Bad input


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_rounds": -1}, SettingsError, "`max_rounds` is -1"),
        ({"max_rounds": 1.5}, SettingsError, "`max_rounds` is 1.5"),
        ({"max_rounds": True}, SettingsError, "`max_rounds` is True"),
        ({"style": "haiku"}, SettingsError, "`style` is 'haiku'; it is one of 'verdict', 'natural_language'"),
        (
            {"strategy": "magic"},
            SettingsError,
            "`strategy` is 'magic'; it is one of 'self', 'self_instruct', 'fresh', 'ranked', or a function",
        ),
        ({"on_unknown": "pass"}, SettingsError, "`on_unknown` is 'pass'"),
        ({"on_checker_error": "ignore"}, SettingsError, "`on_checker_error` is 'ignore'"),
        ({"template": "bais"}, TemplateError, "did you mean 'bias'"),
        ({"template": "no/such.yaml"}, TemplateError, "there is no template file"),
        ({"checker": 3}, SettingsError, "`checker` is 3"),
        ({"model": 3}, SettingsError, "`model` is 3"),
        ({"model": "gpt"}, SettingsError, "`model` is 'gpt'"),
    ],
)
def test_wrong_arguments_fail_when_the_graph_is_built(arguments, error, message):
    arguments = {"model": ScriptedChatModel([]), **arguments}
    with pytest.raises(error, match=re.escape(message)):
        create_cac_graph(**arguments)


@WAYS
@pytest.mark.parametrize(
    ("messages", "message"),
    [([], "empty"), ([("user", "hi"), ("ai", "hello")], "ends in an AI message")],
)
async def test_a_conversation_nobody_can_answer_is_refused(mode, messages, message):
    model = ScriptedChatModel([])
    with pytest.raises(ConversationError, match=message):
        await run(create_cac_graph(model), mode, {"messages": messages})
    assert model.asked == []


def test_usage_adds_up():
    assert Usage(model_calls=1, seconds=0.5) + Usage(input_tokens=3, seconds=1) == Usage(
        model_calls=1, input_tokens=3, seconds=1.5
    )


@pytest.mark.parametrize(
    ("verdicts", "best", "last"),
    [
        ([False, False], 1, 1),
        ([None, None], 1, 1),  # reviews without a verdict are to have an effect as well
        ([False, None, False], 1, 2),
        ([None, False], 0, 1),
    ],
)
def test_without_scores_an_answer_that_was_not_found_wrong_is_the_best(verdicts, best, last):
    rounds = tuple(Round(answer=str(i), verdict=Verdict(passed=passed)) for i, passed in enumerate(verdicts))
    assert best_round(rounds) == best
    assert best_round(rounds, keep_best=False) == last


@pytest.mark.parametrize("keep_best", [True, False])
def test_reviews_without_a_verdict_change_the_answer(keep_best):
    model = ScriptedChatModel(["Sydney.", "The capital is Canberra.", "Canberra.", "That is right."])
    graph = create_cac_graph(model, template="correctness", style="natural_language", max_rounds=1, keep_best=keep_best)
    assert graph.invoke(ASK)["messages"][-1].text == "Canberra."
