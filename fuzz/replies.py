"""What a filter replies: read apart, aligned with the original and guarded, it never raises and never adds anything.

An input is one byte that picks how the reply is read, the original, the byte 0x1e, and the reply.
"""

# ruff: noqa: E501, RUF001 -- a folder of scripts; punctuation of other scripts is the point

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import yaml
from common import must_be_linear, require, text_of

from correction_graphs.filtering.alignment import align, changed, clauses, dropped, sentences
from correction_graphs.filtering.guards import breaches
from correction_graphs.filtering.numbers import numbers_in
from correction_graphs.filtering.replies import Reply, read_sections, read_single
from correction_graphs.filtering.words import AUXILIARIES, QUESTION_WORDS, REQUESTS, STARTERS, STOP

MODULES = [
    "correction_graphs.thoughts",
    *(f"correction_graphs.filtering.{name}" for name in ("replies", "guards", "names", "exchanges", "texts")),
    *(f"correction_graphs.filtering.{name}" for name in ("alignment", "numbers", "words")),
]

_LABELS = {"en": (("Context", "Facts"), ("Question", "Task")), "zh": (("背景", "上下文"), ("问题",))}
_BETWEEN = "\x1e"
_ORDINARY = STOP | STARTERS | REQUESTS | QUESTION_WORDS | AUXILIARIES

WORDS = [
    _BETWEEN, "Context: ", "Question: ", "**Context:** ", "## Question\n", "背景：", "问题：", "(none)", "<think>",
    "</think>", "[reasoning] ", "```\n", "---\n", "Sure! Here is the rewritten text:\n", "\n\nNote: I removed the opinion.", "I think ",
    "obviously ", "What is the capital of Australia?", "Sydney ", "Canberra ", "Tom has 5 apples ", "not ", "isn't ",
    "1,000 ", "1.5 ", "-3", "1/2", " million", "twelve ", "dozen ", "一千", "不", "北京", "小明", "“", "”", '"', "「", "」",
    "https://a.example/b ", "a@b.example ", "\n", ". ", "? ", "; ", ", ", "Mr. ", "no. 5", "'s ", "’", "é", "\u0301", "１",
]  # fmt: skip


def check(data: bytes) -> None:
    """Read a reply, and compare what it says with the original in ways of our own."""
    if not data:
        return
    at = data[0]
    original, _, reply = text_of(data[1:]).partition(_BETWEEN)
    read = _read(at, original, reply)
    require(_is_within(read.context, reply), "a context that is not in the reply", original, reply)
    require(_is_within(read.question, reply), "a question that is not in the reply", original, reply)
    require((read.problem is None) == bool(read.context or read.question), "neither text nor problem", reply)
    for text in (original, reply):
        _must_cover(text, sentences(text))
        _must_cover(text, [span for sentence in sentences(text) for span in clauses(text, *sentence)])
        require(all(0 <= n.start < n.end <= len(text) for n in numbers_in(text)), "a number out of place", text)
    _compare(original, original, "")
    require(not dropped(original, original), "something dropped from the same text", original)
    if original.strip():
        require(not breaches(original, original), "the same text is in breach", original)
    whole = bool(at & 2)
    _compare(original, read.context, read.question, whole=whole)
    _compare(original, reply, "", whole=whole)


def stretch(data: bytes) -> None:
    """Read and guard long texts made of these."""
    original, _, reply = text_of(data[1:]).partition(_BETWEEN)
    must_be_linear(lambda text: _read(data[0], original, text), reply)
    must_be_linear(lambda text: (breaches(text, reply), dropped(text, reply)), original)
    must_be_linear(lambda text: (breaches(original, text), dropped(original, text)), reply)


def _read(at: int, original: str, reply: str) -> Reply:
    if at & 1:
        return read_single(reply, original=original)
    return read_sections(reply, *_LABELS["zh" if at & 4 else "en"], original=original)


