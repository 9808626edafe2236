"""ChatRain: a LangChain chat model that searches for its answer, and rewinds where its own judgement is low.

The search of `RainSettings` on a local model, as a `BaseChatModel`: RAIN goes wherever LangChain takes a model, such as
into `create_cac_graph` as the one that answers. `create_rain_graph` has the same search as a graph, with checkpoints.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar, Self

from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from pydantic import Field, PrivateAttr, model_validator

from correction_graphs.local_chat import LocalChatModel, Piece, as_dicts
from correction_graphs.rain.judge import ValueFunction
from correction_graphs.rain.runs import Searcher
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.similarity import Similarity, as_similarity
from correction_graphs.rain.values import as_value_function
from correction_graphs.results import RainResult

_ENDINGS = {"stop": "stop", "deadline": "timeout"}


class ChatRain(LocalChatModel):
    """A chat model that searches for its answer. Make one with `ChatRain.from_gguf`.

    An answer grows by token sets: for each, candidates are written, judged, and rewound, until one is good enough or
    the search has spent what `settings` allow (Li et al., RAIN, ICLR 2024). `response_metadata["rain"]` says what that
    took. Answers are streamed as they are committed: what was streamed is never taken back.

    Several calls at the same time on one backend, by `batch` or otherwise, share batches.

    Args:
        backend: The loaded model; may be shared with others.
        settings: How to search; see `RainSettings`.
        judge: What is searched for: the name or file of a template by which the model judges its own text ("harmless",
            "truthful", "positive", each also with "@zh"); a function from the text of a reply to a value from -1 to
            1; a runnable or one of our checkers; see `as_value_function`.
        similarity: Finds near-identical candidates, which then share their values: a LangChain `Embeddings`, or
            "trigrams" for the built-in ones. By default those where the settings want any, else none.
        temperature: If above 0, in the place of the settings' own; likewise `seed`, `max_tokens` and `timeout`.

    Raises:
        SettingsError: If an argument is not one of those allowed.

    Example:
        ```python
        from correction_graphs.rain.chat import ChatRain
        from correction_graphs.rain.settings import RainSettings
        from correction_graphs.testing import ToyBackend


        def politeness(text):
            return 1.0 if "please" in text else -1.0


        chat = ChatRain(backend=ToyBackend(), judge=politeness, settings=RainSettings(max_new_tokens=8))
        reply = chat.invoke("May I come in?")
        assert reply.response_metadata["rain"]["iterations"] >= 1
        ```
    """

    per_call: ClassVar[frozenset[str]] = LocalChatModel.per_call | {"settings"}

    settings: RainSettings = Field(default_factory=RainSettings)
    judge: Any = "harmless"
    similarity: Any = None  # as_similarity takes it
    temperature: float | None = Field(default=None, ge=0)
    seed: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)

    _judge: ValueFunction = PrivateAttr()
    _similarity: Similarity | None = PrivateAttr()

    @model_validator(mode="after")
    def _prepare(self) -> Self:
        self._judge = as_value_function(self.judge)
        wanted: Any = "trigrams" if self.similarity is None and self.settings.needs_embeddings else self.similarity
        self._similarity = as_similarity(wanted)
        return self

    @property
    def _llm_type(self) -> str:
        return "chat-rain"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model": self.backend.name,
            "judge": repr(self.judge),
            "similarity": repr(self.similarity),
            **self.searcher().settings.model_dump(),
        }

    def searcher(self, stop: Sequence[str] | None = None) -> Searcher:
        """Return what this model searches with.

        Args:
            stop: Texts that end the reply, in addition to those of the settings; by default the model's own `stop`.
        """
        stop = self._stops(None) if stop is None else stop
        changes = {
            "temperature": self.temperature or None,
            "seed": self.seed,
            "max_new_tokens": self.max_tokens,
            "max_seconds": self.timeout,
            "stop": (*self.settings.stop, *stop) if stop else None,
        }
        changed = {name: value for name, value in changes.items() if value is not None}
        settings = RainSettings(**{**self.settings.model_dump(), **changed}) if changed else self.settings
        return Searcher(self.backend, settings, self._judge, self._similarity)

    def write(self, messages: Sequence[BaseMessage], stop: Sequence[str]) -> Iterator[Piece]:
        """Search for the answer, a token set at a time."""
        run = self.searcher(stop).start(as_dicts(messages))
        try:
            while (commit := run.advance()) is not None:
                if commit.text:
                    yield Piece(commit.text)
            yield self.last_piece(run.result())
        finally:
            run.close()

    async def awrite(self, messages: Sequence[BaseMessage], stop: Sequence[str]) -> AsyncIterator[Piece]:
        """Search for the answer, a token set at a time."""
        run = self.searcher(stop).start(as_dicts(messages))
        try:
            while (commit := await run.aadvance()) is not None:
                if commit.text:
                    yield Piece(commit.text)
            yield self.last_piece(run.result())
        finally:
            run.close()

    def last_piece(self, result: RainResult) -> Piece:
        """Return the piece that tells how an answer came about: its usage and metadata."""
        usage = UsageMetadata(
            input_tokens=result.prompt_tokens,
            output_tokens=result.output_tokens,
            total_tokens=result.prompt_tokens + result.output_tokens,
        )
        metadata = {
            "model_name": self.backend.name,
            "model_provider": self.provider,
            "finish_reason": _ENDINGS.get(result.stop_reason, "length"),
            "rain": result.summary(),
        }
        return Piece("", usage, metadata)
