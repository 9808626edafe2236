"""A text as the guards look at it: its content, numbers and words, and many words looked for in it."""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

from correction_graphs.filtering.numbers import Number, numbers_in, values_in
from correction_graphs.filtering.words import content_of, stem, words_of
from correction_graphs.scripts import IS_CJK


class Text:
    """A text, and what is in it: looked for when it is asked for, and only once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def content(self) -> list[str]:
        """What it is about; see `content_of`."""
        return content_of(self.text)

    @cached_property
    def about(self) -> frozenset[str]:
        """The same, each once."""
        return frozenset(self.content)

    @cached_property
    def numbers(self) -> list[Number]:
        """The numbers in it, in order."""
        return numbers_in(self.text)

    @cached_property
    def values(self) -> set[str]:
        """What its numbers may mean."""
        return values_in(self.text, self.numbers)

    @cached_property
    def keys(self) -> set[str]:
        """Its words, as `key_of` compares them."""
        return set(map(key_of, words_of(self.text)))

    @cached_property
    def lengths(self) -> set[int]:
        """How long the keys are."""
        return set(map(len, self.keys))

    @cached_property
    def longest(self) -> int:
        """How long the longest key is."""
        return max(self.lengths, default=0)

    @cached_property
    def pairs(self) -> set[str]:
        """Every character, and every two that stand together."""
        return {*self.text, *map("".join, pairwise(self.text))}

    @cached_property
    def letters(self) -> Haystack:
        """The text, to look for words in."""
        return Haystack(self.text, otherwise=True)

    def says(self, word: str) -> bool:
        """Whether a stem, or a run of CJK characters, is in it."""
        if not IS_CJK.match(word):
            return word in self.keys
        return word[:2] in self.pairs and (len(word) <= 2 or word in self.letters)  # noqa: PLR2004


class Haystack:
    """A text in which many words are looked for, letter by letter.

    One search takes as long as the text is; so when all searches together took long, the answer for what is left is
    `otherwise`, chosen so that the guards report it.
    """

    def __init__(self, text: str, known: Iterable[str] = (), *, otherwise: bool = False) -> None:
        self._text = text
        self._otherwise = otherwise
        self._found = dict.fromkeys(known, True)
        self._left = _MOST_SEARCHED

    def __contains__(self, word: object) -> bool:
        if not isinstance(word, str):
            return False
        if word not in self._found:
            if self._left <= 0:
                return self._otherwise
            at = self._text.find(word)
            self._left -= len(self._text) if at < 0 else at
            self._found[word] = at >= 0
        return self._found[word]


_MOST_SEARCHED = 500_000_000


def key_of(word: str) -> str:
    """Return a word as it is compared: its stem, without case and possessive."""
    return stem(word.casefold().removesuffix("'s").removesuffix("’s"))


def without_accents(text: str) -> str:
    """The text without case, accents and typographic apostrophes."""
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    return "".join(each for each in plain if not unicodedata.combining(each))
