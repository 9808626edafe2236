"""Reads a verdict from what a critic wrote: passed, failed, or cannot tell. Nothing passes by default.

Reasoning blocks, block quotes, code and struck-out text are set aside. Then the first of these that is there decides:
JSON objects, labelled verdict lines ("Verdict: correct"), sentences. A sentence is a judgement only if every word of it
is a label or a word known to the language's `Pack`; a label among unknown words is never read as a pass, but does keep
a reply from passing.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from correction_graphs.checkers.sentences import Reader, fold, plain
from correction_graphs.messages import said
from correction_graphs.prompts import Labels
from correction_graphs.results import Verdict, unicode_text
from correction_graphs.thoughts import split_thoughts

_MAX_CRITIQUE = 2000
_LONGEST = 50_000  # characters; a critic that writes more has run away, and reading it all would take seconds


def read_verdict(text: str, labels: Labels, *, language: str = "en", truncated: bool = False) -> Verdict:
    """Read the verdict of a critic's whole reply.

    Args:
        text: The reply, reasoning included.
        labels: The words a verdict is read from.
        language: BCP 47 tag of the language of the reply. Without a `Pack` for it, only a bare label, a labelled
            verdict line or a JSON object is understood.
        truncated: Whether the reply was cut off; then only a complete verdict line counts.

    Returns:
        The verdict; `passed` is None when the reply cannot be read as one, or is longer than 50,000 characters.
    """
    if len(text) > _LONGEST:
        return Verdict(passed=None, critique=_shorten(_clean(text[-_LONGEST:]).strip()))
    text = _clean(text)
    reply, thoughts = (text, []) if _is_object(text) else split_thoughts(text)
    if reply is None:
        return Verdict(passed=None, critique=_shorten(text.strip()))
    before, critique = _split_critique(reply, labels)
    fields: dict[str, Any] = {
        "critique": _shorten(critique),
        "reasoning": "\n\n".join(filter(None, [*thoughts, before])),
    }
    keys = _verdict_keys(labels)
    objects, rest, broken = _objects(reply, keys)
    own = [found for found in objects if keys & found.keys()]
    broken = broken or (bool(own) and _INLINE.search(rest) is not None)
    if own:
        fields |= _fields_of(own[-1])
    visible = _visible(rest, labels, spoken=_OBJECT if own else None)
    if visible is None or broken or (own and truncated):
        return Verdict(passed=None, **fields)
    passed = _judge(Reader(labels, language), visible, own, truncated=truncated)
    if passed:  # perhaps only because what says otherwise seems to be quoted
        again = _judge(Reader(labels, language, unended=False), visible, own, truncated=truncated)
        passed = agree(passed, again)
    return Verdict(passed=passed, **fields)


def _judge(reader: Reader, visible: str, own: Sequence[dict[str, Any]], *, truncated: bool) -> bool | None:
    """The verdict of a text with a placeholder for each of the JSON objects in it, of which `own` have one."""
    lines, prose = reader.split(visible, truncated=truncated)
    structured = [*(_judge_object(found, reader.labels) for found in own), *lines]
    if own and any(unit.quoted and unit.text == _OBJECT for unit in prose):
        return None  # it is somebody else's
    if not structured:
        return None if truncated else reader.judge(prose)
    passed = agree(*structured)
    contradicted = passed is not None and (not passed) in reader.judgements(prose)
    return None if contradicted else passed


def agree(*orders: bool | None) -> bool | None:
    """What several readings have in common: None if there are none, if one is None, or if two differ."""
    return orders[0] if len(set(orders)) == 1 else None


# --- Setting aside what is no judgement ---------------------------------------------------------------------------

_ASIDE = re.compile(
    r"^[ \t]*(?:[-+*][ \t]+|\d{1,3}[.)][ \t]+|[*_])*>.*$"  # also in a list, and after the mark of bold text
    r"|~~[^~\n]*~~|<!--(?:(?!-->|<!--)[\s\S])*-->",
    re.MULTILINE,
)
_MARKUP = re.compile(
    r"</?(?:b|strong|i|em|u|p|br|div|span|li|h[1-6]|s)[ \t]*/?>|<\|im_start\|>[a-z]*|<\|[a-z_]{1,30}\|>"
    r"|\\[a-z]{2,10}\{|\$"
    r"|^[ \t]*(?:assistant|critic|judge|reviewer)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)


def _clean(text: str) -> str:
    """The text with what no encoder takes replaced, and one kind of line break."""
    return "\n".join(unicode_text(text).replace("\r\n", "\n").splitlines())


def _visible(text: str, labels: Labels, *, spoken: str | None) -> str | None:
    """The text without block quotes, comments, code and mark-up; all of the code if there is nothing else.

    Code with `spoken` in it is what the critic says, in a frame.
    None if a comment or code never ends: nobody can tell what it was meant to hide.
    """
    parts = _FENCE.split(plain(text))
    outside = "\n".join(
        part for number, part in enumerate(parts) if number % 2 == 0 or (spoken is not None and spoken in part)
    )
    if not any(map(str.isalnum, outside)):
        outside = "\n".join(parts)
    elif len(parts) % 2 == 0 and any(map(str.isalnum, parts[-1])):
        return None
    names = "|".join(map(re.escape, labels.verdict))
    visible = _ASIDE.sub("", outside)
    visible = re.sub(rf"<[ \t]*({names})[ \t]*>", r"\n\1: ", visible, flags=re.IGNORECASE)
    visible = re.sub(rf"<[ \t]*/[ \t]*(?:{names})[ \t]*>", "\n", visible, flags=re.IGNORECASE)
    return None if "<!--" in visible else _ASIDE.sub("", _MARKUP.sub(" ", visible))


# --- The critique -------------------------------------------------------------------------------------------------


def _field_pattern(names: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(
        rf"^[ \t\-#*_>\[【(`]*(?:final[ \t]+)?(?:{alternatives})[ \t\])】*_`]*(?:[:：=→—–-]+[ \t*_`]*|$)",
        re.IGNORECASE | re.MULTILINE,
    )


def _split_critique(reply: str, labels: Labels) -> tuple[str, str]:
    """What stands before the critique, and the critique."""
    verdict = _field_pattern(labels.verdict)
    field = _field_pattern(labels.critique).search(reply)
    if field:
        rest = reply[field.end() :]
        end = verdict.search(rest)
        return _without_verdicts(reply[: field.start()], verdict), said(rest[: end.start() if end else None])
    return "", _without_verdicts(reply, verdict)


def _without_verdicts(text: str, verdict: re.Pattern[str]) -> str:
    kept: list[str] = []
    awaited = False  # whether the value is still to come, on a line of its own
    for line in text.splitlines():
        field = verdict.match(line)
        if field:
            awaited = not line[field.end() :].strip(" \t*_`")
        elif awaited and line.strip():
            awaited = False
        elif not awaited:
            kept.append(line)
    return "\n".join(kept).strip()


def _shorten(text: str) -> str:
    if len(text) <= _MAX_CRITIQUE:
        return text
    head = text[:_MAX_CRITIQUE]
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s)|[。！？]", head)]
    if ends and ends[-1] > _MAX_CRITIQUE // 2:
        return head[: ends[-1]]
    words = head.rsplit(None, 1)[0]
    return words.rstrip() if len(words) > _MAX_CRITIQUE // 2 else head


# --- JSON ---------------------------------------------------------------------------------------------------------

_OPENING = re.compile(r"\{(?=\s*(?:\"|$))")


_OBJECT = "\ufffc"
_PLACEHOLDER = f"\n{_OBJECT}\n"
_INLINE = re.compile(rf"\w[^\S\n]*{_PLACEHOLDER}[^\S\n]*\w")  # an object in the middle of a sentence


class _Clash:
    """Stands for the value of a key that was given twice with different values."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        key = fold(name).strip()
        same = key not in found or (type(found[key]) is type(value) and found[key] == value)
        found[key] = value if same else _Clash()
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def _objects(text: str, keys: set[str]) -> tuple[list[dict[str, Any]], str, bool]:
    """The JSON objects of a text, the text with a placeholder for each, and whether one of them is broken."""
    found: list[dict[str, Any]] = []
    rest: list[str] = []
    start = 0
    told = _ASIDE.sub(lambda aside: " " * len(aside[0]), text)  # what is quoted or struck out is not the critic's own
    for opening in _OPENING.finditer(told):
        if opening.start() < start:
            continue
        try:
            value, end = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            cut_off = fold(text[opening.start() :])
            if any(f'"{key}"' in cut_off for key in keys):
                return found, text, True
            break
        found.append(value)
        rest.append(text[start : opening.start()])
        start = end
    return found, _PLACEHOLDER.join([*rest, text[start:]]), False


