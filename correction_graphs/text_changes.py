"""What changed from one text to the next, word by word. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple


class Change(NamedTuple):
    """A piece of text that two answers share, or that only the older ("del") or the newer one ("ins") has."""

    kind: Literal["same", "del", "ins"]
    text: str


# Chinese and Japanese put no spaces between words; there each character counts as one. Whitespace goes with what
# precedes it, and is not looked at when words are matched.
_ALONE = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORD = re.compile(rf"([{_ALONE}]|[^\s{_ALONE}]*)(\s*)")
_LINE = re.compile(r"([^\n]*)(\n*)")
_MOST_COMPARISONS = 50_000_000  # in the worst case, which takes a second; 1800 words of prose, all of them new


def changes(old: str, new: str) -> list[Change]:
    """Compare two texts word by word, or line by line where they are too long for that.

    Without the "ins" pieces the result is exactly `old`, without the "del" pieces exactly `new`. For very long texts
    the time grows with their length only: where even their lines are too many to compare, all of the text is new.
    """
    for unit in (_WORD, _LINE):
        before, after = _units(unit, old), _units(unit, new)
        pairs = _matched([word for word, _ in before], [word for word, _ in after])
        if pairs is not None:
            return _joined(_pieces(before, after, pairs))
    return _joined([Change("del", old), Change("ins", new)])


def _units(unit: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    """Cut a text into words, or lines, each with the whitespace after it."""
    return [(found[1], found[2]) for found in unit.finditer(text) if found[0]]


def _matched(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]] | None:
    """Return which words of two texts are the same ones, by their places; None if it would take too long to tell."""
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    counts = Counter(new)
    if sum(counts[word] for word in old) * min(len(old), len(new)) > _MOST_COMPARISONS:
        return None
    found = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return [
        *((place, place) for place in range(start)),
        *((start + i + n, start + j + n) for i, j, size in found for n in range(size)),
        *((len(before) - n, len(after) - n) for n in range(end, 0, -1)),
    ]


def _shared(before: Sequence[str], after: Sequence[str]) -> int:
    """Count the words that two texts begin with in common."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (old, new) in pairs if old != new), min(len(before), len(after)))


def _pieces(
    before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]], pairs: Iterable[tuple[int, int]]
) -> Iterator[Change]:
    i = j = 0
    for old, new in [*pairs, (len(before), len(after))]:
        yield from (Change("del", word + space) for word, space in before[i:old])
        yield from (Change("ins", word + space) for word, space in after[j:new])
        if old < len(before):
            (word, space), (_, now) = before[old], after[new]
            yield Change("same", word)
            yield from [Change("same", space)] if space == now else [Change("del", space), Change("ins", now)]
        i, j = old + 1, new + 1


def _joined(pieces: Iterable[Change]) -> list[Change]:
    """Join neighbours of one kind, what was taken out before what was put in."""
    joined: list[Change] = []
    gone = come = ""
    for kind, text in [*pieces, Change("same", "")]:
        gone, come = gone + text * (kind == "del"), come + text * (kind == "ins")
        if kind == "same" and text and not (gone or come) and joined:
            joined[-1] = Change("same", joined[-1].text + text)
        elif kind == "same" and (text or gone or come):
            joined += [piece for piece in (Change("del", gone), Change("ins", come)) if piece.text]
            joined.append(Change("same", text))
            gone = come = ""
    return [piece for piece in joined if piece.text]
