"""Fakes for tests of what is built on this package: a scripted chat model, and a backend without a model.

Nothing here needs weights, a network or a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from correction_graphs.backends.base import Logits, Run
from correction_graphs.backends.cached import CachedBackend
from correction_graphs.errors import BackendError


class ScriptedChatModel(BaseChatModel):
    """A chat model that replies from a script and remembers what it was asked.

    Args:
        replies: The replies in order: texts, whole `AIMessage`s, or exceptions to raise.
        model_name: What the model calls itself, for what goes by a model's name, such as the prices of a `Budget`.

    Attributes:
        asked: The messages of each call so far.

    Example:
        ```python
        from correction_graphs.testing import ScriptedChatModel

        model = ScriptedChatModel(["Sydney.", "Canberra."])
        assert model.invoke("The capital of Australia?").text == "Sydney."
        assert model.asked[0][0].text == "The capital of Australia?"
        ```
    """

    replies: list[Any]
    model_name: str | None = None
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    def __init__(self, replies: Sequence[str | AIMessage | BaseException], **kwargs: Any) -> None:
        super().__init__(replies=list(replies), **kwargs)

    @property
    def asked(self) -> list[list[BaseMessage]]:
        """The messages of each call so far."""
        return self._asked

    def bind_tools(self, *_: Any, **__: Any) -> Self:
        """Return this model: a script may call tools as it likes."""
        return self

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **_: Any,
    ) -> ChatResult:
        call = len(self._asked)
        self._asked.append(list(messages))
        if call >= len(self.replies):
            raise AssertionError(
                f"the scripted model was called {call + 1} times, but its script ends after {len(self.replies)}; "
                f"the last call asked: {messages[-1].text!r}"
            )
        reply = self.replies[call]
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, str):
            words = (sum(len(m.text.split()) for m in messages), len(reply.split()))
            usage = {"input_tokens": words[0], "output_tokens": words[1], "total_tokens": sum(words)}
            reply = AIMessage(reply, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=reply.model_copy())])


class ToyMemory:
    """An engine that stores tokens as llama.cpp does, cell by cell, and computes a hash of exactly the cells it sees.

    One stale, missing or doubled cell changes every later logit, so wrong bookkeeping cannot stay unnoticed.
    """

    def __init__(self, *, n_vocab: int, n_sequences: int, n_cells: int, rewinds: bool) -> None:
        self.n_sequences = n_sequences
        self.n_cells = n_cells
        self.rewinds = rewinds
        self.n_vocab = n_vocab
        self.forwarded_tokens = 0
        self.forward_calls = 0
        self._cells: list[tuple[int, int, set[int]]] = []  # position, token, sequences

    @property
    def used(self) -> int:
        """Cells that at least one sequence holds."""
        return len(self._cells)

    def copy(self, source: int, target: int, length: int) -> None:
        """Share the first `length` tokens of `source`; all of them, if the engine does not rewind."""
        if any(target in sequences for _, _, sequences in self._cells):
            raise BackendError(f"sequence {target} is not empty")
        cells = [cell for cell in self._cells if source in cell[2]]
        if length > len(cells) or (not self.rewinds and length != len(cells)):
            raise BackendError(f"cannot copy {length} of the {len(cells)} tokens of sequence {source}")
        for position, _, sequences in cells:
            if position < length:
                sequences.add(target)

    def truncate(self, sequence: int, length: int) -> None:
        """Take the sequence out of all cells from position `length` on."""
        if length and not self.rewinds:
            raise BackendError("this engine cannot cut a sequence")
        for position, _, sequences in self._cells:
            if position >= length:
                sequences.discard(sequence)
        self._cells = [cell for cell in self._cells if cell[2]]

    def clear(self) -> None:
        """Empty all sequences."""
        self._cells = []

    def compute(self, runs: Sequence[Run]) -> list[Logits]:
        """Add a cell for each token, and hash what each output sees."""
        rows = []
        self.forward_calls += 1
        for run in runs:
            for offset, token in enumerate(run.tokens):
                self._cells.append((run.position + offset, token, set(run.sequences)))
                if offset in run.outputs:
                    (row,) = {self._logits(sequence, run.position + offset) for sequence in run.sequences}
                    rows.append(row)
            self.forwarded_tokens += len(run.tokens)
        if self.used > self.n_cells:
            raise BackendError(f"{self.used} tokens in {self.n_cells} cells")
        return [self.logits(list(row)) for row in rows]

    def _logits(self, sequence: int, position: int) -> tuple[int, ...]:
        seen = sorted((at, token) for at, token, sequences in self._cells if sequence in sequences)
        if [at for at, _ in seen] != list(range(position + 1)):
            raise BackendError(
                f"sequence {sequence} holds positions {[at for at, _ in seen]}, expected 0 to {position}"
            )
        return tuple(token for _, token in seen)

    def logits(self, tokens: Sequence[int]) -> Logits:
        """What a model that has seen nothing else says after `tokens`."""
        seed = hashlib.blake2b(np.asarray(tokens, np.int64).tobytes(), digest_size=8).digest()
        noise = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(self.n_vocab)
        return noise.astype(np.float32)


class ToyBackend(CachedBackend):
    """A backend without a model: bytes are tokens, and logits are a hash of the text.

    Args:
        n_ctx: How many tokens one branch may hold.
        n_sequences: How many different ends the cache can hold.
        n_cells: How many tokens the cache can hold.
        rewinds: False for the behaviour of recurrent models.
    """

    END = 256

    def __init__(
        self, *, n_ctx: int = 512, n_sequences: int = 16, n_cells: int | None = None, rewinds: bool = True
    ) -> None:
        cells = n_cells or n_ctx + n_sequences
        self.memory = ToyMemory(n_vocab=self.END + 1, n_sequences=n_sequences, n_cells=cells, rewinds=rewinds)
        super().__init__(self.memory, n_vocab=self.END + 1, n_ctx=n_ctx)

    @property
    def name(self) -> str:
        """Name of the model."""
        return "toy"

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """UTF-8 bytes; with `special`, "<end>" is the end token."""
        parts = text.split("<end>") if special else [text]
        tokens = [[*part.encode("utf-8", errors="replace"), self.END] for part in parts]
        return [token for part in tokens for token in part][:-1]

    def token_bytes(self, token: int) -> bytes:
        """The byte itself, nothing for the end token."""
        return b"" if token == self.END else bytes([token])

    def is_end(self, token: int) -> bool:
        """Whether this is the end token."""
        return token == self.END

    def chat_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """One line a message, each closed by the end token."""
        lines: Iterator[list[int]] = (
            [*self.tokenize(f"{message['role']}: {message['content']}"), self.END] for message in messages
        )
        return [token for line in lines for token in line] + self.tokenize("assistant: ")
