"""What the graphs share: checking what they are built with, counting and keeping quiet what their nodes call."""

from __future__ import annotations

from typing import Any, ClassVar

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langgraph.cache.base import BaseCache
from langgraph.config import get_stream_writer
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp
from langgraph.graph import END

from correction_graphs.budget import Budget
from correction_graphs.errors import SettingsError, carry
from correction_graphs.streaming import ANSWER_TAG
from correction_graphs.usage import UsageMeter


class Quietly:
    """Count what models say in here, and keep it out of the token stream: it may be rejected.

    That holds for models that the user's functions call without passing a config on, too.
    """

    __slots__ = ("_config", "_token")
    tag: ClassVar[str] = TAG_NOSTREAM

    def __init__(self, config: RunnableConfig | None, meter: UsageMeter) -> None:
        # What `merge_configs` does, for the two entries that change: it is a tenth of a run's time otherwise.
        inner = ensure_config() if config is None else config.copy()
        inner["callbacks"] = with_handler(inner.get("callbacks"), meter)
        inner["tags"] = [*(inner.get("tags") or ()), self.tag]
        self._config = inner

    def __enter__(self) -> RunnableConfig:
        self._token = var_child_runnable_config.set(self._config)
        return self._config

    def __exit__(self, *_: object) -> None:
        var_child_runnable_config.reset(self._token)


class Aloud(Quietly):
    """Count what a model says in here, and let it be heard as it is written: it is the answer."""

    __slots__ = ()
    tag: ClassVar[str] = ANSWER_TAG


class UnlessEnded(Runnable[Any, str]):
    """Edge to a node, or to the end of the run once a method's progress has ended.

    A plain function would do, but LangGraph would send it to a thread in each asynchronous run.
    """

    def __init__(self, progress: str, then: str) -> None:
        self.name = f"unless_ended_{then}"
        self._progress = progress
        self._then = then

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> str:  # noqa: A002, ARG002
        """Return where to go."""
        return END if input[self._progress].ended else self._then

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> str:  # noqa: A002
        """Return where to go."""
        return self.invoke(input, config)


def with_handler(callbacks: Callbacks, handler: BaseCallbackHandler) -> Callbacks:
    """Return callbacks that have one handler more, for nested calls as well."""
    if not isinstance(callbacks, BaseCallbackManager):
        return [*(callbacks or ()), handler]
    more = callbacks.copy()
    more.add_handler(handler, inherit=True)
    return more


def let_pass(error: BaseException, result: object) -> None:
    """Raise again what is not a failure: LangGraph's own signals, Ctrl-C, cancellation. The latter carry the result."""
    if isinstance(error, GraphBubbleUp):
        raise error
    if not isinstance(error, Exception):
        carry(error, result)
        raise error


def emit(kind: str, **data: Any) -> None:
    """Send a custom event; see `correction_graphs.events`."""
    get_stream_writer()({"type": kind, **data})


def require_budget(budget: object) -> None:
    """Raise unless this is a `Budget`, or None.

    Raises:
        SettingsError: If it is something else.
    """
    if budget is not None and not isinstance(budget, Budget):
        raise SettingsError(f"`budget` is {budget!r}; give a Budget, such as Budget(model_calls=6)")


def require_cache(cache: object) -> None:
    """Raise unless this is a cache of LangGraph, or None.

    Raises:
        SettingsError: If it is something else.
    """
    if cache is not None and not isinstance(cache, BaseCache):
        raise SettingsError(f"`cache` is {cache!r}; give a LangGraph cache, such as InMemoryCache()")
