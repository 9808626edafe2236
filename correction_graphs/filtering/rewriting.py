"""What a filter is asked about a text, what its reply makes of it, and what the answer is then written from.

All of it pure: the models are called by whoever uses this.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is the point

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage

from correction_graphs.filtering.alignment import dropped, sentences
from correction_graphs.filtering.guards import Breach, breaches
from correction_graphs.filtering.replies import Reply, read_sections, read_single
from correction_graphs.messages import fence, is_cut_off, is_from_user, question_of, said, squeezed, text_of
from correction_graphs.prompts import Template, whole_word
from correction_graphs.results import DroppedSpan, FilteredText, Violation

Rewrite = Literal["sections", "single"]
Mode = Literal["replace", "keep_original"]
ScopeName = Literal["last", "conversation"]
Scope = ScopeName | Callable[[HumanMessage], bool]
SkipIf = Literal["clean"] | Callable[[str], bool]

ATTEMPTS = 2
DOCUMENT_ROLES = ("filter.document", "label.nothing", "answer.documents")
"""What a template needs where there are documents."""


class Source(NamedTuple):
    """A text that is to be filtered.

    Attributes:
        kind: What it is.
        place: Which one: its place in `messages` or `documents`.
        text: What it says.
        question: What a document is to be of use for.
    """

    kind: Literal["message", "document"]
    place: int
    text: str
    question: str = ""


class Asking(NamedTuple):
    """What the filter is to be asked next.

    Attributes:
        messages: All of it.
        rejected: What was wrong with the reply before, if this is another attempt.
    """

    messages: list[AnyMessage]
    rejected: tuple[Violation, ...] = ()


class Filtering(NamedTuple):
    """How texts are filtered.

    Attributes:
        template: The words.
        rewrite: Whether two labelled parts are asked for, or a single text.
        guards: Whether a reply is compared with the original.
        skip_if: What need not be filtered.
    """

    template: Template
    rewrite: Rewrite = "sections"
    guards: bool = True
    skip_if: SkipIf | None = None

    def sources(
        self, messages: Sequence[BaseMessage], documents: Sequence[Document], scope: Scope
    ) -> tuple[Source, ...]:
        """Return what is to be filtered: the messages of the user that `scope` means, and all documents."""
        users = [(at, message) for at, message in enumerate(messages) if is_from_user(message)]
        if callable(scope):
            users = [(at, message) for at, message in users if scope(message)]
        elif scope == "last":
            users = users[-1:]
        question = question_of(messages)
        found = [
            *(Source("message", at, text_of(message)) for at, message in users),
            *(Source("document", at, document.page_content, question) for at, document in enumerate(documents)),
        ]
        return tuple(source for source in found if source.text.strip())

    def skips(self, source: Source) -> bool:
        """Whether a text is left as it is without asking the filter."""
        if self.skip_if is None:
            return False
        return is_clean(source.text, self.template) if self.skip_if == "clean" else bool(self.skip_if(source.text))

    def filter(self, source: Source) -> Generator[Asking, AIMessage, FilteredText]:
        """Yield what the filter is to be asked, take its reply, and return what becomes of the text.

        What is wrong with a reply is told to the filter once. The violations of each are in the result.
        """
        asking = Asking([HumanMessage(self.request(source))])
        violations: list[Violation] = []
        for attempt in range(ATTEMPTS):
            said_now = yield asking
            reply, found = self.read(source, said_now)
            if not found:
                return self._filtered(source, reply, violations, attempt + 1)
            rejected = tuple(Violation(kind=each.kind, items=each.items, attempt=attempt) for each in found)
            violations += rejected
            text = str(said_now.text).strip() or "-"  # some providers refuse an empty message
            asking = Asking([*asking.messages, AIMessage(text), HumanMessage(self.complaint(found))], rejected)
        kinds = ", ".join(dict.fromkeys(violation.kind for violation in asking.rejected))
        return FilteredText(
            source=source.kind,
            index=source.place,
            violations=tuple(violations),
            fallback=f"the filter's reply could not be used, {ATTEMPTS} times; the last time: {kinds}",
            attempts=ATTEMPTS,
        )

    def request(self, source: Source) -> str:
        """Return what the filter is asked about a text."""
        if source.kind == "document":
            return self.template.fill(
                "filter.document",
                document=fence(source.text, "document"),
                question=fence(source.question, "question"),
                nothing_label=self._labels("nothing")[0],
            )
        if self.rewrite == "single":
            return self.template.fill("filter.single", text=fence(source.text))
        return self.template.fill("filter.sections", text=fence(source.text), **self._asked_labels)

    def read(self, source: Source, message: AIMessage) -> tuple[Reply, list[Breach]]:
        """Return the filter's reply taken apart, and what is wrong with it."""
        text = str(message.text)
        if source.kind == "document" and self._is_nothing(text):
            return Reply(), []
        if source.kind == "document" or self.rewrite == "single":
            reply = read_single(text, original=source.text)
        else:
            reply = read_sections(text, self._labels("context"), self._labels("question"), original=source.text)
        if reply.problem:
            return reply, [Breach("empty" if not text.strip() else reply.problem)]
        if is_cut_off(message):
            return reply, [Breach("cut")]
        if not self.guards:
            return reply, []
        return reply, breaches(source.text, reply.context, reply.question, whole=source.kind == "message")

    def complaint(self, found: Sequence[Breach]) -> str:
        """Return what the filter is told about a reply that cannot be used."""
        lines = []
        for breach in found:
            role = f"problem.{breach.kind}"
            values = {**self._asked_labels, "items": "; ".join(f"“{item[:_LONGEST_ITEM]}”" for item in breach.items)}
            lines.append("- " + self.template.fill(role, **{slot: values[slot] for slot in self.template.slots[role]}))
        return self.template.fill("filter.retry", problems=fence("\n".join(lines), "problems"))

    @property
    def roles(self) -> list[str]:
        """The roles of the template that this needs."""
        problems = (
            "labels",
            "empty",
            "cut",
            *(("added", "lost", "question", "negation", "longer") if self.guards else ()),
        )
        labels = (
            ["label.context", "label.question", "filter.sections"] if self.rewrite == "sections" else ["filter.single"]
        )
        return [*labels, "filter.retry", *(f"problem.{kind}" for kind in problems if labels[1:] or kind != "labels")]

    def _filtered(self, source: Source, reply: Reply, violations: list[Violation], attempts: int) -> FilteredText:
        spans = dropped(source.text, "\n".join(part for part in (reply.context, reply.question) if part))
        return FilteredText(
            source=source.kind,
            index=source.place,
            context=reply.context,
            question=reply.question,
            dropped=tuple(DroppedSpan(start=start, end=end, text=source.text[start:end]) for start, end in spans),
            violations=tuple(violations),
            attempts=attempts,
        )

    def _labels(self, kind: str) -> list[str]:
        return [line.strip() for line in self.template.prompts[f"label.{kind}"].splitlines() if line.strip()]

    @property
    def _asked_labels(self) -> dict[str, str]:
        if self.rewrite == "single":
            return {}
        return {"context_label": self._labels("context")[0], "question_label": self._labels("question")[0]}

    def _is_nothing(self, text: str) -> bool:
        bare = text.strip().strip(".。 \"“”'`*").casefold()
        return bool(bare) and (not said(bare) or bare in (label.casefold() for label in self._labels("nothing")))


