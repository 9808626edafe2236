"""Which parts of a text a filtered version of it still has, sentence by sentence, clause by clause.

Spans are `(start, end)` into the text as it was given, so that `text[start:end]` is what was dropped.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
from collections import Counter
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
        if end[0].startswith(".") and "\n" not in end[0] and _is_abbreviation(text, cuts[-1], end.end()):
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
    segments: list[Segment] = []
    for span, is_verbatim in zip(spans, verbatim, strict=True):
        segments += [Segment(*span, kept=True)] if is_verbatim else _clauses_kept(original, span, rest)
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
    return _unrepeated(one, other), _unrepeated(other, one)


def _unrepeated(these: list[str], those: list[str]) -> list[str]:
    known = Counter(map(_folded, those))
    left = []
    for sentence in these:
        key = _folded(sentence)
        if known[key] <= 0:
            left.append(sentence)
        known[key] -= 1
    return left


def overlap(part: set[str], whole: set[str]) -> float:
    """Return the share of `part` that is in `whole`; 0 for an empty part."""
    return len(part & whole) / len(part) if part else 0.0


def _is_abbreviation(text: str, start: int, end: int) -> bool:
    """Whether the full stop before `end` belongs to a word: "Dr. Chen", "no. 5"."""
    numbered = text[end : end + 1].isdigit() and _NUMBERED.search(text, start, end)
    return bool(numbered or _ABBREVIATION.search(text, start, end))


def _clauses_kept(text: str, span: Span, rest: list[set[str]]) -> list[Segment]:
    parts = clauses(text, *span)
    words = [set(content_of(text[start:end])) for start, end in parts]
    kept: list[bool | None] = [
        max((overlap(each, sentence) for sentence in rest), default=0.0) >= _KEPT if each else None for each in words
    ]
    whole = set().union(*words)
    alone = max((overlap(whole, sentence) for sentence in rest), default=0.0) >= _KEPT if whole else False
    for index in range(len(kept) - 1, -1, -1):  # "of course," goes with what follows it
        if kept[index] is None:
            kept[index] = kept[index + 1] if index + 1 < len(kept) else (kept[index - 1] if index else alone)
    return [Segment(*part, kept=bool(each)) for part, each in zip(parts, kept, strict=True)]


def _with_words(text: str, spans: list[Span]) -> list[Span]:
    """Join spans without a word in them to the one before."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and (not re.search(r"\w", text[start:end]) or not re.search(r"\w", text[slice(*joined[-1])])):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
