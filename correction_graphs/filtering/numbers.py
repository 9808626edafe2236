"""Finds numbers in a text, however they are written: 1,000 and "one thousand" and 一千 are one value."""

# ruff: noqa: RUF001, SIM905 -- punctuation of other scripts is the point; lists of words read best as text

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple

_UNITS = dict(
    zip(
        """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
    """.split(),
        range(20),
        strict=True,
    )
)
_TENS = dict(
    zip(
        """
    twenty thirty forty fifty sixty seventy eighty ninety
    """.split(),
        range(20, 100, 10),
        strict=True,
    )
)
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12, "twentieth": 20, "thirtieth": 30,
}  # fmt: skip
_OTHERS: dict[str, Decimal | int] = {
    "dozen": 12,
    "half": Decimal("0.5"),
    "quarter": Decimal("0.25"),
    "twice": 2,
    "double": 2,
    "triple": 3,
    "pair": 2,
    "couple": 2,
}
_SCALES: dict[str, int] = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SINGLE: dict[str, Decimal | int] = {**_UNITS, **_TENS, **_ORDINALS, **_OTHERS}
_SUFFIXES = {
    "k": 10**3,
    "m": 10**6,
    "mn": 10**6,
    "bn": 10**9,
    "b": 10**9,
    "万": 10**4,
    "亿": 10**8,
    "千": 10**3,
    "百": 100,
}
_SUFFIXES |= _SCALES | {"dozen": 12}
_HAN = {"〇": 0, "零": 0, "一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000}
_HAN_GROUPS = "万亿"
_VAGUE = frozenset({"one", "first", "second", "quarter", "half", "pair", "couple", "double", "一", "两", "twice"})
"""Said without counting anything: "one of them", "a second later"."""

_WORDS = "|".join(sorted({**_SINGLE, **_SCALES}, key=len, reverse=True))
_NUMBER = re.compile(
    rf"(?P<digits>(?P<sign>(?<![\w)\]])[-−])?"
    rf"(?:\d{{1,3}}(?:[ \u00a0\u202f'’]\d{{3}})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)*))"
    rf"(?:(?P<suffix>[kKmM]|bn|mn)\b|"
    rf"[ -]?(?P<scale>hundred|thousand|million|billion|trillion|dozen|[万亿千百])(?:s\b)?)?"
    rf"|(?P<words>\b(?:{_WORDS})s?\b(?:(?:[ -]|[ ]and[ ])(?:a[ ])?(?:{_WORDS})\b)*)"
    r"|(?P<han>[〇零一二两三四五六七八九十百千万亿]+)",
    re.IGNORECASE,
)
_LIST_MARK = re.compile(r"(?m)^[ \t]*\(?\d{1,2}[.)](?=[ \t])")
_IDIOMS = re.compile(
    r"十分|万一|千万(?!\d)|一定|一起|一样|一般|一些|一点|一下|一直|一切|一旦|唯一|统一|万分|三明治|四川|百姓|百科|千古|万物|九寨沟|五官|六神"
)


class Number(NamedTuple):
    """A number in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        values: What it may mean: "1.000" is one or a thousand.
        vague: Whether such a word often counts nothing.
    """

    start: int
    end: int
    values: frozenset[str]
    vague: bool = False


def numbers_in(text: str) -> list[Number]:
    """Return the numbers of a text in order. Marks of a list ("1.") are none."""
    skipped = sorted(mark.span() for pattern in (_LIST_MARK, _IDIOMS) for mark in pattern.finditer(text))
    found = []
    passed = until = 0
    for match in _NUMBER.finditer(text):
        start, end = match.span()
        while passed < len(skipped) and skipped[passed][0] <= start:
            until = max(until, skipped[passed][1])
            passed += 1
        if start < until:
            continue
        parts = match.group("digits", "sign", "suffix", "scale", "words", "han")
        values = (_values_of_short if end - start <= _SHORT else _values_of)(parts)
        if values:
            found.append(Number(start, end, values, match[0].casefold() in _VAGUE))
    return found


def values_in(text: str, numbers: Iterable[Number] | None = None) -> set[str]:
    """Return all values that the numbers of a text may have, quotients of fractions included.

    Args:
        text: What to look through.
        numbers: Its numbers, if they are known already.
    """
    values = {value for number in (numbers_in(text) if numbers is None else numbers) for value in number.values}
    for top, bottom in set(_FRACTION.findall(text)):
        if len(top) + len(bottom) <= _LONGEST and Decimal(bottom):
            values.add(_plain(Decimal(top) / Decimal(bottom)))
    return values


_FRACTION = re.compile(r"(?<!\d)(\d++)\s*+/\s*+(\d+)")
_LONGEST = 1000  # digits: of more, decimals and integers overflow; such a number is the same only if it is written so
_SHORT = 40  # of what is worth remembering


def _values_of(parts: tuple[str | None, ...]) -> frozenset[str]:
    digits, sign, suffix, scale, words, han = parts
    return frozenset(map(_plain, _values(digits, sign, suffix or scale, words, han)))


_values_of_short = lru_cache(maxsize=8192)(_values_of)


def _values(
    digits: str | None, sign: str | None, scale: str | None, words: str | None, han: str | None
) -> Iterator[Decimal | int | str]:
    if digits:
        factor = (_SUFFIXES[scale.lower()] if scale else 1) * (-1 if sign else 1)
        for value in _readings(unicodedata.normalize("NFKC", digits.lstrip("-−"))):
            yield value if isinstance(value, str) else value * factor
    elif words:
        yield _from_words(re.split(r"[ -]+", words.casefold()))
    elif han:
        yield _from_han(han) if len(han) <= _LONGEST else han


def _readings(digits: str) -> Iterator[Decimal | str]:
    """Yield what digits with separators may mean."""
    bare = re.sub(r"[ \u00a0\u202f'’]", "", digits)
    if len(bare) > _LONGEST:
        yield bare
        return
    marks = re.findall(r"[.,]", bare)
    try:
        if not marks:
            yield Decimal(bare)
        elif len(marks) == 1:
            whole, part = re.split(r"[.,]", bare)
            yield Decimal(f"{whole}.{part}")
            if len(part) == 3 and len(whole) <= 3 and whole != "0":  # noqa: PLR2004
                yield Decimal(whole + part)
        elif len(set(marks)) == 1 and all(len(group) == 3 for group in re.split(r"[.,]", bare)[1:]):  # noqa: PLR2004
            yield Decimal(re.sub(r"[.,]", "", bare))
        elif len(set(marks)) == 2 and marks[-1] not in marks[:-1]:  # noqa: PLR2004
            whole, part = re.split(rf"[{marks[-1]}]", bare)
            yield Decimal(re.sub(r"[.,]", "", whole) + "." + part)
        else:
            yield bare  # a version, a date, an address
    except InvalidOperation:
        yield bare


def _from_words(words: list[str]) -> Decimal | int:
    total: Decimal | int = 0
    group: Decimal | int = 0
    for word in words:
        each = word if word in _SINGLE or word in _SCALES else word.removesuffix("s")
        if each in _SCALES or each == "dozen":
            scale = _SCALES.get(each, 12)
            group = (group or 1) * scale
            if scale >= 1000:  # noqa: PLR2004
                total, group = total + group, 0
        else:
            group += _SINGLE.get(each, 0)
    return total + group


def _from_han(text: str) -> int | str:
    if not set(text) & {*_HAN_SCALES, *_HAN_GROUPS}:
        return int("".join(str(_HAN[each]) for each in text))
    total = group = digit = 0
    for each in text:
        if each in _HAN:
            digit = _HAN[each]
        elif each in _HAN_SCALES:
            group, digit = group + (digit or 1) * _HAN_SCALES[each], 0
        else:
            section = group + digit
            if each == "亿":
                total = (total + section or 1) * 10**8
            else:
                total += (section or 1) * 10**4
            group = digit = 0
    return total + group + digit


def _plain(value: Decimal | int | str) -> str:
    return value if isinstance(value, str) else format(Decimal(value).normalize(), "f")
