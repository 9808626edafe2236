"""When the loop stops without a pass, which answer is returned, and what it may spend."""

from __future__ import annotations

import re
import time

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from correction_graphs import Budget, Jury, LLMCritic, Usage, Verdict, create_cac_graph, load_template
from correction_graphs.errors import GenerationError, SettingsError, TemplateError
from correction_graphs.testing import ScriptedChatModel

ASK = {"messages": [("user", "What is the capital of Australia?")]}
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


async def run(graph, mode, inputs=ASK):
    return graph.invoke(inputs) if mode == "sync" else await graph.ainvoke(inputs)


def never(_):
    return Verdict(passed=False, critique="No.")


def scored(**scores):
    return lambda request: Verdict(passed=False, critique="No.", score=scores[request.answer])


# Repetition


@MODES
async def test_the_same_answer_again_ends_the_run_without_another_check(mode):
    asked = []

    def checker(request):
        asked.append(request.answer)
        return Verdict(passed=False, critique="No.", score=0.1)

    out = await run(create_cac_graph(ScriptedChatModel(["a b", " a  b\n"]), checker=checker, max_rounds=5), mode)

    assert out["cac"].status == "plateau"
    assert asked == ["a b"]
    assert out["cac"].rounds[1].verdict == out["cac"].rounds[0].verdict, "what was said of it still holds"
    assert out["cac"].rounds[1].changed is False


@MODES
async def test_an_earlier_answer_that_returns_ends_the_run(mode):
    checker = scored(a=0.3, b=0.6)
    out = await run(create_cac_graph(ScriptedChatModel(["a", "b", "a"]), checker=checker, max_rounds=5), mode)

    assert out["cac"].status == "oscillation"
    assert out["messages"][-1].text == "b"
    assert [done.changed for done in out["cac"].rounds] == [None, True, True]
    assert [done.score_change for done in out["cac"].rounds] == [None, pytest.approx(0.3), pytest.approx(-0.3)]


def test_empty_answers_are_not_a_plateau():
    out = create_cac_graph(ScriptedChatModel(["", "", "a"]), checker=lambda _: True).invoke(ASK)
    assert (out["cac"].status, out["messages"][-1].text) == ("passed", "a")


# Policies


@pytest.mark.parametrize(("policy", "returned"), [("best", "b"), ("first", "a"), ("last", "c")])
def test_what_is_returned_when_no_answer_passed(policy, returned):
    checker = scored(a=0.1, b=0.9, c=0.5)
    out = create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=checker, on_exhausted=policy).invoke(ASK)

    assert (out["cac"].status, out["messages"][-1].text) == ("exhausted", returned)
    assert out["cac"].answer == returned


@pytest.mark.parametrize("policy", ["first", "last"])
def test_no_policy_returns_an_empty_answer(policy):
    model = ScriptedChatModel(["", "a", "  "])
    out = create_cac_graph(model, checker=never, on_exhausted=policy).invoke(ASK)
    assert out["messages"][-1].text == "a"


@MODES
async def test_a_refusal_takes_the_place_of_answers_that_did_not_pass(mode):
    out = await run(create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=never, on_exhausted="refuse"), mode)

    assert out["messages"][-1].text == load_template("bias").fill("refuse")
    assert out["messages"][-1].id
    assert out["cac"].chosen is None
    assert [done.answer for done in out["cac"].rounds] == ["a", "b", "c"], "and nothing is lost"


def test_a_refusal_also_answers_for_a_model_that_says_nothing():
    out = create_cac_graph(ScriptedChatModel(["", "", ""]), on_exhausted="refuse").invoke(ASK)
    assert out["cac"].status == "exhausted"


@pytest.mark.parametrize("said", ["Ask a person.", AIMessage("Ask a person."), AIMessageChunk("Ask a person.")])
def test_a_function_can_say_something_else(said):
    seen = []
    out = create_cac_graph(
        ScriptedChatModel(["a", "b", "c"]), checker=never, on_exhausted=lambda result: seen.append(result) or said
    ).invoke(ASK)

    assert out["messages"][-1].text == "Ask a person."
    assert (seen[0].status, len(seen[0].rounds), seen[0].answer) == ("exhausted", 3, "c")
    assert out["messages"][-1].type == "ai"


