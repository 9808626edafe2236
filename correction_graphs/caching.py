"""Answers and verdicts that were given before, kept in LangGraph's cache by what was asked.

LangGraph can cache whole nodes, and its key is then made of message ids as well, so that the same question asked twice
is never found. A node served that way also sends no events and no tokens, and one that swallowed an error would
swallow it for good. So what is kept here is what models and critics said, by the content of what they were shown, and
the nodes run as ever.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import BaseCache

from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.models import AnswerModel, identity_of
from correction_graphs.results import Verdict


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
        key = self._key(input)
        found = self._cache.get([key])
        if key in found:
            return self.unpack(found[key])
        result = self._asked.invoke(input, config)
        if (kept := self.pack(result)) is not None:
            self._cache.set({key: (kept, None)})
        return result

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:  # noqa: A002
        key = self._key(input)
        found = await self._cache.aget([key])
        if key in found:
            return self.unpack(found[key])
        result = await self._asked.ainvoke(input, config)
        if (kept := self.pack(result)) is not None:
            await self._cache.aset({key: (kept, None)})
        return result

    def _key(self, asked: Any) -> tuple[tuple[str, ...], str]:
        text = json.dumps([self._identity, self.content(asked)], sort_keys=True, default=str)
        return ("correction_graphs", type(self).__name__), hashlib.sha256(text.encode()).hexdigest()

    @abstractmethod
    def content(self, asked: Any) -> Any:
        """Return what the result depends on, as plain data."""

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
        return [_content_of(asked.messages), asked.answer, [(done.answer, done.verdict) for done in asked.rounds]]

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


def _content_of(messages: Iterable[BaseMessage]) -> list[list[Any]]:
    """Return what messages say and who says it, without ids and metadata."""
    return [
        [
            message.type,
            message.name,
            message.content,
            getattr(message, "tool_calls", None),
            getattr(message, "tool_call_id", None),
        ]
        for message in messages
    ]
