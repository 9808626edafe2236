"""Demonstrations: corrected examples of other questions, put in front of the conversation (CaC paper, appendix B.1).

The paper calls this CaC-diverse. A demonstration is a question, an answer that was rejected, its critique, and the
answer that passed. They always stand first and in the same order, so that a model with a prompt cache reads them once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Self

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from correction_graphs.errors import SettingsError, validation_problems
from correction_graphs.messages import fence
from correction_graphs.prompts import Template
from correction_graphs.results import CacResult
from correction_graphs.strategies import RevisionRequest, repeat_question

Written = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Demonstration(BaseModel):
    """One corrected example.

    Attributes:
        question: What was asked.
        answer: The answer that was rejected.
        critique: What was wrong with it.
        corrected: The answer that passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Written
    answer: Written
    critique: Written
    corrected: Written


class DemonstrationBank:
    """A strategy: as `"self"`, with corrected examples of other questions in front, from the first answer on.

    The context grows by the examples once, and by one answer, critique and question a round.

    Args:
        demonstrations: The examples, in the order in which they are shown; the paper finds three to suffice.

    Raises:
        SettingsError: If there are none.

    Example:
        ```python
        from correction_graphs import create_cac_graph
        from correction_graphs.demonstrations import Demonstration, DemonstrationBank
        from correction_graphs.testing import ScriptedChatModel

        bank = DemonstrationBank(
            [Demonstration(question="2 + 2?", answer="5.", critique="Two and two are four.", corrected="4.")]
        )
        model = ScriptedChatModel(["6."])
        create_cac_graph(model, checker=lambda request: True, strategy=bank).invoke({"messages": [("user", "3 + 3?")]})
        assert [message.text for message in model.asked[0]][-1] == "3 + 3?"
        assert len(model.asked[0]) == 5
        ```
    """

    role = "revise.self"

    def __init__(self, demonstrations: Iterable[Demonstration]) -> None:
        self.demonstrations = tuple(demonstrations)
        if not self.demonstrations:
            raise SettingsError("a demonstration bank needs at least one demonstration")

    @property
    def __name__(self) -> str:
        return f"demonstrations ({len(self.demonstrations)})"

    @classmethod
    def from_results(cls, results: Iterable[tuple[str, CacResult]], *, most: int = 3) -> Self:
        """Build a bank from earlier runs: of each that passed after a revision, the first answer and the last.

        Args:
            results: Questions, each with its result; those without a correction are passed over.
            most: How many to keep at most, the first ones.

        Raises:
            SettingsError: If no result has a correction in it.
        """
        found = [example for question, result in results if (example := corrected(question, result))]
        if not found:
            raise SettingsError("none of these results passed after a revision, so there is nothing to demonstrate")
        return cls(found[:most])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a bank from a JSONL file, one demonstration a line.

        Raises:
            SettingsError: If the file is missing, or a line is not a demonstration; says which.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read demonstrations from {str(path)!r}: {error}") from error
        found: list[Demonstration] = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    found.append(Demonstration.model_validate_json(line))
                except ValidationError as error:
                    problems = validation_problems(error, whole="line")
                    raise SettingsError(f"{path}, line {number}: not a demonstration: {problems}") from error
        return cls(found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank to a JSONL file, one demonstration a line."""
        lines = (json.dumps(example.model_dump(), ensure_ascii=False) for example in self.demonstrations)
        Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def opening(self, messages: Sequence[AnyMessage], template: Template) -> list[AnyMessage]:
        """Return a conversation with the demonstrations in front, after its system messages."""
        first = next((i for i, message in enumerate(messages) if not isinstance(message, SystemMessage)), len(messages))
        shown: list[AnyMessage] = []
        for example in self.demonstrations:
            critique = fence(example.critique, "critique")
            shown += [
                HumanMessage(example.question),
                AIMessage(example.answer),
                HumanMessage(template.fill("revise.self", critique=critique, question=example.question)),
                AIMessage(example.corrected),
            ]
        return [*messages[:first], *shown, *messages[first:]]

    def __call__(self, request: RevisionRequest) -> list[AnyMessage]:
        """Return the context of a revision."""
        return self.opening(repeat_question(request), request.template)


def corrected(question: str, result: CacResult) -> Demonstration | None:
    """Return the correction that a result holds, or None if its first answer passed or none did."""
    first, chosen = (result.rounds[0], result.chosen) if result.rounds else (None, None)
    if first is None or not chosen or result.status != "passed" or first.verdict is None:
        return None
    texts = (question, first.answer, first.verdict.critique, result.answer)
    if not all(text.strip() for text in texts):
        return None
    return Demonstration(
        question=question, answer=first.answer, critique=first.verdict.critique, corrected=result.answer
    )
