"""Counting what model calls cost, wherever inside a step they happen."""

from __future__ import annotations

import threading
import time
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult

from correction_graphs.budget import Budget
from correction_graphs.errors import BudgetExceededError
from correction_graphs.results import Usage


class UsageMeter(BaseCallbackHandler):
    """A callback that adds up finished model calls and the tokens they report, nested calls included.

    Pass one per step in `callbacks`; `usage` is what was spent since it was made.

    Args:
        budget: Asked before each call; a call that it does not allow is not made, and raises `BudgetExceededError`.
        before: What was spent of the budget before this step.
    """

    run_inline = True  # counts are read as soon as the call returns
    raise_error = True  # or LangChain would log the refusal of a call, and make it

    def __init__(self, budget: Budget | None = None, before: Usage | None = None) -> None:
        self._budget = budget
        self._before = before or Usage()
        self._lock = threading.Lock()
        self._spent = Usage()
        self._began = time.perf_counter()

    @property
    def usage(self) -> Usage:
        """What was spent until now; `seconds` since the meter was made."""
        with self._lock:
            return self._spent.model_copy(update={"seconds": time.perf_counter() - self._began})

    def check_budget(self) -> None:
        """Raise if the budget allows no further call.

        Raises:
            BudgetExceededError: Says which limit is reached.
        """
        reason = self._budget and self._budget.exhausted(self._before + self.usage)
        if reason:
            raise BudgetExceededError(reason)

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        """A call is to begin."""
        self.check_budget()

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        """A call of a model that is not a chat model is to begin."""
        self.check_budget()

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Add a finished call."""
        call = Usage(model_calls=1)
        for generations in response.generations:
            for generation in generations:
                reported = (
                    getattr(generation.message, "usage_metadata", None)
                    if isinstance(generation, ChatGeneration)
                    else None
                )
                if reported:
                    call += Usage(
                        # Some integrations fill in None.
                        input_tokens=reported.get("input_tokens") or 0,
                        output_tokens=reported.get("output_tokens") or 0,
                        cached_tokens=(reported.get("input_token_details") or {}).get("cache_read") or 0,
                    )
        with self._lock:
            self._spent += call
