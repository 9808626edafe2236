"""Everything this package raises on purpose.

CorrectionError
    SettingsError(ValueError)          an argument outside its range, found when a graph or model is built
    TemplateError(ValueError)          a prompt template that cannot be loaded, or does not fit its use
    ConversationError(ValueError)      messages that no answer can be written to
    ModelFileError(ValueError)         a model file that is missing, broken, or not what it should be
    ContextLengthError(ValueError)     more tokens than the model's context holds
        SearchContextError             likewise, of a prompt with its judge and a first token set
    MissingExtraError(ImportError)     an optional dependency is not installed; says which to install
    BackendError(RuntimeError)         the inference engine failed, or was used after it was closed
    BudgetExceededError(RuntimeError)  raised inside a step instead of a model call that the budget does not allow
    RunError(RuntimeError)             a run stopped on the way; `.result` has all that was done until then
        GenerationError                the model raised, or returned nothing, and there is no answer to fall back on
        CheckerError                   the checker raised, and the policy is to stop
        StrategyError                  the strategy raised, or returned something else than messages
        FilterError                    the filter failed, or wrote what cannot be used, and the policy is to stop
    SearchError(RuntimeError)          a RAIN search stopped on the way; `.result` has the text until then
    JudgeError(ValueError)             a value function raised, or returned what is no value

Each also derives from a built-in class, so that LangGraph's default retry policy does not repeat what cannot succeed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError

    from correction_graphs.results import CacResult, RainResult, S2AResult


def validation_problems(error: ValidationError, *, whole: str = "", known: Iterable[str] = ()) -> str:
    """Say in one line what pydantic found wrong, and where.

    Args:
        error: What pydantic raised.
        whole: What to name as the place of a problem that is not one field's.
        known: The names there are, told where an unknown one was given.
    """
    names = f"unknown; known are {', '.join(known)}"
    places = [
        (".".join(map(str, found["loc"])) or whole, names if known and _unknown(found) else found["msg"])
        for found in error.errors()
    ]
    return "; ".join(f"{place}: {problem}" for place, problem in places)


def _unknown(found: Mapping[str, Any]) -> bool:
    """Whether a problem that pydantic found is the name of a field that there is not."""
    return bool(found["type"] == "extra_forbidden" and len(found["loc"]) == 1)


def words(error: BaseException) -> str:
    """Say in one line what an error says: its kind, and its text if it has one."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def carry(error: BaseException, result: object) -> None:
    """Put all that was done until then on an error, as `.result`; also on those that are not ours, such as Ctrl-C."""
    cast("Any", error).result = result


class CorrectionError(Exception):
    """Base of every error this package raises on purpose.

    Example:
        ```python
        from correction_graphs import CorrectionError, create_cac_graph
        from correction_graphs.testing import ScriptedChatModel

        graph = create_cac_graph(ScriptedChatModel(["Sydney."]), checker=lambda request: 1 / 0)
        try:
            graph.invoke({"messages": [("user", "What is the capital of Australia?")]})
        except CorrectionError as error:
            assert error.result.rounds[0].answer == "Sydney."  # nothing that was computed is lost
        ```
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # By what it is, not by the arguments it was made with: errors cross processes, and are copied.
        return _revived, (type(self), self.args, self.__dict__)


def _revived(kind: type[CorrectionError], args: tuple[Any, ...], fields: dict[str, Any]) -> CorrectionError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class SettingsError(CorrectionError, ValueError):
    """An argument is outside what is allowed; found before any model is called."""


class TemplateError(CorrectionError, ValueError):
    """A prompt template cannot be found or read, or lacks what its use requires."""


class ConversationError(CorrectionError, ValueError):
    """The messages given are not something a model can answer."""


class ModelFileError(CorrectionError, ValueError):
    """A model file is missing, truncated, or not a GGUF file."""


class ContextLengthError(CorrectionError, ValueError):
    """A prompt does not fit into the model's context."""

    def __init__(self, tokens: int, limit: int) -> None:
        self.tokens = tokens
        self.limit = limit
        super().__init__(
            f"the text is {tokens} tokens long, but this model's context holds {limit}; "
            "shorten it, or load the model with a larger `n_ctx`"
        )


class SearchContextError(ContextLengthError):
    """The context holds neither prompt nor judge together with a first token set."""

    def __init__(self, *, prompt: int, judge: int, reply: int, limit: int) -> None:
        super().__init__(max(prompt, judge) + reply, limit)
        message = (
            f"this search needs {prompt} tokens for the prompt, {judge} for the judge's own, and {reply} for a token "
            f"set after each of them, but the model's context holds {limit}; shorten the prompt, or load the model "
            "with a larger `n_ctx`"
        )
        self.args = (message,)


class MissingExtraError(CorrectionError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, feature: str, *, extra: str) -> None:
        self.extra = extra
        super().__init__(f'{feature} needs an optional dependency: pip install "correction-graphs[{extra}]"')


class BackendError(CorrectionError, RuntimeError):
    """The inference engine refused a step, or was used after it was closed."""


class BudgetExceededError(CorrectionError, RuntimeError):
    """The budget allows no further model call: a limit is reached, or nobody can tell what the call would cost.

    Raised where the call was to begin. Graphs of this package turn it into the status "budget".
    """


class RunError(CorrectionError, RuntimeError):
    """A run stopped before it had an answer to return.

    Attributes:
        result: All that was finished until then, each round or each filtered text; nothing that was written is lost.
    """

    result: CacResult | S2AResult

    def __init__(self, message: str, *, result: CacResult | S2AResult) -> None:
        self.result = result
        super().__init__(message)


class GenerationError(RunError):
    """The model raised, or returned empty messages only, so there is no answer."""


class CheckerError(RunError):
    """The checker raised, and `on_checker_error` is "raise". The answers are in `.result.rounds`."""

    result: CacResult


class StrategyError(RunError):
    """The function given as `strategy` raised, or did not return messages. The answers are in `.result.rounds`."""

    result: CacResult


class FilterError(RunError):
    """The filter failed, or what it wrote cannot be used, and `on_filter_failure` is "raise".

    What became of each text until then is in `.result.texts`.
    """

    result: S2AResult


class JudgeError(CorrectionError, ValueError):
    """A value function raised, or returned something that is not a value from -1 to 1."""


class SearchError(CorrectionError, RuntimeError):
    """A RAIN search stopped before its reply was complete, most often because its value function failed.

    Attributes:
        result: The text so far, and every token set of it.
    """

    def __init__(self, message: str, *, result: RainResult) -> None:
        self.result = result
        super().__init__(message)
