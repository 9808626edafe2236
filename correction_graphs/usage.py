"""Counting what model calls cost, wherever inside a step they happen, and refusing those that a budget does not allow.

`UsageMeter` counts one step. `SharedBudget` is a meter that users make and pass to several runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar
from uuid import UUID
from weakref import WeakSet

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase

from correction_graphs.budget import Budget, Price
from correction_graphs.errors import BudgetExceededError, SettingsError
from correction_graphs.results import Usage


class UsageMeter(BaseCallbackHandler):
    """A callback that adds up model calls and the tokens they report, nested calls included.

    A call counts from its start, so that calls made at the same time cannot exceed a limit together; once, through
    however many managers the meter hears of it; and not at all if another meter refuses it.

    Args:
        budget: Asked before each call; a call that it does not allow is not made, and raises `BudgetExceededError`.
        before: What was spent of the budget before this meter was made.
        shared: An account that every call is drawn on as well, whether or not it hears of the call otherwise.
    """

    run_inline = True  # counts are read as soon as the call returns
    raise_error = True  # or LangChain would log the refusal of a call, and make it

    _meters: ClassVar[WeakSet[UsageMeter]] = WeakSet()
    _meters_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self, budget: Budget | None = None, before: Usage | None = None, shared: SharedBudget | None = None
    ) -> None:
        self.budget = budget
        self._shared = shared
        self._before = before or Usage()
        self._lock = threading.Lock()
        self._spent = Usage(cost=0.0 if budget and budget.prices else None)
        self._running: dict[UUID, Price | None] = {}
        self._began: float | None = time.perf_counter()
        with self._meters_lock:
            self._meters.add(self)

    @property
    def usage(self) -> Usage:
        """What was spent since the meter was made. A call under way is counted; its tokens are when it ends."""
        with self._lock:
            return self._usage()

    @property
    def spent(self) -> Usage:
        """What counts against the budget: `usage`, and what was spent before."""
        return self._before + self.usage

    def check_budget(self) -> None:
        """Raise if the budget allows no further call.

        Raises:
            BudgetExceededError: Says which limit is reached.
        """
        with self._lock:
            reason = self._exhausted()
        if reason:
            raise BudgetExceededError(reason)
        if self._shared is not None:
            self._shared.check_budget()

    def on_chat_model_start(self, *_: Any, run_id: UUID, metadata: Mapping[str, Any] | None = None, **__: Any) -> None:
        """A call is to begin."""
        self._begin(run_id, metadata)

    def on_llm_start(self, *_: Any, run_id: UUID, metadata: Mapping[str, Any] | None = None, **__: Any) -> None:
        """A call of a model that is not a chat model is to begin."""
        self._begin(run_id, metadata)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Add what a finished call took."""
        self._end(run_id, response)

    def on_llm_error(
        self,
        error: BaseException,  # noqa: ARG002  (LangChain's signature)
        *,
        run_id: UUID,
        response: LLMResult | None = None,
        **_: Any,
    ) -> None:
        """Add what is known of a failed call."""
        self._end(run_id, response or LLMResult(generations=[]), failed=True)

    def _begin(self, run_id: UUID, metadata: Mapping[str, Any] | None) -> None:
        name = (metadata or {}).get("ls_model_name")
        with self._lock:
            if run_id in self._running:  # several managers can tell of one call
                return
            reason = self._exhausted() or (self.budget.unpriced(name) if self.budget else None)
            if not reason:
                self._running[run_id] = self.budget.price_of(name) if self.budget and name else None
                self._spent += Usage(model_calls=1)
        if reason:
            self._withdraw(run_id)
            raise BudgetExceededError(reason)
        if self._shared is not None:
            self._shared.on_llm_start(run_id=run_id, metadata=metadata)

    def _end(self, run_id: UUID, response: LLMResult, *, failed: bool = False) -> None:
        with self._lock:
            if run_id in self._running:
                took = _took(response, self._running.pop(run_id))
                self._spent += took.model_copy(update={"unreported_calls": 0}) if failed else took
        if self._shared is not None:
            self._shared._end(run_id, response, failed=failed)  # noqa: SLF001  (of this class)

    def _withdraw(self, run_id: UUID) -> None:
        """Have every meter forget a call that will not be made; LangChain tells nobody that it will not."""
        with self._meters_lock:
            meters = list(self._meters)
        for meter in meters:
            with meter._lock:  # noqa: SLF001  (of this class)
                if run_id in meter._running:  # noqa: SLF001
                    del meter._running[run_id]  # noqa: SLF001
                    meter._spent += Usage(model_calls=-1)  # noqa: SLF001

    def _exhausted(self) -> str | None:
        if self._began is None:
            self._began = time.perf_counter()
        return self.budget.exhausted(self._before + self._usage()) if self.budget else None

    def _usage(self) -> Usage:
        seconds = 0.0 if self._began is None else time.perf_counter() - self._began
        return self._spent.model_copy(update={"seconds": seconds})


