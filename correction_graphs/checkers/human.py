"""HumanChecker: a person as the judge of an answer, by LangGraph's interrupt and resume."""

from __future__ import annotations

from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator

from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.errors import SettingsError, validation_problems
from correction_graphs.messages import question_of
from correction_graphs.results import Verdict

_CHECKPOINTER = "__pregel_checkpointer"  # under this name LangGraph tells its nodes; None if there is none


class HumanReview(BaseModel):
    """What a person may resume with; a plain True or False will do, too.

    Attributes:
        passed: Whether the answer may stand; None, the default, for cannot tell.
        critique: What to change, told to the model that answers again.
        score: Higher is better.
        answer: A better answer by the person, which is returned instead, and ends the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    passed: bool | None = None
    critique: str = ""
    score: FiniteFloat | None = None
    answer: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.answer is not None and (not self.answer.strip() or self.passed is False):
            raise ValueError("`answer` is the person's own: it must not be empty, nor be given with passed=False")
        if not self.model_fields_set:
            raise ValueError("say at least one of `passed`, `critique` and `answer`")
        return self

    @property
    def verdict(self) -> Verdict:
        """The review as a verdict."""
        passed = True if self.answer is not None else self.passed
        return Verdict(passed=passed, critique=self.critique, score=self.score, corrected=self.answer)


class HumanChecker(Checker):
    """Stops the run and asks a person; the run goes on when it is resumed with a review.

    The graph, or the one it is part of, needs a checkpointer. What the person is shown is the value of the interrupt:
    a dict with `type` ("cac.review"), `question`, `answer`, `round` (0 for the first answer), the `critiques` of
    earlier rounds, and `error`, which says why a review could not be read. Then the run asks again.

    On resume LangGraph runs the node again from its start. Alone, this checker repeats no model call; in a `Sequential`
    or a `Jury`, what the other checkers asked is asked again.

    Example:
        ```python
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.types import Command

        from correction_graphs import HumanChecker, create_cac_graph
        from correction_graphs.testing import ScriptedChatModel

        model = ScriptedChatModel(["Sydney.", "Canberra."])
        graph = create_cac_graph(model, checker=HumanChecker(), checkpointer=InMemorySaver())
        thread = {"configurable": {"thread_id": "1"}}

        out = graph.invoke({"messages": [("user", "What is the capital of Australia?")]}, thread)
        assert out["__interrupt__"][0].value["answer"] == "Sydney."
        graph.invoke(Command(resume={"passed": False, "critique": "That is the largest city."}), thread)
        out = graph.invoke(Command(resume=True), thread)
        assert out["messages"][-1].text == "Canberra."
        ```
    """

    name = "human"

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:  # noqa: ARG002
        """Interrupt until a person has said something that can be read."""
        _require_checkpointer()
        error: str | None = None
        while True:
            said = interrupt(review_request(request, error))
            try:
                return read_review(said).verdict
            except ValidationError as invalid:
                error = f"the review {said!r} cannot be read: {validation_problems(invalid, whole='review')}"

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Interrupt, as `check` does: nothing in it blocks."""
        return self.check(request, config)


def _require_checkpointer() -> None:
    """Raise where the run could not be resumed: LangGraph interrupts it all the same, and its answer would be lost.

    Raises:
        SettingsError: If the graph is known to have no checkpointer.
    """
    if get_config().get("configurable", {}).get(_CHECKPOINTER, "unknown") is None:
        raise SettingsError(
            "a HumanChecker waits for a person, and a run that waits has to be stored; give the graph that is run a "
            "`checkpointer`, such as langgraph.checkpoint.memory.InMemorySaver()"
        )


def review_request(request: CheckRequest, error: str | None = None) -> dict[str, Any]:
    """Return what a person is shown: plain data."""
    return {
        "type": "cac.review",
        "question": question_of(request.messages),
        "answer": request.answer,
        "round": len(request.rounds),
        "critiques": [done.verdict.critique if done.verdict else "" for done in request.rounds],
        "error": error,
    }


def read_review(said: object) -> HumanReview:
    """Return a review from what the run was resumed with.

    Raises:
        ValidationError: If it is neither True nor False nor the fields of a `HumanReview`.
    """
    return HumanReview(passed=said) if isinstance(said, bool) else HumanReview.model_validate(said)