def _is_object(text: str) -> bool:
    """Tell whether the text is one JSON object and nothing else; tags in it are part of its values."""
    text = text.strip()
    try:
        return text.startswith("{") and _DECODER.raw_decode(text)[1] == len(text)
    except (ValueError, RecursionError):
        return False


def _verdict_keys(labels: Labels) -> set[str]:
    return {"verdict", "passed", *map(fold, labels.verdict)}


def _judge_object(found: dict[str, Any], labels: Labels) -> bool | None:
    passed = agree(*(_judge_value(found[key], labels, key) for key in _verdict_keys(labels) & found.keys()))
    if passed is None or "criteria" not in found:
        return passed
    criteria = found["criteria"]
    if not isinstance(criteria, list) or not all(isinstance(item, dict) for item in criteria):
        return None
    results = [_judge_value(item.get("passed"), labels, "passed") for item in criteria]
    return passed if results and None not in results and all(results) == passed else None


def _judge_value(value: object, labels: Labels, key: str) -> bool | None:
    if isinstance(value, bool) and key == "passed":
        return value
    if not isinstance(value, str):
        return None
    word = fold(value).strip().rstrip(".")
    if word in {fold(label) for label in labels.passing}:
        return True
    if word in {fold(label) for label in labels.failing}:
        return False
    return {"true": True, "false": False}.get(word) if key == "passed" else None


def _fields_of(found: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    texts = [found[key] for key in ("critique", "feedback") if isinstance(found.get(key), str)]
    fields["critique"] = _shorten(said(_clean(texts[0]))) if texts else ""
    if isinstance(found.get("reasoning"), str):
        fields["reasoning"] = _clean(found["reasoning"]).strip()
    score = found.get("score")
    if isinstance(score, int | float) and not isinstance(score, bool) and abs(score) < sys.float_info.max:
        fields["score"] = float(score)
    return fields
