"""Which parts of a text a filtered version of it still has, sentence by sentence, clause by clause.

Spans are `(start, end)` into the text as it was given, so that `text[start:end]` is what was dropped.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import NamedTuple

from correction_graphs.filtering.words import content_of

_CLOSERS = "\"'”’)）】」』»\\]"
_SENTENCE_END = re.compile(rf"(?:(?<![\d])[.](?![\w])|(?<=\d)[.](?=\s|\Z)|[!?…؟]|[。！？])+[{_CLOSERS}]*\s*|\n\s*")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|approx|No|Fig|Inc|Ltd|Co|a\.m|p\.m)|\b[A-Z])\.\s*\Z"
)
_NUMBERED = re.compile(r"\b(?:no|nos|pp?|vol|art|sec|ch|fig|nr)\.\s*\Z", re.IGNORECASE)
_CLAUSE_END = re.compile(
    r"[;—–،；：，、]\s*|(?<!\d)[,:]\s*|[,:](?!\d)\s*|(?<=\s)[-–—]\s+|"
    r"(?<=\s)(?=(?:but|because|although|though|whereas|since|so|and yet|yet)\s)",
    re.IGNORECASE,
)
_KEPT = 0.5
_MOST_PAIRS = 2_000_000

Span = tuple[int, int]


class Segment(NamedTuple):
    """A piece of a text, and whether the filtered version has it."""

    start: int
    end: int
    kept: bool


def sentences(text: str) -> list[Span]:
    """Return the sentences of a text, white space after each included: together they are the text."""
    cuts = [0]
    for end in _SENTENCE_END.finditer(text):
        if end[0].startswith(".") and "\n" not in end[0] and _is_abbreviation(text, cuts[-1], end.start(), end.end()):
            continue
        cuts.append(end.end())
    if cuts[-1] != len(text):
        cuts.append(len(text))
    return _with_words(text, [span for span in pairwise(cuts) if span[0] != span[1]])


def clauses(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """Return the clauses of a part of a text; together they are that part."""
    end = len(text) if end is None else end
    cuts = [start, *(mark.end() for mark in _CLAUSE_END.finditer(text, start, end)), end]
    return _with_words(text, [span for span in pairwise(sorted(set(cuts))) if span[0] != span[1]])


def align(original: str, filtered: str) -> list[Segment]:
    """Return the clauses of a text in order, each with whether the filtered version has it.

    Sentences that are repeated word by word are found first; of the others, a clause counts as kept if at least half of
    its content words stand together in one sentence of what is left of the filtered version.
    """
    spans = sentences(original)
    written = [filtered[start:end] for start, end in sentences(filtered)]
    left = Counter(map(_folded, written))
    verbatim = []
    for start, end in spans:
        key = _folded(original[start:end])
        verbatim.append(left[key] > 0)
        left[key] -= verbatim[-1]
    rest = [set(content_of(sentence)) for sentence in written if left.pop(_folded(sentence), 0) > 0]
    if len(spans) * len(rest) > _MOST_PAIRS:  # a text that would take minutes
        rest = [set().union(*rest)]
    sets = Sets(rest)
    segments: list[Segment] = []
    for span, is_verbatim in zip(spans, verbatim, strict=True):
        segments += [Segment(*span, kept=True)] if is_verbatim else _clauses_kept(original, span, sets)
    return segments


def dropped(original: str, filtered: str) -> list[Span]:
    """Return the spans of a text that the filtered version lacks, without the white space around them."""
    spans: list[Span] = []
    for start, end, kept in align(original, filtered):
        if kept:
            continue
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    stripped = (
        (start + _indent(original[start:end]), start + len(original[start:end].rstrip())) for start, end in spans
    )
    return [(start, end) for start, end in stripped if start < end]


def changed(original: str, filtered: str) -> tuple[list[str], list[str]]:
    """Return the sentences of both texts that the other one does not repeat word by word."""
    one, other = ([text[start:end] for start, end in sentences(text)] for text in (original, filtered))
    keys, other_keys = list(map(_folded, one)), list(map(_folded, other))
    return _unrepeated(one, keys, other_keys), _unrepeated(other, other_keys, keys)


def _unrepeated(these: list[str], keys: list[str], known_keys: list[str]) -> list[str]:
    known = Counter(known_keys)
    left = []
    for sentence, key in zip(these, keys, strict=True):
        if known[key] <= 0:
            left.append(sentence)
        known[key] -= 1
    return left


def overlap(part: AbstractSet[str], whole: AbstractSet[str]) -> float:
    """Return the share of `part` that is in `whole`; 0 for an empty part."""
    return len(part & whole) / len(part) if part else 0.0


class Sets:
    """Sets of words, to be asked which of them has most of some words without a look at each.

    The sets that have a word are the bits of one integer. Adding such integers up, all bits at once, tells how many of
    the words each set has.
    """

    def __init__(self, sets: Sequence[AbstractSet[str]]) -> None:
        self._order = sorted(range(len(sets)), key=lambda at: len(sets[at]))  # the shortest is the lowest bit
        self._having: dict[str, list[int]] = {}
        for bit, at in enumerate(self._order):
            for word in sets[at]:
                self._having.setdefault(word, []).append(bit)
        self._masks: dict[str, int] = {}

    def best(self, words: set[str]) -> tuple[int | None, int]:
        """Return which set has most of the words, and how many; of equals the shortest, and of these the first."""
        having = [word for word in words if word in self._having]
        if not having:
            return None, 0
        if sum(len(self._having[word]) for word in having) <= len(having) * (_FEW + len(self._order) // 1024):
            counts = Counter(bit for word in having for bit in self._having[word])
            most = max(counts.values())
            return self._order[min(bit for bit, count in counts.items() if count == most)], most
        digits: list[int] = []  # of the counts of all sets, in binary, lowest first
        for word in having:
            carry = self._mask(word)
            for place, digit in enumerate(digits):
                digits[place], carry = digit ^ carry, digit & carry
                if not carry:
                    break
            if carry:
                digits.append(carry)
        left, most = 0, 0
        for place in range(len(digits) - 1, -1, -1):
            narrowed = left & digits[place] if most else digits[place]
            if narrowed:
                left, most = narrowed, most + 2**place
        return self._order[(left & -left).bit_length() - 1], most

    def _mask(self, word: str) -> int:
        mask = self._masks.get(word)
        if mask is None:
            bits = bytearray(len(self._order) // 8 + 1)
            for bit in self._having[word]:
                bits[bit // 8] |= 1 << bit % 8
            if len(self._masks) * len(bits) > _MOST_BYTES:
                self._masks.clear()
            mask = self._masks[word] = int.from_bytes(bits, "little")
        return mask


_FEW = 4
_MOST_BYTES = 2**26


def _is_abbreviation(text: str, start: int, dot: int, end: int) -> bool:
    """Whether the full stop at `dot`, with white space up to `end`, belongs to a word: "Dr. Chen", "no. 5"."""
    start = max(start, dot - _LONGEST_ABBREVIATION)
    numbered = text[end : end + 1].isdigit() and _NUMBERED.search(text, start, end)
    return bool(numbered or _ABBREVIATION.search(text, start, end))


_LONGEST_ABBREVIATION = 8


def _clauses_kept(text: str, span: Span, rest: Sets) -> list[Segment]:
    parts = clauses(text, *span)
    words = [set(content_of(text[start:end])) for start, end in parts]
    kept: list[bool | None] = [rest.best(each)[1] / len(each) >= _KEPT if each else None for each in words]
    for index in range(len(kept) - 1, -1, -1):  # "of course," goes with what follows it
        if kept[index] is None:
            kept[index] = kept[index + 1] if index + 1 < len(kept) else (kept[index - 1] if index else False)
    return [Segment(*part, kept=bool(each)) for part, each in zip(parts, kept, strict=True)]


def _with_words(text: str, spans: list[Span]) -> list[Span]:
    """Join spans without a word in them to the one before."""
    joined: list[Span] = []
    has_words = False  # the last one of `joined`
    for start, end in spans:
        more = _IN_WORD.search(text, start, end) is not None
        if joined and not (more and has_words):
            joined[-1] = (joined[-1][0], end)
            has_words = has_words or more
        else:
            joined.append((start, end))
            has_words = more
    return joined


_IN_WORD = re.compile(r"\w")


def _folded(text: str) -> str:
    return " ".join(_LETTERS.findall(text.casefold()))


_LETTERS = re.compile(r"\w+")


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