async def never_awaited(_):
    return "Ask a person."


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda _: None, "it returned NoneType"),
        (lambda _: HumanMessage("x"), "it returned HumanMessage"),
        (never_awaited, "it returned coroutine"),
    ],
)
def test_a_function_that_says_nothing_is_not_quoted(function, told):
    graph = create_cac_graph(ScriptedChatModel(["a"]), checker=never, max_rounds=0, on_exhausted=function)
    with pytest.raises(GenerationError, match=f"{told}; it returns a text or an AI message") as caught:
        graph.invoke(ASK)
    assert caught.value.result.answer == "a"


def test_a_function_that_fails_loses_nothing():
    def broken(_):
        raise LookupError("nobody there")

    with pytest.raises(GenerationError, match="nobody there") as caught:
        create_cac_graph(ScriptedChatModel(["a", "b", "c"]), checker=never, on_exhausted=broken).invoke(ASK)
    assert len(caught.value.result.rounds) == 3


@MODES
async def test_an_unclear_checker_can_be_asked_once_more(mode):
    verdicts = iter([None, True])
    graph = create_cac_graph(
        ScriptedChatModel(["a"]), checker=lambda _: Verdict(passed=next(verdicts)), on_unknown="retry"
    )
    out = await run(graph, mode)
    assert (out["cac"].status, len(out["cac"].rounds)) == ("passed", 1)


def test_a_checker_that_stays_unclear_is_not_asked_for_ever():
    asked = []

    def checker(request):
        asked.append(request.answer)
        return Verdict(passed=None, critique="?")

    out = create_cac_graph(ScriptedChatModel(["a", "b"]), checker=checker, on_unknown="retry", max_rounds=1).invoke(ASK)
    assert out["cac"].status == "exhausted"
    assert asked == ["a", "a", "b", "b"]


# Budget


@MODES
@pytest.mark.parametrize(
    ("calls", "answers", "checked"),
    [(1, ["a"], 0), (2, ["a"], 1), (3, ["a", "b"], 1), (4, ["a", "b"], 2), (5, ["a", "b", "c"], 2)],
)
async def test_the_budget_is_asked_before_every_call(mode, calls, answers, checked):
    no = "It is wrong.\nCritique: Wrong.\nVerdict: biased"
    model = ScriptedChatModel(["a", no, "b", no, "c", no])
    out = await run(create_cac_graph(model, budget=Budget(model_calls=calls)), mode)

    assert out["cac"].status == "budget"
    assert out["cac"].error == f"the budget of {calls} model calls is used up"
    assert [done.answer for done in out["cac"].rounds] == answers
    assert sum(done.verdict is not None for done in out["cac"].rounds) == checked
    assert len(model.asked) == calls == out["cac"].usage.model_calls
    assert out["messages"][-1].text == answers[-1]


def test_a_budget_that_suffices_changes_nothing():
    model = ScriptedChatModel(["a", "Verdict: unbiased"])
    out = create_cac_graph(model, budget=Budget(model_calls=2), style="verdict").invoke(ASK)
    assert (out["cac"].status, out["cac"].error) == ("passed", None)


@pytest.mark.parametrize("limit", [{"input_tokens": 7}, {"output_tokens": 1}, {"seconds": 0.1}])
def test_tokens_and_seconds_are_limited_too(limit):
    def slow(request):
        time.sleep(0.2)
        return never(request)

    out = create_cac_graph(ScriptedChatModel(["a", "b"]), checker=slow, budget=Budget(**limit)).invoke(ASK)
    (name,) = limit
    assert out["cac"].status == "budget"
    assert name.replace("_", " ") in out["cac"].error


@MODES
async def test_calls_inside_an_agent_count_and_are_refused(mode):
    inner = ScriptedChatModel(["one", "two", "three", "four"])

    def call(state):
        return {"messages": [inner.invoke(state["messages"])]}

    agent = StateGraph(MessagesState)
    agent.add_node("first", call)
    agent.add_node("second", call)
    agent.add_edge(START, "first")
    agent.add_edge("first", "second")
    out = await run(create_cac_graph(agent.compile(), checker=never, budget=Budget(model_calls=3)), mode)

    assert (out["cac"].status, out["messages"][-1].text) == ("budget", "two")
    assert len(inner.asked) == 3


def test_a_checker_that_calls_a_model_is_refused_in_the_middle():
    judge = ScriptedChatModel(["yes", "yes"])

    def asks_twice(_):
        return [judge.invoke("ok?").text, judge.invoke("sure?").text] == ["yes", "yes"]

    out = create_cac_graph(ScriptedChatModel(["a"]), checker=asks_twice, budget=Budget(model_calls=2)).invoke(ASK)

    assert (out["cac"].status, out["messages"][-1].text) == ("budget", "a")
    assert out["cac"].rounds[0].verdict is None
    assert out["cac"].usage.model_calls == 2


