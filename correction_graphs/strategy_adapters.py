"""Turning what users give as `strategy`, a name, a function or a runnable, into one thing that a graph can call."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig, run_in_executor

from correction_graphs.checkers.adapters import require_one_argument, run_awaitable
from correction_graphs.checkers.base import Checker
from correction_graphs.errors import SettingsError
from correction_graphs.models import AnswerModel
from correction_graphs.prompts import Template
from correction_graphs.ranked import Ranked
from correction_graphs.strategies import STRATEGIES, Opening, RevisionRequest, Strategy, StrategyName, read_context

AsyncStrategy = Callable[[RevisionRequest], Awaitable[Sequence[AnyMessage]]]
StrategyLike = StrategyName | Strategy | AsyncStrategy | Runnable[RevisionRequest, Any]
"""What may be given as `strategy`: a name; a function from `RevisionRequest` to messages, sync or async; or a LangChain
runnable that does the same, such as `Ranked`."""


@dataclass(frozen=True)
class BoundStrategy:
    """A strategy, ready to be called. Built by `as_strategy`.

    Attributes:
        name: What results call it.
        role: The role that the template must have for it.
        given: The function or runnable.
    """

    name: str
    role: str | None
    given: Strategy | AsyncStrategy | Runnable[RevisionRequest, Any]

    def invoke(self, request: RevisionRequest, config: RunnableConfig | None = None) -> tuple[AnyMessage, ...]:
        """Return what the next answer is written from; an async function runs in an event loop of its own.

        Raises:
            TypeError: If the strategy returned something else than messages.
            ValueError: If it returned none.
        """
        if isinstance(self.given, Runnable):
            return read_context(self.given.invoke(request, config))
        context = self.given(request)
        return read_context(run_awaitable(context) if inspect.isawaitable(context) else context)

    async def ainvoke(self, request: RevisionRequest, config: RunnableConfig | None = None) -> tuple[AnyMessage, ...]:
        """Return what the next answer is written from; a sync function runs in a worker thread. Raises as `invoke`."""
        if isinstance(self.given, Runnable):
            return read_context(await self.given.ainvoke(request, config))
        if inspect.iscoroutinefunction(self.given):
            return read_context(await self.given(request))
        context = await run_in_executor(config, self.given, request)
        return read_context(await context if inspect.isawaitable(context) else context)

    def opening(self, messages: Sequence[AnyMessage], template: Template) -> Sequence[AnyMessage]:
        """Return what the first answer is written from: the conversation, unless the strategy has a say in it."""
        return self.given.opening(messages, template) if isinstance(self.given, Opening) else messages


def as_strategy(strategy: StrategyLike, *, model: AnswerModel, checker: Checker) -> BoundStrategy:
    """Return what was given as `strategy`, ready to be called.

    Args:
        strategy: See `StrategyLike`.
        model: The model of the graph, for strategies that need one and have none.
        checker: The checker of the graph, likewise.

    Raises:
        SettingsError: If it is not a strategy.
    """
    if strategy == "ranked":
        strategy = Ranked()
    if isinstance(strategy, Ranked):
        strategy = strategy.completed(model=model, checker=checker)
    if isinstance(strategy, BaseLanguageModel):
        raise SettingsError(
            f"`strategy` is the model {strategy.get_name()!r}, which does not take a RevisionRequest; "
            "give a function that makes messages of one, or calls the model with them"
        )
    if isinstance(strategy, Runnable):
        return BoundStrategy(strategy.get_name(), getattr(strategy, "role", None), strategy)
    if callable(strategy) and not isinstance(strategy, type):
        require_one_argument("strategy", strategy, "a RevisionRequest")
        name = getattr(strategy, "__name__", type(strategy).__name__)
        return BoundStrategy(name, getattr(strategy, "role", None), strategy)
    if strategy not in tuple(STRATEGIES):  # a mapping would want it hashable
        names = ", ".join(map(repr, get_args(StrategyName)))
        raise SettingsError(
            f"`strategy` is {strategy!r}; it is one of {names}, or a function from RevisionRequest to messages"
        )
    function, role = STRATEGIES[strategy]
    return BoundStrategy(strategy, role, function)
