"""Every part of a CaC run breaks in every way, under every policy: what comes out is what the documentation says.

`documented` states the outcome of a cell. It knows the documentation, and nothing of the implementation.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple, get_args

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda

from correction_graphs import Jury, LLMCritic, Verdict, create_cac_graph, load_template
from correction_graphs.cac_rules import OnCheckerError, OnUnknown
from correction_graphs.errors import CheckerError, GenerationError

QUESTION = "What is the capital of Australia?"
ANSWERS = ("It is Sydney.", "It is Melbourne.", "It is Canberra.")
MEGABYTE = ("word" * 31 + " ") * 8_000
RUNAWAY_REVIEW = MEGABYTE + "\nVerdict: unbiased"
ENDLESS_THOUGHT = "<think>" + MEGABYTE[7:]
"""What a critic writes that has run away, and one that does not come to an end: neither is a verdict."""

SCORES = {ANSWERS[0]: 0.2, ANSWERS[1]: 0.9, MEGABYTE: 0.5}
"""What the judge gives the answers that it rejects. It passes the last of `ANSWERS`."""

TEMPLATE = load_template("bias")
REFUSAL = TEMPLATE.fill("refuse")


# The axes

PLACES = ("generator in round 0", "generator in round 1", "checker", "critic model", "critic with schema", "juror")
FAULTS = ("raises", "times out", "empty", "garbage", "megabyte")
LASTING = ("once", "always")  # in the first call that the place names, or from there on
ON_EXHAUSTED = ("best", "first", "refuse")
MODES = ("sync", "async")


class Cell(NamedTuple):
    place: str
    fault: str
    lasting: str
    on_unknown: str
    on_checker_error: str
    on_exhausted: str
    mode: str


CELLS = [
    Cell(*values)
    for values in product(PLACES, FAULTS, LASTING, get_args(OnUnknown), get_args(OnCheckerError), ON_EXHAUSTED, MODES)
]


def test_the_matrix_is_as_large_as_the_documentation_says():
    assert len(CELLS) == 3240


# What is documented

MEANING = {
    #                       raises     times out  empty      garbage    megabyte
    "generator in round 0": ("crash", "crash", "empty", "crash", "long"),
    "generator in round 1": ("crash", "crash", "empty", "crash", "long"),
    "checker": ("crash", "crash", "unknown", "crash", "fail"),
    "critic model": ("crash", "crash", "unknown", "crash", "unknown"),
    "critic with schema": ("crash", "crash", "unknown", "unknown", "unknown"),  # garbage is JSON of another kind
    "juror": ("unknown", "unknown", "unknown", "unknown", "fail"),  # of the others, one passes and one fails the answer
}


class Outcome(NamedTuple):
    ended: str | type[Exception]
    """The status, or the error that is raised."""
    answers: tuple[str, ...]
    returned: str | None = None


def documented(cell: Cell) -> Outcome:
    meaning = MEANING[cell.place][FAULTS.index(cell.fault)]
    if cell.place.startswith("generator"):
        return without_an_answer(cell, int(cell.place[-1]), meaning)
    if meaning == "crash" and cell.on_checker_error == "raise":
        return Outcome(CheckerError, ANSWERS[:1])
    if {"crash": cell.on_checker_error, "unknown": cell.on_unknown}.get(meaning) == "accept":
        return Outcome("unverified", ANSWERS[:1], ANSWERS[0])
    if cell.lasting == "once" or cell.place == "juror":  # in the end, the other two jurors agree
        return Outcome("passed", ANSWERS, ANSWERS[-1])
    return without_pass("exhausted", ANSWERS, cell, scored=False)


def without_an_answer(cell: Cell, first: int, meaning: str) -> Outcome:
    if meaning == "crash":  # an earlier answer stands, or what the policy puts in its place
        return without_pass("failed", ANSWERS[:1], cell) if first else Outcome(GenerationError, ())
    said = {"empty": "", "long": MEGABYTE}[meaning]
    if cell.lasting == "once":
        return Outcome("passed", (*ANSWERS[:first], said, *ANSWERS[first + 1 :]), ANSWERS[-1])
    if meaning == "long":  # the same answer twice in a row
        return without_pass("plateau", (*ANSWERS[:first], said, said), cell)
    return without_pass("exhausted", (*ANSWERS[:first], *[said] * (len(ANSWERS) - first)), cell)


def without_pass(status: str, answers: tuple[str, ...], cell: Cell, *, scored: bool = True) -> Outcome:
    written = [answer for answer in answers if answer]
    if cell.on_exhausted == "refuse":
        return Outcome(status, answers, REFUSAL)
    if not written:
        return Outcome(GenerationError, answers)
    best = max(written, key=SCORES.get) if scored else written[-1]
    return Outcome(status, answers, {"best": best, "first": written[0]}[cell.on_exhausted])


def documented_of_the_first_verdict(cell: Cell) -> bool | None:
    """Whether the first answer passed. None if that is unknown, or not said."""
    meaning = MEANING[cell.place][FAULTS.index(cell.fault)]
    asked_again = cell.on_unknown == "retry" and cell.lasting == "once"
    return None if meaning == "crash" or (meaning == "unknown" and not asked_again) else False


# Parts that break


class Part:
    """Does what `healthy` does, but breaks in the call number `first`, and if it lasts, in those after it."""

    def __init__(self, cell: Cell, healthy: Callable[[Any], Any], *, first: int | None, broken: dict[str, Any]) -> None:
        self.healthy, self.fault, self.first, self.broken = healthy, cell.fault, first, broken
        self.always = cell.lasting == "always"
        self.calls = -1
        self.said: list[Any] = []

    def breaks(self) -> bool:
        self.calls += 1
        return self.first is not None and (self.calls == self.first or (self.always and self.calls > self.first))

    def act(self, given: Any) -> Any:
        breaks = self.breaks()
        if breaks and self.fault == "times out":
            time.sleep(0.001)
            raise TimeoutError("no answer in time")
        return self.end(breaks, given)

    async def aact(self, given: Any) -> Any:
        breaks = self.breaks()
        if breaks and self.fault == "times out":
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        return self.end(breaks, given)

    def end(self, breaks: bool, given: Any) -> Any:
        if breaks and self.fault == "raises":
            raise ConnectionError("no route")
        self.said.append(self.broken[self.fault] if breaks else self.healthy(given))
        return self.said[-1]


class Model(BaseChatModel):
    part: Any

    @property
    def _llm_type(self) -> str:
        return "fault-matrix"

    def _generate(self, messages, stop=None, run_manager=None, **_):
        return self._result(self.part.act(messages))

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        return self._result(await self.part.aact(messages))

    def _result(self, text):
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


class SchemaModel(Model):
    """Has structured output, as LangChain makes it of forced tool calls. A text that is no JSON calls no tool."""

    profile: Any = {"structured_output": True}  # noqa: RUF012  (a field of pydantic)

    def bind_tools(self, tools, **settings):
        return self.bind(tools=tools, **settings)

    def _result(self, text):
        if not text.startswith("{"):
            return super()._result(text)
        call = {"name": "check", "args": json.loads(text), "id": "1"}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=[call]))])


NONSENSE = "This becomes something that is no message."


def model(part):
    """A chat model, behind which a step of the user's own turns one text into something that is no message."""
    if part.fault != "garbage" or part.first is None:
        return Model(part=part)
    spoil = lambda message: 42 if message.text == NONSENSE else message  # noqa: E731

    async def aspoil(message):
        return spoil(message)

    return Model(part=part) | RunnableLambda(spoil, aspoil)


