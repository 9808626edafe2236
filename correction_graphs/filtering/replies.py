"""Reads what a filter replied: two labelled parts, or one text. What it cannot tell apart, it does not guess."""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point; lists of words read best as text

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Literal, NamedTuple

from correction_graphs.messages import said, squeezed
from correction_graphs.thoughts import without_thoughts

_TAG = re.compile(r"^[ \t]*</?[a-z]+ [0-9a-f]{16}>[ \t]*$\n?", re.MULTILINE)  # of `messages.fence`, repeated
_CODE_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w-]*[ \t]*$\n?", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:[-*_=][ \t]*){3,}$", re.MULTILINE)
_PREAMBLE = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay)\b[^\n]{0,120}[:.!]|"
    r"(?:here (?:is|are)|here's|below is|this is|the following is|i have|i've|"
    r"rewritten|filtered|revised|cleaned)\b[^\n]{0,160}:|"
    r"(?:好的|当然|可以|没问题|明白了|以下是|下面是|改写后|过滤后|整理后)[^\n]{0,60}[：:])[ \t]*(?=\n|\S)",
    re.IGNORECASE,
)
# A paragraph at the end in which the filter speaks of its work. "Note:" alone may be the user's.
_AFTERWORD = re.compile(
    r"\n[ \t]*\n[ \t]*(?:[*_(（\[]*(?:note|notes|explanation|reasoning|comment|let me know|"
    r"i(?:'ve| have)?\b|in this|this|"
    r"the (?:above|user|original|opinion)|注|说明|备注|解释|希望|我|以上))[^\n]*?"
    r"(?:remov|omit|exclud|left out|leav|dropp|opinion|bias|"
    r"rewr|rephras|let me know|version|irrelevant|unrelated|去掉|删|略去|偏见|主观|改写|保留|帮助).*\Z",
    re.IGNORECASE | re.DOTALL,
)
_QUOTES = {'"': '"', "“": "”", "「": "」", "『": "』", "«": "»", "'": "'"}


class Reply(NamedTuple):
    """A filter's reply, taken apart.

    Attributes:
        context: The part to answer from; "" where the filter says there is none.
        question: The part to answer; "" likewise, and where the whole is one text.
        problem: Why it cannot be read: "labels" (one is missing, or stands there twice with different text) or
            "empty"; None if it can.
    """

    context: str = ""
    question: str = ""
    problem: Literal["labels", "empty"] | None = None


def read_sections(
    text: str, context_labels: Iterable[str], question_labels: Iterable[str], *, original: str = ""
) -> Reply:
    """Read two labelled parts, in whatever order and dress.

    A label counts at the beginning of a line, before a colon or as a heading, with or without a gloss in brackets,
    numbering and emphasis. Of a part given twice, equal texts count once; where they differ, the last one is what the
    filter settled on only if everything was given anew, otherwise the reply cannot be read.

    Args:
        text: The whole reply.
        context_labels: What introduces the context.
        question_labels: What introduces the question.
        original: What was to be filtered. Rules and code fences that it has are kept; others only dress the reply.
    """
    contexts, questions = tuple(context_labels), tuple(question_labels)
    visible = _visible(text, original)
    asked_for = _read(visible, contexts[:1], questions[:1])  # the user's text may have other labels in it
    return asked_for if asked_for.problem is None else _read(visible, contexts, questions)


def read_single(text: str, *, original: str = "") -> Reply:
    """Read a reply that is one text, as `Reply.context`; what stands around it is left out.

    Args:
        text: The whole reply.
        original: What was to be filtered; see `read_sections`.
    """
    text = _PREAMBLE.sub("", _visible(text, original)).strip()
    text = said(_unquoted(_AFTERWORD.sub("", text).strip()))
    return Reply(context=text) if text else Reply(problem="empty")


def _visible(text: str, original: str = "") -> str:
    """Return what is not reasoning, repeated tags, nor code fences and rules of the reply's own."""
    text = without_thoughts(text.replace("\r\n", "\n"), original)
    quoted = {line.strip() for line in original.splitlines()}
    for dress in (_CODE_FENCE, _RULE):
        text = dress.sub(lambda line: line[0] if line[0].strip() in quoted else "", text)
    return _TAG.sub("", text).strip()


def _read(text: str, contexts: tuple[str, ...], questions: tuple[str, ...]) -> Reply:
    labels = {"context": contexts, "question": questions}
    parts = list(_parts(text, labels))
    kinds = [kind for kind, _ in parts]
    found = {kind: _agreed([part for each, part in parts if each == kind]) for kind in labels}
    if None in found.values() and _is_given_anew(kinds):
        found = dict(parts[-2:])
    if any(kind not in kinds for kind in labels) or None in found.values():
        return Reply(problem="labels")
    reply = Reply(context=said(found["context"] or ""), question=said(found["question"] or ""))
    return reply if reply.context or reply.question else reply._replace(problem="empty")


def _parts(text: str, labels: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Yield each part with the kind of its label."""
    kinds = {_plain(word): kind for kind, words in labels.items() for word in words}
    marks = list(_pattern(kinds).finditer(text))
    for mark, following in zip_longest(marks, marks[1:]):  # the last one has none after it
        part = text[mark.end() : following.start() if following else len(text)]
        if following is None:
            part = _AFTERWORD.sub("", part)
        yield kinds[_plain(mark["label"])], _unquoted(part.strip().rstrip("*_#").strip())


def _pattern(labels: Iterable[str]) -> re.Pattern[str]:
    words = "|".join(r"\s+".join(map(re.escape, word.split())) for word in sorted(labels, key=len, reverse=True))
    number = r"(?:(?:part[ \t]+)?[(（]?[0-9a-bivxⅠⅡ①②一二]{1,3}[.):）、:]?[ \t]*)??"
    dress = rf"[ \t>]*(?:[#]{{1,6}}[ \t]*)?(?:[-*•][ \t]+)?[*_`\[【「(（]*{number}[*_`\[【「]*"
    gloss = r"[ \t]*[*_`]*[ \t]*(?:[(（][^()（）\n]{0,200}[)）])?[ \t]*[*_`\]】」)）]*"
    colon = r"[ \t]*[:：][ \t]*[*_`\]】」]*"
    heading = r"[ \t]*(?=\n|\Z)"
    return re.compile(
        rf"^{dress}(?P<label>{words}){gloss}(?:{colon}|{heading}|(?<=[】\]])|[ \t]+[-–—=]+>?[ \t]+)",
        re.IGNORECASE | re.MULTILINE,
    )


def _plain(word: str) -> str:
    return squeezed(word).casefold()


def _agreed(parts: list[str]) -> str | None:
    """Return what all non-empty parts say; None if they differ."""
    written = {squeezed(part): part for part in parts if part}
    return None if len(written) > 1 else next(iter(written.values()), "")


def _is_given_anew(kinds: list[str]) -> bool:
    """Whether the last two parts are a whole reply of their own, after another one."""
    return len(kinds) >= 4 and len(kinds) % 2 == 0 and kinds == kinds[:2] * (len(kinds) // 2) and len(set(kinds)) == 2  # noqa: PLR2004


def _unquoted(text: str) -> str:
    """Return a text without quotation marks around the whole of it."""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and not set(text[1:-1]) & {text[0], text[-1]}:
        return text[1:-1].strip()
    return text
