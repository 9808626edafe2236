"""The token stream: an answer goes out in pieces once it is accepted, and nothing that was rejected goes out at all.

While an answer is written nobody knows whether it will stand, so none can be streamed as it is written. LangGraph would
send the accepted one whole, which interfaces made for tokens show in one jump, or not at all. Here it is sent as
`AIMessageChunk`s that add up to the message, under the message's own id.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, overload

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from pydantic import Field

ANSWER_TAG = "correction_graphs:answer"
"""In a chunk's metadata, `tags` holds this one when it belongs to an accepted answer."""

# A word with the space before it, or a single character of a script that puts no spaces between words.
_PIECE = re.compile(
    r"\s*[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]|\s*[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]+|\s+"
)


def pieces_of(message: AIMessage) -> list[AIMessageChunk]:
    """Cut a message into chunks that add up to it: text word by word, and everything else in the last one."""
    whole = AIMessageChunk(**message.model_dump(exclude={"type", "chunk_position"}), chunk_position="last")
    if not isinstance(message.content, str):
        return [whole]
    *texts, last = _PIECE.findall(message.content) or [""]
    return [
        *(AIMessageChunk(content=text, id=message.id) for text in texts),
        whole.model_copy(update={"content": last}),
    ]


def stream_answer(message: AIMessage, config: RunnableConfig | None) -> None:
    """Send an accepted answer to those who stream tokens, if there are any."""
    if quiet := _for_streams_only(config):
        _Said(pieces=pieces_of(message)).invoke([], quiet)


async def astream_answer(message: AIMessage, config: RunnableConfig | None) -> None:
    """Send an accepted answer to those who stream tokens, if there are any."""
    if quiet := _for_streams_only(config):
        await _Said(pieces=pieces_of(message)).ainvoke([], quiet)


def stream_piece(piece: AIMessageChunk, config: RunnableConfig | None) -> None:
    """Send a piece of an answer that is accepted piece by piece; all have the answer's id."""
    if quiet := _for_streams_only(config):
        _Said(pieces=[piece]).invoke([], quiet)


async def astream_piece(piece: AIMessageChunk, config: RunnableConfig | None) -> None:
    """Send a piece of an answer that is accepted piece by piece; all have the answer's id."""
    if quiet := _for_streams_only(config):
        await _Said(pieces=[piece]).ainvoke([], quiet)


@overload
def final_only(stream: Iterable[Any]) -> Iterator[str]: ...
@overload
def final_only(stream: AsyncIterable[Any]) -> AsyncIterator[str]: ...
def final_only(stream: Iterable[Any] | AsyncIterable[Any]) -> Iterator[str] | AsyncIterator[str]:
    """Pick the text of accepted answers out of a stream, piece by piece.

    Also out of the stream of a larger graph, where other nodes and models speak as well. LangGraph shows what the nodes
    of such a graph stream only with `subgraphs=True`; without it there would be nothing to pick.

    Args:
        stream: What `graph.stream(…)` or `graph.astream(…)` returns; its stream modes must include `"messages"`, and
            `subgraphs` must be True where the graph that answers is a node of it.

    Returns:
        An iterator over pieces of text; an asynchronous one for an asynchronous stream.

    Example:
        ```python
        from correction_graphs import create_cac_graph
        from correction_graphs.streaming import final_only
        from correction_graphs.testing import ScriptedChatModel

        model = ScriptedChatModel(["It is Sydney.", "It is Canberra."])
        graph = create_cac_graph(model, checker=lambda request: "Canberra" in request.answer)

        question = {"messages": [("user", "What is the capital of Australia?")]}
        pieces = list(final_only(graph.stream(question, stream_mode="messages")))
        assert pieces == ["It", " is", " Canberra."]
        ```
    """
    if isinstance(stream, AsyncIterable):
        return _afinal_only(stream)
    return (text for part in stream if (text := _accepted_text(part)))


async def _afinal_only(stream: AsyncIterable[Any]) -> AsyncIterator[str]:
    async for part in stream:
        if text := _accepted_text(part):
            yield text


def _accepted_text(part: Any) -> str:
    """Return the text of a piece of an accepted answer, "" for anything else that a stream may hold."""
    if isinstance(part, dict):  # of version "v2"
        part = part.get("data")
    # Behind the name of a subgraph, of a stream mode, or both.
    while isinstance(part, tuple) and part and not isinstance(part[0], BaseMessage):
        part = part[-1]
    if not (isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], dict)):  # noqa: PLR2004
        return ""
    message, metadata = part
    return str(message.text) if ANSWER_TAG in (metadata.get("tags") or ()) else ""


class _Said(BaseChatModel):
    """A model that says what was accepted: the one way to reach LangChain's token streams, whichever they are."""

    pieces: list[AIMessageChunk] = Field(repr=False)  # LangChain asks for the whole, as what the model is
    cache: bool = False

    @property
    def _llm_type(self) -> str:
        return "accepted"

    def _get_ls_params(self, *_: Any, **__: Any) -> Any:
        return {}

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError("this model is heard by streams only")

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        return (ChatGenerationChunk(message=piece) for piece in self.pieces)

    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream():
            yield chunk


def _for_streams_only(config: RunnableConfig | None) -> RunnableConfig | None:
    """Return a config without tracers and counters, which would see one more model call; None if nobody streams."""
    callbacks = (config or {}).get("callbacks")
    if config is None or not isinstance(callbacks, BaseCallbackManager):
        return None
    deaf = [handler for handler in callbacks.handlers if not hasattr(handler, "tap_output_iter")]
    if len(deaf) == len(callbacks.handlers):
        return None
    callbacks = callbacks.copy()
    for handler in deaf:
        callbacks.remove_handler(handler)
    return {**config, "callbacks": callbacks, "tags": [*(config.get("tags") or ()), ANSWER_TAG]}
