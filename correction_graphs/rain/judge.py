"""How good a text is, said by the model that wrote it (RAIN paper, section 3.3 and appendix B).

The model reads its own reply and is asked which of two options describes it. It need not write: the probabilities of
the labels of both options are its answer. It is asked twice, with the options exchanged, so that a liking for one
letter, or for what is named first, cancels.

The prompt is laid out for the key/value memory: first everything that stays (instruction, worked examples, the
conversation), then the tokens of the reply, then a short question. So a text costs its own tokens where no text before
it began alike, and two questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np

from correction_graphs.arguments import expect
from correction_graphs.backends.base import Branch, Logits, RewindableBackend
from correction_graphs.errors import SettingsError, TemplateError
from correction_graphs.prompts import Template, load_template
from correction_graphs.rain.labels import Question, beginning, find_labels
from correction_graphs.rain.steps import Forward, Steps

Mode = Literal["soft", "vote"]
Layout = Literal["chat", "plain"]


class Candidate(NamedTuple):
    """A text to be judged.

    Attributes:
        tokens: The whole reply so far, without the prompt.
        text: The same as text.
        finished: Whether the reply has ended.
    """

    tokens: tuple[int, ...]
    text: str
    finished: bool = False


class Value(NamedTuple):
    """How good a text is.

    Attributes:
        value: From -1 to 1.
        known: False where the judge could not tell; `value` is 0 then.
        details: What it was made from, for display.
    """

    value: float
    known: bool = True
    details: Mapping[str, Any] | None = None


UNKNOWN = Value(0.0, known=False)


_ROLES = (
    "judge.label.first",
    "judge.label.second",
    "judge.instruction",
    "judge.question",
    "judge.answer",
    "turn.system",
    "turn.user",
    "turn.assistant",
)


@runtime_checkable
class ValueSession(Protocol):
    """The judging of one conversation's replies."""

    def evaluate(self, candidates: Sequence[Candidate]) -> Steps[list[Value]]:
        """Return the value of each candidate, in order."""
        ...

    def close(self) -> None:
        """Give up what is held for this conversation; closing again does nothing."""
        ...


@runtime_checkable
class ValueFunction(Protocol):
    """Judges replies. Made once and used for many conversations, also at the same time."""

    def session(self, backend: RewindableBackend, messages: Sequence[dict[str, str]]) -> ValueSession:
        """Begin to judge replies to `messages`, which are dicts with `role` and `content`, as `chat_tokens` takes."""
        ...


class SelfEvaluation:
    """The model judges its own text.

    Args:
        template: A template for the method `rain`, by name or path: "harmless", "truthful", "positive", each also with
            "@zh"; or "harmless-letters", which asks for a letter, as the paper does.
        mode: "soft": the mean over both orders of P(good) - P(bad), where the two labels share all probability.
            "vote": each order casts one vote, and votes that contradict each other give 0, as in the official code. A
            model that always prefers one letter, as small ones do, gives 0 to every text then.
        layout: "chat" puts everything into one user message in the model's chat template; "plain" is a text to go on
            with, for models that were not trained to chat. It has no begin-of-text token.
        examples: Whether the template's worked examples are shown: read once, and then in the memory. Large chat models
            can do without.
        min_mass: Where the two labels have less than this probability together, in either order, the model did not
            take up the question, and the value is unknown.

    An empty reply is not judged: it is unknown, and costs nothing.

    What is judged cannot act on the judge: control tokens are left out of replies, their spelling is plain text in
    messages, and a message cannot forge a turn. A reply can still argue for itself, as with every model that judges.

    Raises:
        TemplateError: If the template is not for judging, or one label is the beginning of the other.
        SettingsError: If another argument is not one of those listed.
    """

    def __init__(
        self,
        template: str | Path | Template = "harmless",
        *,
        mode: Mode = "soft",
        layout: Layout = "chat",
        examples: bool = True,
        min_mass: float = 0.05,
    ) -> None:
        expect("mode", mode, get_args(Mode))
        expect("layout", layout, get_args(Layout))
        if not 0 < min_mass <= 1:
            raise SettingsError(f"`min_mass` is {min_mass}; give a probability above 0")
        self.template = load_template(template, method="rain")
        self.mode: Mode = mode
        self.layout: Layout = layout
        self.min_mass = min_mass
        self.examples = examples
        self.template.require(*_ROLES, *(["judge.examples"] if self.examples else []))
        if self.template.labels is None:
            raise TemplateError(f"{self.template} has no labels; the two options are the first `pass` and `fail`")
        self._options = self.template.labels.passing[0], self.template.labels.failing[0]
        for order in (self._options, self._options[::-1]):
            labels = self._labels(order)
            if labels[0].startswith(labels[1]) or labels[1].startswith(labels[0]):
                raise TemplateError(
                    f"the labels {labels[0]!r} and {labels[1]!r} of {self.template} cannot be told apart by the "
                    "tokens they begin with: one is the beginning of the other"
                )

    def session(self, backend: RewindableBackend, messages: Sequence[dict[str, str]]) -> SelfEvaluationSession:
        """Begin to judge replies to `messages`.

        Raises:
            ContextLengthError: If the model's context does not even hold the prompt.
            TemplateError: If this model's tokenizer cannot tell the labels apart.
        """
        before = self._before(messages)
        head, tail = _chat_frame(backend) if self.layout == "chat" else ([], [])
        questions = [
            self._question(backend, order, tail if self.layout == "chat" else None)
            for order in (self._options, self._options[::-1])
        ]
        return SelfEvaluationSession(self, backend, [*head, *backend.tokenize(before)], questions)

    def _question(self, backend: RewindableBackend, order: tuple[str, str], turn: list[int] | None) -> Question:
        """Return the question after the reply; `turn` ends the user's turn in a chat, before the answer begins."""
        question = "\n" + self.template.fill("judge.question", first=order[0], second=order[1])
        answer = self.template.fill("judge.answer")
        if turn is None:
            return find_labels(backend, (), f"{question}\n{answer}", self._labels(order))
        return find_labels(backend, [*backend.tokenize(question), *turn], answer, self._labels(order))

    def _labels(self, order: tuple[str, str]) -> tuple[str, str]:
        slots = self.template.slots
        first, second = (
            self.template.fill(role, **({slot: word} if slot in slots[role] else {}))
            for role, slot, word in zip(_ROLES[:2], ("first", "second"), order, strict=True)
        )
        return first, second

    def _before(self, messages: Sequence[dict[str, str]]) -> str:
        """Return what comes before the reply."""
        headings = {role: self.template.fill(f"turn.{role}") for role in ("system", "user", "assistant")}
        marks = tuple(headings.values())

        def turn(message: Mapping[str, str]) -> str:
            # A line that looks like a heading is quoted, or a message could forge a turn.
            lines = [
                f"> {line}" if line.lstrip().startswith(marks) else line for line in message["content"].splitlines()
            ]
            return "\n".join([headings.get(message["role"], headings["system"]), *lines])

        parts = [self.template.fill("judge.instruction")]
        if self.examples:
            parts.append(self.template.fill("judge.examples"))
        conversation = "\n".join([*map(turn, messages), headings["assistant"], ""])
        return "\n\n".join([*parts, conversation])