_LONGEST_ITEM = 200


def is_clean(text: str, template: Template) -> bool:
    """Whether there is nothing to filter, as far as a cheap test can tell.

    By the template's `clean.markers` that is a text with none of them in it; without such a role, a single sentence.
    """
    markers = template.prompts.get("clean.markers")
    if markers is None:
        return len(sentences(text.strip())) < 2  # noqa: PLR2004
    plain = squeezed(text.casefold().replace("’", "'"))
    return not any(
        re.search(whole_word(squeezed(marker.casefold())), plain) for marker in markers.splitlines() if marker.strip()
    )


# What the answer is written from


def kept_documents(documents: Sequence[Document], texts: Sequence[FilteredText]) -> list[str]:
    """Return what each document says after filtering, those of which nothing is left not at all."""
    filtered = {text.index: text.text for text in texts if text.source == "document" and text.filtered}
    said_now = [filtered.get(at, document.page_content) for at, document in enumerate(documents)]
    return [text for text in said_now if text.strip()]


def answer_messages(
    messages: Sequence[AnyMessage],
    texts: Sequence[FilteredText],
    documents: Sequence[str],
    template: Template,
    *,
    mode: Mode = "replace",
    instruct: bool = True,
    newest: int | None = None,
) -> list[AnyMessage]:
    """Return the conversation that is answered: filtered texts in place, everything else as it was.

    Args:
        messages: The conversation as it was given. It is not changed.
        texts: What became of its texts.
        documents: What is shown with the newest message of the user.
        template: The words.
        mode: Whether a filtered text takes the place of its original, or stands after it.
        instruct: Whether the newest message ends in the template's instruction: not where it was skipped, or was not
            to be filtered, and there are no documents either.
        newest: The place of the user's newest message; by default, of the last one that is the user's.
    """
    told = list(messages)
    for text in texts:
        if text.source == "message" and text.filtered:
            original = told[text.index]
            kept = text.text
            if mode == "keep_original":
                kept = template.fill("answer.keep_original", original=text_of(original), filtered=kept)
            told[text.index] = with_text(original, kept)
    if newest is None:
        newest = next((at for at in range(len(told) - 1, -1, -1) if is_from_user(told[at])), None)
    if newest is None:
        return told
    given = asked = text_of(told[newest])
    if documents:
        shown = "\n\n".join(fence(text, "document") for text in documents)
        asked = template.fill("answer.documents", documents=shown, question=asked)
    if instruct and any(not text.skipped and (text.source == "document" or text.index == newest) for text in texts):
        asked = f"{asked}\n\n{template.fill('answer.instruction')}".strip()
    if asked != given:
        told[newest] = with_text(told[newest], asked)
    return told


def with_text(message: AnyMessage, text: str) -> AnyMessage:
    """Return a message that says something else, with everything but text as it was."""
    if isinstance(message.content, str):
        return message.model_copy(update={"content": text})
    blocks: list[Any] = []
    placed = False
    for block in message.content:
        if not (isinstance(block, str) or block.get("type") == "text"):
            blocks.append(block)
        elif not placed:
            blocks.append(text if isinstance(block, str) else {**block, "text": text})
            placed = True
    return message.model_copy(update={"content": blocks if placed else [{"type": "text", "text": text}, *blocks]})
