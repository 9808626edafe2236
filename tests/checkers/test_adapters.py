"""What functions return, and what other libraries offer, as verdicts: strictly, and never a guessed pass."""

from __future__ import annotations

import asyncio
import functools
import math
import operator
import re
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from correction_graphs import CheckRequest, Jury, LLMCritic, Verdict, as_checker, create_cac_graph
from correction_graphs.checkers.libraries import from_evaluator, from_validator
from correction_graphs.checkers.outcomes import read_outcome
from correction_graphs.errors import CheckerError, SettingsError
from correction_graphs.testing import ScriptedChatModel

REQUEST = CheckRequest(messages=(HumanMessage("The capital of Australia?"),), answer="It is Sydney.")
ASK = {"messages": [("user", "The capital of Australia?")]}
SYNC_AND_ASYNC = pytest.mark.parametrize("mode", ["invoke", "ainvoke", "batch", "abatch"])


async def judge(checker, mode, request=REQUEST):
    """Ask a checker in one of the ways a user can."""
    if mode == "invoke":
        return checker.invoke(request)
    if mode == "ainvoke":
        return await checker.ainvoke(request)
    return (checker.batch([request]) if mode == "batch" else await checker.abatch([request]))[0]


def returning(value):
    """Return every kind of checker that returns `value`."""

    def plain(_):
        return value

    async def waiting(_):
        await asyncio.sleep(0)
        return value

    class Caller:
        async def __call__(self, _):
            return value

    # RunnableLambda would call what is callable and unpack what is runnable; these values are neither.
    return plain, waiting, Caller(), functools.partial(lambda _, value: value, value=value), RunnableLambda(plain)


# What a function may return


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Verdict(passed=True, critique="c", score=2.0), Verdict(passed=True, critique="c", score=2.0)),
        (True, Verdict(passed=True)),
        (False, Verdict(passed=False)),
        (np.True_, Verdict(passed=True)),
        (np.bool_(False), Verdict(passed=False)),
        (np.array(True), Verdict(passed=True)),
        ("Sydney is not the capital. ", Verdict(passed=False, critique="Sydney is not the capital.")),
        ("The answer is correct.", Verdict(passed=False, critique="The answer is correct.")),
        ("悉尼不是澳大利亚的首都，堪培拉才是澳大利亚的首都。", None),
        ({"passed": True}, Verdict(passed=True)),
        ({"passed": None, "critique": "?"}, Verdict(passed=None, critique="?")),
        ({"passed": np.False_, "score": np.float32(0.5)}, Verdict(passed=False, score=0.5)),
        ({"passed": False, "score": 1}, Verdict(passed=False, score=1.0)),
    ],
)
async def test_what_is_returned_becomes_a_verdict(mode, value, expected):
    expected = expected or Verdict(passed=False, critique=value)
    for checker in returning(value):
        assert await judge(as_checker(checker), mode) == expected


@SYNC_AND_ASYNC
async def test_none_is_unknown_and_says_who_returned_it(mode):
    for checker in returning(None):
        verdict = await judge(as_checker(checker), mode)
        assert verdict.passed is None
        assert verdict.error is None, "nothing crashed"
        assert "returned None" in verdict.reasoning


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("value", "passed", "score"),
    [
        (0.5, True, 0.5),
        (0.49, False, 0.49),
        (1, True, 1.0),
        (0, False, 0.0),
        (-3.5, False, -3.5),
        (np.float32(0.75), True, 0.75),
        (np.float64(0.25), False, 0.25),
        (np.int64(1), True, 1.0),
        (np.array(0.75), True, 0.75),
        (Fraction(3, 4), True, 0.75),
        (math.nan, None, None),
        (np.float32("nan"), None, None),
        (math.inf, True, None),
        (-math.inf, False, None),
        (True, True, None),
        (None, None, None),
    ],
)
async def test_a_score_passes_from_the_threshold_on(mode, value, passed, score):
    for checker in returning(value):
        verdict = await judge(as_checker(checker, threshold=0.5), mode)
        assert (verdict.passed, verdict.score) == (passed, score)


