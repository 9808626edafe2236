"""Other ways to tell how good a text is: a function, a LangChain runnable, or one of our checkers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import convert_to_messages
from langchain_core.runnables import Runnable
from langgraph.errors import GraphBubbleUp

from correction_graphs.backends.base import RewindableBackend
from correction_graphs.checkers.adapters import require_one_argument, run_awaitable
from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.outcomes import plain, shown
from correction_graphs.errors import CorrectionError, JudgeError, SettingsError
from correction_graphs.prompts import Template
from correction_graphs.rain.judge import UNKNOWN, Candidate, SelfEvaluation, Value, ValueFunction
from correction_graphs.rain.steps import Call, Steps
from correction_graphs.results import Verdict

ValueOutcome = float | bool | Verdict | Value | None
ValueLike = (
    ValueFunction
    | str
    | Path
    | Template
    | Checker
    | Runnable[str, Any]
    | Callable[[str], ValueOutcome | Awaitable[ValueOutcome]]
)


def as_value_function(given: ValueLike) -> ValueFunction:
    """Return what judges the texts of a search.

    Args:
        given: One of
            - a name or file of a template, such as "harmless" or "truthful@zh", for `SelfEvaluation` by the model;
            - a function of the reply's text, sync or async;
            - a LangChain runnable of the reply's text; all texts of a step are one `batch`;
            - a checker, such as `LLMCritic(model)`, which also sees the conversation; likewise in one `batch`;
            - a `SelfEvaluation`, or anything else with a method `session`, which is returned as it is.

    | returned           | value                                                                                    |
    |--------------------|------------------------------------------------------------------------------------------|
    | a number           | itself; from -1 to 1                                                                     |
    | `True`, `False`    | 1, -1                                                                                    |
    | `None`             | unknown, which counts as 0                                                               |
    | `Verdict`          | passed 1, failed -1, None unknown; a score from 0 to 1 counts as well: passed `score`,   |
    |                    | failed `score - 1`, None `2 * score - 1`, so that no failed text is above one that passed |
    | `Value`            | itself                                                                                   |

    Scores outside 0 to 1 have no known scale and do not count. Replies are judged while they are written, so most texts
    break off. An empty one is unknown, and nobody is asked; no text is judged twice in a conversation.

    Raises:
        SettingsError: If `given` is none of these.
        TemplateError: If it names a template that cannot judge.

    Example:
        ```python
        from correction_graphs.rain.judge import Candidate
        from correction_graphs.rain.steps import drive
        from correction_graphs.rain.values import as_value_function
        from correction_graphs.testing import ToyBackend


        def brevity(text: str) -> float:
            return max(-1.0, 1 - len(text) / 20)


        backend = ToyBackend()
        session = as_value_function(brevity).session(backend, [{"role": "user", "content": "Who?"}])
        (value,) = drive(session.evaluate([Candidate(tokens=(89, 111, 117), text="You")]), backend)
        assert value.value == 0.85
        ```
    """
    if isinstance(given, Checker):
        return _External(given.get_name(), given.batch, given.abatch, with_messages=True)
    if isinstance(given, BaseLanguageModel):
        raise SettingsError(
            f"the value function is the model {given.get_name()!r}, which writes texts and no values; "
            "give LLMCritic(model) to have it judge with a template"
        )
    if isinstance(given, Runnable):
        return _External(given.get_name(), given.batch, given.abatch)
    if isinstance(given, str | Path | Template):
        return SelfEvaluation(given)
    if isinstance(given, ValueFunction) and not isinstance(given, type):
        return given
    if callable(given) and not isinstance(given, type):
        require_one_argument("the value function", given, "the text of a reply")
        function = _Function(given)
        return _External(str(getattr(given, "__name__", type(given).__name__)), function.batch, function.abatch)
    raise SettingsError(
        f"the value function is {shown(given)}; give the name of a template such as 'harmless', a SelfEvaluation, "
        "a function of a text, a runnable of a text, or a checker"
    )


def read_value(outcome: object, name: str, text: str) -> Value:
    """Return what a value function returned as a `Value`; see `as_value_function`.

    Args:
        outcome: What was returned.
        name: Who returned it, for messages.
        text: What it was returned for, likewise.

    Raises:
        JudgeError: If it is nothing of this kind. Numbers outside -1 to 1 are the search's to refuse, or to count as
            unknown: see `RainSettings.on_bad_value`.
    """
    outcome = plain(outcome)
    if outcome is None:
        return UNKNOWN
    if isinstance(outcome, Verdict):
        return _of_verdict(outcome)
    if isinstance(outcome, bool):
        return Value(1.0 if outcome else -1.0)
    if isinstance(outcome, Value):
        return outcome
    if isinstance(outcome, Real):
        return Value(float(outcome))
    raise JudgeError(
        f"the value function {name!r} returned {shown(outcome)} for the text {shown(text)}; a value is a number from "
        "-1 to 1, True or False, a Verdict, or None where it is unknown"
    )


def _of_verdict(verdict: Verdict) -> Value:
    details = {"verdict": verdict.model_dump(mode="json", exclude_defaults=True)}
    score = verdict.score if verdict.score is not None and 0 <= verdict.score <= 1 else None
    if verdict.passed is None:
        return Value(0.0 if score is None else 2 * score - 1, known=score is not None, details=details)
    if score is None:
        return Value(1.0 if verdict.passed else -1.0, details=details)
    return Value(score if verdict.passed else score - 1, details=details)


class _Function(NamedTuple):
    """A plain function, called for a list of texts, one after another."""

    function: Callable[[str], Any]

    def batch(self, texts: list[str]) -> list[Any]:
        outcomes = [self.function(text) for text in texts]
        if not any(map(inspect.isawaitable, outcomes)):
            return outcomes
        return run_awaitable(_all(outcomes))

    async def abatch(self, texts: list[str]) -> list[Any]:
        if inspect.iscoroutinefunction(self.function):
            return await _all([self.function(text) for text in texts])
        return await asyncio.to_thread(self.batch, texts)


async def _all(outcomes: Sequence[Any]) -> list[Any]:
    async def settled(outcome: Any) -> Any:
        return await outcome if inspect.isawaitable(outcome) else outcome

    return await asyncio.gather(*map(settled, outcomes))


class _External:
    """A value function that is asked outside the search's model, with all new texts of a step at once."""

    def __init__(
        self,
        name: str,
        batch: Callable[[list[Any]], list[Any]],
        abatch: Callable[[list[Any]], Awaitable[list[Any]]],
        *,
        with_messages: bool = False,
    ) -> None:
        self.name = name
        self.batch = batch
        self.abatch = abatch
        self.with_messages = with_messages

    def __repr__(self) -> str:
        return f"<value function {self.name!r}>"

    def session(self, backend: RewindableBackend, messages: Sequence[dict[str, str]]) -> _ExternalSession:  # noqa: ARG002
        """Begin to judge replies to `messages`."""
        return _ExternalSession(self, messages)


