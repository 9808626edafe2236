"""The rules of System 2 Attention around its calls of models: what is filtered, and what becomes of what comes back.

Whoever runs it (the nodes of `s2a`, or an agent's middleware) calls the models.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import get_runtime
from pydantic import BaseModel, ConfigDict

from correction_graphs.arguments import expect
from correction_graphs.budget import Budget
from correction_graphs.checkers.adapters import require_one_argument
from correction_graphs.errors import ConversationError, FilterError, SettingsError, words
from correction_graphs.filtering.rewriting import (
    DOCUMENT_ROLES,
    Asking,
    Filtering,
    Mode,
    Rewrite,
    Scope,
    ScopeName,
    SkipIf,
    Source,
    answer_messages,
)
from correction_graphs.generators import afollow, follow
from correction_graphs.messages import text_of
from correction_graphs.nodes import Quietly, emit, let_pass, require_budget
from correction_graphs.prompts import Template, load_template
from correction_graphs.results import FilteredText, S2AResult, Usage
from correction_graphs.usage import UsageMeter, refusal_in, shared_budget

OnFilterFailure = Literal["original", "raise"]


class Progress(BaseModel):
    """What was filtered in this turn.

    Attributes:
        texts: What became of each text.
        documents: What the documents say now.
        usage: What was spent.
        error: What went wrong in a model, when something did.
        ended: Whether the answer is out.
    """

    model_config = ConfigDict(frozen=True)

    texts: tuple[FilteredText, ...] = ()
    documents: tuple[str, ...] = ()
    usage: Usage = Usage()
    error: str | None = None
    ended: bool = False


class Seen(BaseModel):
    """A message's text, and what became of it.

    Attributes:
        digest: SHA-256 of the text.
        text: What became of it.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    text: FilteredText


class Memory(BaseModel):
    """What became of the user's messages, in all turns of a thread.

    Attributes:
        seen: By the messages' ids. A message that says something else by now is a new one.
    """

    model_config = ConfigDict(frozen=True)

    seen: dict[str, Seen] = {}

    def found_in(self, messages: Sequence[AnyMessage]) -> list[FilteredText]:
        """Return what is known of messages, each with its place among these."""
        known = ((at, self._of(message)) for at, message in enumerate(messages))
        return [text.model_copy(update={"index": at}) for at, text in known if text is not None]

    def knows(self, message: AnyMessage) -> bool:
        """Whether there is nothing left to find out about a message."""
        return self._of(message) is not None

    def recall(self, text: str) -> FilteredText | None:
        """Return what became of another message with the same text; None if nothing that can be used."""
        digest = _digest(text)
        found = (seen.text for seen in self.seen.values() if seen.digest == digest)
        return next((text for text in found if not text.fallback), None)

    def learn(self, messages: Sequence[AnyMessage] | Mapping[int, AnyMessage], texts: Sequence[FilteredText]) -> Memory:
        """Return a memory that holds these, too; `index` is where their message stands."""
        new = {
            str(messages[text.index].id): Seen(digest=_digest(text_of(messages[text.index])), text=text)
            for text in texts
            if text.source == "message"
        }
        return Memory(seen={**self.seen, **new})

    def next_turn(self, messages: Sequence[AnyMessage]) -> Memory:
        """Return a memory for the next turn: without messages that are gone, and what failed can be tried again."""
        here = {message.id for message in messages}
        return Memory(seen={key: seen for key, seen in self.seen.items() if key in here and not seen.text.fallback})

    def _of(self, message: AnyMessage) -> FilteredText | None:
        seen = self.seen.get(str(message.id))
        return seen.text if seen and seen.digest == _digest(text_of(message)) else None


