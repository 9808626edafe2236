"""What chat models on a `RewindableBackend` have in common: everything but how the next text is found.

A subclass writes: it turns messages into pieces of text, the last of which says how it ended. From that follow
answering and streaming, sync and async, with what LangChain expects of a chat model.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, SkipValidation, ValidationError, field_validator

from correction_graphs.backends.base import RewindableBackend
from correction_graphs.errors import ConversationError, CorrectionError, SettingsError
from correction_graphs.threads import in_thread

_NOT_OURS = {"model", "stream"}  # what callers pass to any chat model, and which has no bearing here


class Piece(NamedTuple):
    """A piece of an answer. The last one has no text, but the usage and the metadata of the whole."""

    text: str
    usage: UsageMetadata | None = None
    metadata: dict[str, Any] | None = None


class LocalChatModel(BaseChatModel):
    """A chat model on a `RewindableBackend`.

    Attributes:
        backend: The loaded model; may be shared with others.
        max_tokens: The longest answer, in tokens.
        stop: Texts that end the answer and are not part of it.
        timeout: Seconds after which an answer is cut off; None for no limit.
        max_retries: Accepted as other chat models do; a local model has nothing to retry.
        api_key: Likewise; a local model needs none.
        streaming: Whether `invoke` streams to callbacks.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    per_call: ClassVar[frozenset[str]] = frozenset({"temperature", "seed", "max_tokens", "timeout"})
    """Settings that may also be given with a call."""

    backend: SkipValidation[RewindableBackend] = Field(exclude=True, repr=False)
    max_tokens: int | None = Field(default=512, ge=1)
    stop: list[str] | None = None
    timeout: float | None = Field(default=None, gt=0)
    max_retries: int | None = None
    api_key: Any = Field(default=None, exclude=True, repr=False)
    streaming: bool = False

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            causes = [e.get("ctx", {}).get("error") for e in error.errors()]
            for cause in causes:
                if isinstance(cause, CorrectionError):  # it says itself what is wrong
                    raise cause from None
            wrong = [self._problem(found) for found in error.errors()]
            raise SettingsError("; ".join(wrong)) from error

    @classmethod
    def _problem(cls, found: Mapping[str, Any]) -> str:
        """Say what pydantic found wrong."""
        name = ".".join(map(str, found["loc"]))
        if found["type"] == "missing":
            return f"`{name}` is missing; `{cls.__name__}.from_gguf(path)` loads a GGUF file"
        if found["type"] == "extra_forbidden":
            return f"`{name}` is no setting of {cls.__name__}; known are {', '.join(cls.model_fields)}"
        return f"`{name}` is {found['input']!r}: {found['msg']}" if name else str(found["msg"])

    @classmethod
    def from_gguf(
        cls,
        path: str | os.PathLike[str],
        *,
        n_ctx: int | None = None,
        n_sequences: int = 64,
        n_gpu_layers: int = -1,
        n_threads: int | None = None,
        exact: bool = False,
        trusted: bool = True,
        **settings: Any,
    ) -> Self:
        """Load a GGUF file.

        Args:
            path: The file.
            n_ctx: Tokens the context holds; by default what the model was trained for, at most 8,192.
            n_sequences: How many different ends of text the cache can hold.
            n_gpu_layers: Layers on the GPU, where llama.cpp was built for one; -1 for all.
            n_threads: CPU threads; by default all cores.
            exact: Less rounding, so that answers depend less on what else is computed; see `LlamaCppBackend`.
            trusted: False to open the file in a process of its own first, which a broken one may crash; likewise.
            **settings: Of the chat model: `temperature`, `max_tokens`, `seed`, …

        Raises:
            MissingExtraError: If llama-cpp-python is not installed.
            ModelFileError: If the file is missing or not a usable GGUF file.
            SettingsError: If a setting is unknown or outside its range.
        """
        from correction_graphs.backends.llama_cpp import LlamaCppBackend  # noqa: PLC0415  (an optional dependency)

        unknown = settings.keys() - cls.model_fields.keys()
        if unknown:
            raise SettingsError(f"unknown setting(s) {sorted(unknown)}; known are {sorted(cls.model_fields)}")
        return cls(
            backend=LlamaCppBackend(
                path,
                n_ctx=n_ctx,
                n_sequences=n_sequences,
                n_gpu_layers=n_gpu_layers,
                n_threads=n_threads,
                exact=exact,
                trusted=trusted,
            ),
            **settings,
        )

    @field_validator("backend")
    @classmethod
    def _check_backend(cls, value: Any) -> Any:
        if not isinstance(value, RewindableBackend):
            raise SettingsError(f"`backend` is {value!r}; give a RewindableBackend, or use `from_gguf(path)`")
        return value

    @property
    def provider(self) -> str:
        """What runs the model, as LangChain names it: what the backend says of itself, by default "llama.cpp"."""
        return str(getattr(self.backend, "provider", "llama.cpp"))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self.provider
        params.setdefault("ls_model_name", self.backend.name)
        return params

    def get_num_tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.backend.tokenize(text))

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self.backend.tokenize(text)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        return _as_result(list(self._write(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        return _as_result([piece async for piece in self._awrite(messages, stop, kwargs)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self._write(messages, stop, kwargs):
            yield _as_chunk(piece)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self._awrite(messages, stop, kwargs):
            yield _as_chunk(piece)

    def _write(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> Iterator[Piece]:
        return self._changed(kwargs).write(messages, self._stops(stop))

    def _awrite(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncIterator[Piece]:
        return self._changed(kwargs).awrite(messages, self._stops(stop))

    def _stops(self, stop: list[str] | None) -> list[str]:
        # A bare text is common, though not what LangChain's signature says.
        stops = [stop] if isinstance(stop, str) else self.stop if stop is None else stop
        return [each for each in stops or () if each]

    @abstractmethod
    def write(self, messages: Sequence[BaseMessage], stop: Sequence[str]) -> Iterator[Piece]:
        """Write the answer to `messages`, up to the first of the texts in `stop`; a generator."""

    def awrite(self, messages: Sequence[BaseMessage], stop: Sequence[str]) -> AsyncIterator[Piece]:
        """Write the answer as `write` does, by default in worker threads."""
        return _in_threads(self.write(messages, stop))

    def _changed(self, kwargs: dict[str, Any]) -> Self:
        unknown = kwargs.keys() - self.per_call - _NOT_OURS
        if unknown:
            raise SettingsError(
                f"{type(self).__name__} does not know the argument(s) {sorted(unknown)}; "
                f"per call it takes {sorted(self.per_call)} and `stop`"
            )
        changed = {name: value for name, value in kwargs.items() if name in self.per_call and value is not None}
        # A copy that is validated like the original.
        return type(self)(**{**dict(self), **changed}) if changed else self


class StopTexts:
    """Holds text back while it may be the beginning of a stop text."""

    def __init__(self, stops: Sequence[str] | None) -> None:
        self._stops = [stop for stop in stops or () if stop]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Return what can be shown now; sets `found` when a stop text is complete, and swallows it and the rest."""
        self._held += text
        at = min((i for stop in self._stops if (i := self._held.find(stop)) >= 0), default=None)
        if at is not None:
            self.found = True
            ready, self._held = self._held[:at], ""
            return ready
        longest = max(map(len, self._stops), default=1) - 1
        keep = next(
            (
                n
                for n in range(min(longest, len(self._held)), 0, -1)
                if any(stop.startswith(self._held[-n:]) for stop in self._stops)
            ),
            0,
        )
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        return ready

    def finish(self) -> str:
        """Return what was held back in vain."""
        held, self._held = self._held, ""
        return held


def as_dicts(messages: Sequence[BaseMessage]) -> list[dict[str, str]]:
    """Return messages as chat templates take them.

    Raises:
        ConversationError: If there are none, or one that is no text.
    """
    if not messages:
        raise ConversationError("there are no messages to answer; give at least one")
    return [{"role": _role(message), "content": _text(message)} for message in messages]


def _role(message: BaseMessage) -> str:
    for kind, role in ((SystemMessage, "system"), (HumanMessage, "user"), (AIMessage, "assistant")):
        if isinstance(message, kind):
            return role
    named = getattr(message, "role", None)  # langchain_core.messages.ChatMessage
    if named in ("system", "user", "assistant"):
        return str(named)
    raise ConversationError(
        f"this model cannot read a {type(message).__name__}; "
        "it takes system, user and assistant messages, and calls no tools"
    )


def _text(message: BaseMessage) -> str:
    if isinstance(message, AIMessage) and message.tool_calls:
        raise ConversationError("this model cannot read tool calls; use a model that calls tools for this conversation")
    if not isinstance(message.content, str):
        kinds = {block.get("type", "untyped") if isinstance(block, dict) else "text" for block in message.content}
        if kinds - {"text"}:
            raise ConversationError(f"this model reads text only; this message has {sorted(kinds - {'text'})} content")
    return str(message.text)


def _as_chunk(piece: Piece) -> ChatGenerationChunk:
    if piece.metadata is None:
        return ChatGenerationChunk(message=AIMessageChunk(content=piece.text))
    last = AIMessageChunk(
        content="", usage_metadata=piece.usage, response_metadata=piece.metadata, chunk_position="last"
    )
    return ChatGenerationChunk(message=last)


def _as_result(pieces: list[Piece]) -> ChatResult:
    message = AIMessage(
        content="".join(piece.text for piece in pieces),
        usage_metadata=pieces[-1].usage,
        response_metadata=pieces[-1].metadata or {},
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


async def _in_threads(pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
    """Run a blocking iterator step by step in worker threads; cancelling stops it after the step under way."""
    try:
        while (piece := await in_thread(lambda: next(pieces, None))) is not None:
            yield piece
    finally:
        pieces.close()  # type: ignore[attr-defined]  # a generator
