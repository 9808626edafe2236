"""Whether a filtered text is true to the original: nothing added, no number or negation lost, and the question kept.

The guards judge by words alone. They are strict about what can change an answer (numbers, names, quotations, "not", the
question), and leave a filter free in how it joins what it keeps.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from correction_graphs.filtering.alignment import Sets, changed, clauses, overlap, sentences
from correction_graphs.filtering.exchanges import swapped
from correction_graphs.filtering.names import new_names, proper_names
from correction_graphs.filtering.numbers import numbers_in
from correction_graphs.filtering.texts import Haystack, Text, key_of, without_accents
from correction_graphs.filtering.words import (
    AUXILIARIES,
    QUESTION_WORDS,
    REQUESTS,
    STOP,
    asks,
    content_of,
    is_opinion,
    negated_in,
    negations_in,
    spans_of,
    words_of,
)
from correction_graphs.messages import squeezed
from correction_graphs.scripts import IS_CJK

Kind = Literal["labels", "empty", "cut", "added", "lost", "question", "negation", "longer"]


class Breach(NamedTuple):
    """What is wrong with a filtered text.

    Attributes:
        kind: "labels": its parts cannot be told apart. "empty": there is nothing. "cut": it broke off. "added": a
            number, name, quotation or statement is not in the original, or stands with something else there. "lost": a
            number or name is missing in what was kept. "question": the question is not asked any more. "negation": one
            was lost or added. "longer": it has grown.
        items: The words that are meant, where there are any.
    """

    kind: Kind
    items: tuple[str, ...] = ()


def breaches(original: str, context: str, question: str = "", *, whole: bool = True) -> list[Breach]:
    """Return what is wrong with a filtered text; an empty list if it may stand in for the original.

    Args:
        original: What was filtered.
        context: What the filter kept, or all of it where it is one text.
        question: What the filter took for the question, if it says so separately.
        whole: Whether the question must be in it: not so in a document.
    """
    context, question = _thinned(context), _thinned(question)
    before, after = Text(_thinned(original)), Text("\n".join(part for part in (context, question) if part.strip()))
    if not after.text.strip():
        return [Breach("empty")]
    if squeezed(after.text) == squeezed(before.text):
        return []
    was, now = changed(before.text, after.text)
    kept = list(_kept_clauses(was, now))
    found = [
        Breach("longer", ()) if _is_longer(before, after) else None,
        _breach("added", [*_new_numbers(before, after), *new_names(before.text, after.text)]),
        _breach("added", _new_quotes(before.text, after.text)),
        _breach("added", _new_sentences(before, now)),
        _breach("added", swapped(before, now)),
        _breach("lost", _lost_details(kept, after)),
        _breach("negation", _changed_negations(before.text, after.text, kept, now)),
        _breach("question", _lost_questions(before.text, after, question)) if whole else None,
    ]
    return _merged(breach for breach in found if breach)


# Nothing added


def _is_longer(original: Text, filtered: Text) -> bool:
    return len(filtered.content) > len(original.content) * 1.25 + 8


def _new_numbers(original: Text, filtered: Text) -> list[str]:
    new = [
        filtered.text[number.start : number.end]
        for number in filtered.numbers
        if not number.vague and not number.values & original.values
    ]
    if not new:
        return []
    folded = Haystack(original.text.casefold())
    return [each for each in dict.fromkeys(new) if any(map(str.isdigit, each)) or each.casefold() not in folded]


_OPENING = re.compile(r"[“\"「『《«`]|(?<!\w)[‘']")
_CLOSING = {
    mark: re.compile(rf"[{closers}\n]")
    for mark, closers in zip("“\"「『《«`‘'", ("”", '"', "」", "』", "》", "»", "`", "'’", "'’"), strict=True)
}
# What is no link is read through in one go, up to the next link.
_VERBATIM = re.compile(r"(https?://[^\s<>\"'）)，。]+|[\w.+-]+@[\w-]+\.[\w.]+)|[\w.+-]+?(?=https?://|[^\w.+-]|\Z)")


def _new_quotes(original: str, filtered: str) -> list[str]:
    said = dict.fromkeys([*_quotes(filtered), *_links(filtered)])
    if not said:
        return []
    known = {*_quotes(original), *_links(original)}
    new = [each for each in said if each not in known]
    text = Haystack(_bare(original) if new else "")
    return [each for each in new if _bare(each) not in text]


def _quotes(text: str) -> Iterator[str]:
    """Yield what stands between marks of quotation in one line."""
    ends: dict[str, int] = {}  # the next closing mark or line's end, by opening mark: none is looked for twice
    until = 0
    for mark in _OPENING.finditer(text):
        kind, start = mark[0], mark.end()
        if mark.start() < until:
            continue
        if ends.get(kind, 0) < start:
            closing = _CLOSING[kind].search(text, start)
            ends[kind] = closing.start() if closing else len(text)
        end = ends[kind]
        if end == start or text[end : end + 1] in ("", "\n"):
            continue
        if kind in "‘'" and (end - start < 2 or _IN_WORD.match(text, end + 1)):  # noqa: PLR2004
            continue
        until = end + 1
        yield text[start:end]


_IN_WORD = re.compile(r"\w")


def _links(text: str) -> list[str]:
    return [link.rstrip(".") for link in _VERBATIM.findall(text) if link]


def _new_sentences(original: Text, now: list[str]) -> list[str]:
    """Sentences most of whose words are not in the original."""
    new = []
    for sentence in dict.fromkeys(now):
        words = set(content_of(sentence))
        strange = words - original.about
        if len(strange) > max(3, 0.5 * len(words)) or (len(strange) == len(words) > 2):  # noqa: PLR2004
            new.append(sentence.strip())
    return new


# Nothing lost of what was kept


def _kept_clauses(was: list[str], now: list[str]) -> Iterator[tuple[str, Text]]:
    """Yield the clauses that were kept in other words, each with the sentence that has most of it."""
    if not now or len(was) * len(now) > _MOST_SENTENCES:
        return
    texts = [Text(sentence) for sentence in now]
    sets = Sets([text.about for text in texts])
    for sentence in was:
        for start, end in clauses(sentence):
            text = sentence[start:end]
            content = {word for word in content_of(text) if not word.isdigit()}
            if len(content) < (1 if negations_in(text) else 2):
                continue
            best, count = sets.best(content)
            if best is not None and count / len(content) >= _KEPT:
                yield text, texts[best]


_MOST_SENTENCES = 1_000_000
_KEPT = 0.6


def _lost_details(kept: list[tuple[str, Text]], filtered: Text) -> list[str]:
    """Numbers that are missing between words that were kept."""
    lost = []
    for clause, sentence in kept:
        said = {word for word in content_of(clause) if not word[0].isdigit()}
        if overlap(said, sentence.about) < _WHOLE:
            continue
        missing = [n for n in numbers_in(clause) if not n.vague and not n.values & filtered.values]
        if missing and not is_opinion(clause):
            around = _Around(clause)
            lost += [clause[n.start : n.end] for n in missing if around.is_in(sentence, n.start, n.end)]
    return lost


_WHOLE = 0.8


class _Around:
    """The words around the numbers of a clause that say something; "May" does, and "may" does not."""

    def __init__(self, clause: str) -> None:
        self._clause = clause
        self._spans = spans_of(clause)
        self._starts = [start for start, _ in self._spans]
        self._telling = [at for at, span in enumerate(self._spans) if self._tells(clause[slice(*span)])]

    def is_in(self, text: Text, start: int, end: int) -> bool:
        """Whether a text has the nearest of them before `start` and after `end`, if there are such."""
        return self._says(text, self._before(start)) and self._says(text, self._after(end))

    def _before(self, cut: int) -> tuple[int, int] | None:
        at = bisect_left(self._starts, cut) - 1  # the last that begins before
        if at >= 0 and self._spans[at][1] > cut:
            if self._tells_in_part(part := (self._starts[at], cut)):
                return part
            at -= 1
        index = bisect_right(self._telling, at) - 1
        return self._spans[self._telling[index]] if index >= 0 else None

    def _after(self, cut: int) -> tuple[int, int] | None:
        at = bisect_left(self._starts, cut)  # the first that begins there or later
        if at and self._spans[at - 1][1] > cut and self._tells_in_part(part := (cut, self._spans[at - 1][1])):
            return part
        index = bisect_left(self._telling, at)
        return self._spans[self._telling[index]] if index < len(self._telling) else None

    def _tells_in_part(self, span: tuple[int, int]) -> bool:
        start, end = span
        words = words_of(self._clause[start : min(end, start + _LONGEST_STOP)])
        return any(map(self._tells, words))

    @staticmethod
    def _tells(word: str) -> bool:
        return word not in STOP and not word[0].isdigit()

    def _says(self, text: Text, span: tuple[int, int] | None) -> bool:
        if span is None:
            return True
        start, end = span
        if IS_CJK.match(self._clause, start):  # most can be told by their length alone, which matters in a long run
            if text.lengths.isdisjoint((end - start, end - start - 1)):
                return False
        elif end - start > text.longest + _MOST_SHORTENED:
            return False
        return key_of(self._clause[start:end].strip("'’")) in text.keys


_MOST_SHORTENED = 16  # letters that a word's key may lack
_LONGEST_STOP = 3 + max(map(len, STOP))


_LEADING = re.compile(
    r"(?:^|(?<=[.!?]\s))\W{0,3}(?:is|are|was|were|do|does|did|has|have|can|could|wo|would|should)n['’]t\b",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r",?\s?(?:is|are|was|were|do|does|did|has|have|can|could|wo|would|should)n['’]t\s+\w+\s*\?", re.IGNORECASE
)


def _changed_negations(original: str, filtered: str, kept: list[tuple[str, Text]], now: list[str]) -> list[str]:
    """Clauses that were kept without their "not", and what has one now."""
    before, after, rewritten = map(_without_tags, (original, filtered, "\n".join(now)))
    was, is_now = negated_in(before, near=False), negated_in(after, near=False)
    lost = [
        clause.strip()
        for clause, sentence in kept
        for word in negated_in(_without_tags(clause))
        if word not in is_now and sentence.says(word)
    ]
    said = Text(before)
    return lost + [word for word in negated_in(rewritten) if word not in was and said.says(word)]


def _without_tags(text: str) -> str:
    return _LEADING.sub("", _TAIL.sub("", text)) if "'" in text or "’" in text else text


# The question


_OPTION = re.compile(r"(?m)^[ \t]*\(?([A-Ha-h]|[1-9])[).:][ \t]+\S.*$")


def _lost_questions(original: str, filtered: Text, question: str) -> list[str]:
    asked = [sentence.strip() for sentence in _sentences_of(original) if asks(sentence)]
    if not asked:
        return []
    if not any(map(asks, _sentences_of(question or filtered.text))):
        return [asked[-1]]
    in_question = set(content_of(question))
    names = Haystack(without_accents(filtered.text))
    lost = []
    for each in dict.fromkeys(asked):
        core = _core(each)
        words = set(content_of(core))
        if is_opinion(core) and len(asked) > 1:
            continue
        if words and (
            overlap(words, filtered.about) < _ASKED
            or (question and len(asked) == 1 and overlap(words, in_question) < _ASKED_THERE)
        ):
            lost.append(core)
            continue
        details = "".join(each[start:end] for start, end in clauses(each) if not is_opinion(each[start:end]))
        missing = [
            details[n.start : n.end] for n in numbers_in(details) if not n.vague and not n.values & filtered.values
        ]
        lost += missing + [name for name in proper_names(core) if without_accents(name) not in names]
    options = [match[0] for match in _OPTION.finditer(original)]
    if len(options) > 1:
        lost += [
            option.strip()
            for option in options
            if overlap(set(content_of(option)) or {"?"}, filtered.about) < _ASKED and content_of(option)
        ]
    return lost


def _sentences_of(text: str) -> Iterator[str]:
    return (text[start:end] for start, end in sentences(text))


_ASKED = 0.6
_ASKED_THERE = 0.3


def _core(sentence: str) -> str:
    """Return the part of a sentence that asks: from the last of its clauses that begins like a question."""
    parts = [sentence[start:end] for start, end in clauses(sentence)]
    for at in range(len(parts) - 1, -1, -1):
        words = [word.casefold() for word in words_of(parts[at])]
        opening = words[1:] if words[:1] in (["but"], ["so"], ["and"], ["or"], ["because"]) else words
        if opening and (opening[0] in QUESTION_WORDS | AUXILIARIES | REQUESTS) and not is_opinion(parts[at]):
            return "".join(parts[at:])
    kept = [part for part in parts if not is_opinion(part)]
    return "".join(kept) or sentence


# Small things


def _breach(kind: Kind, items: Iterable[str]) -> Breach | None:
    unique = tuple(dict.fromkeys(items))
    return Breach(kind, unique) if unique else None


def _merged(found: Iterable[Breach]) -> list[Breach]:
    by_kind: dict[Kind, Counter[str]] = {}
    for breach in found:
        by_kind.setdefault(breach.kind, Counter()).update(breach.items)
    return [Breach(kind, tuple(items)) for kind, items in by_kind.items()]


def _thinned(text: str) -> str:
    """The text without long runs of white space, over which searches would take long."""
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", re.sub(r"[^\S\n]+", " ", text))


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", without_accents(text)))