class SharedBudget(UsageMeter):
    """One account for several runs, nested and simultaneous ones included, with all that they call.

    Pass it as `context={"budget": shared}` to a graph of this package, or as `config={"callbacks": [shared]}` to any
    LangChain code. Pass the same object everywhere: a call that it hears of twice counts once. It never fills up again.

    Args:
        budget: The limits of all runs together; `seconds` is wall-clock time since the first use.

    Raises:
        SettingsError: If it is not a `Budget`.

    Example:
        ```python
        from correction_graphs import Budget
        from correction_graphs.errors import BudgetExceededError
        from correction_graphs.testing import ScriptedChatModel
        from correction_graphs.usage import SharedBudget

        shared = SharedBudget(Budget(model_calls=1))
        model = ScriptedChatModel(["Canberra.", "Sydney."])
        model.invoke("The capital of Australia?", config={"callbacks": [shared]})
        assert shared.remaining == {"model_calls": 0}
        try:
            model.invoke("Are you sure?", config={"callbacks": [shared]})
        except BudgetExceededError as error:
            assert str(error) == "the budget of 1 model calls is used up"
        ```
    """

    budget: Budget

    def __init__(self, budget: Budget) -> None:
        if not isinstance(budget, Budget):
            raise SettingsError(f"`budget` is {budget!r}; give a Budget, such as Budget(model_calls=20)")
        super().__init__(budget)
        self._began = None

    @property
    def remaining(self) -> dict[str, float]:
        """What is left of each limit, by its name; 0 where it is used up."""
        return self.budget.remaining(self.spent)


def shared_budget(context: object) -> SharedBudget | None:
    """Return the `SharedBudget` under `budget` in a graph's run-time context: a mapping, or an object with fields.

    Raises:
        SettingsError: If there is a `Budget` there, which cannot be shared. Anything else there is the caller's own.
    """
    found = context.get("budget") if isinstance(context, Mapping) else getattr(context, "budget", None)
    if isinstance(found, Budget):
        raise SettingsError(
            "`budget` in the context is a Budget, which counts nothing; make one SharedBudget(Budget(...)) and pass it "
            "to every run that is to draw on it"
        )
    return found if isinstance(found, SharedBudget) else None


def require_price(budget: Budget | None, *models: Runnable[Any, Any]) -> None:
    """Find before anything is called that a budget has no price for a model.

    Args:
        budget: Whose prices are meant; without prices there is nothing to find.
        *models: Those to be called. One whose name cannot be told yet, such as an agent, is left to be found later.

    Raises:
        SettingsError: If the price of one is missing.
    """
    for model in models:
        name = model_name(model)
        if budget is not None and name is not None and (reason := budget.unpriced(name)):
            raise SettingsError(reason)


def model_name(model: Runnable[Any, Any], /, **settings: Any) -> str | None:
    """Return the name under which calls of a model will be reported to callbacks; None if that cannot be told.

    Args:
        model: A chat model, bare or wrapped by `bind`, `with_config` or the like.
        **settings: What it is to be called with; `model` there overrides the model's own.
    """
    if isinstance(model, RunnableBindingBase):
        given = (model.config.get("metadata") or {}).get("ls_model_name")
        return model_name(model.bound, **{**model.kwargs, **settings}) or given
    if not isinstance(model, BaseChatModel):
        return None
    return model._get_ls_params(**settings).get("ls_model_name")  # noqa: SLF001  (it is what callbacks are told)


def _took(response: LLMResult, price: Price | None) -> Usage:
    """Read what a call took; where it returned several answers, each reports the whole."""
    messages = (getattr(generation, "message", None) for generation in chain.from_iterable(response.generations))
    reported: Mapping[str, Any] = next(
        (told for message in messages if (told := getattr(message, "usage_metadata", None))), {}
    )
    counts = reported.get("input_tokens"), reported.get("output_tokens")
    from_cache = reported.get("total_cost") == 0  # so LangChain marks a reply that its own cache had
    usage = Usage(
        input_tokens=max(0, counts[0] or 0),  # some integrations fill in None, or -1
        output_tokens=max(0, counts[1] or 0),
        cached_tokens=max(0, (reported.get("input_token_details") or {}).get("cache_read") or 0),
        unreported_calls=int(None in counts and not from_cache),
    )
    return usage if price is None else usage.model_copy(update={"cost": 0.0 if from_cache else price.of(usage)})


def refusal_in(error: BaseException | None) -> BudgetExceededError | None:
    """Return the refusal that an error is, holds in its group, or was raised from; None if there is none.

    The error of a nested graph was raised from one. Of several calls made at the same time, one that was refused means
    that the others would have been.
    """
    if error is None or isinstance(error, BudgetExceededError):
        return error
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for part in (*parts, error.__cause__) if (found := refusal_in(part))), None)
