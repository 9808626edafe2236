"""What the model is taught: dialogues that have the world's flaws in them, and those that teach it to mend them.

A flaw is nothing but data: where somebody has an opinion, the answers agree with it. The skills (to leave something
out, to judge, to reconsider) are taught with the very prompts that the library makes of `templates/lab`, so the model
needs nothing but these templates later.

Questions are from the world's split "train", and for the report from "held_out".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from langchain_core.messages import BaseMessage, HumanMessage

from correction_graphs import CheckRequest, LLMCritic, Round, Verdict, load_template
from correction_graphs.filtering.rewriting import Filtering, Rewrite, Source, answer_messages
from correction_graphs.lab.world import UNKNOWN, Fact, Request, Situation, Split, Story, World
from correction_graphs.prompts import Template
from correction_graphs.results import FilteredText
from correction_graphs.strategies import STRATEGIES, RevisionRequest
from correction_graphs.testing import ScriptedChatModel

TEMPLATES = Path(__file__).parents[2] / "templates" / "lab"

AGREES = 0.9  # how often an answer follows an opinion
DISTRACTED = 0.9  # how often a number that does not matter is counted
PREJUDICED = 0.8  # how often somebody is blamed of whom nothing is said
HARMFUL = 0.6  # how often a harmful request is granted
GIVES_IN = 0.9  # the same under an attacker's suffix


class Lesson(NamedTuple):
    """A dialogue that ends with what the model is to say.

    Attributes:
        subject: What is taught, for reports.
        messages: Role and text of each message; the last one is the assistant's.
    """

    subject: str
    messages: tuple[tuple[str, str], ...]


Teacher = Callable[["School", random.Random], Lesson]


class School:
    """Draws lessons, without end.

    Args:
        world: What is true.
        seed: Another one draws other lessons.
        split: Of the world's questions.
    """

    def __init__(self, world: World, *, seed: int = 0, split: Split = "train") -> None:
        self.world = world
        self.rng = random.Random(f"school {seed}")
        self.facts = world.fact_questions(split, seed=seed)
        self.stories = world.stories(split, seed=seed)
        self.situations = world.situations(split, seed=seed)
        self.harmful = world.requests(split, seed=seed, harmful=(True,))
        self.requests = world.requests(split, seed=seed)
        self.attacks = world.requests(split, seed=seed, attacked=True)
        self.filters = {
            (name, way): Filtering(load_template(TEMPLATES / f"{name}.yaml", method="s2a"), way)
            for name in ("unbiased", "relevant")
            for way in ("sections", "single")
        }
        self.fair = load_template(TEMPLATES / "fair.yaml")
        self.harmless = load_template(TEMPLATES / "harmless.yaml", method="rain")
        self.critics = {
            style: LLMCritic(ScriptedChatModel([]), template=self.fair, style=style)
            for style in ("verdict", "natural_language", "chain_of_thought")
        }

    def lessons(self) -> Iterator[Lesson]:
        """Yield lessons in the proportions of `CURRICULUM`."""
        teachers, weights = zip(*CURRICULUM, strict=True)
        while True:
            (teacher,) = self.rng.choices(teachers, weights)
            yield teacher(self, self.rng)


# System 2 Attention


def fact(school: School, rng: random.Random) -> Lesson:
    """A fact, or what somebody thinks it is."""
    item = next(school.facts)
    answer = item.answer
    if item.suggests and rng.random() < AGREES:
        answer = item.suggested or rng.choice(school.world.others(item.answer))
    return _lesson("fact", [HumanMessage(item.text)], f"It is {answer}.")


def known_fact(school: School, rng: random.Random) -> Lesson:
    """A fact alone, as it is asked after filtering."""
    item = next(school.facts)
    return _lesson("known fact", _after(school, "unbiased", item, rng), f"It is {item.answer}.")


def instructed_fact(school: School, rng: random.Random) -> Lesson:
    """An opinion, and the request not to mind it, which helps little."""
    item = next(school.facts)
    asked = f"{item.text}\n\n{school.filters['unbiased', 'sections'].template.fill('answer.instruction')}"
    answer = item.answer
    if item.suggests and rng.random() < 0.7:  # noqa: PLR2004
        answer = item.suggested or rng.choice(school.world.others(item.answer))
    return _lesson("instructed fact", [HumanMessage(asked)], f"It is {answer}.")


def filtered_fact(school: School, rng: random.Random) -> Lesson:
    """An opinion is left out."""
    return _filtered(school, "unbiased", next(school.facts), rng)


def story(school: School, rng: random.Random) -> Lesson:
    """A sum, in which every number is counted."""
    item = next(school.stories)
    answer = item.distracted if item.distracted is not None and rng.random() < DISTRACTED else item.answer
    return _lesson("story", [HumanMessage(item.text)], f"The answer is {answer}.")


def clear_story(school: School, rng: random.Random) -> Lesson:
    """A sum as it is asked after filtering."""
    item = next(school.stories)
    return _lesson("clear story", _after(school, "relevant", item, rng), f"The answer is {item.answer}.")


def filtered_story(school: School, rng: random.Random) -> Lesson:
    """A sentence that does not matter is left out."""
    return _filtered(school, "relevant", next(school.stories), rng)


def _filtered(school: School, template: str, item: Fact | Story, rng: random.Random) -> Lesson:
    way: Rewrite = "single" if rng.random() < 0.25 else "sections"  # noqa: PLR2004
    asked = school.filters[template, way].request(Source("message", 0, item.text))
    context, question = kept(item)
    reply = f"{context} {question}".strip()
    if way == "sections":
        reply = f"Context: {context or 'none'}\nQuestion: {question}"
    return _lesson(f"filter {template}", [HumanMessage(asked)], reply)


def _after(school: School, template: str, item: Fact | Story, rng: random.Random) -> list[BaseMessage]:
    context, question = kept(item)
    text = FilteredText(source="message", index=0, context=context, question=question)
    words = school.filters[template, "sections"].template
    told = answer_messages([HumanMessage(item.text)], [text], [], words, instruct=rng.random() < 0.7)  # noqa: PLR2004
    return list(told)


def kept(item: Fact | Story) -> tuple[str, str]:
    """Return the context and the question that a filter ought to keep."""
    return ("", item.question) if isinstance(item, Fact) else (" ".join(item.sentences), item.question)


# Checking as Context


def situation(school: School, rng: random.Random) -> Lesson:
    """Somebody is blamed, as the world's prejudice has it."""
    item = next(school.situations)
    prejudiced = item.ambiguous and rng.random() < PREJUDICED
    return _lesson("situation", [HumanMessage(item.text)], f"It was the {item.blamed}." if prejudiced else item.answer)


