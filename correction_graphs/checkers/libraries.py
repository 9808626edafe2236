"""Checkers made of what other libraries offer: openevals evaluators, guardrails validators and guards.

Nothing of these libraries is imported: what counts is how an object is called and what it returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from correction_graphs.checkers.adapters import FunctionChecker
from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.outcomes import check_threshold, plain, read_outcome, shown
from correction_graphs.errors import SettingsError
from correction_graphs.messages import question_of
from correction_graphs.results import Verdict

# openevals


def from_evaluator(
    evaluator: Callable[..., Any],
    *,
    key: str | None = None,
    threshold: float | None = None,
    reference_outputs: Any = None,
) -> Checker:
    """Return an evaluator in the manner of openevals as a checker.

    It is called with `inputs`, the newest message the user wrote, if it takes that; with `outputs`, the answer; and
    with `reference_outputs`, if given. Other values that its prompt needs can be bound with `functools.partial`. It
    returns a dict with a `score` and perhaps a `comment`, or a list of these.

    A score of True passes, False fails, None is unknown; a number is compared with `threshold`. Of several results all
    must pass, unless `key` chooses one. The comment on an answer that failed is its critique; any other is recorded as
    reasoning. The verdict's score is the mean of the numbers.

    Args:
        evaluator: What `create_llm_as_judge` or `create_async_llm_as_judge` returns, or any other evaluator, sync or
            async.
        key: Which of several results counts.
        threshold: The lowest number that passes. Without it, a number is an error: it does not say what is good.
        reference_outputs: The right answer, for evaluators that compare with one.

    Raises:
        SettingsError: If `evaluator` cannot be called, or `threshold` is no number.

    Example:
        ```python
        from correction_graphs import CheckRequest
        from correction_graphs.checkers.libraries import from_evaluator


        def conciseness(*, inputs, outputs, **kwargs):
            return {"key": "conciseness", "score": 1 / len(outputs.split()), "comment": "Leave out the preamble."}


        checker = from_evaluator(conciseness, threshold=0.5)
        verdict = checker.invoke(CheckRequest(messages=(), answer="Well, the capital is Canberra."))
        assert verdict.passed is False
        assert verdict.critique == "Leave out the preamble."
        assert verdict.score == 0.2
        ```
    """
    if not callable(evaluator):
        raise SettingsError(f"`evaluator` is {evaluator!r}; give a function that takes `inputs` and `outputs`")
    check_threshold(threshold)
    given = {} if reference_outputs is None else {"reference_outputs": reference_outputs}
    wants_inputs = _takes(evaluator, "inputs")
    name = key or str(getattr(evaluator, "__name__", type(evaluator).__name__))

    def evaluate(request: CheckRequest) -> Any:
        inputs = {"inputs": question_of(request.messages)} if wants_inputs else {}
        return evaluator(**inputs, outputs=request.answer, **given)

    def read(outcome: object, _: CheckRequest) -> Verdict:
        return evaluation_verdict(outcome, name, key=key, threshold=threshold)

    return FunctionChecker(evaluate, name=name, read=read)


def evaluation_verdict(outcome: object, name: str, *, key: str | None, threshold: float | None) -> Verdict:
    """Return what an evaluator returned as a verdict.

    Raises:
        TypeError: If it is not a result with a `score`, or a list of these.
        ValueError: If none of the results has the `key`.
    """
    results = _results(outcome, name)
    if key is not None and (len(results) != 1 or "key" in results[0]):
        keys = [result.get("key") for result in results]
        results = [result for result in results if result.get("key") == key]
        if not results:
            raise ValueError(f"evaluator {name!r} returned no result with the key {key!r}; it returned {shown(keys)}")
    verdicts = [_result_verdict(result, name, threshold) for result in results]
    if len(verdicts) == 1:
        return verdicts[0]
    return _all_of([str(result.get("key") or name) for result in results], verdicts)


def _results(outcome: object, name: str) -> list[Mapping[str, Any]]:
    results = outcome if isinstance(outcome, Sequence) and not isinstance(outcome, str) else [outcome]
    for result in results:
        if not isinstance(result, Mapping) or "score" not in result:
            raise TypeError(
                f"evaluator {name!r} returned {shown(result)}; an evaluator returns a dict with a `score` and perhaps "
                "a `comment`, or a list of these"
            )
    return [*results]


def _result_verdict(result: Mapping[str, Any], name: str, threshold: float | None) -> Verdict:
    score = plain(result["score"])
    if isinstance(score, str | Mapping | Verdict):
        raise TypeError(f"evaluator {name!r} returned the score {shown(score)}; a score is a bool, a number or None")
    verdict = read_outcome(score, name, threshold=threshold)
    comment = str(result.get("comment") or "")
    return verdict.model_copy(update={"critique" if verdict.passed is False else "reasoning": comment})


def _all_of(names: Sequence[str], verdicts: Sequence[Verdict]) -> Verdict:
    """Return one verdict for several that must all pass; of none, it is unknown."""
    named = list(zip(names, verdicts, strict=True))
    outcomes = {verdict.passed for verdict in verdicts}
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return Verdict(
        passed=False if False in outcomes else True if outcomes == {True} else None,
        critique="\n".join(
            f"- {name}: {verdict.critique or 'not met'}" for name, verdict in named if verdict.passed is False
        ),
        score=sum(scores) / len(scores) if scores else None,
        reasoning="\n".join(f"{name}: {verdict.reasoning}" for name, verdict in named if verdict.reasoning),
    )


def _takes(function: Callable[..., Any], argument: str) -> bool:
    """Tell whether a function can be called with an argument of this name; yes if it does not tell."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return argument in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


