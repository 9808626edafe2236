"""Answers and verdicts that were given before, kept in LangGraph's cache by what was asked.

LangGraph can cache whole nodes, and its key is then made of message ids as well, so that the same question asked twice
is never found. A node served that way also sends no events and no tokens, and one that swallowed an error would
swallow it for good. So what is kept here is what models and critics said, by the content of what they were shown, and
the nodes run as ever. A cache that fails costs what it would have saved, and no answer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.cache.base import BaseCache
from langgraph.runtime import get_runtime
from pydantic import BaseModel

from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.critic import LLMCritic
from correction_graphs.models import AnswerModel, identity_of
from correction_graphs.results import Verdict

_log = logging.getLogger(__name__)


class _Cached(Runnable[Any, Any]):
    """Asks a runnable what was not asked before.

    Args:
        asked: The runnable.
        cache: Where its results are kept.
        identity: What runnables have in common that give the same results.
    """

    def __init__(self, asked: Runnable[Any, Any], cache: BaseCache[Any], identity: str) -> None:
        self.name = asked.get_name()
        self._asked = asked
        self._cache = cache
        self._identity = identity

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:  # noqa: A002
        if (key := self._key(input, config)) is None:
            return self._asked.invoke(input, config)
        try:
            found = self._cache.get([key])
            if key in found:
                return self.unpack(found[key])
        except Exception:  # noqa: BLE001  (whatever a cache's store raises)
            _log.warning(_UNREADABLE, exc_info=True)
        result = self._asked.invoke(input, config)
        try:
            if (kept := self.pack(result)) is not None:
                self._cache.set({key: (kept, None)})
        except Exception:  # noqa: BLE001  (likewise; the answer is there)
            _log.warning(_UNWRITABLE, exc_info=True)
        return result

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:  # noqa: A002
        if (key := self._key(input, config)) is None:
            return await self._asked.ainvoke(input, config)
        try:
            found = await self._cache.aget([key])
            if key in found:
                return self.unpack(found[key])
        except Exception:  # noqa: BLE001  (whatever a cache's store raises)
            _log.warning(_UNREADABLE, exc_info=True)
        result = await self._asked.ainvoke(input, config)
        try:
            if (kept := self.pack(result)) is not None:
                await self._cache.aset({key: (kept, None)})
        except Exception:  # noqa: BLE001  (likewise; the answer is there)
            _log.warning(_UNWRITABLE, exc_info=True)
        return result

    def _key(self, asked: Any, config: RunnableConfig | None) -> tuple[tuple[str, ...], str] | None:
        """Return where the result is kept; None if there is no telling what it depends on."""
        run = _run_of(config) if _heeds_run(self._asked) else None
        try:
            text = json.dumps([self._identity, _plain(self.content(asked)), _plain(run)])
        except _UntoldError:
            return None
        return ("correction_graphs", type(self).__name__), hashlib.sha256(text.encode()).hexdigest()

    @abstractmethod
    def content(self, asked: Any) -> Any:
        """Return what the result depends on, besides the run."""

    @abstractmethod
    def pack(self, result: Any) -> Any:
        """Return a result as plain data; None if it is not to be kept."""

    @abstractmethod
    def unpack(self, kept: Any) -> Any:
        """Return the result again."""


class CachedAnswers(_Cached):
    """A model that writes no answer twice. Empty answers are not kept."""

    def __init__(self, model: AnswerModel, cache: BaseCache[Any]) -> None:
        super().__init__(model, cache, identity_of(model.model))

    def content(self, asked: Sequence[BaseMessage]) -> Any:
        """Return what the messages say."""
        return _content_of(asked)

    def pack(self, result: AIMessage) -> Any:
        """Return the message as plain data; None if it is empty."""
        return message_to_dict(result) if result.content or result.tool_calls else None

    def unpack(self, kept: Any) -> AIMessage:
        """Return the message, with an id of its own: it may be said twice in a conversation."""
        (message,) = messages_from_dict([kept])
        return message.model_copy(update={"id": str(uuid4())})  # type: ignore[return-value]


class CachedVerdicts(_Cached):
    """A checker that judges no answer twice. Unknown verdicts are not kept."""

    def content(self, asked: CheckRequest) -> Any:
        """Return the conversation and its answers."""
        return [_content_of(asked.messages), asked.answer, [[done.answer, done.verdict] for done in asked.rounds]]

    def pack(self, result: Any) -> Any:
        """Return the verdict as plain data; None if it is unknown."""
        return result.model_dump() if isinstance(result, Verdict) and result.passed is not None else None

    def unpack(self, kept: Any) -> Verdict:
        """Return the verdict."""
        return Verdict.model_validate(kept)


def cached_verdicts(checker: Checker, cache: BaseCache[Any]) -> Runnable[CheckRequest, Verdict]:
    """Return a checker that judges no answer twice, if it is one whose verdicts can be kept; else the checker."""
    identity = checker.cache_identity()
    return checker if identity is None else CachedVerdicts(checker, cache, identity)


def _content_of(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Return what models are shown of messages: not ids, records of the call, and what tools keep aside."""
    aside = {"id", "response_metadata", "usage_metadata", "artifact"}
    return [{name: value for name, value in message if name not in aside} for message in messages]


def _heeds_run(asked: Runnable[Any, Any]) -> bool:
    """Tell whether a runnable may read the run's settings, as agents do. Chat models have theirs fixed."""
    if isinstance(asked, LLMCritic):
        return _heeds_run(asked.judge.given)
    if isinstance(asked, AnswerModel):
        return _heeds_run(asked.model)
    if isinstance(asked, RunnableBindingBase):
        return _heeds_run(asked.bound)
    return not isinstance(asked, BaseChatModel)


def _run_of(config: RunnableConfig | None) -> list[Any]:
    """Return what a run was started with, without what LangGraph adds to tell runs and threads apart."""
    configurable = (config or {}).get("configurable") or {}
    theirs = ("__", "checkpoint", "thread_id")
    given = {name: value for name, value in configurable.items() if not str(name).startswith(theirs)}
    try:
        return [given, get_runtime().context]
    except RuntimeError:  # outside of a graph
        return [given, None]


class _UntoldError(Exception):
    """A value cannot be told from others by what it looks like."""


def _plain(value: Any) -> Any:
    """Return a value as JSON that only equal values have in common.

    Raises:
        _UntoldError: If there is no telling.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        items = ([_plain(name), _plain(item)] for name, item in value.items())
        return {"items": sorted(items, key=json.dumps)}
    if isinstance(value, BaseCallbackHandler):  # such as a `SharedBudget`: it has no say in the answers
        return {"callbacks": []}
    return {type(value).__qualname__: _plain(_fields_of(value))}


def _fields_of(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise _UntoldError(type(value))


_UNREADABLE = "the cache could not be read, so the model is asked"
_UNWRITABLE = "the cache could not be written, so the same would be asked again"
