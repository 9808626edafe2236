"""An OpenAI-compatible endpoint for completions: what it is asked, what it answers, and what it refuses, in our words.

Servers tell log-probabilities in three forms, and complain about a prompt that is too long in as many; all of them are
read here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from correction_graphs.errors import (
    BackendError,
    ContextLengthError,
    CorrectionError,
    MissingExtraError,
    SettingsError,
)

try:
    import openai
except ImportError as error:
    raise MissingExtraError("searching on a model behind an OpenAI-compatible endpoint", extra="openai") from error

_IMPOSSIBLE = -1e30  # as servers write minus infinity, which JSON has not
_TOKEN_ID = "token_id:"  # noqa: S105  (how vLLM, asked for numbers, begins what else would be a token's text)

_ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of reading a reply that is not what it should be."""

_KEY = (SettingsError, "give the right `api_key`")
_REQUEST = (
    SettingsError,
    (
        "if this is about the prompt, give `prompts='text'`; about log-probabilities, a smaller `top_logprobs`; about "
        "an unknown field, `extra_body={}`"
    ),
)
_ADVICE: Mapping[int, tuple[type[CorrectionError], str]] = {
    400: _REQUEST,
    401: _KEY,
    403: _KEY,
    404: (SettingsError, "check `model`, and that `base_url` is complete: it often ends in /v1"),
    422: _REQUEST,
    429: (BackendError, "give a smaller `max_concurrency`, or more `max_retries`"),
}


class EndpointUsage(NamedTuple):
    """What a server was asked.

    Attributes:
        requests: Requests that it answered.
        prompt_tokens: Tokens of their prompts, as the server counts them; what its cache had is in it.
        completion_tokens: Tokens it wrote: one a request, or none where the text ends.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(NamedTuple):
    """What a server said about the token after a text.

    Attributes:
        named: Log-probabilities of the likeliest tokens. A token is its number where the server tells it, as vLLM
            (asked to) and llama.cpp's server do, or else its text.
        text: The text of the token that the server chose.
        ending: Why it wrote no more: "length", or "stop" where the model ended its text.
    """

    named: dict[int | str, float]
    text: str
    ending: str | None


class CompletionsEndpoint:
    """One model of one server: asks, counts, and says what went wrong. For any number of threads.

    Args:
        url: The endpoint, such as "http://127.0.0.1:8000/v1".
        model: The model's name there; None for the only one that is served.
        api_key: What the server lets in by, if it wants any.
        timeout: Seconds without a byte from the server after which a request is given up.
        max_retries: How often a request that failed is sent again.

    Raises:
        SettingsError: If the server does not have the model, or does not accept the key.
        BackendError: If there is no such server.
    """

    def __init__(self, url: str, model: str | None, api_key: str | None, *, timeout: float, max_retries: int) -> None:
        self.url = url
        self.usage = EndpointUsage()
        self._timeout = timeout
        self._lock = threading.Lock()
        try:
            self._client = openai.OpenAI(
                base_url=url, api_key=api_key or "none", timeout=timeout, max_retries=max_retries
            )
        except Exception as error:  # of a library below the client
            raise SettingsError(
                f"`base_url` is {url!r} ({error}); give the endpoint, such as 'http://127.0.0.1:8000/v1'"
            ) from error
        try:
            served = self._call(lambda: {each.id: each.model_extra or {} for each in self._client.models.list()})
            self.model = _chosen(model, list(served), url)
        except BaseException:
            self.close()
            raise
        self.n_ctx = _longest_prompt(served.get(self.model, {}))

    def complete(self, **body: Any) -> Completion:
        """Ask for a completion.

        Args:
            **body: The fields of the request but for `model`.

        Raises:
            BackendError: If the server does not answer, or not with a completion.
            SettingsError: If it refuses the request.
            ContextLengthError: If the prompt is longer than its context.
        """
        reply = self._call(lambda: self._client.completions.create(model=self.model, **body))
        try:
            choice = reply.choices[0]
            text, ending = str(choice.text or ""), choice.finish_reason
        except _ODD as error:
            raise BackendError(f"the server at {self.url} returned no completion: {str(reply)[:300]!r}") from error
        with self._lock:
            self.usage = EndpointUsage(
                self.usage.requests + 1,
                self.usage.prompt_tokens + _count(reply.usage, "prompt_tokens"),
                self.usage.completion_tokens + _count(reply.usage, "completion_tokens"),
            )
        try:
            return Completion(dict(_named(choice.logprobs)), text, ending)
        except _ODD as error:
            raise BackendError(
                f"the server at {self.url} told log-probabilities in a form that is not known here: "
                f"{str(choice.logprobs)[:300]!r}"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except openai.OpenAIError as error:
            raise self._told(error) from error
        except _ODD as error:  # from inside the client, which expects its own API
            raise BackendError(
                f"what answers at {self.url} is no OpenAI-compatible server ({type(error).__name__}: "
                f"{str(error)[:200]}); correct `base_url`: it often ends in /v1"
            ) from error

    def _told(self, error: openai.OpenAIError) -> CorrectionError:
        """Return our error for one of the client's: what happened, and what to do."""
        if isinstance(error, openai.APIStatusError):
            return self._refused(error)
        if isinstance(error, openai.APITimeoutError):
            return BackendError(
                f"the server at {self.url} did not answer within {self._timeout:g} s; give a larger `timeout`, or "
                "fewer requests at once (`max_concurrency`)"
            )
        if isinstance(error, openai.APIConnectionError):
            reason = error.__cause__ or error
            return BackendError(
                f"no server answers at {self.url} ({type(reason).__name__}: {reason}); start it, or correct `base_url`"
            )
        return BackendError(f"the server at {self.url} could not be asked: {error}")

    def _refused(self, error: openai.APIStatusError) -> CorrectionError:
        if (lengths := _too_long(error)) is not None:
            return ContextLengthError(*lengths)
        said = f"the server at {self.url} answered {error.status_code}: {error.message[:500]}"
        kind, advice = _ADVICE.get(error.status_code, (BackendError, "see the server's log"))
        if "('body', 'prompt'" in error.message:  # `llama_cpp.server`, which answers 500 to what it cannot read
            kind, advice = _REQUEST
        return kind(f"{said}; {advice}")


