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

from correction_graphs.results import CacStatus


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