@given(st.floats(), st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_the_same_way_as_python_compares_it(score, threshold):
    verdict = read_outcome(score, "f", threshold=threshold)
    assert verdict.passed is (None if math.isnan(score) else score >= threshold)


@SYNC_AND_ASYNC
@pytest.mark.parametrize("value", [0.7, 1, 0, np.float32(1), math.nan])
async def test_a_score_without_a_threshold_is_an_error_that_says_so(mode, value):
    for checker in returning(value):
        with pytest.raises(TypeError, match="a score, and it was not said which scores pass; give `threshold`"):
            await judge(as_checker(checker), mode)


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    "value",
    ["", "  \n", "pass", "PASS.", "fail", "yes", "no", "ok", "**Correct**", "unbiased", "✅", "通过", "true", "1"],
)
async def test_labels_and_empty_texts_are_not_guessed_at(mode, value):
    for checker in returning(value):
        with pytest.raises(TypeError, match="labels are not guessed at"):
            await judge(as_checker(checker), mode)


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({}, "passed: Field required"),
        ({"critique": "Fine."}, "passed: Field required"),
        ({"passed": "false"}, "passed: Input should be a valid boolean"),
        ({"passed": 1}, "passed: Input should be a valid boolean"),
        ({"passed": True, "score": "0.5"}, "score: Input should be a valid number"),
        ({"passed": True, "score": math.nan}, "score: Input should be a finite number"),
        ({"passed": False, "critique": None}, "critique: Input should be a valid string"),
        ({"passed": True, "verdict": "fail"}, "verdict: Extra inputs are not permitted"),
        ({"key": "correctness", "score": True, "comment": ""}, "passed: Field required"),
    ],
)
async def test_a_dict_has_the_fields_of_a_verdict_and_their_types(mode, value, fault):
    for checker in returning(value):
        with pytest.raises(TypeError, match=re.escape(fault)):
            await judge(as_checker(checker), mode)


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    "value", [[True], (True, "fine"), object(), b"pass", 1j, np.array([0.5]), AIMessage("Verdict: pass"), {True}]
)
async def test_anything_else_is_an_error_that_says_what_came_and_what_is_expected(mode, value):
    for checker in returning(value):
        with pytest.raises(TypeError, match=r"returned .*, of type \w+; a checker returns Verdict\(passed"):
            await judge(as_checker(checker, threshold=0.5), mode)


