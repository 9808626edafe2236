"""The labels of two options as tokens, whatever the tokenizer makes of them, and how likely a model finds each.

A label may be one token or several, other tokens after "(" than after a space, and begin like the other label. So
labels are found by tokenizing them together with what stands before, and are scored by the probability of all their
tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from correction_graphs.backends.base import Logits, RewindableBackend
from correction_graphs.errors import BackendError, TemplateError


class Step(NamedTuple):
    """One token of a label.

    Attributes:
        end: After which end it comes; an index into `Question.ends`.
        token: The token.
    """

    end: int
    token: int


class Question(NamedTuple):
    """What is appended to a text to have one of two labels follow.

    Attributes:
        ends: The appended tokens: up to the labels, and for a label of several tokens up to each of these.
        labels: For each of the two labels its spellings, and for each spelling its tokens.
    """

    ends: tuple[tuple[int, ...], ...]
    labels: tuple[tuple[tuple[Step, ...], ...], ...]

    def log_probabilities(self, rows: Logits) -> list[float]:
        """Return the log-probability of each label.

        Args:
            rows: The next-token logits after each end.

        Raises:
            BackendError: If the logits hold not-a-number or infinity.
        """
        with np.errstate(invalid="ignore"):
            top = rows.max(axis=1)
            totals = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
        if not np.isfinite(totals).all():
            raise BackendError("the model's logits are not finite, so they say nothing about the labels")

        def spelled(steps: Sequence[Step]) -> float:
            return sum(float(rows[step.end, step.token] - totals[step.end]) for step in steps)

        return [float(np.logaddexp.reduce([spelled(steps) for steps in spellings])) for spellings in self.labels]


def find_labels(backend: RewindableBackend, fixed: Sequence[int], lead: str, labels: tuple[str, str]) -> Question:
    """Return the question whose answer is one of two labels.

    Args:
        backend: Whose tokenizer counts.
        fixed: The first tokens of the question.
        lead: Its last words, right before a label.
        labels: The two labels. They come after a space, but for opening brackets and scripts that have none. Without
            it, or else with one, they count as well where each is one other token.

    Raises:
        TemplateError: If the tokens of one label are the beginning of those of the other.
    """
    usual, unusual = zip(*(_joined(lead, label) for label in labels), strict=True)
    whole = [backend.tokenize(text) for text in usual]
    shared = beginning(backend.tokenize(lead), *whole)  # what `lead` ends in may melt into the label
    first, second = ([tuple(tokens[len(shared) :])] for tokens in whole)
    if first[0][: len(second[0])] == second[0] or second[0][: len(first[0])] == first[0]:
        raise TemplateError(
            f"this model's tokenizer cannot tell the labels {labels[0]!r} and {labels[1]!r} apart "
            f"(their tokens are {first[0]} and {second[0]}); choose labels that begin differently"
        )
    others = [tuple(backend.tokenize(text)) for text in unusual]
    ones = {tokens[-1:] for tokens in others if list(tokens[:-1]) == shared}  # read off the same row, so free
    if len(ones) == len(labels) and ones.isdisjoint({first[0][:1], second[0][:1]}):
        first.append(others[0][-1:])
        second.append(others[1][-1:])
    begun = dict.fromkeys(tokens[:at] for tokens in (*first, *second) for at in range(len(tokens)))
    index = {tokens: end for end, tokens in enumerate(begun)}
    return Question(
        ends=tuple((*fixed, *shared, *tokens) for tokens in begun),
        labels=tuple(
            tuple(tuple(Step(index[tokens[:at]], token) for at, token in enumerate(tokens)) for tokens in spellings)
            for spellings in (first, second)
        ),
    )


def _joined(lead: str, label: str) -> tuple[str, str]:
    """Return `lead` and `label` put together as people do, and in the other way: with a space or without."""
    closed, spaced = lead + label, f"{lead} {label}"
    opens = unicodedata.category(lead[-1]) in ("Ps", "Pi") or lead[-1] in "\"'"
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in (lead[-1], label[0]))
    return (closed, spaced) if opens or wide else (spaced, closed)


def beginning(one: Sequence[int], *others: Sequence[int]) -> list[int]:
    """Return the tokens that all lists begin with."""
    length = next(
        (at for at, tokens in enumerate(zip(one, *others, strict=False)) if len(set(tokens)) > 1),
        min(map(len, (one, *others))),
    )
    return list(one[:length])
