"""Numbers and names that a filter exchanged: each is known by the words around it, in the original and now."""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from correction_graphs.filtering.alignment import clauses, sentences
from correction_graphs.filtering.names import HAN_NAME, is_ordinary, names_in
from correction_graphs.filtering.texts import Text
from correction_graphs.filtering.words import STOP, stem
from correction_graphs.scripts import CJK, IS_CJK

_REACH = 4
_NEARNESS = (12, 6, 4, 3)  # twelfths: 1, 1/2, 1/3, 1/4

_KINDS = ("number", "name")
_Tokens = list[tuple[str, str]]
"""Words of a clause, each after its kind: one of these, or "word"."""


class _Place(NamedTuple):
    """Where a number or name stands: the words before it and after it, nearest first."""

    key: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class _Likeness:
    """How much places have in common with a place; near words count most."""

    def __init__(self, places: list[_Place]) -> None:
        self._count = len(places)
        self._having: dict[tuple[bool, str], list[tuple[int, int]]] = {}
        for at, place in enumerate(places):
            for side, words in enumerate((place.before, place.after)):
                for rank, word in enumerate(words):
                    self._having.setdefault((bool(side), word), []).append((at, rank))

    def to(self, place: _Place) -> list[int]:
        """Return the likeness of each, in twelfths."""
        likeness = [0] * self._count
        for side, words in enumerate((place.before, place.after)):
            for rank, word in enumerate(words):
                for at, other in self._having.get((bool(side), word), ()):
                    likeness[at] += _NEARNESS[max(rank, other)]
        return likeness


def swapped(original: Text, sentences_now: list[str]) -> list[str]:
    """Return the numbers and names that stand where another one stood."""
    now = list(_tokens(Text("\n".join(sentence.strip() for sentence in sentences_now))))
    counts = Counter(kind for clause in now for kind, _ in clause)
    most = {kind: _MOST_PLACES // counts[kind] for kind in _KINDS if counts[kind]}
    if not most:
        return []
    old: list[_Tokens] = []
    there: Counter[str] = Counter()
    for clause in _tokens(original):
        old.append(clause)
        there.update(kind for kind, _ in clause)
        if all(there[kind] > limit for kind, limit in most.items()):
            return []
    new: list[str] = []
    for kind, limit in most.items():
        if there[kind] <= limit:
            new += _exchanged(_places(old, kind), _places(now, kind))
    return new


def _exchanged(old: list[_Place], now: list[_Place]) -> list[str]:
    by_key: dict[str, list[int]] = {}
    for at, place in enumerate(old):
        by_key.setdefault(place.key, []).append(at)
    likeness = _Likeness(old)
    moved: dict[str, set[str]] = {}
    lead: dict[str, int] = {}  # by how much another's place is more like it, at the least
    for place in now:
        if place.key not in by_key:
            continue
        scores = likeness.to(place)
        best = max(scores)
        ahead = best - max(scores[at] for at in by_key[place.key])
        lead[place.key] = min(ahead, lead.get(place.key, ahead))
        if ahead > _MARGIN:
            moved.setdefault(place.key, set()).add(old[scores.index(best)].key)
    in_turn = {key for key, others in moved.items() if any(key in moved.get(other, ()) for other in others)}
    clear = [key for key in moved if key not in in_turn and lead[key] >= _CLEAR]
    return [*(key for key in moved if key in in_turn), *clear]


_MARGIN = 12 * 0.3
_MOST_PLACES = 250_000  # of a long text that was all written anew; to compare them would take seconds
_CLEAR = 12 * 1.4


def _places(clauses_read: list[_Tokens], kind: str) -> list[_Place]:
    """Return the different places of all numbers, or of all names."""
    found: dict[_Place, None] = {}
    for tokens in clauses_read:
        for at, (each, key) in enumerate(tokens):
            if each == kind:
                before = dict.fromkeys(word for _, word in reversed(tokens[max(0, at - _REACH) : at]) if word != key)
                after = dict.fromkeys(word for _, word in tokens[at + 1 : at + 1 + _REACH] if word != key)
                found[_Place(key, tuple(before), tuple(after))] = None
    return list(found)


_TOKEN = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:['’][^\W_{CJK}]+)*")


def _tokens(read: Text) -> Iterator[_Tokens]:
    """Yield the words of each clause that say something, each as what it is."""
    text = read.text
    numbers = [number for number in read.numbers if not number.vague]
    names = {
        start: name
        for name, start, opens in names_in(text)
        if not (opens and is_ordinary(name)) and name.casefold() not in STOP
    }
    if IS_CJK.search(text):
        names.update((match.start(), match[0]) for match in HAN_NAME.finditer(text))
    passed = 0
    for start, end in (clause for sentence in sentences(text) for clause in clauses(text, *sentence)):
        tokens: _Tokens = []
        until = start
        while passed < len(numbers) and numbers[passed].start < start:
            passed += 1
        for match in _TOKEN.finditer(text, start, end):
            at = match.start()
            if at < until:
                continue
            while passed < len(numbers) and numbers[passed].end <= at:
                passed += 1
            if passed < len(numbers) and numbers[passed].start <= at:
                until = numbers[passed].end
                tokens.append(("number", min(numbers[passed].values)))
            elif at in names:
                until = at + len(names[at])
                tokens.append(("name", names[at].casefold()))
            elif (word := match[0].casefold()) not in STOP or word in _RELATIONS:
                tokens.append(("word", stem(word)))
        yield tokens


_RELATIONS = frozenset(["than", "by", "to", "from", "before", "after", "over", "under"])