def test_an_error_does_not_repeat_a_megabyte():
    with pytest.raises(TypeError) as caught:
        as_checker(lambda _: ["x" * 1_000_000]).invoke(REQUEST)
    assert len(str(caught.value)) < 600
    assert "1000004 characters" in str(caught.value)


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.booleans()),
        st.dictionaries(st.sampled_from(["passed", "verdict", "score"]), st.one_of(st.text(), st.booleans())),
    ),
    st.sampled_from([None, 0.5]),
)  # fmt: skip
def test_nothing_passes_but_true_a_good_score_and_a_dict_that_says_true(value, threshold):
    try:
        passed = read_outcome(value, "f", threshold=threshold).passed
    except TypeError:
        passed = None
    if passed:
        good = threshold is not None and isinstance(value, int | float) and value >= threshold
        assert value is True or good or (isinstance(value, dict) and value["passed"] is True)


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("value", "critique"),
    [
        (False, "Be brief."),
        (0.2, "Be brief."),
        ({"passed": False}, "Be brief."),
        (Verdict(passed=False), "Be brief."),
        (Verdict(passed=False, critique="Wrong."), "Wrong."),
        ("Wrong, it is not.", "Wrong, it is not."),
        (True, ""),
        (0.9, ""),
        (None, ""),
    ],
)
async def test_a_critique_given_in_advance_fills_in_for_a_missing_one(mode, value, critique):
    for checker in returning(value):
        verdict = await judge(as_checker(checker, threshold=0.5, critique="Be brief."), mode)
        assert verdict.critique == critique


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: as_checker(Jury(lambda _: True), threshold=0.5), "`checker` is 'jury', which makes its own verdicts"),
        (lambda: as_checker(Jury(lambda _: True), critique="No."), "`threshold` and `critique` are for functions"),
        (lambda: as_checker(lambda _: 1.0, threshold="high"), "`threshold` is 'high'"),
        (lambda: as_checker(lambda _: 1.0, threshold=math.nan), "`threshold` is nan"),
        (lambda: as_checker(lambda _: 1.0, threshold=True), "`threshold` is True"),
        (lambda: from_evaluator("correctness"), "`evaluator` is 'correctness'"),
        (lambda: from_evaluator(lambda **_: {}, threshold=math.inf), "`threshold` is inf"),
        (lambda: from_validator(lambda answer: True), "give an object with a method `validate(value, metadata)`"),
        (lambda: from_validator(Validator), "`validator` is <class"),
    ],
)
def test_wrong_arguments_fail_when_the_checker_is_built(build, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        build()


def test_a_score_ranks_the_answers_of_the_loop():
    scores = {"aaaa": 0.1, "bb": 0.4, "ccc": 0.2}
    checker = as_checker(lambda request: scores[request.answer], threshold=0.5, critique="Be brief.")
    writer = ScriptedChatModel(list(scores))
    out = create_cac_graph(writer, checker=checker).invoke(ASK)

    assert (out["cac"].status, out["messages"][-1].text) == ("exhausted", "bb")
    assert "Be brief." in writer.asked[1][-1].text


# openevals


def evaluator(*results, is_async=False):
    """Return an evaluator as openevals makes them, which remembers what it was given."""
    asked = []

    def _wrapped_evaluator(*, inputs=None, outputs, reference_outputs=None, **kwargs):
        asked.append({"inputs": inputs, "outputs": outputs, "reference_outputs": reference_outputs, **kwargs})
        return results[0] if len(results) == 1 else list(results)

    async def _awrapped_evaluator(**kwargs):
        await asyncio.sleep(0)
        return _wrapped_evaluator(**kwargs)

    made = _awrapped_evaluator if is_async else _wrapped_evaluator
    made.asked = asked
    return made


def result(score, comment=None, key="score"):
    return {"key": key, "score": score, "comment": comment, "metadata": None}


BOTH_KINDS = pytest.mark.parametrize("is_async", [False, True])


@SYNC_AND_ASYNC
@BOTH_KINDS
@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([result(True, "It is right.")], Verdict(passed=True, reasoning="It is right.")),
        ([result(False, "It is Canberra.")], Verdict(passed=False, critique="It is Canberra.")),
        ([result(False)], Verdict(passed=False)),
        ([result(None, "Refused.")], "Refused."),
        ([result(0.8, "Close.")], Verdict(passed=True, score=0.8, reasoning="Close.")),
        ([result(np.float64(0.25), "Far.")], Verdict(passed=False, score=0.25, critique="Far.")),
        ([result(1)], Verdict(passed=True, score=1.0)),
        ([result(math.nan)], ""),
        ([{"score": True}], Verdict(passed=True)),
    ],
)
async def test_an_evaluators_result_is_a_verdict(mode, is_async, results, expected):
    verdict = await judge(from_evaluator(evaluator(*results, is_async=is_async), threshold=0.5), mode)

    if isinstance(expected, str):  # unknown; the comment is recorded and not fed back
        assert (verdict.passed, verdict.critique, verdict.reasoning) == (None, "", expected)
    else:
        assert verdict == expected


@SYNC_AND_ASYNC
@BOTH_KINDS
async def test_an_evaluator_is_given_question_answer_and_reference(mode, is_async):
    made = evaluator(result(True), is_async=is_async)
    request = CheckRequest(
        messages=(HumanMessage("Hi"), AIMessage("Hello."), HumanMessage("The capital?")), answer="Sydney."
    )
    await judge(from_evaluator(made, reference_outputs="Canberra."), mode, request)

    assert made.asked == [{"inputs": "The capital?", "outputs": "Sydney.", "reference_outputs": "Canberra."}]


@SYNC_AND_ASYNC
async def test_other_values_are_bound_with_partial(mode):
    made = evaluator(result(True))
    bound = functools.partial(made, context="An atlas.", reference_outputs="Canberra.")
    assert (await judge(from_evaluator(bound), mode)).passed
    assert made.asked[0] == {
        "inputs": "The capital of Australia?",
        "outputs": "It is Sydney.",
        "reference_outputs": "Canberra.",
        "context": "An atlas.",
    }


def test_an_evaluator_of_outputs_alone_is_given_no_inputs():
    checker = from_evaluator(lambda *, outputs: {"score": outputs == "It is Sydney."})
    assert checker.invoke(REQUEST).passed