class Plan(NamedTuple):
    """What is to be filtered now.

    Attributes:
        sources: All of it.
        settled: What becomes of texts for which no filter need be asked.
        asked: The rest.
    """

    sources: tuple[Source, ...]
    settled: dict[Source, FilteredText]
    asked: list[Source]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Rules(NamedTuple):
    """How texts are filtered and answered."""

    filtering: Filtering
    scope: Scope
    mode: Mode
    instruct: bool
    on_filter_failure: OnFilterFailure
    budget: Budget | None

    @classmethod
    def of(
        cls,
        *,
        template: str | Path | Template,
        rewrite: Rewrite,
        mode: Mode,
        instruct: bool,
        scope: Scope,
        guards: bool,
        on_filter_failure: OnFilterFailure,
        skip_if: SkipIf | None,
        budget: Budget | None,
    ) -> Self:
        """Return the rules that these settings make.

        Raises:
            SettingsError: If an argument is not one of those allowed.
            TemplateError: If the template cannot be loaded or lacks a prompt that these settings use.
        """
        expect("rewrite", rewrite, get_args(Rewrite))
        expect("mode", mode, get_args(Mode))
        expect("instruct", instruct, (True, False))
        expect("guards", guards, (True, False))
        expect("on_filter_failure", on_filter_failure, get_args(OnFilterFailure))
        if callable(scope):
            _require_plain("scope", scope, "a HumanMessage")
        else:
            expect("scope", scope, get_args(ScopeName), also=", or a function from HumanMessage to bool")
        if callable(skip_if):
            _require_plain("skip_if", skip_if, "a text")
        else:
            expect("skip_if", skip_if, (None, "clean"), also=", or a function from text to bool")
        require_budget(budget)
        filtering = Filtering(load_template(template, method="s2a"), rewrite, guards, skip_if)
        filtering.template.require(
            *filtering.roles,
            *(["answer.keep_original"] if mode == "keep_original" else []),
            *(["answer.instruction"] if instruct else []),
        )
        return cls(filtering, scope, mode, instruct, on_filter_failure, budget)

    def meter(self, before: Usage | None = None) -> UsageMeter:
        """Return what counts a step, and asks the budget before each model call in it."""
        return UsageMeter(self.budget, before, shared_budget(get_runtime().context))

    def sources(self, messages: Sequence[AnyMessage], documents: Sequence[Document] = ()) -> tuple[Source, ...]:
        """Return what is to be filtered.

        Raises:
            ConversationError: If `documents` holds something else.
            TemplateError: If there are documents, and the template has no words for them.
        """
        if not isinstance(documents, list | tuple):
            raise ConversationError(f'"documents" is {documents!r:.200}; give a list of LangChain Documents')
        if odd := [each for each in documents if not isinstance(each, Document)]:
            raise ConversationError(f'"documents" holds {odd[0]!r:.200}; give LangChain Documents')
        if documents:
            self.filtering.template.require(*DOCUMENT_ROLES)
        try:
            return self.filtering.sources(messages, documents, self.scope)
        except Exception as error:
            raise SettingsError(f"`scope` raised {words(error)}") from error

    def plan(self, sources: Iterable[Source], memory: Memory) -> Plan:
        """Return which texts a filter is to be asked about: not those that are known, and those that are skipped.

        Raises:
            SettingsError: If the function given as `skip_if` raised.
        """
        every = tuple(sources)
        settled: dict[Source, FilteredText] = {}
        for source in every:
            known = memory.recall(source.text) if source.kind == "message" else None
            try:
                skips = known is None and self.filtering.skips(source)
            except Exception as error:
                raise SettingsError(f"`skip_if` raised {words(error)}") from error
            if known is not None:
                settled[source] = known.model_copy(update={"index": source.place})
            elif skips:
                settled[source] = FilteredText(source=source.kind, index=source.place, skipped=True)
        return Plan(every, settled, [source for source in every if source not in settled])

    def filter(
        self, model: Runnable[Any, AIMessage], plan: Plan, progress: Progress, config: RunnableConfig | None
    ) -> Progress:
        """Ask the filter what is to be asked, all at once, and return the progress with what became of the plan.

        Raises:
            FilterError: If the filter failed, and the policy is to raise.
        """
        meter = self.meter(progress.usage)
        try:
            with Quietly(config, meter) as inner:
                outcomes = _FilterEach(model, self.filtering).batch(plan.asked, inner, return_exceptions=True)
        except BaseException as error:
            self._pass_on(error, progress, meter)
            raise
        return self._after_filter(progress, plan, outcomes, meter.usage)

    async def afilter(
        self, model: Runnable[Any, AIMessage], plan: Plan, progress: Progress, config: RunnableConfig | None
    ) -> Progress:
        """Do what `filter` does."""
        meter = self.meter(progress.usage)
        try:
            with Quietly(config, meter) as inner:
                outcomes = await _FilterEach(model, self.filtering).abatch(plan.asked, inner, return_exceptions=True)
        except BaseException as error:
            self._pass_on(error, progress, meter)
            raise
        return self._after_filter(progress, plan, outcomes, meter.usage)

    def _pass_on(self, error: BaseException, progress: Progress, meter: UsageMeter) -> None:
        let_pass(error, self.result(progress, meter.usage, error=words(error)))

    def result(self, progress: Progress, usage: Usage | None = None, *, error: str | None = None) -> S2AResult:
        """Tell the story so far."""
        return S2AResult(
            texts=progress.texts,
            usage=progress.usage + (usage or Usage()),
            template=self.filtering.template.info,
            error=error or progress.error,
        )

    def _after_filter(self, progress: Progress, plan: Plan, outcomes: Sequence[Any], usage: Usage) -> Progress:
        texts: list[FilteredText] = []
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if isinstance(failure, GraphBubbleUp):
                raise failure
        found = {**plan.settled, **dict(zip(plan.asked, outcomes, strict=True))}
        for source in plan.sources:
            outcome = found[source]
            if isinstance(outcome, BaseException):
                told = str(refusal_in(outcome) or f"the filter failed: {words(outcome)}")
                texts.append(FilteredText(source=source.kind, index=source.place, fallback=told))
            else:
                texts.append(outcome)
        for text in texts:
            emit("s2a.filtered", **text.model_dump(mode="json"))
        error = words(failures[0]) if failures else progress.error
        progress = progress.model_copy(
            update={"texts": (*progress.texts, *texts), "usage": progress.usage + usage, "error": error}
        )
        fallback = next((text.fallback for text in texts if text.fallback), None)
        if fallback and self.on_filter_failure == "raise":
            raise FilterError(
                f"{fallback}. What the other texts became is in `.result.texts`; "
                "`on_filter_failure='original'` goes on with the text as it was",
                result=self.result(progress, error=error or fallback),
            ) from (failures[0] if failures else None)
        return progress

    def answer_messages(
        self,
        messages: Sequence[AnyMessage],
        texts: Sequence[FilteredText],
        documents: Sequence[str] = (),
        *,
        newest: int | None = None,
    ) -> list[AnyMessage]:
        """Return what is answered; see `filtering.rewriting.answer_messages`."""
        return answer_messages(
            messages,
            texts,
            documents,
            self.filtering.template,
            mode=self.mode,
            instruct=self.instruct,
            newest=newest,
        )


