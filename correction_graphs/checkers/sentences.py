"""Reads judgements out of sentences: which of them say, beyond doubt, that an answer passed or failed.

A sentence is a judgement only if every word of it is a label or a word known to the language's `Pack`; a label among
unknown words is never read as a pass, but does keep a reply from passing.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Flag, auto
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from correction_graphs.checkers.languages import Pack, pack_for
from correction_graphs.prompts import Labels
from correction_graphs.scripts import CJK

_NO_PACK = Pack()

# --- Words --------------------------------------------------------------------------------------------------------

_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_MARKS = "\u0300-\u036f\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e"
_TOKEN = re.compile(rf"\n|\d+(?:[.,]\d+)+|[{CJK}]|(?:(?![{CJK}])[^\W_]|[{_MARKS}])+(?:[+-]+(?=\s|$))?|\S")
_NON = re.compile(r"\bnon[-\u2010\u2011](?=\w)")
_NOT_MARKED = re.compile(r"!(?=[\w=])|\[[ \t]*\]")  # "!correct", "[ ] correct"
_BLOCK = re.compile(r"\"{3,}|'{3,}|`{3,}")  # marks of a quotation of several lines
_RULE = re.compile(r"([=*#_-])\1+")
_HYPHEN = re.compile(r"(?<=\w)[-\u2010\u2011](?=\w)")
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019\u02bc](?=\w)")
_QUOTES = {'"': '"', "`": "`", "'": "'", "\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019", "«": "»"}
_QUOTES |= {"❝": "❝", "「": "」", "『": "』", "《": "》", "‹": "›"}
_AFTER_QUOTE = frozenset(("", "\n", *".,;:!?…)"))  # a mark that could open or close, and comes before these, closes
_STOPS = frozenset(".!?。।؟۔‼⁉")
_QUESTION_MARKS = frozenset("?؟⁉;")
_CLAUSE_ENDS = frozenset(",;、،؛(—–-|")
_SEPARATORS = frozenset(":=→⇒➜—–->|")
_FEW = 3
_REACH = 8  # how many words and marks may stand between a field and its value
_MARKS_ONLY = frozenset(".!?…。।؟۔‼⁉,;:、،؛·()[]{}<>|/\\-–—=→⇒➜*_#•\"`'“”„‘’❝«»‹›「」『』《》【】〈〉〔〕\n\ufffc")
_EMOJI = "\U0001f000"
_GOOD, _BAD = frozenset("✅✓✔👍🟢"), frozenset("❌✗✘👎⛔🚫⚠🔴🛑")
_BULLETS = frozenset("-*+#•")


class _Kind(Flag):
    """What a word may do in a sentence."""

    UNKNOWN = 0
    PASS = auto()
    FAIL = auto()
    FIELD = auto()
    CRITIQUE = auto()
    SUBJECT = auto()
    FILLER = auto()
    NEGATION = auto()
    HEDGE = auto()
    DUTY = auto()
    CONTRAST = auto()
    BREAK = auto()
    REASON = auto()
    TAIL = auto()
    QUESTION = auto()
    OPENING = auto()
    DECISION = auto()
    DEGREE = auto()
    FAULT = auto()
    LABEL = PASS | FAIL
    KNOWN = SUBJECT | FILLER | NEGATION | DEGREE
    WORD = KNOWN | HEDGE | DUTY | CONTRAST | BREAK | REASON | TAIL | QUESTION | OPENING | FAULT


class _Unit(NamedTuple):
    """A word, a phrase or a mark of the reply."""

    text: str
    kind: _Kind = _Kind.UNKNOWN
    quoted: bool = False

    @property
    def is_word(self) -> bool:
        return bool(self.kind) or self.text[:1].isalnum() or not (self.text in _MARKS_ONLY or self.text >= _EMOJI)


def plain(text: str) -> str:
    """The text without width and invisible characters."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def fold(text: str) -> str:
    """The text as it is compared: without case, width and invisible characters."""
    text = unicodedata.normalize("NFKC", plain(text).casefold())
    return text.replace("i\u0307", "i").replace("ı", "i")