@SYNC_AND_ASYNC
async def test_a_builtin_that_does_not_tell_its_parameters_is_a_checker(mode):
    checker = as_checker(operator.attrgetter("messages"), critique="Not so.")
    with pytest.raises(TypeError, match="returned"):
        await judge(checker, mode)
    verdict = await judge(as_checker(operator.attrgetter("answer")), mode)
    assert verdict == Verdict(passed=False, critique="It is Sydney."), "a text is a critique"


def test_an_evaluator_that_does_not_tell_its_parameters_is_given_all():
    checker = from_evaluator(dict, key="outputs")
    with pytest.raises(TypeError, match=r"\{'inputs': 'The capital of Australia\?', 'outputs': 'It is Sydney\.'\}"):
        checker.invoke(REQUEST)


def test_one_that_compares_is_not_called_without_a_reference():
    def exact_match(*, outputs, reference_outputs, **kwargs):
        return {"key": "equal", "score": outputs == reference_outputs, "comment": None}

    assert from_evaluator(exact_match, reference_outputs="It is Sydney.").invoke(REQUEST).passed
    with pytest.raises(TypeError, match="reference_outputs"):
        from_evaluator(exact_match).invoke(REQUEST)


SEVERAL = [result(True, "Right.", "facts"), result(0.25, "Curt.", "tone"), result(0.75, "Good.", "form")]


@SYNC_AND_ASYNC
@BOTH_KINDS
async def test_of_several_results_all_must_pass(mode, is_async):
    verdict = await judge(from_evaluator(evaluator(*SEVERAL, is_async=is_async), threshold=0.5), mode)
    assert (verdict.passed, verdict.critique, verdict.score) == (False, "- tone: Curt.", 0.5)
    assert verdict.reasoning == "facts: Right.\nform: Good."

    verdict = await judge(from_evaluator(evaluator(*SEVERAL, is_async=is_async), threshold=0.2), mode)
    assert (verdict.passed, verdict.critique) == (True, "")


@pytest.mark.parametrize(
    ("scores", "passed"),
    [([True, True], True), ([True, None], None), ([None, False], False), ([False, False], False)],
)
def test_a_result_that_is_unknown_is_no_pass(scores, passed):
    made = evaluator(*[result(score, key=str(number)) for number, score in enumerate(scores)])
    assert from_evaluator(made).invoke(REQUEST).passed is passed


def test_no_results_are_unknown():
    assert from_evaluator(lambda **_: []).invoke(REQUEST).passed is None


@SYNC_AND_ASYNC
async def test_a_key_chooses_one_of_several_results(mode):
    assert (await judge(from_evaluator(evaluator(*SEVERAL), key="facts"), mode)).passed is True
    verdict = await judge(from_evaluator(evaluator(*SEVERAL), key="tone", threshold=0.5), mode)
    assert (verdict.passed, verdict.critique) == (False, "Curt.")
    with pytest.raises(ValueError, match=r"no result with the key 'style'; it returned \['facts', 'tone', 'form'\]"):
        await judge(from_evaluator(evaluator(*SEVERAL), key="style"), mode)


@SYNC_AND_ASYNC
@BOTH_KINDS
@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (True, "returned True; an evaluator returns a dict with a `score`"),
        (None, "returned None; an evaluator returns"),
        ("pass", "returned 'pass'; an evaluator returns"),
        ({"key": "facts", "comment": "Fine."}, "an evaluator returns a dict with a `score`"),
        ([result(True), None], "returned None; an evaluator returns"),
        (result("pass"), "returned the score 'pass'; a score is a bool, a number or None"),
        (result(0.9), "a score, and it was not said which scores pass; give `threshold`"),
        (result([True]), "returned [True], of type list"),
    ],
)
async def test_what_is_no_result_is_an_error(mode, is_async, outcome, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        await judge(from_evaluator(evaluator(outcome, is_async=is_async)), mode)


@SYNC_AND_ASYNC
@BOTH_KINDS
async def test_an_evaluator_that_crashes_is_a_crashed_checker(mode, is_async):
    def broken(**_):
        raise ConnectionError("no route")

    async def abroken(**_):
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError):
        await judge(from_evaluator(abroken if is_async else broken), mode)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_a_model_called_inside_an_evaluator_is_counted_and_not_streamed(mode):
    model = ScriptedChatModel(["It is Canberra.", "Fine."])

    def llm_as_judge(*, inputs, outputs, **kwargs):
        comment = model.invoke(f"Is {outputs!r} right?").text
        return {"key": "correctness", "score": comment == "Fine.", "comment": comment}

    writer = ScriptedChatModel(["Sydney.", "Canberra."])
    graph = create_cac_graph(writer, checker=Jury(from_evaluator(llm_as_judge)))
    out = graph.invoke(ASK) if mode == "invoke" else await graph.ainvoke(ASK)

    assert (out["cac"].status, out["cac"].usage.model_calls) == ("passed", 4)
    assert "It is Canberra." in writer.asked[1][-1].text

    model = ScriptedChatModel(["Fine."])
    graph = create_cac_graph(ScriptedChatModel(["Canberra."]), checker=Jury(from_evaluator(llm_as_judge)))
    assert [part.text for part, _ in graph.stream(ASK, stream_mode="messages")] == ["Canberra."]


