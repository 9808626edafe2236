"""Budget: how much a run may spend, asked before every model call.

A call that is under way when a limit is reached is finished, and no further one begins. So a run may exceed a limit on
tokens, money or seconds by what its last call used (its last calls, where several run at once), and never by more than
that. A limit on model calls is never exceeded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from correction_graphs.errors import SettingsError, validation_problems
from correction_graphs.results import Usage

_DATE = re.compile(r"-(?:\d{4}-\d\d-\d\d|\d{8}|\d{6}|\d{4})$")
"""What providers put after a model's name to pin a version: gpt-5-mini-2025-08-07, gpt-4-0613."""

_PER = 1_000_000  # tokens a price is for


class Price(BaseModel):
    """What a model's tokens cost, per million, in any one currency.

    Attributes:
        input: For prompt tokens.
        output: For generated tokens, reasoning included.
        cached_input: For prompt tokens that were served from the provider's cache; None for the price of `input`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def of(self, usage: Usage) -> float:
        """Return what these tokens cost."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh_tokens = max(0, usage.input_tokens - usage.cached_tokens)
        return (fresh_tokens * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output) / _PER


class Budget(BaseModel):
    """Limits on what a run may spend; None is no limit.

    Under a limit on tokens or money, a model that does not report its tokens gets one call, and then no further one is
    made: what the run has spent cannot be told any more. Calls that fail count as calls, and with the tokens that are
    known of them.

    Attributes:
        model_calls: Calls of models, those of checkers and inside agents included.
        input_tokens: Prompt tokens, as the models report them.
        output_tokens: Generated tokens, likewise.
        seconds: Time spent in models, checkers and strategies.
        money: What the tokens may cost, by `prices`; `math.inf` to have the cost recorded and not limited.
        prices: A `Price` for each model, by its name, in the currency of `money`. A name that ends in a date, such as
            "gpt-5-mini-2025-08-07", is also found without it. A model that is not here is not called.

    Raises:
        SettingsError: If a limit is unknown or outside its range.

    Example:
        ```python
        from correction_graphs import Budget, create_cac_graph
        from correction_graphs.testing import ScriptedChatModel

        model = ScriptedChatModel(["Sydney.", "Canberra."])
        graph = create_cac_graph(model, checker=lambda request: False, budget=Budget(model_calls=1))

        out = graph.invoke({"messages": [("user", "What is the capital of Australia?")]})
        assert (out["cac"].status, out["messages"][-1].text) == ("budget", "Sydney.")
        ```

        In money, with prices in dollars per million tokens:

        ```python
        from correction_graphs import Budget

        budget = Budget(money=0.05, prices={"gpt-5-mini": {"input": 0.25, "output": 2.00, "cached_input": 0.025}})
        assert budget.price_of("gpt-5-mini-2025-08-07").output == 2.00
        ```
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    model_calls: int | None = Field(default=None, ge=1)
    input_tokens: int | None = Field(default=None, ge=1)
    output_tokens: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    money: float | None = Field(default=None, gt=0)
    prices: Mapping[str, Price] | None = None

    def __init__(self, **limits: Any) -> None:
        try:
            super().__init__(**limits)
        except ValidationError as error:
            problems = validation_problems(error, whole="together", known=type(self).model_fields)
            raise SettingsError(f"budget: {problems}") from error

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if (self.money is None) != (not self.prices):
            raise ValueError(
                "`money` and `prices` go together: give `prices` as {MODEL NAME: Price(input=…, output=…)}, per "
                "million tokens, and `money` in the same currency (math.inf to have the cost recorded and not limited)"
            )
        if not any(True for _ in self._limits()):
            names = ", ".join(name for name in type(self).model_fields if name != "prices")
            raise ValueError(f"a budget without a limit limits nothing; give one of {names}")
        return self

    def exhausted(self, spent: Usage) -> str | None:
        """Say which limit is reached, or None while another call may begin."""
        for name, limit in self._limits():
            if _spent(spent, name) >= limit:
                return (
                    f"the budget of {limit:.15g} {'in money' if name == 'money' else name.replace('_', ' ')} is used up"
                )
        unknown = [name for name, _ in self._limits() if name in ("input_tokens", "output_tokens", "money")]
        if spent.unreported_calls and unknown:
            return (
                f"{spent.unreported_calls} of {spent.model_calls} model calls did not report their tokens, so the "
                f"budget's {' and '.join(f'`{name}`' for name in unknown)} cannot be kept; have the model report them "
                "(some do not while they stream, until they are told, as by `stream_usage=True`), or limit "
                "`model_calls` or `seconds` instead"
            )
        return None

    def remaining(self, spent: Usage) -> dict[str, float]:
        """Return what is left of each limit, by its name; 0 where it is used up."""
        return {name: max(0, limit - _spent(spent, name)) for name, limit in self._limits()}

    def price_of(self, model: str) -> Price | None:
        """Return the price of the model of this name, or else of this name without the date at its end."""
        prices = self.prices or {}
        return prices.get(model) or prices.get(_DATE.sub("", model))

    def unpriced(self, model: str | None) -> str | None:
        """Say why what a call of the model costs cannot be told; None if it can, or if there are no prices.

        Args:
            model: Its name; None if it does not tell.
        """
        if not self.prices:
            return None
        listed = ", ".join(map(repr, self.prices))
        if model is None:
            return (
                "a model was to be called that does not tell its name, so its price cannot be found; name it by "
                f"`model.with_config(metadata={{'ls_model_name': NAME}})`. The budget has prices for {listed}"
            )
        if self.price_of(model) is None:
            return f"the budget has no price for the model {model!r}; add it to `prices`, which has {listed}"
        return None

    def _limits(self) -> Iterator[tuple[str, float]]:
        for name, limit in self:
            if name != "prices" and limit is not None:
                yield name, limit


def _spent(spent: Usage, limit: str) -> float:
    """Return what counts against a limit."""
    return (spent.cost or 0.0) if limit == "money" else getattr(spent, limit)