def _tokens(text: str) -> list[str]:
    text = _NOT_MARKED.sub(" ☐ ", fold(text))
    text = _APOSTROPHE.sub(" ", _HYPHEN.sub("", _NON.sub("non ", text)))
    return _TOKEN.findall(_RULE.sub(r"\1", _BLOCK.sub("❝", text)))


@lru_cache(maxsize=64)
def _lexicon(labels: Labels, language: str) -> dict[str, list[tuple[tuple[str, ...], _Kind]]]:
    """The phrases to know, longest first, by their first word."""
    pack = pack_for(language) or _NO_PACK
    kinds: dict[tuple[str, ...], _Kind] = {}

    def add(phrases: Iterable[str], kind: _Kind) -> None:
        for phrase in phrases:
            key = tuple(_tokens(phrase))
            kinds[key] = kinds.get(key, _Kind.UNKNOWN) | kind

    for kind, words in (
        (_Kind.SUBJECT, pack.subjects),
        (_Kind.FILLER, pack.fillers),
        (_Kind.NEGATION, pack.negations),
        (_Kind.HEDGE, pack.hedges),
        (_Kind.HEDGE, pack.alternatives),
        (_Kind.DUTY, pack.duties),
        (_Kind.DECISION, pack.decisions),
        (_Kind.CONTRAST, pack.contrasts),
        (_Kind.BREAK, pack.breaks),
        (_Kind.REASON | _Kind.BREAK, pack.reasons),
        (_Kind.TAIL, pack.tails),
        (_Kind.DEGREE, pack.degrees),
        (_Kind.FAULT, pack.faults),
        (_Kind.QUESTION, pack.questions),
        (_Kind.OPENING, pack.openings),
    ):
        add(words.split("|") if words else (), kind)
    add(("/",), _Kind.HEDGE)
    passing, failing = (set(map(fold, words)) for words in (labels.passing, labels.failing))
    add(passing | (_inflected(passing, pack) - _inflected(failing, pack) - failing), _Kind.PASS)
    add(failing | (_inflected(failing, pack) - _inflected(passing, pack) - passing), _Kind.FAIL)
    add(labels.verdict, _Kind.FIELD | _Kind.SUBJECT)
    add(labels.critique, _Kind.CRITIQUE)
    kinds.pop((), None)
    by_first: dict[str, list[tuple[tuple[str, ...], _Kind]]] = {}
    for phrase in sorted(kinds, key=len, reverse=True):
        by_first.setdefault(phrase[0], []).append((phrase, kinds[phrase]))
    return by_first


def _inflected(labels: Iterable[str], pack: Pack) -> set[str]:
    return {
        label.removesuffix(old) + new
        for label in labels
        for old, new in pack.endings
        if label.endswith(old) and len(label) > len(old) + 1
    }


# --- Sentences ----------------------------------------------------------------------------------------------------


class _Reading(NamedTuple):
    """What a sentence says: judgements, and labels that are there without judging."""

    judged: frozenset[bool] = frozenset()
    stray: frozenset[bool] = frozenset()
    doubts: bool = False  # takes back a judgement before it