# guardrails


class Validator:
    """As guardrails makes them: `validate(value, metadata)` returns a result with an outcome."""

    rail_alias = "guardrails/no_sydney"

    def __init__(self, **more):
        self.asked, self.more = [], more

    def validate(self, value, metadata):
        self.asked.append((value, metadata))
        metadata["seen"] = True  # validators do write into it
        if "Sydney" not in value:
            return SimpleNamespace(outcome="pass", metadata=None, validated_chunk=value)
        fail = {"outcome": "fail", "error_message": "Sydney is mentioned.", "fix_value": None, "error_spans": None}
        return SimpleNamespace(**{**fail, **self.more})


class AsyncValidator(Validator):
    async def validate(self, value, metadata):
        await asyncio.sleep(0)
        return super().validate(value, metadata)


VALIDATORS = pytest.mark.parametrize("kind", [Validator, AsyncValidator])


@SYNC_AND_ASYNC
@VALIDATORS
async def test_a_validators_result_is_a_verdict(mode, kind):
    checker = from_validator(kind())
    canberra = CheckRequest(messages=(), answer="Canberra.")

    assert checker.get_name() == "guardrails/no_sydney"
    assert await judge(checker, mode, canberra) == Verdict(passed=True)
    assert await judge(checker, mode) == Verdict(passed=False, critique="Sydney is mentioned.")


@SYNC_AND_ASYNC
@VALIDATORS
async def test_a_fix_is_recorded_and_not_fed_back(mode, kind):
    verdict = await judge(from_validator(kind(fix_value="It is ******.")), mode)
    assert (verdict.critique, verdict.reasoning) == ("Sydney is mentioned.", "fix_value: It is ******.")


@SYNC_AND_ASYNC
async def test_each_call_has_its_own_metadata(mode):
    validator, metadata = Validator(), {"sources": ["atlas"]}
    checker = from_validator(validator, metadata=metadata)
    await judge(checker, mode)
    await judge(checker, mode)

    assert metadata == {"sources": ["atlas"]}
    (_, first), (_, second) = validator.asked
    assert first is not second
    assert first == {"sources": ["atlas"], "seen": True}


def test_a_failure_without_words_has_some():
    checker = from_validator(Validator(error_message=""))
    assert checker.invoke(REQUEST).critique == "The answer did not pass the check 'guardrails/no_sydney'."


@SYNC_AND_ASYNC
@pytest.mark.parametrize("stated", ["PASS", "passed", "", None, True])
async def test_any_other_outcome_is_an_error(mode, stated):
    with pytest.raises(TypeError, match="`outcome`, 'pass' or 'fail'"):
        await judge(from_validator(Validator(outcome=stated)), mode)


class Guard:
    """As guardrails makes them: `validate(llm_output, *args, **kwargs)` hands on to `parse`."""

    def __init__(self, **outcome):
        self.outcome, self.asked = outcome, []

    def validate(self, llm_output, *args, **kwargs):
        return self.parse(llm_output=llm_output, *args, **kwargs)  # noqa: B026

    def parse(self, llm_output, *, metadata=None, num_reasks=None):
        self.asked.append((llm_output, metadata))
        told = {
            "raw_llm_output": llm_output,
            "validated_output": llm_output,
            "validation_summaries": [],
            "reask": None,
            "error": None,
        }
        return SimpleNamespace(**{**told, **self.outcome})