class _FilterEach(Runnable[Source, FilteredText]):
    """Filters one text."""

    def __init__(self, model: Runnable[Any, AIMessage], filtering: Filtering) -> None:
        self.name = "filter_each"
        self._model = model
        self._filtering = filtering

    def invoke(self, input: Source, config: RunnableConfig | None = None, **_: Any) -> FilteredText:  # noqa: A002
        """Return what becomes of a text."""
        return follow(self._filtering.filter(input), lambda asking: self._model.invoke(_told(input, asking), config))

    async def ainvoke(self, input: Source, config: RunnableConfig | None = None, **_: Any) -> FilteredText:  # noqa: A002
        """Return what becomes of a text."""
        steps = self._filtering.filter(input)
        return await afollow(steps, lambda asking: self._model.ainvoke(_told(input, asking), config))


def _told(source: Source, asking: Asking) -> list[AnyMessage]:
    """Return what the filter is asked, and tell of the reply that was rejected before."""
    if asking.rejected:
        emit(
            "s2a.rejected",
            source=source.kind,
            index=source.place,
            attempt=asking.rejected[0].attempt,
            violations=[violation.model_dump(mode="json") for violation in asking.rejected],
        )
    return asking.messages


def _require_plain(name: str, function: Callable[..., Any], what: str) -> None:
    require_one_argument(name, function, what)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise SettingsError(f"`{name}` is an async function; give a plain one")
