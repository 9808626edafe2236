"""What a checker is: anything that turns a `CheckRequest` into a `Verdict`.

Checkers are LangChain runnables, so they are traced, batched, retried and composed like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig, run_in_executor
from pydantic import BaseModel, ConfigDict

from correction_graphs.results import Round, TemplateInfo, Verdict


class CheckRequest(BaseModel):
    """What a checker is given.

    Attributes:
        messages: The conversation the answer belongs to, without the answer.
        answer: The text of the answer to judge.
        rounds: The earlier answers with their verdicts, oldest first.

    Example:
        ```python
        from correction_graphs import CheckRequest, Verdict
        from langchain_core.messages import HumanMessage


        def is_new(request: CheckRequest) -> Verdict:
            seen = [done.answer for done in request.rounds]
            return Verdict(passed=request.answer not in seen, critique="You said that before.")


        first = CheckRequest(messages=(HumanMessage("Name a colour."),), answer="Red.")
        assert is_new(first).passed
        ```
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[AnyMessage, ...]
    answer: str
    rounds: tuple[Round, ...] = ()


class Checker(Runnable[CheckRequest, Verdict], ABC):
    """Base class of checkers: a runnable from `CheckRequest` to `Verdict`.

    Subclasses implement `check`, and `acheck` where they can do better than a worker thread.

    Attributes:
        template: The prompt template the checker uses, if it uses one; recorded in results.
    """

    template: TemplateInfo | None = None

    def cache_identity(self) -> str | None:
        """Return what equal checkers have in common, for graphs with a node cache.

        None, the default, is for verdicts that may change although the request does not: those of people, searches and
        functions. They are not cached.
        """
        return None

    @abstractmethod
    def check(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Judge one answer."""

    async def acheck(self, request: CheckRequest, config: RunnableConfig | None = None) -> Verdict:
        """Judge one answer; by default `check` in a worker thread."""
        return await run_in_executor(config, self.check, request, config)

    def invoke(self, input: CheckRequest, config: RunnableConfig | None = None, **_: Any) -> Verdict:  # noqa: A002
        """Judge one answer; see `check`."""
        return self.check(input, config)

    async def ainvoke(self, input: CheckRequest, config: RunnableConfig | None = None, **_: Any) -> Verdict:  # noqa: A002
        """Judge one answer; see `acheck`."""
        return await self.acheck(input, config)


def joint_identity(checkers: Iterable[Checker], *settings: object) -> str | None:
    """Return the `cache_identity` of a checker made of others; None if one of them has none."""
    identities = [checker.cache_identity() for checker in checkers]
    return None if None in identities else repr((*settings, identities))
