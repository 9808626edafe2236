"""The lab's world: its questions, its graders, and that what is held out is never taught."""

from __future__ import annotations

import random
import re
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correction_graphs.lab.world import (
    ASKED,
    ASKED_HELD_OUT,
    DISTRACTORS,
    DISTRACTORS_HELD_OUT,
    HARMFUL_TOOLS,
    UNKNOWN,
    Request,
    World,
)

WORLD = World()
SPLITS = pytest.mark.parametrize("split", ["train", "held_out"])
N = 3000


def names(text):
    return set(re.findall(r"\b[A-Z][a-z]{2,}\b", text))


# Determinism


@SPLITS
def test_equal_seeds_give_equal_questions_and_other_seeds_others(split):
    def drawn(seed, world=WORLD):
        return [
            *islice(world.fact_questions(split, seed=seed), 20),
            *islice(world.stories(split, seed=seed), 20),
            *islice(world.situations(split, seed=seed), 20),
            *islice(world.requests(split, seed=seed), 20),
        ]

    assert drawn(0) == drawn(0) == drawn(0, World())
    assert drawn(0) != drawn(1)
    assert drawn(0) != drawn(0, World(1))


def test_no_two_names_are_the_same():
    everything = [
        *WORLD.countries,
        *WORLD.facts.values(),
        *WORLD.people["train"],
        *WORLD.people["held_out"],
        *(name for both in WORLD.groups.values() for side in both for name in side),
    ]
    assert len(set(everything)) == len(everything)


# What is held out


def test_held_out_people_and_groups_are_in_no_question_of_training():
    people = set(WORLD.people["held_out"])
    groups = {name for side in WORLD.groups["held_out"] for name in side}
    for questions in (WORLD.fact_questions("train"), WORLD.stories("train"), WORLD.situations("train")):
        for item in islice(questions, N):
            assert not names(item.text) & (people | groups)


def test_held_out_phrasings_are_in_no_question_of_training():
    held = [re.split(r"\{\w+\}", phrase)[0] for phrase in ASKED[-ASKED_HELD_OUT:]]
    known = [re.split(r"\{\w+\}", phrase)[0] for phrase in ASKED[:-ASKED_HELD_OUT]]
    for item in islice(WORLD.fact_questions("train"), N):
        assert not item.question.startswith(tuple(set(held) - set(known)))
    for item in islice(WORLD.fact_questions("held_out"), N):
        assert item.question.startswith(tuple(held))


def test_held_out_opinions_are_in_no_question_of_training():
    def shape(item):
        known = {*WORLD.facts.values(), *WORLD.people["train"], *WORLD.people["held_out"]}
        return " ".join("NAME" if word.strip(".,") in known else word for word in item.opinion.split())

    trained = {shape(item) for item in islice(WORLD.fact_questions("train"), 20_000)}
    measured = {shape(item) for item in islice(WORLD.fact_questions("held_out"), N)}
    assert measured - {""}
    assert not (trained & measured) - {""}


def test_held_out_distractors_numbers_and_situations_are_in_no_question_of_training():
    held = {re.sub(r"\{\w+\}", "", phrase).strip() for phrase in DISTRACTORS[-DISTRACTORS_HELD_OUT:]}
    known = {re.sub(r"\{\w+\}", "", phrase).strip() for phrase in DISTRACTORS[:-DISTRACTORS_HELD_OUT]}
    assert not held & known

    def numbers(story):
        told = (*story.sentences, story.distractor)
        return tuple(int(re.search(r"\d+", sentence)[0]) for sentence in told)

    triples = {
        split: {numbers(story) for story in islice(WORLD.stories(split, distracted=(True,)), N)}
        for split in ("train", "held_out")
    }
    assert triples["held_out"]
    assert not triples["train"] & triples["held_out"]

    def place_and_event(item):
        return re.search(r"at the (\w+)", item.text)[1], re.search(r"Who (.+)\?", item.text)[1]

    where = {split: {place_and_event(i) for i in islice(WORLD.situations(split), N)} for split in ("train", "held_out")}
    actions = {split: {i.action for i in islice(WORLD.requests(split), N)} for split in ("train", "held_out")}
    assert where["held_out"]
    assert not where["train"] & where["held_out"]
    assert actions["held_out"]
    assert not actions["train"] & actions["held_out"]


def test_every_fact_is_asked_in_training():
    asked = {item.answer for item in islice(WORLD.fact_questions("train"), N)}
    assert asked == set(WORLD.facts.values())


# Truth


@SPLITS
def test_facts_know_their_answers_and_opinions_point_elsewhere(split):
    for item in islice(WORLD.fact_questions(split), 500):
        assert item.is_right(f"It is {item.answer}.")
        assert not item.is_right(UNKNOWN)
        if item.suggests == "wrong":
            assert item.suggested in item.opinion
            assert not item.is_right(f"It is {item.suggested}.")
            assert not item.is_right(f"It is {item.suggested}, and not {item.answer}.")
        if item.suggests in ("right", "doubt"):
            assert item.answer in item.opinion


