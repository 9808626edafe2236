"""Recontextualization: how rejected answers and their critiques are put before the model that answers again.

A strategy turns what happened so far into the messages that the next answer is written from. In-context alignment
(CaC paper, sections 2 and 5) reads these as triplets of question, answer and critique; every finished round adds one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel, ConfigDict

from correction_graphs.messages import fence, question_of
from correction_graphs.prompts import Template
from correction_graphs.results import Round

StrategyName = Literal["self", "self_instruct", "fresh", "ranked"]


class RevisionRequest(BaseModel):
    """What a strategy is given.

    Attributes:
        messages: The conversation, ending in what is to be answered.
        rounds: The rejected answers with their verdicts, oldest first; at least one.
        template: The prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[AnyMessage, ...]
    rounds: tuple[Round, ...]
    template: Template


Strategy = Callable[[RevisionRequest], Sequence[AnyMessage]]


@runtime_checkable
class Opening(Protocol):
    """A strategy that also has a say in what the first answer is written from."""

    def opening(self, messages: Sequence[AnyMessage], template: Template) -> Sequence[AnyMessage]:
        """Return what the first answer is written from, given the conversation."""
        ...


def repeat_question(request: RevisionRequest) -> list[AnyMessage]:
    """`"self"`: after each answer and its critique, the question is asked again (CaC-self, appendix B.1).

    The context grows by one answer, one critique and one question a round. Each context is the beginning of the next,
    so a model with a prompt cache reads only what is new.
    """
    question = question_of(request.messages)
    return _rounds_as_turns(request, "revise.self", question=question)


def instruct(request: RevisionRequest) -> list[AnyMessage]:
    """`"self_instruct"`: after each answer and its critique, an improved answer is asked for (CaC-self-instruct).

    The question is not repeated, so that instructions hidden in it are not either. The context grows by one answer and
    one critique a round.
    """
    return _rounds_as_turns(request, "revise.self_instruct")


def start_afresh(request: RevisionRequest) -> list[AnyMessage]:
    """`"fresh"`: the question again, with the newest critique, and without the rejected answers.

    For answers that a model cannot let go of once it sees them. The context does not grow from round to round, and
    shares with the one before only what stands in front of the question.
    """
    critique = fence(critique_of(request.rounds[-1], request.template), "critique")
    text = request.template.fill("revise.fresh", question=question_of(request.messages), critique=critique)
    return asking_instead(request.messages, text)


STRATEGIES: dict[StrategyName, tuple[Strategy, str]] = {
    "self": (repeat_question, "revise.self"),
    "self_instruct": (instruct, "revise.self_instruct"),
    "fresh": (start_afresh, "revise.fresh"),
}
"""The strategies by name that are plain functions, each with the template role it needs."""


def read_context(given: object) -> tuple[AnyMessage, ...]:
    """Return what a strategy returned as messages.

    Raises:
        TypeError: If it is not a list of messages, nor what a LangChain prompt makes of its input.
        ValueError: If it is an empty one.
    """
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, str | BaseMessage | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"it returned {given!r}; a strategy returns a list of messages")
    messages = tuple(convert_to_messages(list(given)))
    if not messages:
        raise ValueError("it returned no messages; a strategy returns what the next answer is to be written from")
    return messages  # type: ignore[return-value]  # every message there is, is one of `AnyMessage`


def asking_instead(messages: Sequence[AnyMessage], text: str) -> list[AnyMessage]:
    """Return a conversation with another text in the place of the newest question, and what is attached to it."""
    changed = list(messages)
    at = max((i for i, message in enumerate(changed) if isinstance(message, HumanMessage)), default=len(changed))
    attached = [] if at == len(changed) else _without_text(changed[at])
    changed[at : at + 1] = [HumanMessage([*attached, {"type": "text", "text": text}] if attached else text)]
    return changed


def _rounds_as_turns(request: RevisionRequest, role: str, **slots: str) -> list[AnyMessage]:
    messages = list(request.messages)
    for done in request.rounds:
        critique = fence(critique_of(done, request.template), "critique")
        # Some providers refuse empty turns.
        messages.append(AIMessage(done.answer if done.answer.strip() else "(no answer)"))
        messages.append(HumanMessage(request.template.fill(role, critique=critique, **slots)))
    return messages


def _without_text(message: BaseMessage) -> list[str | dict[str, Any]]:
    """Images and whatever else a message holds beside its text."""
    blocks = [] if isinstance(message.content, str) else message.content
    return [block for block in blocks if isinstance(block, dict) and block.get("type") != "text"]


def critique_of(done: Round, template: Template) -> str:
    """Return what is to be fed back on a round: the critique or, where there is none, the failing verdict."""
    if done.verdict and done.verdict.critique.strip():
        return done.verdict.critique
    return (
        f"{template.labels.verdict[0]}: {template.labels.failing[0]}" if template.labels else "The answer was rejected."
    )
