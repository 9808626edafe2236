"""The code in an answer: the fenced blocks of a Markdown text, and which of them hold the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Language = Literal["python"]

_OPENING = re.compile(
    r"(?P<lead>[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"  # a fence may stand right after a list marker
    r"(?:(?P<ticks>`{3,})(?P<info>[^`]*)|(?P<tildes>~{3,})(?P<other>.*))"
)
_LABELS: dict[str, frozenset[str]] = {"python": frozenset({"python", "python3", "py", "py3"})}
_WRAPPERS = frozenset({"markdown", "md", "mdx", "text", "txt", "plaintext"})


class Block(NamedTuple):
    """A fenced block: the first word after the fence, in lower case, and what is inside."""

    label: str
    text: str


def code_blocks(answer: str, language: Language = "python") -> list[str]:
    """Return the code of the blocks labelled with the language, or else of those without a label, in order.

    A block that the whole answer was wrapped in, labelled as Markdown or text, is opened if there is no such block
    beside it.
    """
    blocks = list(fenced_blocks(answer))
    for labels in (_LABELS[language], {""}):
        if found := [block.text for block in blocks if block.label in labels and block.text.strip()]:
            return found
    return [code for block in blocks if block.label in _WRAPPERS for code in code_blocks(block.text, language)]


def fenced_blocks(text: str) -> Iterator[Block]:
    """Yield the fenced code blocks of a Markdown text, as CommonMark reads them, in lists too and at any depth.

    A fence is closed by one at least as long, of the same character and at most three columns deeper, so an indented
    fence in a docstring does not end the code around it. One that is never closed goes on to the end.
    """
    lines = iter(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    for line in lines:
        opening = _OPENING.fullmatch(line)
        if opening is None:
            continue
        marks = opening["ticks"] or opening["tildes"]
        depth = len(opening["lead"])
        closing = re.compile(rf"[ \t]{{0,{depth + 3}}}{marks[0]}{{{len(marks)},}}[ \t]*")
        inside: list[str] = []
        for code in lines:
            if closing.fullmatch(code):
                break
            inside.append(re.sub(rf"^[ \t]{{0,{depth}}}", "", code))
        yield Block(_label(opening["info"] or opening["other"] or ""), "\n".join(inside) + "\n")


def _label(info: str) -> str:
    """Return the language in what follows a fence: `python`, `Python title=x`, `{.python}`, `python:main.py`."""
    word = re.match(r"[\s{.]*([^\s{}:,;=(]*)", info)
    return word[1].lower() if word else ""