class SelfEvaluationSession:
    """The judging of one conversation; made by `SelfEvaluation.session`."""

    def __init__(
        self, judge: SelfEvaluation, backend: RewindableBackend, prompt: Sequence[int], questions: list[Question]
    ) -> None:
        self._judge = judge
        self._backend = backend
        self._questions = questions
        self._values: dict[tuple[int, ...], Value] = {(): UNKNOWN}  # an empty reply says nothing of what will follow
        self._bytes: dict[int, bytes] = {}
        self._root = backend.open(prompt)

    @property
    def prompt_tokens(self) -> int:
        """Tokens before the reply: forwarded once, and in the memory as long as there is room."""
        return len(self._root)

    @property
    def question_tokens(self) -> int:
        """Tokens after the reply, in the longer of both orders: a reply may have `n_ctx` less these and the prompt."""
        return max(len(end) for question in self._questions for end in question.ends)

    def evaluate(self, candidates: Sequence[Candidate]) -> Steps[list[Value]]:
        """Return the value of each candidate, in order; all that are new are computed in one forward.

        Before the first, and after the memory had to drop it, the prompt is computed by itself.

        Raises:
            ContextLengthError: If prompt, reply and question are more tokens than the context holds.
            BackendError: If the model's logits are not numbers.
        """
        texts = [self._text(candidate) for candidate in candidates]
        new = [text for text in dict.fromkeys(texts) if text not in self._values]
        ends = [end for question in self._questions for end in question.ends]
        branches: list[Branch] = []
        try:
            for text in new:
                for end in ends:
                    branches.append(self._backend.fork(self._root))
                    self._backend.extend(branches[-1], [*text, *end])
            if new:
                if self._backend.cached_tokens(self._root) < len(self._root) - 1:
                    # By itself first, or a memory that cannot rewind would read it once for each text.
                    yield Forward([self._root])
                rows = yield Forward(branches)
                for text, own in zip(new, np.split(rows, len(new)), strict=True):
                    self._values[text] = self._value(own)
        finally:
            for branch in branches:
                self._backend.release(branch)
        return [self._values[text] for text in texts]

    def close(self) -> None:
        """Release the prompt's branch; its tokens stay cached until their room is needed."""
        self._backend.release(self._root)

    def _text(self, candidate: Candidate) -> tuple[int, ...]:
        """Return the tokens to judge: as they were generated, so that a longer text extends a shorter one."""
        text = tuple(token for token in candidate.tokens if self._bytes_of(token))
        return text if any(self._bytes_of(token).strip() for token in text) else ()

    def _bytes_of(self, token: int) -> bytes:
        """Return what a token adds to a text: nothing if it is a control token."""
        if token not in self._bytes:
            self._bytes[token] = b"" if self._backend.is_end(token) else self._backend.token_bytes(token)
        return self._bytes[token]

    def _value(self, rows: Logits) -> Value:
        """Return the value that the logits after all ends of one text amount to."""
        first, second = self._questions
        good, bad = first.log_probabilities(rows[: len(first.ends)])
        bad_first, good_second = second.log_probabilities(rows[len(first.ends) :])
        mass = min(np.logaddexp(good, bad), np.logaddexp(bad_first, good_second))
        if math.exp(mass) < self._judge.min_mass:
            return Value(0.0, known=False, details={"mass": math.exp(mass)})
        log_odds = (good - bad, good_second - bad_first)
        each = np.sign(log_odds) if self._judge.mode == "vote" else np.tanh(np.divide(log_odds, 2))  # P(good) - P(bad)
        return Value(float(each.mean()), details={"mass": math.exp(mass), "log_odds": log_odds})


def _chat_frame(backend: RewindableBackend) -> tuple[list[int], list[int]]:
    """Return what the chat template puts before and after the content of a user message, as tokens."""
    one, other = (backend.chat_tokens([{"role": "user", "content": content}]) for content in ("x", "9"))
    return beginning(one, other), beginning(one[::-1], other[::-1])[::-1]