def test_a_strategy_that_calls_a_model_is_refused():
    helper = ScriptedChatModel(["summary"])

    def summarizes(request):
        return [*request.messages, helper.invoke("sum up")]

    out = create_cac_graph(
        ScriptedChatModel(["a", "b"]), checker=never, strategy=summarizes, budget=Budget(model_calls=1)
    ).invoke(ASK)
    assert (out["cac"].status, out["messages"][-1].text, helper.asked) == ("budget", "a", [])


def test_each_run_has_its_own_budget():
    graph = create_cac_graph(
        RunnableLambda(lambda messages: AIMessage(messages[-1].text)), checker=lambda _: True, budget=Budget(seconds=5)
    )
    assert all(out["cac"].status == "passed" for out in graph.batch([ASK] * 4))


@MODES
@pytest.mark.parametrize("policy", ["raise", "accept", "revise"])
async def test_a_budget_that_ends_before_a_jury_ends_the_run_as_it_would_before_one_critic(mode, policy):
    judges = [ScriptedChatModel(["Verdict: biased"] * 3) for _ in range(3)]
    graph = create_cac_graph(
        ScriptedChatModel(["a", "b"]),
        checker=Jury(*map(LLMCritic, judges)),
        budget=Budget(model_calls=5),  # two answers and three votes: none is left for the second answer
        on_checker_error=policy,
    )
    out = await run(graph, mode)
    assert (out["cac"].status, out["cac"].error) == ("budget", "the budget of 5 model calls is used up")
    assert (out["messages"][-1].text, out["cac"].usage.model_calls) == ("b", 5)


@MODES
@pytest.mark.parametrize("policy", ["raise", "accept", "revise"])
@pytest.mark.parametrize("label", ["biased", "unbiased"])
async def test_a_budget_that_ends_within_a_jury_ends_the_run_as_it_would_before_one_critic(mode, policy, label):
    judges = [ScriptedChatModel([f"Verdict: {label}"]) for _ in range(3)]
    graph = create_cac_graph(
        ScriptedChatModel(["a", "b"]),
        checker=Jury(*map(LLMCritic, judges)),
        budget=Budget(model_calls=3),  # an answer and two votes, which agree: the third is not an abstention
        on_checker_error=policy,
    )
    out = await run(graph, mode)
    assert (out["cac"].status, out["cac"].error) == ("budget", "the budget of 3 model calls is used up")
    assert (out["messages"][-1].text, out["cac"].usage.model_calls) == ("a", 3)


def test_a_refusing_graph_refuses_when_the_budget_ends():
    out = create_cac_graph(
        ScriptedChatModel(["a"]), checker=never, budget=Budget(model_calls=1), on_exhausted="refuse"
    ).invoke(ASK)
    assert out["messages"][-1].text == load_template("bias").fill("refuse")


def test_exhausted_says_which_limit():
    budget = Budget(model_calls=2, seconds=1.5)
    assert budget.exhausted(Usage(model_calls=1, seconds=1)) is None
    assert budget.exhausted(Usage(model_calls=2)) == "the budget of 2 model calls is used up"
    assert budget.exhausted(Usage(seconds=2)) == "the budget of 1.5 seconds is used up"


@pytest.mark.parametrize("wrong", [{}, {"model_calls": 0}, {"seconds": -1}, {"calls": 3}])
def test_a_budget_that_limits_nothing_or_everything_is_refused(wrong):
    with pytest.raises(SettingsError):
        Budget(**wrong)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"on_exhausted": "give up"}, SettingsError, "`on_exhausted` is 'give up'; it is one of 'best', 'last'"),
        ({"on_exhausted": lambda: "x"}, SettingsError, "`on_exhausted` is"),
        ({"budget": 5}, SettingsError, "`budget` is 5; give a Budget"),
        ({"on_unknown": "again"}, SettingsError, "`on_unknown` is 'again'"),
    ],
)
def test_wrong_policies_fail_when_the_graph_is_built(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        create_cac_graph(ScriptedChatModel([]), **arguments)


def test_refusing_needs_a_template_that_says_how():
    bias = load_template("bias")
    prompts = {role: text for role, text in bias.prompts.items() if role != "refuse"}
    with pytest.raises(TemplateError, match="has no role 'refuse'"):
        create_cac_graph(
            ScriptedChatModel([]), template=bias.model_copy(update={"prompts": prompts}), on_exhausted="refuse"
        )
