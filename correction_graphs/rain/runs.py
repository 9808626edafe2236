"""One RAIN search as its users see it: from messages to committed text, and to a `RainResult`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from langgraph.errors import GraphBubbleUp

from correction_graphs.backends.base import RewindableBackend
from correction_graphs.errors import ContextLengthError, CorrectionError, SearchContextError, SearchError, words
from correction_graphs.rain.gathering import Gathering, gathering_of
from correction_graphs.rain.judge import SelfEvaluation, ValueFunction
from correction_graphs.rain.search import Commit, Judged, Search
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.similarity import Similarity
from correction_graphs.results import RainCommit, RainResult, RainStopReason, TemplateInfo

OnEvent = Callable[[Judged | Commit], None]


class Searcher(NamedTuple):
    """What a search is made with, whatever it is asked.

    Attributes:
        backend: The model.
        settings: How to search.
        judge: What is searched for.
        similarity: Finds near-identical texts; None to find none.
    """

    backend: RewindableBackend
    settings: RainSettings
    judge: ValueFunction
    similarity: Similarity | None

    def start(self, messages: Sequence[dict[str, str]], *, on_event: OnEvent | None = None) -> Run:
        """Begin a search for a reply to messages, as chat templates take them.

        Raises:
            ContextLengthError: If the context is too small.
        """
        return Run(self, messages, on_event)


class Run:
    """A search under way. `advance` commits one token set; `result` tells what there is at any time."""

    def __init__(self, searcher: Searcher, messages: Sequence[dict[str, str]], on_event: OnEvent | None = None) -> None:
        self.on_event = on_event
        settings, similarity = searcher.settings, searcher.similarity
        # Each encoder has a threshold of its own. Where nothing is shared, it is there for `add_variance` alone.
        if similarity is not None and (settings.similarity is not None or settings.add_variance is None):
            settings = settings.model_copy(update={"similarity": similarity.threshold})
        prompt = searcher.backend.chat_tokens(list(messages))
        try:
            session = searcher.judge.session(searcher.backend, messages)
        except ContextLengthError as error:
            first = min(settings.length(0), settings.max_new_tokens)
            raise SearchContextError(
                prompt=len(prompt), judge=error.tokens, reply=first, limit=searcher.backend.n_ctx
            ) from error
        try:
            self._search = Search(
                searcher.backend,
                prompt,
                session,
                settings,
                embed=similarity.embed if similarity else None,
                on_event=lambda event: self.on_event(event) if self.on_event else None,
            )
        except BaseException:
            session.close()
            raise
        self.prompt_tokens = len(prompt)
        self.commits: list[RainCommit] = []
        self._template = template_of(searcher.judge)
        self._gathering: Gathering = gathering_of(searcher.backend)
        self._seconds = 0.0

    def resume(self, result: RainResult) -> Self:
        """Go on after what an earlier run committed; a run that cannot is closed.

        Raises:
            SettingsError: If there is no room for what was committed.
        """
        try:
            self._search.resume([commit.tokens for commit in result.commits])
        except BaseException:
            self.close()
            raise
        self.commits = list(result.commits)
        self._seconds = result.seconds
        return self

    @property
    def ended(self) -> bool:
        """Whether the reply is complete."""
        return self._search.stop_reason is not None

    def advance(self) -> RainCommit | None:
        """Commit one token set; None once the reply has ended.

        Raises:
            SearchError: If the search failed; it carries the text so far.
        """
        began = time.perf_counter()
        try:
            return self._add(self._gathering.drive(self._search.commit()))
        except CorrectionError as error:
            _let_interrupts_pass(error)
            raise self.failed(error) from error
        finally:
            self._seconds += time.perf_counter() - began

    async def aadvance(self) -> RainCommit | None:
        """Commit one token set; None once the reply has ended. Raises as `advance` does."""
        began = time.perf_counter()
        try:
            return self._add(await self._gathering.adrive(self._search.commit()))
        except CorrectionError as error:
            _let_interrupts_pass(error)
            raise self.failed(error) from error
        finally:
            self._seconds += time.perf_counter() - began

    def result(self, stop_reason: RainStopReason | None = None, *, error: str | None = None) -> RainResult:
        """Tell the story so far.

        Args:
            stop_reason: Why it ended, if the search did not end it.
            error: What went wrong, if something did.
        """
        return RainResult(
            text="".join(commit.text for commit in self.commits) if self.ended else self._search.text,
            stop_reason=stop_reason or self._search.stop_reason or "failed",
            commits=tuple(self.commits),
            prompt_tokens=self.prompt_tokens,
            seconds=self._seconds,
            template=self._template,
            error=error,
        )

    def failed(self, error: Exception) -> SearchError:
        """Return the error that tells of another one, and carries what there is."""
        said = words(error)
        return SearchError(
            f"the search failed after {len(self.commits)} token sets: {said}. The text so far is in `.result.text`",
            result=self.result("failed", error=said),
        )

    def close(self) -> None:
        """Give up what is held in the backend; closing again does nothing."""
        self._search.close()

    def _add(self, commit: Commit | None) -> RainCommit | None:
        if commit is None:
            return None
        told = RainCommit(
            tokens=commit.tokens,
            text=commit.text,
            value=commit.value,
            visits=commit.visits,
            reason=commit.reason,
            **commit.counts._asdict(),
            searched=commit.searched,
        )
        self.commits.append(told)
        return told


def _let_interrupts_pass(error: BaseException) -> None:
    """Raise what a judge that asks a person raised to interrupt the graph; to the search that is a failure."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, GraphBubbleUp):
            raise cause from None
        cause = cause.__cause__


def template_of(judge: ValueFunction) -> TemplateInfo | None:
    """Return which template a judge uses, if it uses one."""
    return judge.template.info if isinstance(judge, SelfEvaluation) else None