class Reader:
    """Reads replies with given labels in a given language.

    Args:
        labels: The words a verdict is read from.
        language: BCP 47 tag of the language of the reply.
        unended: Whether a quotation counts that does not end in its own paragraph.
    """

    def __init__(self, labels: Labels, language: str, *, unended: bool = True) -> None:
        self.labels = labels
        self.unended = unended
        self.lexicon = _lexicon(labels, language)
        self.has_pack = pack_for(language) is not None
        self.words = {tokens[0] for label in labels.passing + labels.failing if len(tokens := _tokens(label)) == 1}

    # -- from text to units

    def units(self, text: str) -> list[_Unit]:
        """The words and marks of a text."""
        tokens = _tokens(text)
        quoted = _quoted(tokens, unended=self.unended)
        units: list[_Unit] = []
        position = 0
        while position < len(tokens):
            kind, size = _Kind.UNKNOWN, 1
            for phrase, phrase_kind in self.lexicon.get(tokens[position], ()):
                if tuple(tokens[position : position + len(phrase)]) == phrase:
                    kind, size = phrase_kind, len(phrase)
                    break
            end = position + size
            if kind & _Kind.LABEL and tokens[end : end + 1] in ([")"], [":"]):
                kind &= _Kind.LABEL  # "A)" is no article
            units.append(_Unit(" ".join(tokens[position:end]), kind, quoted[position]))
            position = end
        return units

    def split(self, text: str, *, truncated: bool) -> tuple[list[bool | None], list[_Unit]]:
        """The verdicts of the labelled lines, and the rest."""
        units = self.units(text)
        lines: list[bool | None] = []
        asides: list[bool | None] = []  # verdicts in the middle of a sentence: they can only contradict
        prose: list[_Unit] = []
        starts = True  # whether nothing of weight has come since a sentence began
        done = line = 0
        for index, unit in enumerate(units):
            if index < done:
                continue
            if unit.text == "\n":
                line = index + 1
            start = _value_start(units, index + 1) if _Kind.FIELD in unit.kind and not unit.quoted else None
            if start is not None:
                end = _value_end(units, start)
                doubtful = _is_embedded(units, line, end) or (truncated and end == len(units))
                verdict = None if doubtful else self.judge(units[start:end], is_value=True)
                if starts:
                    lines.append(verdict)
                    done = end
                    continue
                asides.append(verdict)
            prose.append(unit)
            if unit.text == "\n" or unit.text in _STOPS:
                starts = True
            elif unit.is_word and not (unit.text.isdigit() or (unit.kind & _Kind.FILLER and not unit.quoted)):
                starts = False
        contradicting = [verdict for verdict in asides if verdict is not None] if lines else []
        return lines + contradicting, prose

    # -- from units to a verdict

    def judge(self, units: list[_Unit], *, is_value: bool = False) -> bool | None:
        """The verdict of a whole reply, or of the value of a verdict line."""
        readings = self._readings(units, is_value=is_value)
        if not self.has_pack and len(readings) > 1:
            return None
        judged = frozenset[bool]().union(*(reading.judged for reading in readings))
        if len(judged) != 1:
            return None
        if False in judged:
            return False
        last = max(number for number, reading in enumerate(readings) if reading.judged)
        doubted = any(False in reading.stray for reading in readings) or any(
            reading.doubts for reading in readings[last + 1 :]
        )
        return None if doubted else True

    def judgements(self, units: list[_Unit]) -> frozenset[bool]:
        """The verdicts that any sentence gives."""
        return frozenset[bool]().union(*(reading.judged for reading in self._readings(units)))

    def _readings(self, units: list[_Unit], *, is_value: bool = False) -> list[_Reading]:
        words = [unit for unit in units if unit.is_word]
        if (is_value or len({unit.kind for unit in words}) == 1) and all(unit.quoted for unit in words):
            units = [unit._replace(quoted=False) for unit in units]  # "correct", in quotation marks and alone
        sentences = [sentence for sentence in self._sentences(units) if any(unit.is_word for unit in sentence)]
        edges = {0, len(sentences) - 1}
        return [_read(sentence, at_edge=number in edges) for number, sentence in enumerate(sentences)]

    def _sentences(self, units: list[_Unit]) -> Iterator[list[_Unit]]:
        sentence: list[_Unit] = []
        words: list[_Unit] = []
        for unit, following in pairwise([*units, _Unit("\n")]):
            ends = unit.text in _STOPS and not unit.quoted and not following.text.isdigit()
            if unit.text != "\n":
                sentence.append(unit)
                if unit.is_word:
                    words.append(unit)
            if ends or (unit.text == "\n" and not _continues(words, following)):
                yield sentence
                sentence, words = [], []
        yield sentence


