"""RAIN as a LangGraph graph: one committed token set a step, streamed and checkpointed.

The search tree lives in the process. What a checkpoint holds is the committed text and the record of the search; a run
that is resumed elsewhere reads the text again and searches on from there.
"""

from __future__ import annotations

import os
import threading
from typing import Annotated, Any, NotRequired
from uuid import uuid4
from weakref import finalize

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import BaseCache
from langgraph.channels import EphemeralValue
from langgraph.config import get_stream_writer
from langgraph.errors import GraphBubbleUp
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.managed import RemainingSteps
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from correction_graphs.backends.base import RewindableBackend
from correction_graphs.errors import SettingsError, carry, words
from correction_graphs.local_chat import LocalChatModel, as_dicts
from correction_graphs.messages import check_conversation
from correction_graphs.models import is_local, load_model
from correction_graphs.nodes import UnlessEnded, require_cache
from correction_graphs.rain.chat import ChatRain
from correction_graphs.rain.runs import Run
from correction_graphs.rain.search import Commit, Judged
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.similarity import SimilarityLike
from correction_graphs.rain.values import ValueLike
from correction_graphs.results import RainCommit, RainResult
from correction_graphs.streaming import astream_pieces, stream_pieces

_KEPT_RUNS = 16


def create_rain_graph(
    model: str | os.PathLike[str] | LocalChatModel | RewindableBackend,
    *,
    judge: ValueLike | None = None,
    settings: RainSettings | None = None,
    similarity: SimilarityLike = None,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    context_schema: type[Any] | None = None,
    name: str = "rain",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Create a graph that searches for an answer, and rewinds where its own judgement is low.

    Args:
        model: What has logits to search in: a `ChatRain` or `ChatLlama`, a GGUF file, "smollm2", or a backend, such as
            an `OpenAICompletionsBackend` for a model that vLLM or llama.cpp's server serves.
        judge: What is searched for; see `ChatRain`. By default that of a `ChatRain`, else "harmless".
        settings: How to search. By default those of a `ChatRain`, else `RainSettings()`.
        similarity: Finds near-identical candidates; see `ChatRain`.
        checkpointer: Makes runs durable: each committed token set is a step. A run that is resumed in another process
            keeps what was committed.
        store: LangGraph's long-term store, for judges that are graphs.
        cache: LangGraph's node cache; the node of this graph is not cached.
        context_schema: Schema of the run-time context, for judges that read it.
        name: Name of the graph, and of its node when it is added to another graph.

    Returns:
        A compiled graph. Input is `messages`; output is `messages`, with one AI message added, and `rain`, a
        `RainResult` with every token set and what was searched for it.

    Raises:
        SettingsError: If an argument is not one of those allowed, or the model has no logits to search in.
        ModelFileError: If the model is a file that is missing or unusable.
        MissingExtraError: If the model needs a package that is not installed.

    Example:
        ```python
        from correction_graphs.rain.graph import create_rain_graph
        from correction_graphs.rain.settings import RainSettings
        from correction_graphs.testing import ToyBackend


        def politeness(text):
            return 1.0 if "please" in text else -1.0


        graph = create_rain_graph(ToyBackend(), judge=politeness, settings=RainSettings(max_new_tokens=8))
        out = graph.invoke({"messages": [("user", "May I come in?")]})
        assert out["messages"][-1].text == out["rain"].text
        ```
    """
    require_cache(cache)
    builder = build_rain_graph(
        model, judge=judge, settings=settings, similarity=similarity, context_schema=context_schema
    )
    return builder.compile(checkpointer=checkpointer, store=store, cache=cache, name=name)


def build_rain_graph(
    model: str | os.PathLike[str] | LocalChatModel | RewindableBackend,
    *,
    judge: ValueLike | None = None,
    settings: RainSettings | None = None,
    similarity: SimilarityLike = None,
    context_schema: type[Any] | None = None,
) -> StateGraph[Any, Any, Any, Any]:
    """Build the graph of `create_rain_graph` without compiling it, to add nodes or compile it otherwise.

    Takes the arguments of `create_rain_graph` but those for `compile`, and raises the same errors.

    Example:
        ```python
        from correction_graphs import build_rain_graph
        from correction_graphs.testing import ToyBackend

        builder = build_rain_graph(ToyBackend(), judge=lambda text: 1.0)
        assert list(builder.nodes) == ["search"]
        graph = builder.compile(name="searched")
        ```
    """
    chat = _searching(model, judge=judge, settings=settings, similarity=similarity)
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        State, context_schema=context_schema, input_schema=Input, output_schema=Output
    )
    graph.add_node("search", _Search(chat))
    graph.add_edge(START, "search")
    graph.add_conditional_edges("search", UnlessEnded("rain_progress", "search"), ["search", END])
    return graph


def _searching(model: Any, **arguments: Any) -> ChatRain:
    loaded = load_model(model) if is_local(model) else model
    given = {name: value for name, value in arguments.items() if value is not None}
    if isinstance(loaded, ChatRain):
        return ChatRain(**{**dict(loaded), **given}) if given else loaded
    backend = loaded.backend if isinstance(loaded, LocalChatModel) else loaded
    if not isinstance(backend, RewindableBackend):
        raise SettingsError(
            f"`model` is {loaded!r:.200}, whose logits cannot be read; give a local model (a ChatRain, a "
            "ChatLlama, the path of a GGUF file, or 'smollm2'), or an OpenAICompletionsBackend for a model on a server "
            "that tells log-probabilities"
        )
    return ChatRain(backend=backend, **given)


class Progress(BaseModel):
    """What a search has committed in this turn.

    Attributes:
        id: Of the message to come.
        result: The record until now.
        ended: Whether the reply is out.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    result: RainResult | None = None
    ended: bool = False


class Input(TypedDict):
    """What a RAIN graph takes."""

    messages: Annotated[list[AnyMessage], add_messages]


class Output(Input):
    """What a RAIN graph returns."""

    rain: NotRequired[RainResult]


class State(Output):
    """The channels of a RAIN graph; those beyond input and output are private."""

    rain_progress: NotRequired[Progress]
    rain_searching: Annotated[bool, EphemeralValue]
    """Set for the step after `search` alone. Progress that is found without it is left over from an earlier turn."""
    remaining_steps: RemainingSteps


class _Search(Runnable[Any, Any]):
    """Node `search`: commits one token set; all that are left where the graph's recursion limit is near."""

    def __init__(self, chat: ChatRain) -> None:
        self.name = "search"
        self._chat = chat
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}  # under way, by the id of their message; taken out while they are used
        finalize(self, _close_all, self._runs)

    def invoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:  # noqa: A002
        progress = _progress_of(input)
        run = self._take(input, progress)
        try:
            while (commit := run.advance()) is not None:
                if piece := self._committed(run, commit, progress):
                    stream_pieces([piece], config)
                if run.ended or input["remaining_steps"] > 1:
                    break
            update, last = self._update(run, progress)
            if last:
                stream_pieces([last], config)
        except BaseException as error:
            _give_up(run, error)
            raise
        return update

    async def ainvoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:  # noqa: A002
        progress = _progress_of(input)
        run = self._take(input, progress)
        try:
            while (commit := await run.aadvance()) is not None:
                if piece := self._committed(run, commit, progress):
                    await astream_pieces([piece], config)
                if run.ended or input["remaining_steps"] > 1:
                    break
            update, last = self._update(run, progress)
            if last:
                await astream_pieces([last], config)
        except BaseException as error:
            _give_up(run, error)
            raise
        return update

    def _take(self, state: State, progress: Progress) -> Run:
        """Return the run that has committed what the state says, or one that goes on from there."""
        done = progress.result.commits if progress.result else ()
        with self._lock:
            run = self._runs.pop(progress.id, None)
        if run is not None and tuple(run.commits) == done:
            run.on_event = _teller()
            return run
        if run is not None:  # of a run that was forked from an earlier step
            run.close()
        check_conversation(state["messages"])
        run = self._chat.searcher().start(as_dicts(state["messages"]), on_event=_teller())
        return run.resume(progress.result) if progress.result else run

    def _committed(self, run: Run, commit: RainCommit, progress: Progress) -> AIMessageChunk | None:
        """Tell of a commit, and return the piece of the answer that it brings, if it brings any."""
        get_stream_writer()(
            {"type": "rain.commit", "index": len(run.commits) - 1, **commit.model_dump(exclude={"tokens", "searched"})}
        )
        return AIMessageChunk(content=commit.text, id=progress.id) if commit.text else None

    def _update(self, run: Run, progress: Progress) -> tuple[dict[str, Any], AIMessageChunk | None]:
        """Return the node's update, and the last piece of the answer if there is nothing more to come."""
        result = run.result()
        if not run.ended:
            with self._lock:
                self._runs[progress.id] = run
                left = [self._runs.pop(next(iter(self._runs))) for _ in range(len(self._runs) - _KEPT_RUNS)]
            for abandoned in left:
                abandoned.close()
            return {"rain_progress": progress.model_copy(update={"result": result}), "rain_searching": True}, None
        run.close()
        get_stream_writer()({"type": "rain.end", **result.summary()})
        _, usage, metadata = self._chat.last_piece(result)
        message = AIMessage(result.text, id=progress.id, usage_metadata=usage, response_metadata=metadata or {})
        last = AIMessageChunk(
            content="",
            id=progress.id,
            usage_metadata=usage,
            response_metadata=metadata or {},
            chunk_position="last",
        )
        ended = Progress(id=progress.id, ended=True)
        return {"messages": [message], "rain": result, "rain_progress": ended}, last


def _progress_of(state: State) -> Progress:
    return state["rain_progress"] if state.get("rain_searching") else Progress(id=f"rain-{uuid4()}")


def _teller() -> Any:
    """Return what sends a search's events to the graph's custom stream."""
    write = get_stream_writer()

    def tell(event: Judged | Commit) -> None:
        if isinstance(event, Judged):
            write(
                {
                    "type": "rain.judged",
                    "text": event.text,
                    "value": event.value,
                    "known": event.known,
                    "rewound": event.rewound,
                }
            )

    return tell


def _give_up(run: Run, error: BaseException) -> None:
    """Close a run, and have the error carry the result so far, unless it does, or is a signal of LangGraph."""
    run.close()
    if not hasattr(error, "result") and not isinstance(error, GraphBubbleUp):
        carry(error, run.result("failed", error=words(error)))


def _close_all(runs: dict[str, Run]) -> None:
    while runs:
        runs.popitem()[1].close()