def _chosen(model: str | None, served: list[str], url: str) -> str:
    if model is not None and (model in served or not served):  # some gateways list none
        return model
    if model is None and len(served) == 1:
        return served[0]
    given = "no `model` was given" if model is None else f"`model` is {model!r}"
    raise SettingsError(f"{given}; the server at {url} has {served or 'no list of its models'}")


def _longest_prompt(told: Mapping[str, Any]) -> int | None:
    """Return how many tokens a prompt may have, by what a server tells of a model; None if it does not."""
    meta = told.get("meta")
    longest = told.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)  # vLLM, llama.cpp
    # The token that is asked for takes room as well.
    return longest - 1 if isinstance(longest, int) and longest > 1 else None


def _count(spent: Any, name: str) -> int:
    found = getattr(spent, name, None)
    return found if isinstance(found, int) else 0


def _named(told: Any) -> Iterator[tuple[int | str, float]]:
    """Yield the tokens that are named for the first position, and their log-probabilities."""
    if told is None:
        return
    if content := (told.model_extra or {}).get("content"):  # llama.cpp's server, in the form of the chat endpoint
        pairs = [(each.get("id", each.get("token")), each["logprob"]) for each in content[0].get("top_logprobs", ())]
    else:
        pairs = list(((told.top_logprobs or [None])[0] or {}).items())
    for name, logprob in pairs:
        if logprob is not None and logprob > _IMPOSSIBLE:
            number = str(name).removeprefix(_TOKEN_ID)
            yield (int(number) if number != name and number.isdecimal() else str(name)), float(logprob)


def _too_long(error: openai.APIStatusError) -> tuple[int, int] | None:
    """Return how many tokens were sent and how many are allowed, if that is what the server complains about."""
    body = error.body if isinstance(error.body, dict) else {}
    lengths = body.get("n_prompt_tokens"), body.get("n_ctx")  # as llama.cpp's server tells them
    if isinstance(lengths[0], int) and isinstance(lengths[1], int):
        return lengths[0], lengths[1]
    text = error.message
    limit = re.search(r"(?:maximum context length|context (?:size|window|length))\D{0,20}(\d+)", text)
    if error.status_code != openai.BadRequestError.status_code or limit is None:
        return None
    others = [int(number) for number in re.findall(r"\b\d+\b", text[limit.end() :])]
    return max([*others, int(limit[1]) + 1]), int(limit[1])
