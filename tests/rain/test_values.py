"""Functions, runnables and checkers as value functions."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphInterrupt

from correction_graphs.checkers.adapters import as_checker
from correction_graphs.checkers.base import CheckRequest
from correction_graphs.errors import BackendError, JudgeError, SearchError, SettingsError, TemplateError
from correction_graphs.rain.chat import ChatRain
from correction_graphs.rain.judge import Candidate, SelfEvaluation, Value
from correction_graphs.rain.steps import adrive, drive
from correction_graphs.rain.values import as_value_function, read_value
from correction_graphs.results import Verdict
from correction_graphs.testing import ScriptedChatModel, ToyBackend

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]


def candidates(*texts: str) -> list[Candidate]:
    return [Candidate(tuple(text.encode()), text) for text in texts]


def values(given: Any, *texts: str) -> list[Value]:
    backend = ToyBackend()
    session = as_value_function(given).session(backend, ASK)
    return drive(session.evaluate(candidates(*texts)), backend)


def numbers(given: Any, *texts: str) -> list[float]:
    return [value.value for value in values(given, *texts)]


def ends_in_e(text: str) -> float:
    return 1.0 if text.endswith("e") else -0.5


async def slowly(text: str) -> float:
    await asyncio.sleep(0)
    return ends_in_e(text)


class Rater:
    def __call__(self, text: str) -> Any:
        return slowly(text)


GIVEN = [
    pytest.param(ends_in_e, id="function"),
    pytest.param(slowly, id="async function"),
    pytest.param(Rater(), id="object that returns an awaitable"),
    pytest.param(RunnableLambda(ends_in_e, slowly), id="runnable"),
    pytest.param(
        as_checker(lambda request: Verdict(passed=None, score=0.25 + 0.75 * request.answer.endswith("e"))), id="checker"
    ),
]


@pytest.mark.parametrize("given", GIVEN)
async def test_anything_can_judge_sync_and_async(given: Any) -> None:
    texts = candidates("one", "two", "one", "three", "", " \n")
    expected = [(1, True), (-0.5, True), (1, True), (1, True), (0, False), (0, False)]

    session = as_value_function(given).session(backend := ToyBackend(), ASK)
    assert [value[:2] for value in await asyncio.to_thread(drive, session.evaluate(texts), backend)] == expected
    session = as_value_function(given).session(backend, ASK)
    assert [value[:2] for value in drive(session.evaluate(texts), backend)] == expected  # with an event loop around
    session = as_value_function(given).session(backend, ASK)
    assert [value[:2] for value in await adrive(session.evaluate(texts), backend)] == expected
    session.close()


def test_no_text_is_judged_twice_in_a_conversation() -> None:
    asked: list[str] = []

    def judge(text: str) -> float:
        asked.append(text)
        return 0.5

    function = as_value_function(judge)
    session = function.session(backend := ToyBackend(), ASK)
    for texts in (["a", "b", "a"], ["b", "c"], []):
        drive(session.evaluate(candidates(*texts)), backend)
    drive(function.session(backend, ASK).evaluate(candidates("a")), backend)

    assert asked == ["a", "b", "c", "a"]


def test_a_runnable_is_asked_for_all_texts_in_one_batch() -> None:
    class Batched(RunnableLambda):
        batches: list[list[str]] = []  # noqa: RUF012

        def batch(self, inputs: list[str], *_: Any, **__: Any) -> list[float]:
            self.batches.append(inputs)
            return [0.0] * len(inputs)

    values(runnable := Batched(ends_in_e), "a", "b", "a")

    assert runnable.batches == [["a", "b"]]


def test_a_checker_sees_the_conversation() -> None:
    seen: list[CheckRequest] = []

    def check(request: CheckRequest) -> bool:
        seen.append(request)
        return True

    assert numbers(as_checker(check), "You.") == [1.0]
    assert [message.text for message in seen[0].messages] == ["Be brief.", "Who?"]
    assert seen[0].answer == "You."


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (0, (0, True)),
        (-1, (-1, True)),
        (0.25, (0.25, True)),
        (np.float32(0.5), (0.5, True)),
        (True, (1, True)),
        (np.bool_(False), (-1, True)),
        (None, (0, False)),
        (Value(0.5, known=False), (0.5, False)),
        (Verdict(passed=True), (1, True)),
        (Verdict(passed=False), (-1, True)),
        (Verdict(passed=None), (0, False)),
        (Verdict(passed=True, score=0.75), (0.75, True)),
        (Verdict(passed=False, score=0.75), (-0.25, True)),
        (Verdict(passed=None, score=0.75), (0.5, True)),
        (Verdict(passed=True, score=80), (1, True)),
        (Verdict(passed=False, score=-3.5), (-1, True)),
        (Verdict(passed=None, score=80), (0, False)),
    ],
)
def test_what_is_returned_becomes_a_value(outcome: Any, expected: tuple[float, bool]) -> None:
    assert read_value(outcome, "judge", "text")[:2] == expected


@pytest.mark.parametrize("outcome", ["good", [1.0], 1j, {"value": 1}])
def test_what_is_no_value_is_refused_with_the_function_and_the_text(outcome: Any) -> None:
    def rates(_: str) -> Any:
        return outcome

    with pytest.raises(
        JudgeError, match=r"'rates' returned .* for the text 'Some text'; a value is a number from -1 to 1"
    ):
        values(rates, "Some text")


@pytest.mark.parametrize("outcome", [math.inf, 1.001, -2, Value(2.0)])
def test_numbers_out_of_range_are_left_to_the_search(outcome: Any) -> None:
    assert read_value(outcome, "judge", "text").value == (outcome.value if isinstance(outcome, Value) else outcome)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_function_that_raises_is_named_with_the_text(mode: str) -> None:
    def rates(text: str) -> float:
        return {"good": 1.0}[text]

    session = as_value_function(rates).session(backend := ToyBackend(), ASK)
    steps = session.evaluate(candidates("bad"))

    with pytest.raises(JudgeError, match=r"'rates' raised .* 'bad'") as caught:
        drive(steps, backend) if mode == "sync" else await adrive(steps, backend)
    assert isinstance(caught.value.__cause__, KeyError)
    assert drive(session.evaluate(candidates("good")), backend) == [Value(1.0)]


@pytest.mark.parametrize("error", [BackendError("closed"), GraphInterrupt(), KeyboardInterrupt()])
def test_errors_that_say_it_themselves_are_passed_on(error: BaseException) -> None:
    def rates(_: str) -> float:
        raise error

    with pytest.raises(type(error)) as caught:
        values(rates, "text")
    assert caught.value is error


def test_a_template_is_self_evaluation_and_a_value_function_is_returned_as_it_is(tmp_path: Path) -> None:
    judge = SelfEvaluation("truthful@zh", mode="vote")

    assert as_value_function(judge) is judge
    assert as_value_function("truthful@zh").template == judge.template
    assert as_value_function(judge.template).template == judge.template
    with pytest.raises(TemplateError, match="there is no template 'harmles'"):
        as_value_function("harmles")
    with pytest.raises(TemplateError, match="there is no template file"):
        as_value_function(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ScriptedChatModel(["good"]), "which writes texts and no values; give LLMCritic"),
        (lambda: 1.0, "called with the text of a reply alone"),
        (SelfEvaluation, "give the name of a template"),
        (3, "the value function is 3; give the name of a template"),
        (None, "the value function is None"),
    ],
)
def test_what_cannot_judge_is_refused(given: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        as_value_function(given)


def test_the_error_of_a_bad_value_names_the_function() -> None:
    def out_of_range(text: str) -> Value:
        return Value(3.0)

    with pytest.raises(SearchError, match=r"the value function 'out_of_range' returned 3\.0"):
        ChatRain(backend=ToyBackend(), judge=out_of_range).invoke("hi")


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
def test_ctrl_c_does_not_wait_for_an_async_judge() -> None:
    async def slow(text: str) -> float:
        await asyncio.sleep(60)
        return 1.0

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ChatRain(backend=ToyBackend(), judge=slow).invoke("hi")
    assert time.monotonic() - began < 30
