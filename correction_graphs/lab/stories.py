"""One answer of a method, told step by step: what was left out, what was criticized, what was rewound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from correction_graphs.lab.arms import Said
from correction_graphs.results import CacResult, RainNode, RainResult, S2AResult


class Step(NamedTuple):
    """A step of a story.

    Attributes:
        what: What happened.
        text: What was said, or found.
    """

    what: str
    text: str


def story(question: str, right: str, plain: str, said: Said) -> list[Step]:
    """Return how an answer came about.

    Args:
        question: What the user said.
        right: What would be a right answer.
        plain: What the model says without a method.
        said: What was said with one.
    """
    return [Step("asked", question), Step("right would be", right), Step("alone", plain), *_told(said)]


def _told(said: Said) -> Iterator[Step]:
    match said.result:
        case S2AResult():
            yield from _filtered(said.result)
            yield Step("answer", said.text)
        case CacResult():
            yield from _checked(said.result)
        case RainResult():
            yield from _searched(said.result)


def _filtered(result: S2AResult) -> Iterator[Step]:
    for text in result.texts:
        if not text.filtered:
            yield Step("left as it was", text.fallback or "nothing to filter")
            continue
        yield from (Step("left out", span.text) for span in text.dropped)
        yield Step("kept", text.text)


def _checked(result: CacResult) -> Iterator[Step]:
    for number, done in enumerate(result.rounds, 1):
        yield Step(f"answer {number}", done.answer)
        if done.verdict:
            said = {True: "passed", False: "did not pass", None: "unclear"}[done.verdict.passed]
            yield Step("check", f"{said}: {done.verdict.critique}" if done.verdict.critique else said)


def _searched(result: RainResult) -> Iterator[Step]:
    for commit in result.commits:
        yield from (Step(f"rewound {node.judged:+.2f}", node.text.strip()) for node in _left(commit.searched))
        if commit.text:
            yield Step(f"kept {commit.value:+.2f}", commit.text.strip())


def _left(nodes: tuple[RainNode, ...]) -> Iterator[RainNode]:
    """Yield the token sets that were judged and are not in the reply."""
    for node in nodes:
        if node.judged is not None and not node.committed:
            yield node
        if not node.committed:  # what is below a committed one comes with the next commit
            yield from _left(node.children)