class _ExternalSession:
    prompt_tokens = question_tokens = 0  # nothing of it is in the search's model

    def __init__(self, function: _External, messages: Sequence[dict[str, str]]) -> None:
        self.name = function.name
        self._function = function
        self._messages = tuple(convert_to_messages(messages)) if function.with_messages else ()
        self._values: dict[str, Value] = {}

    def evaluate(self, candidates: Sequence[Candidate]) -> Steps[list[Value]]:
        """Return the value of each candidate, in order.

        Raises:
            JudgeError: If the function raised, or returned something that is no value.
        """
        texts = [candidate.text for candidate in candidates]
        new = [text for text in dict.fromkeys(texts) if text.strip() and text not in self._values]
        if new:
            function, asked = self._function, self._asked(new)
            try:
                outcomes = yield Call(lambda: function.batch(asked), lambda: function.abatch(asked))
            except (CorrectionError, GraphBubbleUp):  # which say it themselves; an interrupt is no failure
                raise
            except Exception as error:
                raise JudgeError(
                    f"the value function {function.name!r} raised while judging {len(new)} texts, "
                    f"the first of which is {shown(new[0])}: {error}"
                ) from error
            for text, outcome in zip(new, outcomes, strict=True):
                self._values[text] = read_value(outcome, function.name, text)
        return [self._values.get(text, UNKNOWN) for text in texts]

    def close(self) -> None:
        """Nothing is held."""

    def _asked(self, texts: list[str]) -> list[Any]:
        if not self._function.with_messages:
            return texts
        return [CheckRequest(messages=self._messages, answer=text) for text in texts]
