"""What a run returns: plain, frozen data that can be stored, sent as JSON and branched on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

RainStopReason = Literal["stop", "length", "context", "deadline", "forwarded_tokens", "failed"]
CacStatus = Literal["passed", "exhausted", "plateau", "oscillation", "budget", "unverified", "failed"]


def unicode_text(text: str) -> str:
    """Return a text that can be stored and sent: half a surrogate pair, which is no Unicode, becomes "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


Text = Annotated[str, AfterValidator(unicode_text)]


class Record(BaseModel):
    """Base of the result types: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(Record):
    """What was spent. Add two with `+`.

    Attributes:
        model_calls: Calls of models that were made, those inside agents and checkers and those that failed included.
        input_tokens: Prompt tokens as the models report them; 0 where they do not.
        output_tokens: Generated tokens, likewise.
        cached_tokens: The part of `input_tokens` that was served from a prompt cache.
        unreported_calls: Calls that ended well and did not say how many tokens they took: the sums lack theirs.
        seconds: Wall-clock time.
        cost: What the tokens cost, in the currency of the budget's prices; None where there were no prices.

    Example:
        ```python
        from correction_graphs import Usage

        total = Usage(model_calls=2, input_tokens=100) + Usage(model_calls=1, input_tokens=40, cached_tokens=30)
        assert (total.model_calls, total.input_tokens, total.cached_tokens) == (3, 140, 30)
        ```
    """

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    unreported_calls: int = 0
    seconds: float = 0.0
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        costs = [usage.cost for usage in (self, other) if usage.cost is not None]
        return Usage(
            model_calls=self.model_calls + other.model_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            unreported_calls=self.unreported_calls + other.unreported_calls,
            seconds=self.seconds + other.seconds,
            cost=sum(costs) if costs else None,
        )


class Vote(Record):
    """What one of several checkers said; see `Jury` and `Sequential`.

    Attributes:
        name: The checker's name, "NAME#2" for the second of the same name.
        passed: Its verdict; None when it could not tell, or crashed.
        critique: Its critique, whole.
        score: Its score, if it gave one.
        error: What it raised, if it crashed.
        votes: What was said within it, if it is itself made of several checkers.
    """

    name: Text
    passed: bool | None
    critique: Text = ""
    score: FiniteFloat | None = None
    error: Text | None = None
    votes: tuple[Vote, ...] = ()


class Verdict(Record):
    """A checker's judgement of one answer.

    Attributes:
        passed: True or False, or None when the checker could not tell. None is never taken for a pass.
        critique: What is told to the model that answers again: short, and understandable by itself.
        score: Higher is better; lets `keep_best` rank answers that did not pass.
        reasoning: How the checker got there. Recorded, never fed back.
        error: Set when the checker raised instead of judging.
        corrected: A better answer by the checker, such as a person's, which is returned instead if `passed` is True.
        votes: What each checker said, in order, where several were asked.

    Example:
        ```python
        from correction_graphs import Verdict

        verdict = Verdict(passed=False, critique="The capital is not Sydney.", score=0.2)
        assert Verdict(passed=None).passed is None  # unknown, which is never taken for a pass
        ```
    """

    passed: bool | None
    critique: Text = ""
    score: FiniteFloat | None = None
    reasoning: Text = ""
    error: Text | None = None
    corrected: Text | None = None
    votes: tuple[Vote, ...] = ()


class Round(Record):
    """One answer and what became of it.

    Attributes:
        answer: The text of the answer.
        verdict: The judgement; None when the answer was not checked.
        usage: Spent on writing and on checking this answer.
        changed: Whether the answer differs from the one before, but for white space; None for the first.
        score_change: By how much its score differs from that of the one before; None unless both have one.

    Example:
        ```python
        from correction_graphs import create_cac_graph
        from correction_graphs.testing import ScriptedChatModel

        graph = create_cac_graph(
            ScriptedChatModel(["Sydney.", "Canberra."]), checker=lambda request: "Canb" in request.answer
        )
        first, second = graph.invoke({"messages": [("user", "The capital of Australia?")]})["cac"].rounds
        assert (first.answer, first.verdict.passed, second.changed) == ("Sydney.", False, True)
        ```
    """

    answer: Text
    verdict: Verdict | None = None
    usage: Usage = Field(default_factory=Usage)
    changed: bool | None = None
    score_change: float | None = None


class TemplateInfo(Record):
    """Which template was used: enough to find the very same text again."""

    name: str
    version: str
    language: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}, version {self.version}, language {self.language}"


class CacResult(Record):
    """How a Checking-as-Context run got to its answer.

    Attributes:
        status: Why the run ended. "passed": the checker accepted the answer. "exhausted": no answer passed within
            `max_rounds` revisions. "plateau": the model gave the same answer again. "oscillation": it returned to an
            earlier one. "budget": the budget allowed no further model call. "unverified": the answer was returned
            without a verdict on it (it calls tools, the checker could not tell or crashed and the policy is to accept,
            or the graph's step limit came first). "failed": the model crashed while revising, and an earlier answer was
            returned.
        rounds: Every answer in order, the first one included.
        chosen: Index into `rounds` of the answer that was returned; None if there was none, or if `on_exhausted` put
            something else in its place.
        usage: The sum over all rounds, and what was spent on an answer that never came because the model crashed.
        strategy: How answer and critique were put before the model again.
        template: The critique template, where one was used.
        error: What went wrong, when something did.

    Example:
        ```python
        from correction_graphs import CacResult, create_cac_graph
        from correction_graphs.testing import ScriptedChatModel

        graph = create_cac_graph(
            ScriptedChatModel(["Sydney.", "Canberra."]), checker=lambda request: "Canb" in request.answer
        )
        result = graph.invoke({"messages": [("user", "The capital of Australia?")]})["cac"]
        assert (result.status, result.answer, len(result.rounds)) == ("passed", "Canberra.", 2)
        assert CacResult.model_validate_json(result.model_dump_json()) == result
        ```
    """

    status: CacStatus
    rounds: tuple[Round, ...] = ()
    chosen: int | None = None
    usage: Usage = Field(default_factory=Usage)
    strategy: str = "self"
    template: TemplateInfo | None = None
    error: Text | None = None

    @property
    def answer(self) -> str:
        """The text of the answer that was returned, "" if there was none."""
        return "" if self.chosen is None else self.rounds[self.chosen].answer

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the answer that was returned."""
        return None if self.chosen is None else self.rounds[self.chosen].verdict

    def to_html(self, question: str = "") -> str:
        """Return the run as one HTML page: answers side by side, what changed between them, and what was said of each.

        The page loads nothing and runs nothing, and all that models wrote is escaped.

        Args:
            question: What was asked, to be shown on top.
        """
        from correction_graphs import trace  # noqa: PLC0415  (only when wanted)

        return trace.to_html(self, question)

    def to_markdown(self, question: str = "") -> str:
        """Return the run as Markdown, with what models wrote in code blocks.

        Args:
            question: What was asked, to be shown on top.
        """
        from correction_graphs import trace  # noqa: PLC0415  (only when wanted)

        return trace.to_markdown(self, question)


class RainNode(Record):
    """A token set that a search looked at.

    Attributes:
        tokens: The set.
        text: The same as text.
        prior: Its prior among its siblings.
        visits: Walks through it.
        n: The same, plus what near-identical siblings shared.
        value: Mean value, from -1 to 1.
        judged: The value of the text that ends here; None if that was not judged.
        committed: Whether it became part of the reply. What is below it then comes with the next commit.
        children: Those of the sets after it that were visited.
    """

    tokens: tuple[int, ...]
    text: str
    prior: float
    visits: int
    n: float
    value: float
    judged: float | None = None
    committed: bool = False
    children: tuple[RainNode, ...] = ()


class RainCommit(Record):
    """One token set that became part of the reply.

    Attributes:
        tokens: The set.
        text: What the reply's text grew by.
        value: Its mean value.
        visits: Walks through it.
        reason: Why the search for it ended: "accepted", "iterations", "deadline" or "forwarded_tokens".
        iterations: Walks from the root to a leaf and back.
        evaluations: Texts that were judged.
        rewinds: Iterations that left the text judged before.
        forwarded_tokens: Tokens that were computed, those of the judge included.
        judge_tokens: The judge's part.
        searched: The token sets that were candidates, as a tree.
    """

    tokens: tuple[int, ...]
    text: str
    value: float
    visits: int
    reason: str
    iterations: int
    evaluations: int
    rewinds: int
    forwarded_tokens: int
    judge_tokens: int
    searched: tuple[RainNode, ...] = ()


class RainResult(Record):
    """How a RAIN search got to its reply.

    Attributes:
        text: The reply.
        stop_reason: Why it ended: "stop" (the model ended it, or a stop text did), "length" (`max_new_tokens`),
            "context" (no room left), "deadline", "forwarded_tokens"; "failed" if something went wrong before that.
        commits: The token sets of the reply, in order, each with what was searched for it.
        prompt_tokens: Tokens of the prompt.
        seconds: Wall-clock time.
        template: The judge's template, where it has one.
        error: What went wrong, when something did.

    Example:
        ```python
        from correction_graphs import RainSettings, create_rain_graph
        from correction_graphs.testing import ToyBackend

        settings = RainSettings(max_new_tokens=8)
        graph = create_rain_graph(ToyBackend(), judge=lambda text: -1.0 if "e" in text else 1.0, settings=settings)
        result = graph.invoke({"messages": [("user", "Hello?")]})["rain"]
        assert result.text == "".join(commit.text for commit in result.commits)
        assert result.evaluations >= result.rewinds
        ```
    """

    text: Text
    stop_reason: RainStopReason
    commits: tuple[RainCommit, ...] = ()
    prompt_tokens: int = 0
    seconds: float = 0.0
    template: TemplateInfo | None = None
    error: Text | None = None

    @property
    def value(self) -> float | None:
        """The mean value of the last token set; None if nothing was committed."""
        return next((commit.value for commit in reversed(self.commits) if commit.tokens), None)

    @property
    def output_tokens(self) -> int:
        """Tokens of the reply."""
        return sum(len(commit.tokens) for commit in self.commits)

    @property
    def iterations(self) -> int:
        """Walks from the root to a leaf and back, all together."""
        return sum(commit.iterations for commit in self.commits)

    @property
    def evaluations(self) -> int:
        """Texts that were judged, all together."""
        return sum(commit.evaluations for commit in self.commits)

    @property
    def rewinds(self) -> int:
        """Iterations that left the text judged before, all together."""
        return sum(commit.rewinds for commit in self.commits)

    @property
    def forwarded_tokens(self) -> int:
        """Tokens that were computed, those of the judge included, all together."""
        return sum(commit.forwarded_tokens for commit in self.commits)

    @property
    def judge_tokens(self) -> int:
        """The judge's part of them."""
        return sum(commit.judge_tokens for commit in self.commits)

    def summary(self) -> dict[str, Any]:
        """Return the sums, as they stand in a chat model's `response_metadata["rain"]`."""
        return {
            "stop_reason": self.stop_reason,
            "value": self.value,
            "iterations": self.iterations,
            "evaluations": self.evaluations,
            "rewinds": self.rewinds,
            "forwarded_tokens": self.forwarded_tokens,
            "judge_tokens": self.judge_tokens,
            "seconds": self.seconds,
        }

    def to_html(self, question: str = "") -> str:
        """Return the search as one HTML page: the tree as it was searched, with what was committed and what was left.

        The page loads nothing and runs nothing, and all that models wrote is escaped.

        Args:
            question: What was asked, to be shown on top.
        """
        from correction_graphs.rain import picture  # noqa: PLC0415  (only when wanted)

        return picture.to_html(self, question)


class DroppedSpan(Record):
    """A part of a text that was filtered out.

    Attributes:
        start: Where it begins in the text that was given, in characters.
        end: Where it ends: `text == original[start:end]`.
        text: The part.
    """

    start: int
    end: int
    text: Text


class Violation(Record):
    """Why a filter's reply was not used.

    Attributes:
        kind: What is wrong; see `correction_graphs.filtering.guards.Breach`.
        items: The words that are meant, where there are any.
        attempt: Which reply it was, counted from 0.
    """

    kind: str
    items: tuple[Text, ...] = ()
    attempt: int = 0


class FilteredText(Record):
    """What became of one text.

    Attributes:
        source: "message" or "document".
        index: Which one: its place in `messages` or `documents`.
        context: What the filter kept besides the question; all that it kept where it was asked for a single text. "" if
            it kept none, or was not used.
        question: The question as the filter put it.
        dropped: The parts that are gone, by their place in the text that was given.
        violations: What was wrong with replies of the filter, the first and the second.
        fallback: Why the text was left as it was although it was to be filtered; None if it was not.
        skipped: Whether it was left as it was because `skip_if` says that there is nothing to filter.
        attempts: How often the filter was asked.
    """

    source: Literal["message", "document"]
    index: int
    context: Text = ""
    question: Text = ""
    dropped: tuple[DroppedSpan, ...] = ()
    violations: tuple[Violation, ...] = ()
    fallback: str | None = None
    skipped: bool = False
    attempts: int = 0

    @property
    def filtered(self) -> bool:
        """Whether the filter's text stands in for the one that was given."""
        return not self.skipped and self.fallback is None

    @property
    def text(self) -> str:
        """The filter's text: context, then question."""
        return "\n\n".join(part for part in (self.context, self.question) if part)


class S2AResult(Record):
    r"""How a System 2 Attention run prepared what it answered.

    Attributes:
        texts: What became of each text that was to be filtered: messages in order, then documents.
        usage: What was spent on filtering and answering.
        template: Which words the filter was asked with.
        error: What went wrong, when something did.

    Example:
        ```python
        from correction_graphs import create_s2a_graph
        from correction_graphs.testing import ScriptedChatModel

        model = ScriptedChatModel(["Context: none\nQuestion: Who was Ada Lovelace?", "A mathematician."])
        result = create_s2a_graph(model).invoke({"messages": [("user", "I like her. Who was Ada Lovelace?")]})["s2a"]
        assert (result.filtered, result.question) == (True, "Who was Ada Lovelace?")
        assert [span.text for span in result.dropped] == ["I like her."]
        ```
    """

    texts: tuple[FilteredText, ...] = ()
    usage: Usage = Field(default_factory=Usage)
    template: TemplateInfo | None = None
    error: Text | None = None

    @property
    def newest(self) -> FilteredText | None:
        """What became of the last message that was to be filtered; None if there was none."""
        return next((text for text in reversed(self.texts) if text.source == "message"), None)

    @property
    def context(self) -> str:
        """What was kept of that message, besides the question."""
        return self.newest.context if self.newest else ""

    @property
    def question(self) -> str:
        """The question of that message."""
        return self.newest.question if self.newest else ""

    @property
    def dropped(self) -> tuple[DroppedSpan, ...]:
        """The parts of that message that are gone."""
        return self.newest.dropped if self.newest else ()

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What was wrong with the filter's replies, for all texts."""
        return tuple(violation for text in self.texts for violation in text.violations)

    @property
    def fallback(self) -> str | None:
        """Why a text was left as it was; None if all were filtered that were to be."""
        return next((text.fallback for text in self.texts if text.fallback), None)

    @property
    def filtered(self) -> bool:
        """Whether the answer was written from at least one filtered text."""
        return any(text.filtered for text in self.texts)
