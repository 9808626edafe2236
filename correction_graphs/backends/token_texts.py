"""A vocabulary on this side of a connection, and its tokens by their texts."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from correction_graphs.backends.chat_prompts import LIKE_CONTROL, any_of
from correction_graphs.errors import SettingsError


@runtime_checkable
class Vocabulary(Protocol):
    """The served model's tokens, on this side: a `GgufVocabulary`, or an adapter of some other tokenizer.

    Two more methods are used where there are any: `chat_tokens(messages)`, which makes a chat template unnecessary, and
    `token_text(token)`, the spelling of a control token, which prompts that are sent as text need.
    """

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        ...

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Turn text into tokens, without adding any; control tokens are recognized in it only if `special`."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for, b"" for control tokens."""
        ...

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its text, or its turn, with this token."""
        ...


def checked_vocabulary(given: Any) -> Vocabulary:
    """Return what is a vocabulary as it is.

    Raises:
        SettingsError: If it is none.
    """
    if isinstance(given, Vocabulary):
        return given
    raise SettingsError(
        f"`vocabulary` is {given!r:.200}; give the path of a GGUF file of the served model, or an object with "
        "`n_vocab`, `tokenize`, `token_bytes` and `is_end`"
    )


class TokenTexts:
    """The vocabulary by text, for servers that know tokens by nothing else; gone through when it is first needed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._spell: Callable[[int], str] | None = getattr(vocabulary, "token_text", None)

    @property
    def spells_control(self) -> bool:
        """Whether the vocabulary tells how control tokens are spelled."""
        return self._spell is not None

    def token(self, text: str) -> int | None:
        """Return the token with a text; None if there is none, or the text is not that of whole characters."""
        return self._by_text.get(text.encode("utf-8", errors="replace"))

    @functools.cached_property
    def end(self) -> int:
        """One of the tokens that end a text; which does not matter, since nothing is read after it."""
        vocabulary = self._vocabulary
        found = next((token for token in range(vocabulary.n_vocab) if vocabulary.is_end(token)), None)
        if found is None:
            raise SettingsError("`vocabulary` has no token that ends a text; `is_end` must be true of one at least")
        return found

    @functools.cached_property
    def ordinary(self) -> int:
        """A token with a text."""
        return self._vocabulary.tokenize("a")[0]

    @functools.cached_property
    def control_spellings(self) -> re.Pattern[str]:
        """Matches the spelling of every control token; what looks like one, where the vocabulary does not tell."""
        return any_of(self._control.values()) if self.spells_control else LIKE_CONTROL

    def spelled(self, tokens: Sequence[int]) -> str:
        """Return a text in which control tokens are spelled out, and nothing else looks like one."""
        parts: list[str] = []
        plain = bytearray()
        for token in tokens:
            data = self._vocabulary.token_bytes(token)
            plain += data
            if not data:
                parts += [self._defused(plain), self._control[token]]
                plain.clear()
        return "".join([*parts, self._defused(plain)])

    def _defused(self, data: bytes | bytearray) -> str:
        text = data.decode("utf-8", errors="replace")
        return self._divisible.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    @functools.cached_property
    def _by_text(self) -> dict[bytes, int]:
        tokens = range(self._vocabulary.n_vocab)
        found = {self._vocabulary.token_bytes(token): token for token in reversed(tokens)}
        found.pop(b"", None)
        if self._spell:
            ends = {self._spell(token).encode(): token for token in tokens if self._vocabulary.is_end(token)}
            found |= {text: token for text, token in ends.items() if text}
        return found

    @functools.cached_property
    def _control(self) -> dict[int, str]:
        tokens = [token for token in range(self._vocabulary.n_vocab) if not self._vocabulary.token_bytes(token)]
        return {token: self._spell(token) if self._spell else "" for token in tokens}

    @functools.cached_property
    def _divisible(self) -> re.Pattern[str]:
        return any_of(text for text in self._control.values() if len(text) > 1)
