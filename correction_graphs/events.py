"""The progress events of the graphs, as they come from `stream_mode="custom"`.

    for event in graph.stream(inputs, stream_mode="custom"):
        if event["type"] == "cac.verdict":
            print(event["round"], event["passed"], event["critique"])

Events are plain data. `usage` is `Usage.model_dump()`, each of `votes` is `Vote.model_dump()`; `round` counts
from 0, the first answer.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from correction_graphs.results import CacStatus, RainStopReason


class CacDraft(TypedDict):
    """An answer was written; whether it stands is not known yet."""

    type: Literal["cac.draft"]
    round: int
    answer: str
    usage: dict[str, Any]


class CacVerdict(TypedDict):
    """The answer of this round was judged."""

    type: Literal["cac.verdict"]
    round: int
    passed: bool | None
    critique: str
    score: float | None
    reasoning: str
    votes: list[dict[str, Any]]
    usage: dict[str, Any]


class CacRevise(TypedDict):
    """The answer of this round is going to be written, with the earlier ones and their critiques in context."""

    type: Literal["cac.revise"]
    round: int
    strategy: str


class CacEnd(TypedDict):
    """The run is over, and the answer of this round is returned; None if `on_exhausted` put something in its place."""

    type: Literal["cac.end"]
    round: int | None
    status: CacStatus
    answer: str
    usage: dict[str, Any]


CacEvent = CacDraft | CacVerdict | CacRevise | CacEnd


class RainJudged(TypedDict):
    """A candidate was judged: `text` is the whole reply as it would be. `rewound`: it left the one judged before."""

    type: Literal["rain.judged"]
    text: str
    value: float
    known: bool
    rewound: bool


class RainCommitted(TypedDict):
    """A token set became part of the reply. The fields are those of `RainCommit`, without the tree."""

    type: Literal["rain.commit"]
    index: int
    text: str
    value: float
    visits: int
    reason: str
    iterations: int
    evaluations: int
    rewinds: int
    forwarded_tokens: int
    judge_tokens: int


class RainEnd(TypedDict):
    """The reply is complete. The fields are those of `RainResult.summary()`."""

    type: Literal["rain.end"]
    stop_reason: RainStopReason
    value: float | None
    iterations: int
    evaluations: int
    rewinds: int
    forwarded_tokens: int
    judge_tokens: int
    seconds: float


RainEvent = RainJudged | RainCommitted | RainEnd


class S2ARejected(TypedDict):
    """A reply of the filter was not usable. It is asked once more, then the text is left as it is."""

    type: Literal["s2a.rejected"]
    source: Literal["message", "document"]
    index: int
    attempt: int
    violations: list[dict[str, Any]]


class S2AFiltered(TypedDict):
    """A text is through. The fields are those of `FilteredText`."""

    type: Literal["s2a.filtered"]
    source: Literal["message", "document"]
    index: int
    context: str
    question: str
    dropped: list[dict[str, Any]]
    violations: list[dict[str, Any]]
    fallback: str | None
    skipped: bool
    attempts: int


class S2AEnd(TypedDict):
    """The answer is there. `filtered`: whether it was written from at least one filtered text."""

    type: Literal["s2a.end"]
    filtered: bool
    fallback: str | None
    answer: str
    usage: dict[str, Any]


S2AEvent = S2ARejected | S2AFiltered | S2AEnd