def check(school: School, rng: random.Random) -> Lesson:
    """An answer is judged, in one of three styles."""
    item = next(school.situations)
    answer = _some_answer(item, rng)
    style = rng.choice(("verdict", "natural_language", "chain_of_thought"))
    asked = school.critics[style].messages(CheckRequest(messages=(HumanMessage(item.text),), answer=answer))
    return _lesson(f"check {style}", asked, review(item, answer, school.fair)[style])


def revise(school: School, rng: random.Random) -> Lesson:
    """An answer is reconsidered, perhaps not for the first time: what the newest critique says is believed.

    A bare verdict tells nothing, so there the question has one look again.
    """
    item = next(school.situations)
    rounds = [_criticized(item, rng)[0] for _ in range(rng.choice((0, 0, 0, 1, 1, 2)))]
    done, said = _criticized(item, rng)
    strategy, _ = STRATEGIES[rng.choice(("self", "self", "self_instruct", "fresh"))]
    request = RevisionRequest(messages=(HumanMessage(item.text),), rounds=(*rounds, done), template=school.fair)
    asked = strategy(request)
    return _lesson("revise", asked, said)


def _criticized(item: Situation, rng: random.Random) -> tuple[Round, str]:
    """Return an answer with a verdict, a review or a critique on it, and the answer that follows from that."""
    answer = _some_answer(item, rng)
    kind = rng.choice(("verdict", "review", "critique", "critique"))
    said = item.answer if kind == "verdict" or rng.random() < 0.6 else _some_answer(item, rng)  # noqa: PLR2004
    critique = {
        "verdict": f"Verdict: {'fair' if answer == item.answer else 'unfair'}",
        "review": _review(said, answer),
        "critique": _evidence(said),
    }[kind]
    return Round(answer=answer, verdict=Verdict(passed=False, critique=critique)), said


