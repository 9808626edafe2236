"""Models behind an OpenAI-compatible completions endpoint: vLLM, llama.cpp's server, `llama_cpp.server`.

Such a server has no branches and no logits, but it tells the log-probabilities of the likeliest next tokens. So every
branch that is to be computed is one request for one token, all of them sent at the same time; what the server has read
before, its own prefix cache has. The bookkeeping of branches is that of every other backend: here the engine is a list
of tokens for each sequence, and a memory of what was answered (`endpoint_memory`).

Tokens are those of a vocabulary on this side. They could be texts as the server tells them, numbered as they are met;
but then a seed would find something else after every other text, and a checkpoint could not be read in another process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from correction_graphs.arguments import expect, whole_number
from correction_graphs.backends.cached import CachedBackend
from correction_graphs.backends.chat_prompts import prompt_tokens
from correction_graphs.backends.completions_endpoint import CompletionsEndpoint, EndpointUsage
from correction_graphs.backends.endpoint_memory import FLOOR, EndpointMemory, Prompts
from correction_graphs.backends.token_texts import TokenTexts, Vocabulary, checked_vocabulary
from correction_graphs.errors import SettingsError

__all__ = ["FLOOR", "EndpointUsage", "OpenAICompletionsBackend", "Vocabulary"]

ChatTemplate = str | Callable[[Sequence[Mapping[str, str]]], str]

_DEFAULT_CONTEXT = 4096
_CELLS = 2**20  # tokens that the bookkeeping holds
_VLLM = {"return_tokens_as_token_ids": True}


class OpenAICompletionsBackend(CachedBackend):
    """A model behind a completions endpoint, for searches: `ChatRain(backend=...)`, `create_rain_graph(...)`.

    Logits are the log-probabilities of the `top_logprobs` likeliest tokens, as the server tells them; every other token
    has a floor far below. So all sampling is among the likeliest `top_logprobs`: give at least `top_k` and
    `max_children` of `RainSettings`. A judge's label that is not among them counts as next to impossible: where
    neither is, the value is unknown; where one is, the value is -1 or 1, which in truth is at least
    tanh((p - q) / 2), with p the label's log-probability and q that of the last token named.

    Making one asks the server for its models and for one token, so that what does not fit is found at once.

    Args:
        base_url: The endpoint, such as "http://127.0.0.1:8000/v1".
        vocabulary: The model's tokens: the path of a GGUF file of the same model, in any quantization, or a
            `Vocabulary`.
        model: The model's name there; by default the only one that is served.
        api_key: By default the environment variable OPENAI_API_KEY; servers of one's own need none.
        chat_template: Turns messages into the prompt for the next assistant turn: the text of a Jinja template, or a
            function from messages (dicts with `role` and `content`) to text. By default the vocabulary's own, which a
            GGUF file has.
        template_values: What a Jinja template wants beside messages, such as `{"bos_token": "<s>"}`.
        prompts: What is sent: "tokens" (vLLM, llama.cpp's server), or "text" (`llama_cpp.server`, which takes nothing
            else). A text is cut into tokens again by the server, at times otherwise than they were written.
        top_logprobs: How many of the likeliest tokens are asked for. vLLM allows 20 unless started with
            `--max-logprobs`.
        n_ctx: How many tokens one branch may hold; by default what the server says of the model, or else 4,096.
        max_concurrency: So many requests are under way at once. More than the server computes in one batch only wait.
        timeout: Seconds without a byte from the server after which a request is given up.
        max_retries: How often the client tries again after a failed connection, a rate limit (429), or an error of
            the server (5xx), each time after a longer pause.
        extra_body: Further fields of each request. By default vLLM's own for token numbers, which other servers
            pass over; `{}` for a server that refuses what it does not know.
        kept_logits: See `CachedBackend`.

    Raises:
        SettingsError: If an argument is not one of those allowed, or the server does not know the model, does not
            accept the key, or has another vocabulary.
        ModelFileError: If the vocabulary is a file that is missing or not usable.
        BackendError: If the server cannot be reached, or tells no log-probabilities.
    """

    def __init__(
        self,
        base_url: str,
        *,
        vocabulary: Vocabulary | str | os.PathLike[str],
        model: str | None = None,
        api_key: str | None = None,
        chat_template: ChatTemplate | None = None,
        template_values: Mapping[str, Any] | None = None,
        prompts: Prompts = "tokens",
        top_logprobs: int = 20,
        n_ctx: int | None = None,
        max_concurrency: int = 16,
        timeout: float = 120.0,
        max_retries: int = 2,
        extra_body: Mapping[str, Any] | None = None,
        kept_logits: int = 64,
    ) -> None:
        _check(
            base_url,
            prompts,
            top_logprobs=top_logprobs,
            n_ctx=n_ctx,
            max_concurrency=max_concurrency,
            timeout=timeout,
            max_retries=max_retries,
        )
        values = template_values or {}
        with contextlib.ExitStack() as owned:
            if isinstance(vocabulary, str | os.PathLike):
                vocabulary = owned.enter_context(_from_gguf(vocabulary))
            self._vocabulary = checked_vocabulary(vocabulary)
            self._texts = TokenTexts(self._vocabulary)
            self._template = None if chat_template is None else _renderer(chat_template, values)
            key = api_key or os.environ.get("OPENAI_API_KEY")
            self._endpoint = CompletionsEndpoint(base_url, model, key, timeout=timeout, max_retries=max_retries)
            owned.callback(self._endpoint.close)
            n_ctx = n_ctx or self._endpoint.n_ctx or _DEFAULT_CONTEXT
            self._engine = EndpointMemory(
                self._endpoint,
                self._vocabulary,
                self._texts,
                start=_start(self._vocabulary, chat_template, values) if prompts == "text" else None,
                prompts=prompts,
                top_logprobs=min(top_logprobs, self._vocabulary.n_vocab),
                n_cells=max(2 * n_ctx, _CELLS),
                max_concurrency=max_concurrency,
                extra_body=_VLLM if extra_body is None else extra_body,
            )
            self._engine.try_out()
            self._owned = owned.pop_all()
        super().__init__(self._engine, n_vocab=self._vocabulary.n_vocab, n_ctx=n_ctx, kept_logits=kept_logits)

    @property
    def provider(self) -> str:
        """Whose API is spoken, as LangChain names it."""
        return "openai"

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self._endpoint.model

    @property
    def usage(self) -> EndpointUsage:
        """What the server was asked so far."""
        return self._endpoint.usage

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Turn text into tokens, without adding any; control tokens are recognized in it only if `special`."""
        self._must_be_open()
        return self._vocabulary.tokenize(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for, b"" for control tokens."""
        self._must_be_open()
        return self._vocabulary.token_bytes(token)

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its text, or its turn, with this token."""
        self._must_be_open()
        return self._vocabulary.is_end(token)

    def chat_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Turn chat messages into the prompt for the next assistant turn.

        The spelling of a control token in a message's content stays plain text, as in `LlamaCppBackend`.

        Raises:
            SettingsError: If there is no chat template, or it refuses these messages.
        """
        self._must_be_open()
        if self._template is None:
            own: Callable[..., list[int]] | None = getattr(self._vocabulary, "chat_tokens", None)
            if own is None:
                raise SettingsError(
                    "there is no chat template: the vocabulary has no `chat_tokens`, and an endpoint for completions "
                    "tells none; give `chat_template`, a Jinja template or a function from messages to text"
                )
            return own(messages)
        return prompt_tokens(
            messages, render=self._template, tokenize=self.tokenize, control=self._texts.control_spellings
        )

    def _free(self) -> None:
        self._owned.close()


def _check(base_url: str, prompts: str, *, timeout: float, **numbers: int | None) -> None:
    if not base_url or not isinstance(base_url, str):
        raise SettingsError(f"`base_url` is {base_url!r}; give the endpoint, such as 'http://127.0.0.1:8000/v1'")
    expect("prompts", prompts, get_args(Prompts))
    if not timeout > 0:
        raise SettingsError(f"`timeout` is {timeout}; give a number of seconds above 0")
    for name, number in numbers.items():
        if number is not None or name != "n_ctx":
            whole_number(name, number, 0 if name == "max_retries" else 1, "a whole number")


def _from_gguf(path: str | os.PathLike[str]) -> Any:
    from correction_graphs.backends.llama_cpp import GgufVocabulary  # noqa: PLC0415  (an optional dependency)

    return GgufVocabulary(path)


def _renderer(given: ChatTemplate, values: Mapping[str, Any]) -> Callable[[list[dict[str, str]]], str]:
    """Return a function from messages to a prompt."""
    if not isinstance(given, str):
        return given
    from correction_graphs.backends.jinja_templates import jinja_renderer  # noqa: PLC0415  (an optional dependency)

    return jinja_renderer(given, values, source="`chat_template`")


def _start(vocabulary: Vocabulary, template: Any, values: Mapping[str, Any]) -> int | None:
    """Return the token that prompts for this model begin with, if it may be one that a server adds to a text."""
    if template is not None:
        tokens = vocabulary.tokenize(values.get("bos_token", ""), special=True)
    else:
        own: Callable[..., list[int]] = getattr(vocabulary, "chat_tokens", lambda _: [])
        tokens = own([{"role": "user", "content": "x"}])
    return tokens[0] if tokens and not vocabulary.token_bytes(tokens[0]) else None