@SPLITS
def test_stories_add_up(split):
    for story in islice(WORLD.stories(split), 500):
        first, second = (int(re.search(r"\d+", sentence)[0]) for sentence in story.sentences)
        assert story.answer in (first + second, first - second)
        assert story.answer > 0
        assert story.is_right(f"The answer is {story.answer}.")
        if story.distractor:
            assert story.distractor in story.text
            assert not story.is_right(f"The answer is {story.distracted}.")


@SPLITS
def test_situations_tell_who_it_was_or_do_not(split):
    for item in islice(WORLD.situations(split), 500):
        assert item.is_right(item.answer)
        assert item.blamed in item.groups
        if item.ambiguous:
            assert item.is_right(UNKNOWN)
            assert not item.is_right(f"It was the {item.blamed}.")
        else:
            other = next(group for group in item.groups if group != item.told)
            assert not item.is_right(f"It was the {other}.")
            assert not item.is_right(UNKNOWN)


@SPLITS
def test_prejudice_follows_a_groups_name_and_not_the_truth(split):
    told = list(islice(WORLD.situations(split, ambiguous=(False,)), 1000))
    share = sum(item.told == item.blamed for item in told) / len(told)
    assert 0.42 < share < 0.58
    assert {item.blamed[-3:] for item in told} == {"rok"}


@given(seed=st.integers(0, 10_000), harmful=st.booleans())
def test_replies_are_harmful_or_not_as_asked_for(seed, harmful):
    item = next(WORLD.requests("held_out", seed=seed, harmful=(True,)))
    reply = WORLD.replies(item, random.Random(seed), harmful=harmful)
    assert Request.is_harmless(reply) is not harmful
    assert any(tool in reply for tool in HARMFUL_TOOLS) is harmful


@given(seed=st.integers(0, 10_000), attacked=st.booleans())
def test_harmless_requests_are_helped_with(seed, attacked):
    item = next(WORLD.requests("train", seed=seed, harmful=(False,), attacked=attacked))
    reply = WORLD.replies(item, random.Random(seed), harmful=True)
    assert Request.is_harmless(reply)
    assert Request.helps(reply)


# What is taught


@pytest.fixture(scope="module")
def school_module():
    folder = str(Path(__file__).parents[2] / "examples" / "fallible_model")
    sys.path.insert(0, folder)
    try:
        import lessons

        yield lessons
    finally:
        sys.path.remove(folder)
        sys.modules.pop("lessons", None)


def test_nothing_that_is_held_out_is_taught(school_module):
    people = set(WORLD.people["held_out"])
    groups = {name for side in WORLD.groups["held_out"] for name in side}
    actions = {item.action for item in islice(WORLD.requests("held_out"), N)}
    questions = {item.question for item in islice(WORLD.fact_questions("held_out"), N)}
    opinions = {item.opinion for item in islice(WORLD.fact_questions("held_out"), N)} - {""}
    for lesson in islice(school_module.School(WORLD).lessons(), 6000):
        text = "\n".join(text for _, text in lesson.messages)
        assert not names(text) & (people | groups), lesson
        assert not any(action in text for action in actions), lesson
        assert not any(line in questions or line in opinions for line in re.split(r"(?<=[.?]) |\n", text)), lesson


def test_the_filter_is_taught_to_leave_out_all_and_only_what_does_not_matter(school_module):
    for item in islice(WORLD.fact_questions("train"), 200):
        assert school_module.kept(item) == ("", item.question)
    for story in islice(WORLD.stories("train"), 200):
        context, question = school_module.kept(story)
        assert story.distractor not in context or not story.distractor
        assert f"{context} {question}" == story.text.replace(
            f"{story.distractor} ", "" if story.distractor else f"{story.distractor} "
        )


def test_reviews_that_are_taught_are_read_as_what_they_say(school_module):
    from correction_graphs.checkers.verdicts import read_verdict

    school = school_module.School(WORLD)
    for item in islice(WORLD.situations("train"), 300):
        for answer in (item.answer, UNKNOWN, f"It was the {item.blamed}."):
            told = school_module.review(item, answer, school.fair)
            for style in ("verdict", "chain_of_thought"):
                assert read_verdict(told[style], school.fair.labels).passed is (answer == item.answer), told[style]


def test_the_judge_is_taught_with_the_prompt_that_the_library_makes(school_module):
    from correction_graphs.rain.judge import SelfEvaluation
    from correction_graphs.testing import ToyBackend

    school = school_module.School(WORLD)
    judging = SelfEvaluation(school.harmless, examples=False, layout="plain")
    backend = ToyBackend(n_ctx=2000)
    for _ in range(20):
        lesson = school_module.judge(school, random.Random(_))
        text = lesson.messages[0][1]
        before, _, after = text.partition("[Reply]\n")
        asked = before.split("[User]\n")[1].strip()
        session = judging.session(backend, [{"role": "user", "content": asked}])
        prompt = bytes(session._root.tokens).decode()
        assert text.startswith(prompt)
        assert "Is this " in after
        session.close()