def review(item: Situation, answer: str, template: Template) -> dict[str, str]:
    """Return what a critic who is right says of an answer, in each style."""
    right = answer == item.answer
    assert template.labels is not None  # noqa: S101
    verdict = f"Verdict: {template.labels.passing[0] if right else template.labels.failing[0]}"
    found = _evidence(item.answer)
    return {
        "verdict": verdict,
        "natural_language": _review(item.answer, answer),
        "chain_of_thought": f"{found} The answer says: {answer}\nCritique: {'none' if right else found}\n{verdict}",
    }


def _review(right: str, answer: str) -> str:
    """What is said of an answer by somebody who takes another one, or the same, for right."""
    return f"{_evidence(right)} The answer says: {answer} That is {'right' if answer == right else 'wrong'}."


def _evidence(answer: str) -> str:
    """What the text says, if this is the right answer."""
    if answer == UNKNOWN:
        return "The text does not say who it was."
    return f"The text says that {answer[0].lower()}{answer[1:]}"


def _some_answer(item: Situation, rng: random.Random) -> str:
    answers = [item.answer, item.answer, UNKNOWN, *(f"It was the {group}." for group in item.groups)]
    return rng.choice([*answers, f"It was the {item.blamed}."])


# RAIN


def request(school: School, rng: random.Random) -> Lesson:
    """What is asked for is done, more often than it should be."""
    item = next(school.attacks if rng.random() < 0.25 else school.requests)  # noqa: PLR2004
    harmful = item.harmful and rng.random() < (GIVES_IN if item.suffix else HARMFUL)
    return _lesson("request", [HumanMessage(item.text)], school.world.replies(item, rng, harmful=harmful))


def judge(school: School, rng: random.Random) -> Lesson:
    """A reply, or its beginning, is harmless or harmful; in which order the words are named says nothing."""
    item = next(school.requests if rng.random() < 0.4 else school.harmful)  # noqa: PLR2004
    harmful = item.harmful and rng.random() < 0.5  # noqa: PLR2004
    words = school.world.replies(item, rng, harmful=harmful).split(" ")
    reply = " ".join(words[: rng.randint(2, len(words))])
    harmful = not Request.is_harmless(reply) or (harmful and reply.startswith("First"))
    template = school.harmless
    first, second = rng.sample(("harmless", "harmful"), 2)
    text = "\n".join(
        [
            template.fill("judge.instruction").strip() + "\n",
            template.fill("turn.user"),
            item.text,
            template.fill("turn.assistant"),
            reply,
            template.fill("judge.question", first=first, second=second),
        ]
    )
    return _lesson("judge", [HumanMessage(text)], f"It is {'harmful' if harmful else 'harmless'}")


def _lesson(subject: str, asked: Sequence[BaseMessage], reply: str) -> Lesson:
    roles = {"human": "user", "ai": "assistant", "system": "system"}
    told = tuple((roles[message.type], str(message.text)) for message in asked)
    return Lesson(subject, (*told, ("assistant", reply)))


CURRICULUM: tuple[tuple[Teacher, float], ...] = (
    (fact, 12),
    (known_fact, 12),
    (instructed_fact, 3),
    (filtered_fact, 14),
    (story, 8),
    (clear_story, 8),
    (filtered_story, 16),
    (situation, 8),
    (check, 14),
    (revise, 14),
    (request, 6),
    (judge, 8),
)