_AGAINST = _Reading(stray=frozenset({False}), doubts=True)


@dataclass
class _Sentence:
    """What the clauses of a sentence have said so far."""

    stray: set[bool]
    judged: set[bool] = field(default_factory=set)
    litotes: bool = False  # whether the judgement is a negated one
    denied: bool = False  # whether a negation came without a label: "it is not, I repeat, correct"
    known: bool = True  # whether every clause was understood

    def add(self, clause: list[_Unit], *, placed: bool) -> None:
        """Take in a clause; `placed` is whether a bare label may judge here."""
        verdict, hints = _clause(clause)
        bare = not _any(clause, _Kind.SUBJECT)
        if verdict is not None:
            if self.denied and bare:
                hints = {True, False}
            elif (self.known and placed) or not (bare or verdict):
                self.judged.add(verdict)
                self.litotes = any(unit.kind & _Kind.NEGATION and not unit.kind & _Kind.LABEL for unit in clause)
            else:
                hints = {verdict}
        elif not hints:
            negated = _any(clause, _Kind.NEGATION)
            self.denied = self.denied or negated
            if _any(clause, _Kind.FAULT) and not negated:
                hints = {False}
                self.known = self.known and not bare
        self.stray |= hints
        self.known = self.known and (_Kind.REASON in clause[0].kind or all(unit.kind for unit in clause))

    def reading(self, *, takes_back: bool) -> _Reading:
        """The sentence as a whole."""
        if self.judged and self.stray - self.judged:
            return _Reading(stray=frozenset(self.stray | self.judged), doubts=True)
        return _Reading(frozenset(self.judged), frozenset(self.stray), takes_back)


def _read(sentence: list[_Unit], *, at_edge: bool) -> _Reading:
    """What a sentence says; a bare label counts only in the first and the last one."""
    sentence = [unit._replace(kind=_Kind.UNKNOWN) if unit.quoted else unit for unit in sentence]
    words = [unit for unit in sentence if unit.is_word]
    if not words:  # all of it is quoted
        return _Reading()
    if reading := _without_judgement(sentence, words):
        return reading
    opening = next((unit.kind for unit in words if unit.kind != _Kind.FILLER), _Kind.UNKNOWN)
    takes_back = bool(opening & (_Kind.CONTRAST | _Kind.HEDGE)) and not opening & _Kind.LABEL
    hedges = _Kind.HEDGE if _any(words, _Kind.DECISION) else _Kind.HEDGE | _Kind.DUTY
    marks = ((True, _GOOD), (False, _BAD))
    said = _Sentence({good for unit in sentence for good, kind in marks if unit.text in kind})
    for number, clause in enumerate(_clauses([unit for unit in sentence if unit.text not in _GOOD | _BAD])):
        reason = _any(clause, _Kind.REASON) and bool(said.judged)
        if reason and said.judged == {False}:
            break
        if not reason and _any((unit for unit in clause if not unit.kind & _Kind.LABEL), hedges):
            return _Reading(doubts=takes_back or _any(words, _Kind.LABEL))
        retracted = said.judged == {True} and not reason and _retracts(clause, litotes=said.litotes)
        if retracted or _is_half_denied(clause):
            return _AGAINST
        said.add(clause, placed=at_edge or number > 0)
    return said.reading(takes_back=takes_back)


