"""Turning what users give as `strategy`, a name, a function or a runnable, into one thing that a graph can call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig

from correction_graphs.arguments import expect
from correction_graphs.checkers.adapters import acalled, called, require_one_argument
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
        return read_context(called(self.given, request))

    async def ainvoke(self, request: RevisionRequest, config: RunnableConfig | None = None) -> tuple[AnyMessage, ...]:
        """Return what the next answer is written from; a sync function runs in a worker thread. Raises as `invoke`."""
        if isinstance(self.given, Runnable):
            return read_context(await self.given.ainvoke(request, config))
        return read_context(await acalled(self.given, request, config))

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
    expect("strategy", strategy, get_args(StrategyName), also=", or a function from RevisionRequest to messages")
    name = cast("StrategyName", strategy)
    return BoundStrategy(name, STRATEGIES[name][1], STRATEGIES[name][0])
