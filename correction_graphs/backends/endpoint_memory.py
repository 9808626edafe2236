"""A memory of sequences whose computations are requests for one token each, all of a step sent at the same time."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from correction_graphs.backends.base import Logits, Run
from correction_graphs.backends.completions_endpoint import CompletionsEndpoint
from correction_graphs.backends.token_texts import TokenTexts, Vocabulary
from correction_graphs.errors import BackendError, SettingsError

Prompts = Literal["tokens", "text"]

FLOOR = 20.0
"""What the server did not name counts as exp(-FLOOR) times as likely as the least likely token that it did name."""

_SEQUENCES = 256
_KEPT_NUMBERS = 4_000_000  # log-probabilities that are remembered, of all answers together
_SURELY = 100.0  # a bias that decides which token is written


class Row(NamedTuple):
    """The likeliest tokens after a text.

    Attributes:
        tokens: The tokens, in any order.
        logprobs: Their log-probabilities.
        written: The text of the token that the server chose, the likeliest.
    """

    tokens: NDArray[np.int64]
    logprobs: NDArray[np.float32]
    written: str


class EndpointMemory:
    """A `SequenceMemory` whose sequences are lists of tokens here, and whose computations are requests.

    An answer is remembered by its text, so that no text is sent twice while there is room.

    Args:
        endpoint: The model that is asked.
        vocabulary: Its vocabulary.
        texts: The vocabulary by text.
        start: A token that the server may put before a text by itself.
        prompts: What is sent, token numbers or text.
        top_logprobs: How many of the likeliest tokens are asked for.
        n_cells: How many tokens the sequences may hold.
        max_concurrency: So many requests are under way at once.
        extra_body: Further fields of each request.
    """

    rewinds = True
    n_sequences = _SEQUENCES

    def __init__(
        self,
        endpoint: CompletionsEndpoint,
        vocabulary: Vocabulary,
        texts: TokenTexts,
        *,
        start: int | None,
        prompts: Prompts,
        top_logprobs: int,
        n_cells: int,
        max_concurrency: int,
        extra_body: Mapping[str, Any],
    ) -> None:
        self.n_cells = n_cells
        self.forwarded_tokens = 0
        self.forward_calls = 0
        self._endpoint = endpoint
        self._vocabulary = vocabulary
        self._texts = texts
        self._as_text = prompts == "text"
        self._asked = {"max_tokens": 1, "temperature": 0.0, "logprobs": top_logprobs, "extra_body": dict(extra_body)}
        self._start = start
        self._adds_start = False  # whether the server puts it before a text by itself
        self._sequences: list[list[int]] = [[] for _ in range(_SEQUENCES)]
        self._rows: OrderedDict[bytes, Row] = OrderedDict()
        self._numbers = 0
        self._lock = threading.Lock()  # of the answers: requests that nobody waits for any more add theirs
        self._requests = _Threads(max_concurrency)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the empty sequence `target` share the first `length` tokens of `source`."""
        self._sequences[target] = self._sequences[source][:length]

    def truncate(self, sequence: int, length: int) -> None:
        """Keep only the first `length` tokens of a sequence."""
        del self._sequences[sequence][length:]

    def clear(self) -> None:
        """Empty all sequences."""
        self._sequences = [[] for _ in range(_SEQUENCES)]

    def compute(self, runs: Sequence[Run]) -> list[Logits]:
        """Note the tokens of `runs`, and ask for what comes after each output, all at the same time."""
        wanted: list[tuple[int, ...]] = []
        for run in runs:
            for sequence in run.sequences:
                if len(self._sequences[sequence]) != run.position:
                    raise BackendError(
                        f"sequence {sequence} has {len(self._sequences[sequence])} tokens, expected {run.position}"
                    )
                self._sequences[sequence].extend(run.tokens)
            whole = self._sequences[run.sequences[0]]
            wanted += [tuple(whole[: run.position + offset + 1]) for offset in run.outputs]
            self.forwarded_tokens += len(run.tokens)
        self.forward_calls += 1
        return [self._dense(row) for row in self._answers(wanted)]

    def try_out(self) -> None:
        """Ask for one token, so that what does not fit is found before a search depends on it.

        Raises:
            SettingsError: If the server writes tokens that the vocabulary does not have.
            BackendError: If it tells no log-probabilities.
        """
        if self._as_text and not self._texts.spells_control:
            raise SettingsError(
                "`prompts` is 'text', and this vocabulary has no `token_text`, which spells control tokens; give the "
                "path of a GGUF file, or add the method"
            )
        text = self._vocabulary.tokenize("The")
        before = self._endpoint.usage.prompt_tokens
        row = self._ask(tuple(text))
        self._adds_start = self._as_text and self._endpoint.usage.prompt_tokens - before == len(text) + 1
        likeliest = self._vocabulary.token_bytes(int(row.tokens[row.logprobs.argmax()]))
        ours = likeliest.decode("utf-8", errors="ignore").strip()
        if ours and row.written.strip() and not row.written.strip().startswith(ours):
            raise SettingsError(
                f"the server at {self._endpoint.url} wrote {row.written!r}, which is {ours!r} by `vocabulary`; give "
                f"the vocabulary of the model {self._endpoint.model!r}"
            )
        if not self._adds_start:
            self._remember(_key(text), row)

    def _answers(self, texts: Sequence[tuple[int, ...]]) -> list[Row]:
        keys = [_key(text) for text in texts]
        with self._lock:
            known = {key: self._rows[key] for key in keys if key in self._rows}
            for key in known:
                self._rows.move_to_end(key)
        waiting: dict[bytes, Future[Row]] = {}
        try:
            for key, text in zip(keys, texts, strict=True):
                if key not in known and key not in waiting:
                    waiting[key] = self._requests.start(self._ask_and_remember, key, text)
            known |= {key: future.result() for key, future in waiting.items()}
        except BaseException:
            for future in waiting.values():
                future.cancel()
            raise
        return [known[key] for key in keys]

    def _ask_and_remember(self, key: bytes, text: tuple[int, ...]) -> Row:
        row = self._ask(text)
        self._remember(key, row)
        return row

    def _remember(self, key: bytes, row: Row) -> None:
        with self._lock:
            if (before := self._rows.pop(key, None)) is not None:  # asked again after Ctrl-C, answered twice
                self._numbers -= len(before.tokens)
            self._numbers += len(row.tokens)
            self._rows[key] = row
            while self._numbers > _KEPT_NUMBERS and len(self._rows) > 1:
                self._numbers -= len(self._rows.popitem(last=False)[1].tokens)

    def _ask(self, text: tuple[int, ...]) -> Row:
        prompt = self._spelled(text) if self._as_text else list(text)
        answer = self._endpoint.complete(prompt=prompt, **self._asked)
        named = answer.named
        ends = not named and answer.ending == "stop"
        if not named:
            # `llama_cpp.server` tells nothing about an end token that it would write, so it is made to write another.
            biased = {str(self._texts.ordinary): _SURELY}
            named = self._endpoint.complete(prompt=prompt, logit_bias=biased, **self._asked).named
        if not named:
            raise BackendError(
                f"the server at {self._endpoint.url} told no log-probabilities; RAIN needs an endpoint that fills "
                "`logprobs` of completions, and `llama_cpp.server` to run with `--logits_all true`, its default"
            )
        found = self._of_vocabulary(named, ends=ends, goes_on=answer.ending == "length")
        if not found:
            raise SettingsError(
                f"the server at {self._endpoint.url} named tokens that `vocabulary` does not have ({list(named)[:5]}); "
                f"give the vocabulary of the model {self._endpoint.model!r}, or more `top_logprobs`"
            )
        tokens, logprobs = np.fromiter(found.keys(), np.int64), np.fromiter(found.values(), np.float32)
        return Row(tokens, logprobs, "" if ends else answer.text)

    def _of_vocabulary(self, named: dict[int | str, float], *, ends: bool, goes_on: bool) -> dict[int, float]:
        """Return what was named as tokens of the vocabulary.

        Args:
            named: Log-probabilities by token, or by text.
            ends: Whether an end token is the likeliest: the server stopped.
            goes_on: Whether the likeliest token is no end: where it is told as "", it is a part of a character.
        """
        found: dict[int, float] = {}
        for name, logprob in named.items():
            token = name if isinstance(name, int) else self._texts.token(name)
            if token is not None and 0 <= token < self._vocabulary.n_vocab:
                found[token] = max(logprob, found.get(token, -np.inf))
        if "" in named and not (goes_on and max(named.values()) == named[""]):
            found[self._texts.end] = named[""]
        if ends:  # several tokens may share the text "", of which the least likely was told
            others = sum(np.exp(logprob) for token, logprob in found.items() if token != self._texts.end)
            least = float(np.log(max(1 - others, 1e-9)))
            found[self._texts.end] = max(found.get(self._texts.end, least), least)
        return found

    def _dense(self, row: Row) -> Logits:
        dense = np.full(self._vocabulary.n_vocab, row.logprobs.min() - np.float32(FLOOR), np.float32)
        dense[row.tokens] = row.logprobs
        return dense

    def _spelled(self, text: tuple[int, ...]) -> str:
        """Return tokens as a text that the server cuts into the same ones, as far as a text can say."""
        return self._texts.spelled(text[1:] if self._adds_start and text[0] == self._start else text)


class _Threads:
    """Calls in threads of their own, so many at once.

    Unlike those of `concurrent.futures`, these are not waited for when the interpreter ends. After Ctrl-C that would
    take as long as the slowest request, its retries included.
    """

    def __init__(self, at_once: int) -> None:
        self._room = threading.Semaphore(at_once)

    def start(self, call: Callable[[bytes, tuple[int, ...]], Row], key: bytes, text: tuple[int, ...]) -> Future[Row]:
        future: Future[Row] = Future()

        def run() -> None:
            with self._room:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    row = call(key, text)
                except BaseException as error:  # noqa: BLE001  (raised where the result is awaited)
                    future.set_exception(error)
                else:
                    future.set_result(row)

        threading.Thread(target=run, name="completion", daemon=True).start()
        return future


def _key(text: Sequence[int]) -> bytes:
    return hashlib.blake2b(np.asarray(text, np.int64).tobytes(), digest_size=16).digest()