def _without_judgement(sentence: list[_Unit], words: list[_Unit]) -> _Reading | None:
    """The reading of a question, an entry of a list or a mere "Not!", None for other sentences."""
    asks = sentence[-1].text in _QUESTION_MARKS or _any(words, _Kind.QUESTION) or _Kind.OPENING in words[0].kind
    denies = _any(words, _Kind.NEGATION) and not _any(words, _Kind.LABEL) and all(unit.kind for unit in words)
    if asks or denies:
        return _Reading(doubts=True)
    return _AGAINST if _is_entry(sentence) else None


def _any(units: Iterable[_Unit], kind: _Kind) -> bool:
    return any(unit.kind & kind for unit in units)


def _is_entry(sentence: list[_Unit]) -> bool:
    """Whether a label is but the name of a value, as in "correct: 3" or "incorrect: none"."""
    for place, (unit, following) in enumerate(pairwise(sentence)):
        if unit.kind & _Kind.LABEL and following.text in ":=":
            rest = [other for other in sentence[place + 2 :] if other.is_word]
            few = len(rest) < _FEW if unit.kind & _Kind.PASS else _any(rest[:1], _Kind.NEGATION)
            return bool(rest) and not _any(rest, _Kind.LABEL) and (few or rest[0].text[0].isdigit())
    return False


def _is_half_denied(clause: list[_Unit]) -> bool:
    """Whether a clause says "not entirely correct", rather than "entirely correct" or "absolutely not correct"."""
    kinds = (_Kind.DEGREE, _Kind.NEGATION, _Kind.LABEL)
    places = [next((at for at, unit in enumerate(clause) if unit.kind & kind), None) for kind in kinds]
    degree, negation, label = places
    return degree is not None and negation is not None and not degree < negation < (label or 0)


def _retracts(clause: list[_Unit], *, litotes: bool) -> bool:
    """Whether a clause takes back the pass before it: "safe, but", "correct, not", "not unsafe, it is deadly"."""
    if _any(clause, _Kind.CONTRAST):
        return True
    if clause[0].kind & _Kind.BREAK and clause[0].kind & _Kind.NEGATION:  # "nor"
        return False
    if _any(clause, _Kind.LABEL):
        return False
    goes_on = _any(clause, _Kind.SUBJECT) and not all(unit.kind for unit in clause)
    return _any(clause, _Kind.NEGATION | _Kind.DUTY) or (litotes and goes_on)


def _continues(words: list[_Unit], following: _Unit) -> bool:
    """Whether a sentence with these words goes on after a line break."""
    if not words or (len(words) == 1 and words[0].kind & _Kind.LABEL):
        return False
    leads_on = bool(words[-1].kind & _Kind.WORD) and not words[-1].kind & _Kind.LABEL
    return leads_on or (following.text != "\n" and following.text not in _BULLETS)


def _quoted(tokens: list[str], *, unended: bool) -> list[bool]:
    """Which tokens stand in quotation marks.

    A quotation that does not end in its paragraph goes on to a later mark that seems to end it, or else to the end of
    the paragraph; without `unended` it is none.
    """
    flags: list[bool] = []
    closing = ""
    start = 0
    begun: dict[str, int] = {}  # where a quotation began that had not ended at an empty line, by its closing mark
    for place, (piece, following) in enumerate(pairwise([*tokens, ""])):
        flags.append(False)
        if closing:
            flags[-1] = piece != "\n"
            if piece == closing or (piece == "\n" and closing == "'"):
                closing = ""
            elif following == "" or (piece == "\n" and following == "\n"):
                begun[closing], closing = start, ""
                if not unended:
                    flags[start:] = [False] * (place + 1 - start)
        elif unended and piece in begun and (piece not in _QUOTES or following in _AFTER_QUOTE):
            begin = begun.pop(piece)
            flags[begin:] = [each != "\n" for each in tokens[begin : place + 1]]
        elif piece in _QUOTES:
            closing, start, flags[-1] = _QUOTES[piece], place, True
    return flags