def _compare(original: str, context: str, question: str, *, whole: bool = True) -> None:
    found = breaches(original, context, question, whole=whole)
    require(all(each.kind for each in found), "a breach without a kind", original, context)
    filtered = "\n".join(part for part in (context, question) if part)
    _must_cover(original, [segment[:2] for segment in align(original, filtered)])
    spans = dropped(original, filtered)
    require(spans == sorted(spans), "spans out of order", original, filtered)
    require(all(end <= start for (_, end), (start, _) in pairwise(spans)), "overlap", original)
    require(all(original[a:b] == original[a:b].strip() != "" for a, b in spans), "white space", original, filtered)
    changed(original, filtered)
    if found or " ".join(filtered.split()) == " ".join(original.split()):
        return
    require(not (new := _new_digits(original, filtered)), "an accepted reply has a new number", new, original, filtered)
    require(not (new := _new_words(original, filtered)), "an accepted reply has a new name", new, original, filtered)


def _must_cover(text: str, spans: list[tuple[int, int]]) -> None:
    ends = [0, *(end for _, end in spans)]
    require([start for start, _ in spans] == ends[:-1] and ends[-1] == len(text), "spans leave something out", text)


def _is_within(part: str, whole: str) -> bool:
    """Whether a text can be had from another one by leaving characters out."""
    left = iter(whole.replace("\r\n", "\n"))
    return all(char in left for char in part)


_NUMBER_WORD = re.compile(
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twel|teen|twent|thirt|fort|fift|sixt|eight|ninet|first|"
    r"second|third|dozen|half|quarter|twice|double|triple|pair|couple|hundred|thousand|million|billion|trillion|"
    r"[〇零一二两三四五六七八九十百千万亿/]|\d[kmb]",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"(?<!\d)[0-9][0-9.,]*")
_LIST_MARK = re.compile(r"(?m)^[ \t]*\(?\d{1,2}[.)](?=\s)")


def _new_digits(original: str, filtered: str) -> list[str]:
    """Numbers in digits that the original does not have in digits, where it has no other kind of number."""
    if _NUMBER_WORD.search(original):
        return []
    known = re.sub(r"[\s.,'’]", "", unicodedata.normalize("NFKC", original))
    found = (re.sub(r"[.,]", "", digits).strip("0") for digits in _DIGITS.findall(_LIST_MARK.sub("", filtered)))
    return [digits for digits in found if digits not in known]


_NAME = re.compile(r"(?<=[a-z] )[A-Z][a-z]{3,}(?![\w'’-])", re.ASCII)
_MONTHS = frozenset(
    ["january", "february", "march", "april", "june", "july", "august", "september", "october", "november", "december"]
)
"""A filter may write these out where the original has "Jun 9"."""
_PREFIX = 4  # letters by which a word is known, whatever its ending


def _new_words(original: str, filtered: str) -> list[str]:
    """Words with a capital letter in the middle of a sentence that begin like no word of the original."""
    known = unicodedata.normalize("NFKD", original).casefold()
    known = "".join(char for char in known if not unicodedata.combining(char))
    names = [name for name in _NAME.findall(filtered) if name.casefold() not in _ORDINARY | _MONTHS]
    return [name for name in names if name[:_PREFIX].casefold() not in known]


def seeds() -> Iterator[bytes]:
    """Yield the pairs and replies of the tests."""
    tests = Path(__file__).parent.parent / "tests"
    for pair in yaml.safe_load((tests / "s2a_guard_pairs.yaml").read_text(encoding="utf-8")):
        unfaithful = [text for each in pair["unfaithful"] for text in each.values()]
        for text in [*pair["faithful"], *unfaithful]:
            context, _, question = text.rpartition("||")
            reply = f"Context: {context.strip()}\nQuestion: {question.strip()}" if context else text
            yield bytes([2 if context else 3]) + f"{pair['original']}{_BETWEEN}{reply}".encode()
    for entry in yaml.safe_load((tests / "s2a_corpus.yaml").read_text(encoding="utf-8")):
        yield bytes([6 if entry["language"] == "zh" else 2]) + f"{_BETWEEN}{entry['reply']}".encode()
