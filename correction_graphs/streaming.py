"""The token stream: an answer goes out in pieces once it is accepted, and nothing that was rejected goes out at all.

While an answer is written nobody knows whether it will stand, so none can be streamed as it is written. LangGraph would
send the accepted one whole, which interfaces made for tokens show in one jump, or not at all. Here it is sent as
`AIMessageChunk`s that add up to the message, under the message's own id.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, overload

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackManager, CallbackManager
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

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
    if heard := _listeners(config):
        _send(pieces_of(message), heard)


async def astream_answer(message: AIMessage, config: RunnableConfig | None) -> None:
    """Send an accepted answer to those who stream tokens, if there are any."""
    if heard := _listeners(config):
        await _asend(pieces_of(message), heard)


def stream_pieces(pieces: Sequence[AIMessageChunk], config: RunnableConfig | None) -> None:
    """Send pieces of an answer that is accepted piece by piece; all have the answer's id."""
    if heard := _listeners(config):
        _send(pieces, heard)


async def astream_pieces(pieces: Sequence[AIMessageChunk], config: RunnableConfig | None) -> None:
    """Send pieces of an answer that is accepted piece by piece; all have the answer's id."""
    if heard := _listeners(config):
        await _asend(pieces, heard)


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


# As a model says it: the one way to reach LangChain's token streams, whichever they are.


def _send(pieces: Sequence[AIMessageChunk], heard: dict[str, Any]) -> None:
    (run,) = CallbackManager.configure(**heard).on_chat_model_start({"name": "accepted"}, [[]])
    for piece in pieces:
        run.on_llm_new_token(str(piece.text), chunk=ChatGenerationChunk(message=piece))
    run.on_llm_end(LLMResult(generations=[[ChatGeneration(message=pieces[-1])]]))


async def _asend(pieces: Sequence[AIMessageChunk], heard: dict[str, Any]) -> None:
    (run,) = await AsyncCallbackManager.configure(**heard).on_chat_model_start({"name": "accepted"}, [[]])
    for piece in pieces:
        await run.on_llm_new_token(str(piece.text), chunk=ChatGenerationChunk(message=piece))
    await run.on_llm_end(LLMResult(generations=[[ChatGeneration(message=pieces[-1])]]))


def _listeners(config: RunnableConfig | None) -> dict[str, Any]:
    """Return those who stream, without tracers and counters, for whom this would be one more model call; often none."""
    callbacks = (config or {}).get("callbacks")
    if config is None or not isinstance(callbacks, BaseCallbackManager):
        return {}
    deaf = [handler for handler in callbacks.handlers if not hasattr(handler, "tap_output_iter")]
    if len(deaf) == len(callbacks.handlers):
        return {}
    callbacks = callbacks.copy()
    for handler in deaf:
        callbacks.remove_handler(handler)
    return {
        "inheritable_callbacks": callbacks,
        "inheritable_tags": [*(config.get("tags") or ()), ANSWER_TAG],
        "inheritable_metadata": config.get("metadata"),
    }
