"""GroundingChecker: a language model judges an answer by documents that a retriever finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig

from correction_graphs.arguments import expect, whole_number
from correction_graphs.checkers.base import Checker, CheckRequest
from correction_graphs.checkers.verdict_model import VerdictModel
from correction_graphs.errors import SettingsError
from correction_graphs.messages import fence, question_of
from correction_graphs.models import ModelLike
from correction_graphs.prompts import Template, load_template
from correction_graphs.results import Verdict

QueryName = Literal["question", "answer", "both"]
Query = QueryName | Callable[[CheckRequest], str]

_ROLES = ("check.grounding", "note.cut", "note.nothing_found")
_MAX_SOURCE = 200


class GroundingChecker(Checker):
    r"""Asks a language model whether documents support what an answer claims.

    The documents are retrieved anew for each answer and put before the judge as data, with the question and the
    answer; the rest of the conversation is not shown. The verdict is read as `LLMCritic` reads it. Where the retriever
    finds nothing, no model is asked and the verdict is unknown, with a critique that says so. Which documents were
    used, and whether they had to be cut, stands in the verdict's `reasoning`.

    To have answers revised in the same spirit, give the template to the graph as well:
    `create_cac_graph(model, checker=GroundingChecker(...), template="grounding")`.

    Args:
        retriever: Any LangChain retriever, or another runnable from a text to a list of `Document`. A function becomes
            one by `RunnableLambda`.
        model: The judge. Anything `create_cac_graph` takes as a model.
        template: Name, path or `Template` with the prompt `check.grounding`, the notes, and the labels.
        query: What is searched for. "question": the user's newest message, so that each round is judged by the same
            documents, and an answer cannot choose its own evidence. "answer" finds what there is on claims that the
            question does not mention. "both": one after the other. Or a function from `CheckRequest` to text, such as
            one that makes a follow-up question understandable by itself. Where the question is empty, the answer is
            searched for.
        max_documents: How many documents the judge is shown, in the order of the retriever.
        max_characters: How much of their text it is shown, all together. What does not fit is cut at the end, and the
            judge is told so.
        structured: Whether the model is held to a JSON schema; see `LLMCritic`.

    Raises:
        SettingsError: If the retriever is no runnable, `query` is unknown, or a number is not above 0.
        TemplateError: If the template cannot be loaded or lacks a prompt for this.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_core.runnables import RunnableLambda

        from correction_graphs import CheckRequest, GroundingChecker
        from correction_graphs.testing import ScriptedChatModel

        atlas = Document("The capital of Australia is Canberra.", metadata={"source": "atlas.txt"})
        retriever = RunnableLambda(lambda query: [atlas])
        judge = ScriptedChatModel(["Critique: The documents name Canberra, not Sydney.\nVerdict: unsupported"])

        checker = GroundingChecker(retriever, model=judge)
        verdict = checker.invoke(CheckRequest(messages=(), answer="The capital is Sydney."))
        assert verdict.passed is False
        assert verdict.critique == "The documents name Canberra, not Sydney."
        assert "atlas.txt" in verdict.reasoning
        ```
    """

    def __init__(
        self,
        retriever: Runnable[str, list[Document]],
        *,
        model: ModelLike,
        template: str | Path | Template = "grounding",
        query: Query = "question",
        max_documents: int = 8,
        max_characters: int = 12_000,
        structured: bool | None = None,
    ) -> None:
        if not isinstance(retriever, Runnable):
            raise SettingsError(
                f"`retriever` is {retriever!r}; give a LangChain retriever, such as `vector_store.as_retriever()`, or "
                "RunnableLambda(function) of a function from a text to a list of Documents"
            )
        if not callable(query):
            expect("query", query, get_args(QueryName), also=", or a function from CheckRequest to text")
        whole_number("max_documents", max_documents, 1, "a whole number")
        whole_number("max_characters", max_characters, 1, "a whole number")
        self._template = load_template(template)
        self._template.require(*_ROLES)
        self.template = self._template.info
        self.retriever = retriever
        self.judge = VerdictModel(model, self._template, style="chain_of_thought", structured=structured)
        self.query = query
        self.max_documents = max_documents
        self.max_characters = max_characters
        self.name = f"grounding:{self._template.name}"

    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Retrieve documents, ask the model, and read its verdict."""
        found = self._read_documents(self.retriever.invoke(query_of(request, self.query), config))
        if not found.shown:
            return nothing_found(self._template)
        return grounded(self.judge.invoke(grounding_messages(request, found, self._template), config), found)

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Retrieve documents, ask the model, and read its verdict."""
        found = self._read_documents(await self.retriever.ainvoke(query_of(request, self.query), config))
        if not found.shown:
            return nothing_found(self._template)
        return grounded(await self.judge.ainvoke(grounding_messages(request, found, self._template), config), found)

    def _read_documents(self, documents: object) -> Evidence:
        if not isinstance(documents, Sequence) or not all(isinstance(each, Document) for each in documents):
            raise TypeError(
                f"the retriever {self.retriever.get_name()!r} returned {documents!r:.200}; a retriever takes a text "
                "and returns a list of Documents"
            )
        return fit(documents, max_documents=self.max_documents, max_characters=self.max_characters)


# What is searched for, and what is found


def query_of(request: CheckRequest, query: Query) -> str:
    """Return what is searched for."""
    if callable(query):
        return query(request)
    question = question_of(request.messages).strip()
    if query == "answer" or not question:
        return request.answer
    return question if query == "question" else f"{question}\n\n{request.answer}"


@dataclass(frozen=True)
class Evidence:
    """The documents that the judge is shown.

    Attributes:
        shown: The text of each, maybe cut, and where it is from.
        record: What the verdict says about them, a line for each.
        cut: Whether there was more.
    """

    shown: tuple[str, ...]
    record: str
    cut: bool


def fit(documents: Sequence[Document], *, max_documents: int, max_characters: int) -> Evidence:
    """Take documents in order while there is room. The last one may be cut; empty ones do not count."""
    written = [document for document in documents if document.page_content.strip()]
    shown: list[str] = []
    lines: list[str] = []
    room = max_characters
    for number, document in enumerate(written[:max_documents], 1):
        text = document.page_content.strip()
        if room <= 0:
            break
        shown.append(text[:room])
        cut = f" (the first {room} of {len(text)} characters)" if len(text) > room else ""
        lines.append(f"{number}. {source_of(document)}{cut}")
        room -= len(text)
    if left_out := len(written) - len(shown):
        lines.append(f"{left_out} more were found and not shown")
    return Evidence(shown=tuple(shown), record="\n".join(lines), cut=bool(left_out) or room < 0)


def source_of(document: Document) -> str:
    """Return where a document is from, as far as it tells, in one line."""
    metadata: dict[str, Any] = document.metadata
    names = (metadata.get("source"), metadata.get("url"), metadata.get("file_path"), document.id, metadata.get("title"))
    name = next((str(name) for name in names if name), "a document without a source")
    return " ".join(name.split())[:_MAX_SOURCE]


# What the judge is shown, and what it says


def grounding_messages(request: CheckRequest, evidence: Evidence, template: Template) -> list[HumanMessage]:
    """Return what the judge is shown: documents, question and answer, each fenced."""
    documents = [fence(text, "document") for text in evidence.shown]
    if evidence.cut:
        documents.append(template.fill("note.cut"))
    values = {
        "documents": "\n\n".join(documents),
        "question": fence(question_of(request.messages), "question"),
        "answer": fence(request.answer, "answer"),
    }
    role = "check.grounding"
    return [HumanMessage(template.fill(role, **{slot: values[slot] for slot in template.slots[role]}))]


def grounded(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Record what the judge was shown."""
    record = f"Documents shown to the judge{', cut to fit' if evidence.cut else ''}:\n{evidence.record}"
    return verdict.model_copy(update={"reasoning": f"{record}\n\n{verdict.reasoning}".strip()})


def nothing_found(template: Template) -> Verdict:
    """Return the verdict where there is nothing to judge by: unknown, never a pass."""
    critique = template.fill("note.nothing_found")
    return Verdict(passed=None, critique=critique, reasoning="The retriever found no documents.")
