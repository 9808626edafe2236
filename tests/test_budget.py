"""Budgets and prices, without a model: what is allowed, what is left, what things cost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correction_graphs import Budget, Usage
from correction_graphs.budget import Price
from correction_graphs.errors import SettingsError

TABLE = {"gpt-5-mini": Price(input=0.25, output=2.0, cached_input=0.025), "gpt-5": Price(input=1.25, output=10)}

counts = st.integers(0, 10**7)
usages = st.builds(
    Usage,
    model_calls=counts,
    input_tokens=counts,
    output_tokens=counts,
    cached_tokens=counts,
    unreported_calls=counts,
    seconds=st.integers(0, 10**6).map(lambda eighths: eighths / 8),  # floats that add up exactly
    cost=st.none() | st.integers(0, 10**6).map(lambda eighths: eighths / 8),
)


@given(usages, usages, usages)
def test_the_order_in_which_usages_are_added_does_not_matter(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Usage() == a


def test_a_sum_is_priced_if_any_part_is():
    assert (Usage() + Usage()).cost is None
    assert (Usage() + Usage(cost=0.0)).cost == 0.0
    assert (Usage(cost=0.25) + Usage() + Usage(cost=0.5)).cost == 0.75


def test_every_field_is_added():
    one = Usage(
        model_calls=1, input_tokens=2, output_tokens=3, cached_tokens=4, unreported_calls=5, seconds=6.0, cost=7.0
    )
    assert set(one.model_dump()) == one.model_fields_set, "a new field needs a line here, and in `__add__`"
    assert (one + one).model_dump() == {name: 2 * value for name, value in one}


# Prices


def test_tokens_cost_what_the_table_says_and_cached_ones_less():
    usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert TABLE["gpt-5-mini"].of(usage) == pytest.approx(0.6 * 0.25 + 0.4 * 0.025 + 0.1 * 2.0)
    assert TABLE["gpt-5"].of(usage) == pytest.approx(1.25 + 0.1 * 10), "without a price of their own, like the others"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gpt-5", "gpt-5"),
        ("gpt-5-mini", "gpt-5-mini"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("gpt-5-20250807", "gpt-5"),
        ("gpt-5-0807", "gpt-5"),
        ("gpt-5-nano", None),
        ("gpt-5-nano-2025-08-07", None),
        ("gpt-5-2", None),
        ("gpt-5-2025-08-07-preview", None),
        ("gpt-50", None),
        ("GPT-5", None),
        ("", None),
    ],
)
def test_a_dated_name_has_the_price_of_its_model_and_no_other_name_is_guessed(name, key):
    assert Budget(money=1, prices=TABLE).price_of(name) == (TABLE[key] if key else None)


def test_a_price_for_the_very_version_comes_first():
    dated = Price(input=9, output=9)
    assert Budget(money=1, prices={**TABLE, "gpt-5-2025-08-07": dated}).price_of("gpt-5-2025-08-07") == dated


def test_prices_may_be_plain_numbers_and_survive_json():
    budget = Budget(money=math.inf, prices={"m": {"input": 1, "output": 2}})
    assert budget.price_of("m") == Price(input=1, output=2)
    assert Budget.model_validate_json(budget.model_dump_json()) == budget
    assert budget.exhausted(Usage(cost=1e9)) is None, "recorded, not limited"


@pytest.mark.parametrize(
    "wrong",
    [
        {"money": 1},
        {"money": 1, "prices": {}},
        {"prices": TABLE},
        {"model_calls": 3, "prices": TABLE},
        {"money": 0, "prices": TABLE},
        {"money": math.nan, "prices": TABLE},
        {"money": 1, "prices": {"m": 3}},
        {"money": 1, "prices": {"m": {"input": 1}}},
        {"money": 1, "prices": {"m": {"input": -1, "output": 1}}},
        {"money": 1, "prices": {"m": {"input": 1, "output": math.inf}}},
        {"money": 1, "prices": {"m": {"input": 1, "output": 1, "cached": 1}}},
    ],
)
def test_money_without_prices_and_prices_that_are_none_are_refused(wrong):
    with pytest.raises(SettingsError):
        Budget(**wrong)


def test_money_without_prices_is_told_what_to_give():
    with pytest.raises(SettingsError, match=r"`money` and `prices` go together: give `prices` as \{MODEL NAME"):
        Budget(money=0.05)


def test_a_missing_price_names_the_model_and_those_there_are():
    budget = Budget(money=1, prices=TABLE)
    assert budget.unpriced("gpt-5-2025-08-07") is None
    assert budget.unpriced("other") == (
        "the budget has no price for the model 'other'; add it to `prices`, which has 'gpt-5-mini', 'gpt-5'"
    )
    assert "does not tell its name" in budget.unpriced(None)
    assert Budget(model_calls=1).unpriced("other") is None


# Limits


def test_money_is_limited():
    budget = Budget(money=0.05, prices=TABLE)
    assert budget.exhausted(Usage()) is None
    assert budget.exhausted(Usage(cost=0.049)) is None
    assert budget.exhausted(Usage(cost=0.05)) == "the budget of 0.05 in money is used up"


def test_large_limits_are_written_in_full():
    assert Budget(input_tokens=2_500_000).exhausted(Usage(input_tokens=3_000_000)) == (
        "the budget of 2500000 input tokens is used up"
    )


@pytest.mark.parametrize("limit", [{"money": 1, "prices": TABLE}, {"input_tokens": 9}, {"output_tokens": 9}])
def test_a_limit_that_cannot_be_kept_allows_no_further_call(limit):
    unknown = Usage(model_calls=2, unreported_calls=1)
    assert f"the budget's `{next(iter(limit))}` cannot be kept" in Budget(**limit).exhausted(unknown)
    assert Budget(model_calls=3, seconds=5).exhausted(unknown) is None


def test_what_remains():
    budget = Budget(model_calls=5, money=1, prices=TABLE)
    assert budget.remaining(Usage(model_calls=2)) == {"model_calls": 3, "money": 1}
    assert budget.remaining(Usage(model_calls=2, cost=1.5)) == {"model_calls": 3, "money": 0}
