"""ChatLlama: a LangChain chat model on a local GGUF file that never reads the same text twice.

It decodes on a `RewindableBackend`, whose cache outlives the call: the next turn of a conversation, a check of an
answer, or a second answer to the same question costs only the tokens that are new. One backend may serve several
models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from pydantic import Field

from correction_graphs.backends.base import TextStream
from correction_graphs.backends.sampling import choose, penalized
from correction_graphs.errors import ContextLengthError
from correction_graphs.local_chat import LocalChatModel, Piece, StopTexts, as_dicts

_PENALTY_WINDOW = 64


class ChatLlama(LocalChatModel):
    """A chat model on a local GGUF file. Make one with `ChatLlama.from_gguf`.

    It uses the chat template in the file. Control tokens that are spelled out in a message stay plain text, so that a
    message cannot forge a turn. It answers in text; it does not call tools and does not read images.

    Args:
        backend: The loaded model; may be shared with others.
        temperature: 0 always takes the likeliest token. Answers are then reproducible as far as rounding is: what else
            is in the cache changes the order of sums, and can tip a near tie, above all in quantized models.
        top_p: With a temperature, only the likeliest tokens that add up to this probability are drawn from.
        top_k: With a temperature, only this many of the likeliest tokens are drawn from; 0 for all.
        repeat_penalty: Above 1, makes the last 64 tokens of the answer less likely to come again. Small models fall
            into loops without it; it also keeps a model from copying text faithfully.
        seed: Makes sampling reproducible: every call starts from it. None draws differently each time.
        max_tokens: The longest answer, in tokens.
        stop: Texts that end the answer and are not part of it.
        timeout: Seconds after which an answer is cut off; None for no limit.
        max_retries: Accepted as other chat models do; a local model has nothing to retry.
        api_key: Likewise; a local model needs none.
        streaming: Whether `invoke` streams to callbacks.

    Example:
        ```python
        from correction_graphs import ChatLlama

        chat = ChatLlama.from_gguf("model.gguf", max_tokens=64)
        print(chat.invoke("What is the capital of Australia?").text)
        ```
    """

    per_call: ClassVar[frozenset[str]] = LocalChatModel.per_call | {"top_p", "top_k", "repeat_penalty"}

    temperature: float | None = Field(default=0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=40, ge=0)
    repeat_penalty: float = Field(default=1.0, gt=0)
    seed: int | None = Field(default=None, ge=0)

    @property
    def _llm_type(self) -> str:
        return "chat-llama"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model": self.backend.name,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repeat_penalty": self.repeat_penalty,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
        }

    def write(self, messages: Sequence[BaseMessage], stop: Sequence[str]) -> Iterator[Piece]:
        """Decode the answer, a token at a time."""
        backend = self.backend
        prompt = backend.chat_tokens(as_dicts(messages))
        if len(prompt) >= backend.n_ctx:
            raise ContextLengthError(len(prompt) + 1, backend.n_ctx)
        room = min(self.max_tokens or backend.n_ctx, backend.n_ctx - len(prompt))
        rng = np.random.default_rng(self.seed)
        text, stops = TextStream(backend), StopTexts(stop)
        deadline = float("inf") if self.timeout is None else time.monotonic() + self.timeout
        branch = backend.open(prompt)
        try:
            cached = backend.cached_tokens(branch)
            written, ending = 0, "length"
            while written < room:
                recent = branch.tokens[max(len(prompt), len(branch) - _PENALTY_WINDOW) :]
                row = penalized(backend.forward([branch])[0], recent, self.repeat_penalty)
                token = choose(row, rng, temperature=self.temperature or 0.0, top_k=self.top_k, top_p=self.top_p)
                if backend.is_end(token):
                    ending = "stop"
                    break
                written += 1
                backend.extend(branch, [token])
                if ready := stops.feed(text.feed(token)):
                    yield Piece(ready)
                if stops.found:
                    ending = "stop"
                    break
                if time.monotonic() > deadline:
                    ending = "timeout"
                    break
            if not stops.found and (rest := stops.feed(text.finish()) + stops.finish()):
                yield Piece(rest)
            usage = UsageMetadata(
                input_tokens=len(prompt),
                output_tokens=written,
                total_tokens=len(prompt) + written,
                input_token_details={"cache_read": cached},
            )
            metadata = {"model_name": backend.name, "model_provider": self.provider, "finish_reason": ending}
            yield Piece("", usage, metadata)
        finally:
            backend.release(branch)
