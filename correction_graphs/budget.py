"""Budget: how much a run may spend, asked before every model call.

A call that is under way when a limit is reached is finished, and no further one begins. So a run may exceed a limit on
tokens or seconds by what its last call used, and never by more than that.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from correction_graphs.results import Usage


class Budget(BaseModel):
    """Limits on what a run may spend; None is no limit.

    Attributes:
        model_calls: Calls of models, those of checkers and inside agents included.
        input_tokens: Prompt tokens, as the models report them.
        output_tokens: Generated tokens, likewise.
        seconds: Time spent in models, checkers and strategies.

    Example:
        ```python
        from correction_graphs import Budget, create_cac_graph
        from correction_graphs.testing import ScriptedChatModel

        model = ScriptedChatModel(["Sydney.", "Canberra."])
        graph = create_cac_graph(model, checker=lambda request: False, budget=Budget(model_calls=1))

        out = graph.invoke({"messages": [("user", "What is the capital of Australia?")]})
        assert (out["cac"].status, out["messages"][-1].text) == ("budget", "Sydney.")
        ```
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_calls: int | None = Field(default=None, ge=1)
    input_tokens: int | None = Field(default=None, ge=1)
    output_tokens: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if all(limit is None for _, limit in self):
            raise ValueError(
                f"a budget without a limit limits nothing; give one of {', '.join(type(self).model_fields)}"
            )
        return self

    def exhausted(self, spent: Usage) -> str | None:
        """Say which limit is reached, or None while another call may begin."""
        for name, limit in self:
            if limit is not None and getattr(spent, name) >= limit:
                return f"the budget of {limit:g} {name.replace('_', ' ')} is used up"
        return None