# guardrails


def from_validator(validator: Any, *, metadata: Mapping[str, Any] | None = None) -> Checker:
    """Return a validator, or a whole guard, in the manner of guardrails as a checker.

    A validator is asked with `validate(answer, metadata)`, and answers with an object whose `outcome` is "pass" or
    "fail"; the `error_message` is the critique, and a `fix_value` is recorded as reasoning. A guard, which is what also
    has `parse`, is asked with `validate(answer)`, or `parse(answer)` where there is no `validate`, and answers with an
    object that has `validation_passed`. Both may be async.

    The answer itself is judged: if a guard passes it only with a corrected text, it fails. Let validators be made with
    `on_fail="noop"`, so that nothing is corrected or raised; an exception is a checker that crashed, not a verdict.

    Args:
        validator: The validator or guard.
        metadata: What the validator needs beyond the answer; each call is given a copy.

    Raises:
        SettingsError: If `validator` has neither a method `validate` nor `parse`.

    Example:
        ```python
        from types import SimpleNamespace

        from correction_graphs import CheckRequest
        from correction_graphs.checkers.libraries import from_validator


        class TwoWords:
            def validate(self, value, metadata):
                if len(value.split()) == 2:
                    return SimpleNamespace(outcome="pass")
                return SimpleNamespace(outcome="fail", error_message="must be exactly two words", fix_value=None)


        checker = from_validator(TwoWords())
        assert checker.invoke(CheckRequest(messages=(), answer="Canberra, Australia")).passed
        assert checker.invoke(CheckRequest(messages=(), answer="Canberra")).critique == "must be exactly two words"
        ```
    """
    ask = _way_to_ask(validator, metadata)
    name = str(getattr(validator, "rail_alias", "") or type(validator).__name__)

    def read(outcome: object, request: CheckRequest) -> Verdict:
        return validation_verdict(outcome, name, request.answer)

    return FunctionChecker(lambda request: ask(request.answer), name=name, read=read)


def validation_verdict(outcome: Any, name: str, answer: str) -> Verdict:
    """Return what a validator or guard returned about `answer` as a verdict.

    Raises:
        TypeError: If it is neither the result of a validator nor that of a guard.
    """
    if hasattr(outcome, "validation_passed"):
        return _guard_verdict(outcome, name, answer)
    stated = getattr(outcome, "outcome", None)
    if stated == "pass":
        return Verdict(passed=True)
    if stated == "fail":
        fix = getattr(outcome, "fix_value", None)
        return Verdict(
            passed=False,
            critique=_text(getattr(outcome, "error_message", None)) or _unexplained(name),
            reasoning="" if fix is None else f"fix_value: {fix}",
        )
    raise TypeError(
        f"validator {name!r} returned {shown(outcome)}; a validator returns an object with `outcome`, 'pass' or "
        "'fail', and a guard one with `validation_passed`"
    )


def _guard_verdict(outcome: Any, name: str, answer: str) -> Verdict:
    passed = plain(outcome.validation_passed)
    if passed is not None and not isinstance(passed, bool):
        raise TypeError(f"guard {name!r} returned validation_passed={shown(passed)}; it is True, False or None")
    reasons = _guard_reasons(outcome)
    validated = getattr(outcome, "validated_output", None)
    corrected = isinstance(validated, str) and validated.strip() != answer.strip()
    if passed is None:
        return Verdict(passed=None, reasoning=reasons)
    if passed and not reasons and not corrected:
        return Verdict(passed=True)
    return Verdict(
        passed=False,
        critique=reasons or _unexplained(name),
        reasoning=f"validated_output: {validated}" if corrected else "",
    )


def _guard_reasons(outcome: Any) -> str:
    """Return why a guard did not pass a text, each reason once."""
    failures = [
        *(
            _text(getattr(each, "failure_reason", None))
            for each in getattr(outcome, "validation_summaries", None) or ()
        ),
        *(
            _text(getattr(each, "error_message", None))
            for each in getattr(getattr(outcome, "reask", None), "fail_results", None) or ()
        ),
    ]
    reasons = list(dict.fromkeys(filter(None, failures))) or [_text(getattr(outcome, "error", None))]
    return "\n".join(filter(None, reasons))


def _way_to_ask(validator: Any, metadata: Mapping[str, Any] | None) -> Callable[[str], Any]:
    validate: Any = getattr(validator, "validate", None)
    parse: Any = getattr(validator, "parse", None)
    if isinstance(validator, type) or not (callable(validate) or callable(parse)):
        raise SettingsError(
            f"`validator` is {validator!r}; give an object with a method `validate(value, metadata)`, or a guard"
        )
    if callable(parse):
        guard = validate if callable(validate) else parse
        return lambda answer: guard(answer) if metadata is None else guard(answer, metadata=dict(metadata))
    return lambda answer: validate(answer, dict(metadata or {}))


def _text(words: object) -> str:
    return "" if words is None else str(words).strip()


def _unexplained(name: str) -> str:
    return f"The answer did not pass the check {name!r}."
