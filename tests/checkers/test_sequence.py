"""Checkers in order: who is asked, who decides, what is told."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from correction_graphs import CheckRequest, Jury, LLMCritic, Verdict, create_cac_graph
from correction_graphs.checkers.base import Checker
from correction_graphs.checkers.sequence import Sequential
from correction_graphs.errors import CheckerError, SettingsError
from correction_graphs.testing import ScriptedChatModel

REQUEST = CheckRequest(messages=(), answer="An answer.")
ASK = {"messages": [("user", "Who is she?")]}
SYNC_AND_ASYNC = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])


async def judge(checker, mode, request=REQUEST, config=None):
    """Ask a checker in one of the ways a user can."""
    return checker.invoke(request, config) if mode == "invoke" else await checker.ainvoke(request, config)


class Step:
    """A checker that says what it is told to, and counts how often it is asked."""

    def __init__(self, passed, critique="", score=None):
        self.said = Verdict(passed=passed, critique=critique, score=score)
        self.asked = 0

    def __call__(self, _):
        self.asked += 1
        return self.said


class AsyncStep(Step):
    async def __call__(self, request):
        await asyncio.sleep(0)
        return super().__call__(request)


KINDS = pytest.mark.parametrize("kind", [Step, AsyncStep])


@SYNC_AND_ASYNC
@KINDS
@pytest.mark.parametrize(
    ("said", "on_unknown", "decided"),  # the verdict, and how many were asked
    [
        ([True, True, True], "stop", (True, 3)),
        ([True, False, True], "stop", (False, 2)),
        ([False, True, True], "stop", (False, 1)),
        ([True, None, True], "stop", (None, 2)),
        ([None], "stop", (None, 1)),
        ([True, None, True], "continue", (True, 3)),
        ([None, None, False], "continue", (False, 3)),
        ([None, False, True], "continue", (False, 2)),
        ([True, True, None], "continue", (None, 3)),
    ],
)
async def test_the_first_that_does_not_pass_decides(mode, kind, said, on_unknown, decided):
    passed, asked = decided
    steps = [kind(each) for each in said]
    verdict = await judge(Sequential(*steps, on_unknown=on_unknown), mode)

    assert verdict.passed is passed
    assert [step.asked for step in steps] == [1] * asked + [0] * (len(said) - asked)
    assert [vote.passed for vote in verdict.votes] == said[:asked]


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=6))
def test_nothing_passes_that_a_checker_failed_or_the_last_could_not_tell(said):
    for policy in ("stop", "continue"):
        verdict = Sequential(*map(Step, said), on_unknown=policy).invoke(REQUEST)
        passable = False not in said and said[-1] is True and (policy == "continue" or None not in said)
        assert (verdict.passed is True) == passable


@SYNC_AND_ASYNC
async def test_the_one_that_decided_is_named_and_speaks(mode):
    steps = Step(True, "Fine.", 1.0), Step(False, "Too long.", 0.25), Step(True)
    verdict = await judge(Sequential(*steps), mode)

    assert (verdict.critique, verdict.score) == ("Too long.", 0.25)
    assert [(vote.name, vote.critique) for vote in verdict.votes] == [("Step", "Fine."), ("Step#2", "Too long.")]


@SYNC_AND_ASYNC
async def test_a_pass_has_no_critique_and_the_score_of_the_last(mode):
    verdict = await judge(Sequential(Step(True, "Fine.", 1.0), Step(True, "Well done.", 0.5)), mode)

    assert (verdict.passed, verdict.critique, verdict.score) == (True, "", 0.5)
    assert [vote.critique for vote in verdict.votes] == ["Fine.", "Well done."]


@SYNC_AND_ASYNC
async def test_one_that_crashes_ends_the_sequence(mode):
    def crashes(_):
        raise ConnectionError("judge is down")

    after = Step(True)
    with pytest.raises(ConnectionError):
        await judge(Sequential(Step(True), crashes, after, on_unknown="continue"), mode)
    assert after.asked == 0

    with pytest.raises(CheckerError, match="judge is down"):
        create_cac_graph(ScriptedChatModel(["a"]), checker=Sequential(Step(True), crashes)).invoke(ASK)


@SYNC_AND_ASYNC
async def test_garbage_is_an_error_and_none_is_unknown(mode):
    class Careless(Checker):
        def check(self, request, config=None):
            return "yes"

    with pytest.raises(TypeError, match=r"'Careless' returned 'yes'"):
        await judge(Sequential(Step(True), Careless()), mode)
    assert (await judge(Sequential(lambda _: None), mode)).passed is None


async def test_cancelling_reaches_the_checker_that_is_asked():
    begun, ended = asyncio.Event(), []

    async def slow(_):
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    task = asyncio.create_task(Sequential(Step(True), slow).ainvoke(REQUEST))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_batch_and_abatch_judge_each_request_by_itself():
    checker = Sequential(lambda r: "a" in r.answer, lambda r: "b" in r.answer)
    requests = [CheckRequest(messages=(), answer=answer) for answer in ["ab", "a", "b"]]

    for verdicts in (checker.batch(requests), await checker.abatch(requests)):
        assert [(verdict.passed, len(verdict.votes)) for verdict in verdicts] == [(True, 2), (False, 2), (False, 1)]


@SYNC_AND_ASYNC
async def test_the_sequence_is_a_run_in_the_trace_and_passes_the_config_on(mode):
    class Runs(BaseCallbackHandler):
        run_inline = True
        chains, models = {}, []

        def on_chain_start(self, serialized, inputs, *, run_id, **kwargs):
            self.chains[run_id] = kwargs.get("name")

        def on_chat_model_start(self, serialized, messages, *, parent_run_id=None, tags=None, **kwargs):
            self.models.append((self.chains.get(parent_run_id), tags))

    runs = Runs()
    runs.chains, runs.models = {}, []
    critic = LLMCritic(ScriptedChatModel(["Verdict: unbiased"]), style="verdict")
    checker = Sequential(lambda _: True, critic, name="gate")
    await judge(checker, mode, config={"callbacks": [runs], "tags": ["mine"]})

    ((parent, tags),) = runs.models
    assert parent == "gate"
    assert {"mine", "checker:critic:bias"} <= set(tags)


@SYNC_AND_ASYNC
async def test_in_the_loop_only_what_was_asked_is_counted(mode):
    critic = LLMCritic(ScriptedChatModel(["Verdict: unbiased"]), style="verdict")
    short = lambda r: Verdict(passed=len(r.answer) < 3, critique="Be brief.")  # noqa: E731
    writer = ScriptedChatModel(["aaaa", "b"])
    graph = create_cac_graph(writer, checker=Sequential(short, Jury(critic)))
    out = graph.invoke(ASK) if mode == "invoke" else await graph.ainvoke(ASK)

    assert out["cac"].status == "passed"
    assert "Be brief." in writer.asked[1][-1].text
    assert [done.usage.model_calls for done in out["cac"].rounds] == [1, 2]
    inner = out["cac"].verdict.votes[1]
    assert (inner.name, [vote.name for vote in inner.votes]) == ("jury", ["critic:bias"])


@SYNC_AND_ASYNC
async def test_a_person_may_come_last(mode):
    def person(_):
        return interrupt("May it stand?") == "yes"

    graph = create_cac_graph(
        ScriptedChatModel(["a"]), checker=Sequential(Step(True), person), checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}

    async def run(given):
        return graph.invoke(given, config) if mode == "invoke" else await graph.ainvoke(given, config)

    assert "__interrupt__" in await run(ASK)
    assert (await run(Command(resume="yes")))["cac"].status == "passed"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Sequential, "give at least one"),
        (lambda: Sequential(Step(True), on_unknown="pass"), "`on_unknown` is 'pass'; it is one of 'stop', 'continue'"),
        (lambda: Sequential(Step(True), 3), "`checker` is 3"),
    ],
)
def test_wrong_arguments_fail_when_the_sequence_is_built(build, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        build()
