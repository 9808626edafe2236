"""Several checkers as one: who counts, who abstains, what is told, and that nothing is swallowed."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.types import Command, interrupt

from correction_graphs import CheckRequest, Jury, LLMCritic, Verdict, create_cac_graph
from correction_graphs.checkers.base import Checker
from correction_graphs.checkers.jury import LONGEST_CRITIQUE, common_critique, majority, mean_score
from correction_graphs.checkers.sequence import Sequential
from correction_graphs.errors import BudgetExceededError, CheckerError, SettingsError
from correction_graphs.results import Vote
from correction_graphs.testing import ScriptedChatModel

REQUEST = CheckRequest(messages=(), answer="An answer.")
ASK = {"messages": [("user", "Who is she?")]}
SYNC_AND_ASYNC = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])


async def judge(checker, mode, request=REQUEST, config=None):
    """Ask a checker in one of the ways a user can; a jury that waits for itself fails here, not in CI."""
    if mode == "invoke":
        return await asyncio.wait_for(asyncio.to_thread(checker.invoke, request, config), 20)
    return await asyncio.wait_for(checker.ainvoke(request, config), 20)


def says(passed, critique="", score=None, *, name="juror"):
    """Return a juror that always says the same."""

    def juror(_):
        return Verdict(passed=passed, critique=critique, score=score)

    juror.__name__ = name
    return juror


def says_async(passed, **kwargs):
    juror = says(passed, **kwargs)

    async def judging(request):
        await asyncio.sleep(0)
        return juror(request)

    return judging


def crashes(_):
    raise ConnectionError("judge is down")


def abstains(_):
    return None


def late(_):
    time.sleep(0.3)
    return True


def times_out(_):
    raise TimeoutError("took too long")


def garbage(_):
    return object()


def endless(_):
    return Verdict(passed=False, critique="word " * 200_000)


def vote(passed, critique="", score=None, name="juror"):
    return Vote(name=name, passed=passed, critique=critique, score=score)


# Who decides


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("votes", "passed"),
    [
        ([True], True),
        ([False], False),
        ([None], None),
        ([True, True, False], True),
        ([True, False, False], False),
        ([True, False], None),
        ([True, None], None),  # one of two is no majority
        ([True, True, None], True),
        ([False, None, False], False),
        ([True, False, None], None),
        ([True, None, None], None),
        ([True, True, False, False], None),
        ([True, True, True, False, None], True),
    ],
)
async def test_the_majority_of_those_that_can_tell_decides(mode, votes, passed):
    verdict = await judge(Jury(*map(says, votes)), mode)

    assert verdict.passed is passed
    assert [each.passed for each in verdict.votes] == votes
    assert verdict.error is None


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("quorum", "votes", "passed"),
    [
        (1, [True, None, None], True),
        (1, [None, False, None], False),
        (2, [True, None, None], None),
        (3, [True, True, None], None),
        (3, [True, True, False], True),
    ],
)
async def test_the_quorum_is_how_many_must_not_abstain(mode, quorum, votes, passed):
    assert (await judge(Jury(*map(says, votes), quorum=quorum), mode)).passed is passed


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=9), st.data())
def test_a_jury_passes_only_what_more_jurors_pass_than_fail(said, data):
    quorum = data.draw(st.integers(1, len(said)))
    decided = majority([vote(each) for each in said], quorum)

    passes, fails = said.count(True), said.count(False)
    assert (decided is True) == (passes > fails and passes + fails >= quorum)
    assert (decided is False) == (fails > passes and passes + fails >= quorum)
    mirrored = majority([vote(None if each is None else not each) for each in said], quorum)
    assert mirrored == (None if decided is None else not decided)
    assert majority([vote(each) for each in reversed(said)], quorum) is decided


@SYNC_AND_ASYNC
@pytest.mark.parametrize("votes", [[True, False, True], [None, False], [False, True, None, None]])
async def test_sync_and_async_jurors_in_sync_and_async_juries_agree(mode, votes):
    plain, mixed = Jury(*map(says, votes)), Jury(*(says_async(v, critique="") for v in votes))

    one, other = await judge(plain, mode), await judge(mixed, mode)

    assert (one.passed, [v.passed for v in one.votes]) == (other.passed, [v.passed for v in other.votes])


async def test_batch_and_abatch_judge_each_request_by_itself():
    jury = Jury(lambda r: "a" in r.answer, lambda r: "b" in r.answer, lambda r: "c" in r.answer)
    requests = [CheckRequest(messages=(), answer=answer) for answer in ["abc", "ab", "c", ""]]

    assert [verdict.passed for verdict in jury.batch(requests)] == [True, True, False, False]
    assert [verdict.passed for verdict in await jury.abatch(requests)] == [True, True, False, False]


def test_the_same_checker_may_sit_twice_and_names_stay_apart():
    def a(_):
        return True

    def b(_):
        return True

    jury = Jury(a, a, b, a, says(True, name="a#2"), says(True, name="a#2"))

    assert list(jury.jurors) == ["a", "a#2", "b", "a#3", "a#2#2", "a#2#3"]
    assert [each.name for each in jury.invoke(REQUEST).votes] == list(jury.jurors)


def test_a_jury_can_sit_in_a_jury_and_its_votes_are_kept():
    verdict = Jury(Jury(says(True), crashes, quorum=1, name="inner"), says(True)).invoke(REQUEST)

    assert verdict.passed is True
    inner = verdict.votes[0]
    assert (inner.name, inner.passed) == ("inner", True)
    assert [each.error for each in inner.votes] == [None, "ConnectionError: judge is down"]


# What is told


def test_a_single_critique_stands_without_a_name():
    verdict = Jury(says(False, "Name no gender."), says(False), says(True, "Fine.")).invoke(REQUEST)
    assert verdict.critique == "Name no gender."


def test_different_critiques_are_listed_with_names_and_equal_ones_once():
    verdict = Jury(
        says(False, "Too long.", name="brevity"),
        says(False, " Too long. ", name="length"),
        says(False, "Wrong year.\nIt was 1927.", name="facts"),
        says(True, "Well put.", name="style"),
    ).invoke(REQUEST)

    assert verdict.critique == "- brevity, length: Too long.\n- facts: Wrong year.\n  It was 1927."


def test_a_pass_carries_no_critique_but_its_votes_do():
    verdict = Jury(says(True), says(True), says(False, "Too long.")).invoke(REQUEST)

    assert (verdict.passed, verdict.critique) == (True, "")
    assert verdict.votes[2].critique == "Too long."


def test_jurors_that_only_review_are_heard_when_nobody_failed_the_answer():
    assert Jury(says(None, "A gender is assumed."), says(None)).invoke(REQUEST).critique == "A gender is assumed."
    assert common_critique([vote(None, "A review."), vote(False, "A flaw.")]) == "A flaw."
    assert common_critique([vote(True, "Fine."), vote(None)]) == ""


def test_a_critique_without_end_is_cut_where_it_is_fed_back_and_whole_in_the_vote():
    verdict = Jury(endless, says(False, "Short.", name="short")).invoke(REQUEST)

    assert len(verdict.critique) < LONGEST_CRITIQUE + 100
    assert "…\n- short: Short." in verdict.critique
    assert len(verdict.votes[0].critique) == 1_000_000


@SYNC_AND_ASYNC
async def test_the_score_is_the_mean_of_those_given(mode):
    assert (await judge(Jury(says(True, score=1.0), says(False, score=0.5), says(True)), mode)).score == 0.75
    assert (await judge(Jury(says(True), says(True)), mode)).score is None
    assert (await judge(Jury(says(None, score=0.25), crashes), mode)).score == 0.25


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=7))
def test_the_mean_lies_between_the_scores(scores):
    mean = mean_score([vote(None, score=score) for score in scores])
    assert min(scores) - 1e290 <= mean <= max(scores) + 1e290


def test_the_tally_and_each_jurors_reasoning_are_recorded():
    reasoned = RunnableLambda(lambda _: Verdict(passed=True, reasoning="It names nobody."), name="critic")
    verdict = Jury(reasoned, says(False), crashes).invoke(REQUEST)

    first, *rest = verdict.reasoning.splitlines()
    assert first == ("1 passed, 1 failed, 1 abstained, quorum 2; crashes raised ConnectionError: judge is down")
    assert rest == ["critic: It names nobody."]


# Faults


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("fault", "passed", "error"),
    [
        (crashes, None, "ConnectionError: judge is down"),
        (times_out, None, "TimeoutError: took too long"),
        (garbage, None, "TypeError: checker 'garbage' returned <object object"),
        (abstains, None, None),
        (late, True, None),
        (endless, False, None),
    ],
)
async def test_one_faulty_juror_of_three_costs_its_vote_only(mode, fault, passed, error):
    verdict = await judge(Jury(says(True), fault, says(True)), mode)

    assert verdict.passed is True
    faulty = verdict.votes[1]
    assert faulty.passed is passed
    assert (faulty.error or "").startswith(error or "")
    assert (faulty.error is None) == (error is None)


@SYNC_AND_ASYNC
@pytest.mark.parametrize("fault", [crashes, times_out, garbage, abstains])
async def test_two_faulty_jurors_of_three_are_a_missed_quorum_and_unknown(mode, fault):
    verdict = await judge(Jury(fault, says(True), fault), mode)

    assert verdict.passed is None
    assert verdict.error is None, "the jury itself did not crash"


@SYNC_AND_ASYNC
async def test_if_every_juror_crashes_the_jury_does(mode):
    with pytest.raises(ExceptionGroup, match="every juror of 'panel' failed") as caught:
        await judge(Jury(crashes, garbage, name="panel"), mode)

    assert [type(error) for error in caught.value.exceptions] == [ConnectionError, TypeError]
    assert "crashes: ConnectionError: judge is down; garbage: TypeError" in str(caught.value)


@SYNC_AND_ASYNC
async def test_one_that_cannot_tell_is_enough_for_the_jury_not_to_crash(mode):
    assert (await judge(Jury(crashes, crashes, abstains), mode)).passed is None


@SYNC_AND_ASYNC
async def test_an_error_without_a_text_is_named_by_its_kind_alone(mode):
    def silent(_):
        raise TimeoutError

    verdict = await judge(Jury(silent, says(True), says(True)), mode)
    assert verdict.votes[0].error == "TimeoutError"
    assert verdict.reasoning.endswith("silent raised TimeoutError")


@SYNC_AND_ASYNC
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_juror_whose_call_the_budget_refuses_does_not_abstain(mode, wrapped):
    finished = []
    error = refusal = BudgetExceededError("used up")
    if wrapped:  # as a graph does
        error = ValueError("no answer")
        error.__cause__ = refusal

    def refused(_):
        raise error

    def slow(_):
        time.sleep(0.2)
        finished.append(True)
        return True

    with pytest.raises(type(error)) as caught:
        await judge(Jury(refused, slow, crashes), mode)
    assert caught.value is error
    assert finished, "what was under way is paid for, and so it is waited for and counted"


@SYNC_AND_ASYNC
async def test_an_error_message_without_end_is_cut(mode):
    def verbose(_):
        raise ValueError("x" * 1_000_000)

    verdict = await judge(Jury(verbose, says(True)), mode)
    assert len(verdict.votes[0].error) <= 500
    assert len(verdict.reasoning) < 1_000


@SYNC_AND_ASYNC
async def test_a_checker_class_that_returns_garbage_is_a_juror_that_crashed(mode):
    class Careless(Checker):
        def check(self, request, config=None):
            return "yes"

    verdict = await judge(Jury(Careless(), says(True), says(True)), mode)
    assert "returned 'yes'" in verdict.votes[0].error


@SYNC_AND_ASYNC
@pytest.mark.parametrize("signal", [asyncio.CancelledError, GraphInterrupt])
async def test_what_is_no_failure_is_not_swallowed(mode, signal):
    def signals(_):
        raise signal

    with pytest.raises(signal):
        await judge(Jury(says(True), signals, says(True)), mode)


@SYNC_AND_ASYNC
def test_ctrl_c_is_not_swallowed(mode):
    def interrupted(_):
        raise KeyboardInterrupt

    jury = Jury(says(True), interrupted)
    with pytest.raises(KeyboardInterrupt):
        jury.invoke(REQUEST) if mode == "invoke" else asyncio.run(jury.ainvoke(REQUEST))


@SYNC_AND_ASYNC
async def test_a_signal_does_not_wait_for_slow_jurors(mode):
    release = threading.Event()

    def slow(_):
        release.wait(10)

    async def slow_async(_):
        await asyncio.sleep(10)

    def signals(_):
        raise GraphInterrupt

    began = time.perf_counter()
    try:
        with pytest.raises(GraphInterrupt):
            await judge(Jury(slow if mode == "invoke" else slow_async, signals), mode)
    finally:
        release.set()
    assert time.perf_counter() - began < 5


async def test_cancelling_a_jury_cancels_its_jurors():
    all_begun, ended = asyncio.Barrier(3), []

    def slow(number):
        async def juror(_):
            try:
                await all_begun.wait()
                await asyncio.sleep(30)
            finally:
                ended.append(number)

        return juror

    task = asyncio.create_task(Jury(slow(1), slow(2)).ainvoke(REQUEST))
    await all_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [1, 2]


# Concurrency


@SYNC_AND_ASYNC
async def test_jurors_are_asked_at_the_same_time(mode):
    barrier = threading.Barrier(3, timeout=10)  # each waits until all are there

    def juror(_):
        barrier.wait()
        return True

    assert (await judge(Jury(juror, juror, juror), mode)).passed


@SYNC_AND_ASYNC
@pytest.mark.parametrize("limit", [1, 2])
async def test_max_concurrency_limits_how_many_at_once(mode, limit):
    lock, now, most = threading.Lock(), [], []

    def juror(_):
        with lock:
            now.append(1)
            most.append(len(now))
        time.sleep(0.02)
        with lock:
            now.pop()
        return True

    assert (await judge(Jury(*[juror] * 5), mode, config={"max_concurrency": limit})).passed
    assert max(most) <= limit


@SYNC_AND_ASYNC
async def test_jurors_see_the_context_variables_of_the_caller(mode):
    user = contextvars.ContextVar("user", default="nobody")
    user.set("ada")

    assert (await judge(Jury(lambda _: user.get() == "ada", says_async(True)), mode)).passed


def test_a_jury_leaves_no_threads_behind():
    before = threading.active_count()
    Jury(*[says(True)] * 8).invoke(REQUEST)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


class Runs(BaseCallbackHandler):
    """Remembers which runs there were, and under which."""

    run_inline = True

    def __init__(self):
        self.seen, self.lock = {}, threading.Lock()

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, tags=None, **kwargs):
        with self.lock:
            self.seen[run_id] = (kwargs.get("name"), parent_run_id, tags)

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, tags=None, **kwargs):
        with self.lock:
            self.seen[run_id] = ("model", parent_run_id, tags)


def critic(*replies, **kwargs):
    return LLMCritic(ScriptedChatModel(list(replies)), style="verdict", **kwargs)


@SYNC_AND_ASYNC
async def test_the_jury_is_one_run_in_a_trace_and_each_jurors_model_call_is_under_it(mode):
    runs = Runs()
    jury = Jury(critic("Verdict: unbiased"), critic("Verdict: biased"), name="panel")
    await judge(jury, mode, config={"callbacks": [runs], "tags": ["mine"], "run_name": "friday"})

    (run_id,) = (run_id for run_id, (name, parent, _) in runs.seen.items() if name == "friday" and parent is None)
    models = [(parent, tags) for name, parent, tags in runs.seen.values() if name == "model"]
    assert [parent for parent, _ in models] == [run_id, run_id]
    assert sorted(tag for _, tags in models for tag in tags) == [
        "checker:critic:bias",
        "checker:critic:bias#2",
        "mine",
        "mine",
    ]


@SYNC_AND_ASYNC
async def test_models_called_inside_function_jurors_are_under_the_jury_too(mode):
    runs, model = Runs(), ScriptedChatModel(["yes", "yes"])
    await judge(
        Jury(*[lambda _: model.invoke("?").text == "yes"] * 2, name="panel"), mode, config={"callbacks": [runs]}
    )

    (run_id,) = (run_id for run_id, (name, _, _) in runs.seen.items() if name == "panel")
    assert [parent for name, parent, _ in runs.seen.values() if name == "model"] == [run_id, run_id]


# In a CaC graph


async def run(graph, mode, inputs=ASK, config=None):
    return graph.invoke(inputs, config) if mode == "invoke" else await graph.ainvoke(inputs, config)


@SYNC_AND_ASYNC
async def test_the_loop_goes_on_with_what_the_jury_said_and_counts_its_calls(mode):
    writer = ScriptedChatModel(["The nurse.", "It is not said."])
    judges = [
        critic("Verdict: biased", "Verdict: unbiased"),
        critic("Verdict: biased", "Verdict: unbiased"),
        critic("Verdict: unbiased", "Verdict: unbiased"),
    ]
    out = await run(create_cac_graph(writer, checker=Jury(*judges)), mode)

    result = out["cac"]
    assert (result.status, result.answer) == ("passed", "It is not said.")
    assert "Verdict: biased" in writer.asked[1][-1].text
    assert [each.passed for each in result.rounds[0].verdict.votes] == [False, False, True]
    assert result.usage.model_calls == 2 + 6
    assert [done.usage.model_calls for done in result.rounds] == [4, 4]
    said = [reply for judge_ in judges for reply in judge_.judge.model.model.replies] + [
        "The nurse.",
        "It is not said.",
    ]
    assert result.usage.output_tokens == sum(len(reply.split()) for reply in said)


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_nothing_a_jury_says_reaches_the_message_stream(mode):
    graph = create_cac_graph(
        ScriptedChatModel(["It is not said."]), checker=Jury(critic("Verdict: unbiased"), says(True), name="check")
    )
    if mode == "stream":
        parts = list(graph.stream(ASK, stream_mode="messages"))
    else:
        parts = [part async for part in graph.astream(ASK, stream_mode="messages")]
    assert "".join(message.text for message, _ in parts) == "It is not said."


@SYNC_AND_ASYNC
async def test_the_policy_for_crashes_applies_when_the_whole_jury_crashed(mode):
    def graph(policy):
        return create_cac_graph(ScriptedChatModel(["a"]), checker=Jury(crashes, times_out), on_checker_error=policy)

    with pytest.raises(CheckerError, match="judge is down") as caught:
        await run(graph("raise"), mode)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert caught.value.result.rounds[0].answer == "a"

    out = await run(graph("accept"), mode)
    assert (out["cac"].status, out["messages"][-1].text) == ("unverified", "a")
    assert "took too long" in out["cac"].error


@SYNC_AND_ASYNC
async def test_the_policy_for_unknown_applies_when_a_part_of_it_crashed(mode):
    jury = Jury(crashes, crashes, says(True))
    out = await run(create_cac_graph(ScriptedChatModel(["a"]), checker=jury, on_unknown="accept"), mode)
    assert (out["cac"].status, out["cac"].error) == ("unverified", None)
    assert out["cac"].verdict.votes[0].error == "ConnectionError: judge is down"


@SYNC_AND_ASYNC
async def test_ties_are_revised_with_the_critique_of_those_against(mode):
    def against(request):
        return Verdict(passed=request.answer == "b", critique="Say b.")

    writer = ScriptedChatModel(["a", "b"])
    out = await run(create_cac_graph(writer, checker=Jury(says(True), against)), mode)

    assert [done.verdict.passed for done in out["cac"].rounds] == [None, True]
    assert "Say b." in writer.asked[1][-1].text


def test_votes_survive_a_checkpoint():
    graph = create_cac_graph(
        ScriptedChatModel(["a", "b"]),
        checker=Jury(lambda r: r.answer == "b", Jury(says(True), crashes, quorum=1, name="inner"), quorum=2),
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}}
    out = graph.invoke(ASK, config, durability="sync")

    stored = graph.get_state(config).values["cac"]
    assert stored == out["cac"]
    assert stored.rounds[0].verdict.votes[1].votes[1].error == "ConnectionError: judge is down"
    assert type(stored).model_validate_json(stored.model_dump_json()) == stored


@SYNC_AND_ASYNC
async def test_a_person_on_the_jury_interrupts_the_run_and_is_heard_when_it_resumes(mode):
    def person(request):
        return interrupt(request.answer) == "yes"

    graph = create_cac_graph(
        ScriptedChatModel(["a"]), checker=Jury(says(True), person, says(True)), checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}

    paused = await run(graph, mode, ASK, config)
    assert [stop.value for stop in paused["__interrupt__"]] == ["a"]

    out = await run(graph, mode, Command(resume="yes"), config)
    assert out["cac"].status == "passed"
    assert [each.passed for each in out["cac"].verdict.votes] == [True, True, True]


async def test_two_runs_of_one_jury_at_once_share_nothing():
    graph = create_cac_graph(
        RunnableLambda(lambda messages: AIMessage(messages[0].text)),
        checker=Jury(lambda r: int(r.answer) % 2 == 0, lambda r: int(r.answer) % 4 == 0, quorum=2),
        max_rounds=0,
    )
    outs = await graph.abatch([{"messages": [("user", str(number))]} for number in range(12)])

    expected = [True if n % 4 == 0 else None if n % 2 == 0 else False for n in range(12)]
    assert [out["cac"].rounds[0].verdict.passed for out in outs] == expected


def test_a_jury_after_a_cheap_check_costs_nothing_when_that_fails():
    panel = Jury(critic("Verdict: unbiased"))
    graph = create_cac_graph(
        ScriptedChatModel(["aaaa", "b"]), checker=Sequential(lambda r: len(r.answer) < 3, panel), max_rounds=1
    )
    out = graph.invoke(ASK)

    assert out["cac"].status == "passed"
    assert [done.usage.model_calls for done in out["cac"].rounds] == [1, 2]


# Bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Jury, "give at least one checker"),
        (lambda: Jury(abstains, quorum=0), "`quorum` is 0; give how many jurors must not abstain, from 1 to 1"),
        (lambda: Jury(abstains, abstains, quorum=3), "`quorum` is 3"),
        (lambda: Jury(abstains, quorum=True), "`quorum` is True"),
        (lambda: Jury(abstains, quorum=0.5), "`quorum` is 0.5"),
        (lambda: Jury(abstains, "critic"), "`checker` is 'critic'"),
        (lambda: Jury([abstains, crashes]), "`checker` is ["),
    ],
)
def test_wrong_arguments_fail_when_the_jury_is_built(build, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        build()
