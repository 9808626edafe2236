"""Reading what a checking function returned: strictly, so that nothing passes that did not say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from pydantic import ValidationError

from correction_graphs.errors import SettingsError, validation_problems
from correction_graphs.results import Verdict

CheckOutcome = Verdict | bool | float | str | Mapping[str, Any] | None

LONGEST_LABEL = 20
"""A text without a space that is no longer than this could be a label such as "pass"; a critique is a sentence."""


def read_outcome(outcome: object, name: str, *, threshold: float | None = None, critique: str | None = None) -> Verdict:
    """Return what a checker named `name` returned as a `Verdict`.

    | returned               | verdict                                                                          |
    |------------------------|----------------------------------------------------------------------------------|
    | `Verdict`              | as it is                                                                         |
    | `True`, `False`        | passed, failed                                                                   |
    | a number               | its score; passed if it is at least `threshold`, unknown if it is not a number   |
    | a text                 | failed, and the text is the critique; an empty text or a single word is an error |
    | a dict                 | the fields of a `Verdict`, `passed` among them, each of its exact type           |
    | `None`                 | unknown                                                                          |

    Scalars of NumPy and the like count as the Python values they hold.

    Args:
        outcome: What was returned.
        name: Who returned it, for error messages.
        threshold: The lowest score that passes. Without it, a number is an error.
        critique: What is told about an answer that failed if nothing else is said about it.

    Raises:
        TypeError: If it is nothing of this kind.
    """
    verdict = _verdict(plain(outcome), name, threshold)
    if critique and verdict.passed is False and not verdict.critique.strip():
        verdict = verdict.model_copy(update={"critique": critique})
    return verdict


def plain(value: object) -> object:
    """Return the Python value of a scalar of NumPy, PyTorch and the like; anything else as it is."""
    if getattr(value, "shape", None) == () and callable(item := getattr(value, "item", None)):
        held: object = item()
        return held
    return value


def check_threshold(threshold: float | None) -> None:
    """Raise unless `threshold` is None or a number.

    Raises:
        SettingsError: If it is not.
    """
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not math.isfinite(threshold):
        raise SettingsError(f"`threshold` is {threshold!r}; give the lowest score that passes, a finite number")


def scored(score: float, threshold: float) -> Verdict:
    """Return the verdict that a score amounts to. Not-a-number is unknown; an infinite one counts, but has no rank."""
    if math.isnan(score):
        return Verdict(passed=None, reasoning="the score is not a number")
    return Verdict(passed=score >= threshold, score=score if math.isfinite(score) else None)


_LONGEST_SHOWN = 200


def shown(value: object) -> str:
    """Return a value as it stands in an error message: never a megabyte of it."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… ({len(text)} characters)"


def _verdict(outcome: object, name: str, threshold: float | None) -> Verdict:
    if isinstance(outcome, Verdict):
        return outcome
    if outcome is None:
        return Verdict(passed=None, reasoning=f"{name} returned None")
    if isinstance(outcome, bool):
        return Verdict(passed=outcome)
    if isinstance(outcome, Real):
        if threshold is None:
            raise TypeError(
                f"checker {name!r} returned {shown(outcome)}, a score, and it was not said which scores pass; "
                "give `threshold`, or return a bool or Verdict(passed=..., score=...)"
            )
        return scored(float(outcome), threshold)
    if isinstance(outcome, str):
        return _from_text(outcome, name)
    if isinstance(outcome, Mapping):
        return _from_fields(outcome, name)
    raise _wrong(outcome, name)


def _from_text(text: str, name: str) -> Verdict:
    words = text.split()
    if not words or (len(words) == 1 and len(words[0]) <= LONGEST_LABEL):
        raise TypeError(
            f"checker {name!r} returned {text!r}; a text is a critique, and says that the answer failed, but labels "
            "are not guessed at: return True, False, a critique in a sentence, or Verdict(passed=..., critique=...)"
        )
    return Verdict(passed=False, critique=text.strip())


def _from_fields(fields: Mapping[Any, Any], name: str) -> Verdict:
    try:
        return Verdict.model_validate({key: plain(value) for key, value in fields.items()}, strict=True)
    except ValidationError as error:
        faults = validation_problems(error)
        raise TypeError(
            f"checker {name!r} returned {shown(dict(fields))}, which is no Verdict ({faults}); a dict has `passed`, "
            "which is True, False or None, and may have `critique`, `score` and `reasoning`"
        ) from error


def _wrong(outcome: object, name: str) -> TypeError:
    return TypeError(
        f"checker {name!r} returned {shown(outcome)}, of type {type(outcome).__name__}; a checker returns "
        "Verdict(passed=..., critique=...), a bool, a score, a critique, a dict with the fields of a Verdict, or None"
    )
