"""Several ways to answer the same questions: who is right how often, at what price, and what a method mends or spoils.

`COMPARISONS` are those that `correction-graphs demo` shows and that CI holds us to; `benchmarks/effects.py` adds arms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from correction_graphs.lab.arms import Lab, Said, critic, oracle_judge
from correction_graphs.lab.intervals import Interval, difference, share, sign_test
from correction_graphs.lab.stories import Step, story
from correction_graphs.lab.world import Request, Story, distinct

Arm = Callable[[Any], Said]
"""From an item of the world to an answer. An arm that is given the truth is an oracle."""


@dataclass(frozen=True)
class Row:
    """How one arm did.

    Attributes:
        arm: Its name.
        right: The share of right answers.
        calls: Model calls an answer; for RAIN, texts judged.
        forwarded: Tokens computed for each token of the answers.
        outcomes: Whether each answer was right, in the order of the items.
        said: The answers, likewise.
        minus_plain: By how much the share differs from that of the first arm, paired; None for the first.
        mended: Answers that were wrong with the first arm, and are right.
        spoiled: Answers that were right with the first arm, and are wrong.
        p: Of McNemar's exact test for the two numbers before.
    """

    arm: str
    right: Interval
    calls: float
    forwarded: float
    outcomes: tuple[bool, ...]
    said: tuple[Said, ...]
    minus_plain: Interval | None = None
    mended: int = 0
    spoiled: int = 0
    p: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the single outcomes."""
        found: dict[str, Any] = {
            "right": self.right.as_dict(),
            "calls": round(self.calls, 2),
            "forwarded_per_kept": round(self.forwarded, 2),
        }
        if self.minus_plain is not None:
            found |= {
                "minus_plain": self.minus_plain.as_dict(),
                "mended": self.mended,
                "spoiled": self.spoiled,
                "p": self.p,
            }
        return found


def compared(
    items: Sequence[Any],
    arms: Mapping[str, Arm],
    right: Callable[[Any, str], bool],
    told: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Ask every arm every question.

    Args:
        items: The questions.
        arms: By name; the others are compared with the first one.
        right: Whether an answer to an item is right.
        told: Is told of each row as soon as it is there.
    """
    rows: list[Row] = []
    for name, arm in arms.items():
        said = [arm(item) for item in items]
        outcomes = tuple(right(item, each.text) for item, each in zip(items, said, strict=True))
        row = Row(
            arm=name,
            right=share(outcomes),
            calls=sum(each.calls for each in said) / len(said),
            forwarded=sum(each.forwarded for each in said) / max(1, sum(each.kept for each in said)),
            outcomes=outcomes,
            said=tuple(said),
            **(_against(rows[0].outcomes, outcomes) if rows else {}),
        )
        rows.append(row)
        if told:
            told(row)
    return rows


def _against(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    pairs = list(zip(before, after, strict=True))
    mended, spoiled = pairs.count((False, True)), pairs.count((True, False))
    return {
        "minus_plain": difference(before, after),
        "mended": mended,
        "spoiled": spoiled,
        "p": sign_test(mended, spoiled),
    }


class Comparison(NamedTuple):
    """One flaw of the model and what mends it.

    Attributes:
        flaw: What the questions have in common.
        method: What mends it.
        items: Draws questions, given the lab and how many.
        arms: The model alone, the method, and an oracle, in this order, given the lab and the questions.
        right: Whether an answer to an item is right.
    """

    flaw: str
    method: str
    items: Callable[[Lab, int], list[Any]]
    arms: Callable[[Lab, Sequence[Any]], dict[str, Arm]]
    right: Callable[[Any, str], bool]


def is_right(item: Any, reply: str) -> bool:
    """Whether a reply is right, by the item's own grader."""
    right: bool = item.is_right(reply)
    return right


def is_harmless(_: Request, reply: str) -> bool:
    """Whether something is said, and nothing harmful."""
    return bool(reply.strip()) and Request.is_harmless(reply)


def undistracted(item: Story) -> str:
    """Return a story without what does not matter."""
    return " ".join([*item.sentences, item.question])


def _opinions(lab: Lab, _: Sequence[Any]) -> dict[str, Arm]:
    plain, filtered = lab.plain(), lab.s2a("unbiased")
    return {
        "plain": lambda item: plain(item.text),
        "S2A": lambda item: filtered(item.text),
        "oracle: no opinion": lambda item: plain(item.question),
    }


def _distractors(lab: Lab, _: Sequence[Any]) -> dict[str, Arm]:
    plain, filtered = lab.plain(), lab.s2a("relevant")
    return {
        "plain": lambda item: plain(item.text),
        "S2A": lambda item: filtered(item.text),
        "oracle: no distractor": lambda item: plain(undistracted(item)),
    }


def _prejudice(lab: Lab, items: Sequence[Any]) -> dict[str, Arm]:
    plain, checked, knowing = lab.plain(), lab.cac(), lab.cac(checker=critic(items))
    return {
        "plain": lambda item: plain(item.text),
        "CaC": lambda item: checked(item.text),
        "oracle: a critic who knows": lambda item: knowing(item.text),
    }


def _harm(lab: Lab, _: Sequence[Any]) -> dict[str, Arm]:
    plain, searched, knowing = lab.plain(sampled=True), lab.rain(), lab.rain(judge=oracle_judge)
    return {
        "plain": lambda item: plain(item.text),
        "RAIN": lambda item: searched(item.text),
        "oracle: a judge who knows": lambda item: knowing(item.text),
    }


COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        "agrees with wrong opinions",
        "System 2 Attention",
        lambda lab, n: distinct(lab.world.fact_questions("held_out", suggests=("wrong",)), n),
        _opinions,
        is_right,
    ),
    Comparison(
        "counts numbers that do not matter",
        "System 2 Attention",
        lambda lab, n: distinct(lab.world.stories("held_out", distracted=(True,)), n),
        _distractors,
        is_right,
    ),
    Comparison(
        "blames people by their group",
        "Checking as Context",
        lambda lab, n: distinct(lab.world.situations("held_out", ambiguous=(True,)), n),
        _prejudice,
        is_right,
    ),
    Comparison(
        "helps with something harmful",
        "RAIN",
        lambda lab, n: distinct(lab.world.requests("held_out", harmful=(True,)), n),
        _harm,
        is_harmless,
    ),
)


@dataclass(frozen=True)
class Compared:
    """What came out of a comparison.

    Attributes:
        comparison: What was compared.
        rows: The model alone, the method, and the oracle.
        story: How the method mended an answer; empty if it mended none.
    """

    comparison: Comparison
    rows: tuple[Row, ...]
    story: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "flaw": self.comparison.flaw,
            "method": self.comparison.method,
            "rows": {row.arm: row.as_dict() for row in self.rows},
            "story": [step._asdict() for step in self.story],
        }


def compare(lab: Lab, comparison: Comparison, n: int) -> Compared:
    """Ask `n` questions, and tell the story of the first answer that was mended: for RAIN, the first with a rewind."""
    items = comparison.items(lab, n)
    rows = compared(items, comparison.arms(lab, items), comparison.right)
    plain, method = rows[:2]
    mended = [at for at in range(n) if method.outcomes[at] and not plain.outcomes[at]]
    at = next((at for at in mended if getattr(method.said[at].result, "rewinds", 1)), mended[0] if mended else None)
    if at is None:
        return Compared(comparison, tuple(rows), ())
    right = str(getattr(items[at], "answer", "a refusal, or help that does no harm"))
    return Compared(comparison, tuple(rows), tuple(story(items[at].text, right, plain.said[at].text, method.said[at])))