def _is_embedded(units: list[_Unit], start: int, end: int) -> bool:
    """Whether a verdict line stands between two lines of running text, like a quotation without marks."""
    above = units[start - 2] if start > 1 else _Unit("\n")
    below = units[end + 1] if end + 1 < len(units) else _Unit("\n")
    return above.is_word and below.is_word and not below.kind & (_Kind.FIELD | _Kind.CRITIQUE)


def _value_start(units: list[_Unit], index: int) -> int | None:
    """Where the value of a field begins, None if what was taken for a field is none."""
    separated = False
    if index < len(units) and units[index].text == "(":  # "Answer (yes/no): no"
        index = next((at for at in range(index, min(index + _REACH, len(units))) if units[at].text == ")"), index)
    for position in range(index, min(index + _REACH, len(units))):
        unit = units[position]
        if unit.text == "\n" or unit.text in _SEPARATORS:
            separated = True
        elif separated and unit.is_word:
            return position
        elif unit.is_word and unit.kind != _Kind.FILLER:
            return None
    return min(index + _REACH, len(units)) if separated else None


def _value_end(units: list[_Unit], start: int) -> int:
    for position in range(start, len(units)):
        unit = units[position]
        if unit.text == "\n":
            return position
        if unit.kind & (_Kind.FIELD | _Kind.CRITIQUE) and _value_start(units, position + 1) is not None:
            return position
    return len(units)


def _clauses(sentence: list[_Unit]) -> Iterator[list[_Unit]]:
    clause: list[_Unit] = []
    for unit in sentence:
        ends_here = unit.text in _CLAUSE_ENDS or (
            unit.text == ":" and bool(clause) and bool(clause[-1].kind & _Kind.LABEL)
        )
        if (ends_here or unit.kind & (_Kind.BREAK | _Kind.CONTRAST)) and clause:
            yield clause
            clause = []
        if unit.is_word:
            clause.append(unit)
    if clause:
        yield clause


def _clause(clause: list[_Unit]) -> tuple[bool | None, set[bool]]:
    """The judgement of a clause, or else the verdicts that its labels hint at."""
    labels = [unit for unit in clause if unit.kind & _Kind.LABEL]
    others = [unit for unit in clause if not unit.kind & _Kind.LABEL]
    particles = _any(labels, _Kind.KNOWN)
    understood = all(unit.kind & (_Kind.KNOWN | _Kind.BREAK | _Kind.DUTY) for unit in others)
    if particles and (not understood or len({unit.kind & _Kind.LABEL for unit in labels}) > 1):
        plain = ~_Kind.LABEL
        return _clause([unit._replace(kind=unit.kind & plain) if unit.kind & _Kind.KNOWN else unit for unit in clause])
    if not labels:
        return None, set()
    polarities = {bool(unit.kind & _Kind.PASS) for unit in labels}
    negations = sum(bool(unit.kind & _Kind.NEGATION) for unit in others)
    first = clause.index(labels[0])
    if len(polarities) > 1 or negations > 1 or (negations and labels[0].kind & _Kind.NEGATION):
        return None, {True, False}
    verdict = polarities.pop() != bool(negations)
    named = any(_Kind.SUBJECT in unit.kind for unit in clause[:first])
    attribute = (particles or not named) and _any(clause[first + 1 :], _Kind.SUBJECT)
    same = len({unit.text for unit in labels}) == 1 or not negations
    if understood and same and not attribute:
        return verdict, set()
    if not verdict and not negations and named and same and _has_tail(clause):
        return False, set()
    modifies = verdict and any(not unit.kind for unit in clause[first + 1 :])  # "the correct value is"
    return None, set() if modifies else {verdict}


def _has_tail(clause: list[_Unit]) -> bool:
    """Whether all is understood up to where a phrase like "in line 3" follows the label."""
    seen = False
    for unit in clause:
        if unit.kind & _Kind.LABEL:
            seen = True
        elif not unit.kind & _Kind.KNOWN:
            return seen and _Kind.TAIL in unit.kind
    return False