class AsyncGuard(Guard):
    async def validate(self, llm_output, *args, **kwargs):
        return super().validate(llm_output, *args, **kwargs)


class OldGuard:
    """Of the time before `validate`."""

    def __init__(self, **outcome):
        self.parse = Guard(**outcome).parse


GUARDS = pytest.mark.parametrize("kind", [Guard, AsyncGuard, OldGuard])
SUMMARY = SimpleNamespace(
    validator_name="NoSydney", validator_status="fail", failure_reason="Sydney is mentioned.", error_spans=None
)


@SYNC_AND_ASYNC
@GUARDS
@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"validation_passed": True}, Verdict(passed=True)),
        ({"validation_passed": True, "validated_output": "It is Sydney.\n"}, Verdict(passed=True)),
        ({"validation_passed": True, "validated_output": {"capital": "Sydney"}}, Verdict(passed=True)),
        ({"validation_passed": True, "validated_output": None}, Verdict(passed=True)),
        (
            {"validation_passed": False, "validation_summaries": [SUMMARY, SUMMARY]},
            Verdict(passed=False, critique="Sydney is mentioned."),
        ),
        ({"validation_passed": False, "error": "No JSON."}, Verdict(passed=False, critique="No JSON.")),
        (
            {"validation_passed": False, "reask": SimpleNamespace(fail_results=[SimpleNamespace(error_message="No.")])},
            Verdict(passed=False, critique="No."),
        ),
        ({"validation_passed": False, "validation_summaries": None}, "critique"),
        ({"validation_passed": None, "error": "Timed out."}, Verdict(passed=None, reasoning="Timed out.")),
        # corrected by the guard: the answer itself has not passed
        (
            {"validation_passed": True, "validated_output": "It is ****."},
            "critique",
        ),
        (
            {"validation_passed": True, "validation_summaries": [SUMMARY], "validated_output": "It is ****."},
            Verdict(passed=False, critique="Sydney is mentioned.", reasoning="validated_output: It is ****."),
        ),
    ],
)
async def test_a_guards_outcome_is_a_verdict(mode, kind, outcome, expected):
    verdict = await judge(from_validator(kind(**outcome)), mode)

    if expected == "critique":
        assert verdict.passed is False
        assert verdict.critique == f"The answer did not pass the check {kind.__name__!r}."
    else:
        assert verdict == expected


@SYNC_AND_ASYNC
async def test_a_guard_is_given_its_metadata_by_name(mode):
    guard = Guard(validation_passed=True)
    await judge(from_validator(guard), mode)
    await judge(from_validator(guard, metadata={"sources": []}), mode)
    assert guard.asked == [("It is Sydney.", None), ("It is Sydney.", {"sources": []})]


@pytest.mark.parametrize("stated", ["yes", 1, "false"])
def test_a_guard_that_says_something_else_is_an_error(stated):
    with pytest.raises(TypeError, match="it is True, False or None"):
        from_validator(Guard(validation_passed=stated)).invoke(REQUEST)


def test_a_validator_that_raises_is_a_crashed_checker_not_a_verdict():
    class Raising(Validator):
        def validate(self, value, metadata):
            raise RuntimeError("Validation failed for field with errors: Sydney")

    with pytest.raises(CheckerError, match="Validation failed"):
        create_cac_graph(ScriptedChatModel(["a"]), checker=from_validator(Raising())).invoke(ASK)


# Together


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_all_kinds_sit_on_one_jury(mode):
    critic = LLMCritic(ScriptedChatModel(["Verdict: unbiased"]), style="verdict")
    jury = Jury(
        critic,
        from_evaluator(evaluator(result(True), is_async=True), key="score"),
        from_validator(Validator()),
        as_checker(lambda request: len(request.answer), threshold=5, critique="Say more."),
        lambda request: "Name the capital." if "Canberra" not in request.answer else True,
    )
    verdict = await judge(jury, mode)

    assert verdict.passed is True
    assert [(vote.name, vote.passed) for vote in verdict.votes] == [
        ("critic:bias", True),
        ("score", True),
        ("guardrails/no_sydney", False),
        ("<lambda>", True),
        ("<lambda>#2", False),
    ]