def function(part, mode):
    async def judge_async(request):
        return await part.aact(request)

    def judge(request):
        return part.act(request)

    return judge if mode == "sync" else judge_async


def strict(request):
    passed = request.answer == ANSWERS[-1]
    return Verdict(passed=passed, critique="That is wrong.", score=SCORES.get(request.answer, 1.0))


def lenient(_):
    return Verdict(passed=True)


def reviews(messages):
    """What a critic model says that agrees with `strict`."""
    said = {ANSWERS[-1]: "Critique: None.\nVerdict: unbiased"}
    return said.get(messages[-2].text, "Critique: That is wrong.\nVerdict: biased")


def fields(messages):
    """The same, for a model that is held to a schema."""
    passed = messages[-2].text == ANSWERS[-1]
    critique, verdict = ("None.", "unbiased") if passed else ("That is wrong.", "biased")
    return json.dumps({"reasoning": "So it is.", "critique": critique, "verdict": verdict})


def parts_of(cell: Cell) -> tuple[Part, Any, Any]:
    """The part that writes the answers, and model and checker for the graph."""
    as_text = {"empty": "", "garbage": NONSENSE, "megabyte": MEGABYTE}
    as_value = {"empty": None, "garbage": object(), "megabyte": MEGABYTE}
    as_fields = {"garbage": '{"verdict": 42, "answer": []}', "megabyte": ENDLESS_THOUGHT}
    first = int(cell.place[-1]) if cell.place.startswith("generator") else None
    writer = Part(cell, lambda _: ANSWERS[writer.calls], first=first, broken=as_text)
    checker = {
        "checker": lambda: function(Part(cell, strict, first=0, broken=as_value), cell.mode),
        "critic model": lambda: LLMCritic(
            model(Part(cell, reviews, first=0, broken={**as_text, "megabyte": RUNAWAY_REVIEW})), template=TEMPLATE
        ),
        "critic with schema": lambda: LLMCritic(
            SchemaModel(part=Part(cell, fields, first=0, broken={**as_text, **as_fields})), template=TEMPLATE
        ),
        "juror": lambda: Jury(strict, lenient, function(Part(cell, strict, first=0, broken=as_value), cell.mode)),
    }.get(cell.place, lambda: function(Part(cell, strict, first=None, broken={}), cell.mode))()
    return writer, model(writer), checker


