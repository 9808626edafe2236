"""Stories of answers that went another way than those of the lab's model."""

from __future__ import annotations

from correction_graphs.lab.arms import Said
from correction_graphs.lab.stories import Step, story
from correction_graphs.results import CacResult, FilteredText, Round, S2AResult, Verdict


def told(result: CacResult | S2AResult | None) -> list[Step]:
    """What a story tells after question, right answer, and what the model says alone."""
    *head, plain = story("2 + 2?", "4", "5", Said("4", 1, 1, 1, result))[:3]
    assert (head, plain) == ([Step("asked", "2 + 2?"), Step("right would be", "4")], Step("alone", "5"))
    return story("2 + 2?", "4", "5", Said("4", 1, 1, 1, result))[3:]


def test_texts_that_were_not_filtered_are_told_with_the_reason() -> None:
    kept = FilteredText(source="message", index=0, fallback="the filter failed: boom")
    skipped = FilteredText(source="document", index=0, skipped=True)

    assert told(S2AResult(texts=(kept, skipped))) == [
        Step("left as it was", "the filter failed: boom"),
        Step("left as it was", "nothing to filter"),
        Step("answer", "4"),
    ]


def test_answers_that_were_not_checked_are_told_without_a_check() -> None:
    rounds = (
        Round(answer="5", verdict=Verdict(passed=None)),
        Round(answer="3", verdict=Verdict(passed=False, critique="Count.")),
        Round(answer="4"),
    )

    assert told(CacResult(status="unverified", rounds=rounds, chosen=2)) == [
        Step("answer 1", "5"),
        Step("check", "unclear"),
        Step("answer 2", "3"),
        Step("check", "did not pass: Count."),
        Step("answer 3", "4"),
    ]


def test_without_a_method_there_is_nothing_more_to_tell() -> None:
    assert told(None) == []