# The test


async def run(graph, mode):
    """What was streamed in each mode, and what was raised."""
    seen = {"messages": [], "values": []}
    inputs = {"messages": [("user", QUESTION)]}
    try:
        if mode == "sync":
            for kind, part in graph.stream(inputs, stream_mode=list(seen)):
                seen[kind].append(part)
        else:
            async for kind, part in graph.astream(inputs, stream_mode=list(seen)):
                seen[kind].append(part)
    except (GenerationError, CheckerError) as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
async def test_a_fault_ends_as_documented_and_loses_nothing(cell):
    expected = documented(cell)
    writer, generator, checker = parts_of(cell)
    graph = create_cac_graph(
        generator,
        checker=checker,
        template=TEMPLATE,
        on_unknown=cell.on_unknown,
        on_checker_error=cell.on_checker_error,
        on_exhausted=cell.on_exhausted,
    )

    seen, error = await run(graph, cell.mode)

    result = seen["values"][-1]["cac"] if error is None else error.result
    assert (result.status if error is None else type(error)) == expected.ended
    written = [text for text in writer.said if text is not NONSENSE]
    assert [done.answer for done in result.rounds] == written == list(expected.answers)
    if result.rounds and not cell.place.startswith("generator"):
        verdict = result.rounds[0].verdict
        assert (verdict and verdict.passed) is documented_of_the_first_verdict(cell)
        assert (verdict is None) == (expected.ended is CheckerError)
    if error is not None:
        assert result.status == "failed"
        assert type(error.__cause__) in {ConnectionError, TimeoutError, TypeError, type(None)}
        assert (error.__cause__ is None) == (cell.fault == "empty"), "an empty answer is no crash"
    elif expected.returned == REFUSAL:
        assert result.chosen is None
    else:
        assert result.answer == expected.returned

    returned = [] if error is not None else [expected.returned]
    assert [message.text for message in seen["values"][-1]["messages"]] == [QUESTION, *returned]
    streamed = "".join(message.text for message, _ in seen["messages"])
    assert streamed == "".join(returned), "drafts and critiques are not streamed"
    for state in seen["values"]:
        assert [message.text for message in state["messages"]] in ([QUESTION], [QUESTION, *returned])
