"""How a token is chosen, compared with the definition of top-k and nucleus sampling written out slowly."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correction_graphs.backends.sampling import choose, penalized

logit = st.floats(-20, 20, width=32)
rows = st.lists(logit | st.just(-math.inf), min_size=1, max_size=12).filter(lambda row: max(row) > -math.inf)
distinct_rows = st.lists(logit, min_size=1, max_size=12, unique_by=lambda value: round(value, 2))
temperatures = st.floats(0.05, 5)
shares = st.floats(0.01, 1)


class Fixed:
    """A source of randomness that says what it is told; a generator's `random` stands for one point of [0, 1)."""

    def __init__(self, *points: float) -> None:
        self.points = list(points)

    def random(self) -> float:
        return self.points.pop(0)


def draw(row, point=0.5, *, temperature=1.0, top_k=0, top_p=1.0) -> int:
    return choose(np.array(row, np.float32), Fixed(point), temperature=temperature, top_k=top_k, top_p=top_p)


def expected(row, *, temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """The distribution by its definition: scale, keep the likeliest k, of these the nucleus, normalize."""
    order = sorted(range(len(row)), key=lambda token: -row[token])[: top_k or None]
    weights = [
        math.exp((float(np.float32(row[token])) - float(np.float32(row[order[0]]))) / temperature) for token in order
    ]
    kept, mass = {}, 0.0
    for token, weight in zip(order, weights, strict=True):
        kept[token] = weight / sum(weights)
        mass += kept[token]
        if mass >= top_p:
            break
    return {token: share / sum(kept.values()) for token, share in kept.items()}


@given(distinct_rows, temperatures, st.integers(0, 14), shares)
def test_every_token_gets_its_share_of_the_unit_interval(row, temperature, top_k, top_p) -> None:
    points = 400
    drawn = Counter(
        draw(row, (n + 0.5) / points, temperature=temperature, top_k=top_k, top_p=top_p) for n in range(points)
    )

    shares_ = expected(row, temperature=temperature, top_k=top_k, top_p=top_p)
    others = expected(row, temperature=temperature, top_k=top_k, top_p=min(1, top_p + 1e-9))
    if shares_.keys() != others.keys():
        return  # the nucleus ends within rounding of `top_p`: either answer is right
    for token in range(len(row)):
        assert drawn[token] / points == pytest.approx(shares_.get(token, 0), abs=1.5 / points)


def test_frequencies_follow_the_distribution() -> None:
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    rng = np.random.default_rng(7)

    drawn = Counter(choose(row, rng, temperature=1.0, top_k=0, top_p=1.0) for _ in range(20_000))

    assert [drawn[token] / 20_000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.012)


def test_temperature_sharpens_and_flattens() -> None:
    row = np.log(np.array([0.6, 0.4], np.float32))
    rng = np.random.default_rng(7)

    drawn = {
        temperature: sum(choose(row, rng, temperature=temperature, top_k=0, top_p=1.0) == 0 for _ in range(4000)) / 4000
        for temperature in (0.5, 1.0, 2.0)
    }

    assert drawn[0.5] == pytest.approx(0.36 / 0.52, abs=0.03)
    assert drawn[1.0] == pytest.approx(0.6, abs=0.03)
    assert drawn[2.0] == pytest.approx(0.6**0.5 / (0.6**0.5 + 0.4**0.5), abs=0.03)


@given(rows, st.integers(0, 14), shares)
def test_temperature_zero_takes_the_likeliest_and_needs_no_randomness(row, top_k, top_p) -> None:
    chosen = choose(np.array(row, np.float32), Fixed(), temperature=0, top_k=top_k, top_p=top_p)

    assert chosen == int(np.argmax(row))


@given(rows, st.floats(0, 0.999999), temperatures, shares)
def test_top_k_one_takes_the_likeliest(row, point, temperature, top_p) -> None:
    assert row[draw(row, point, temperature=temperature, top_k=1, top_p=top_p)] == max(row)


@given(rows, st.floats(0, 0.999999), temperatures)
def test_a_tiny_top_p_still_leaves_the_likeliest(row, point, temperature) -> None:
    assert row[draw(row, point, temperature=temperature, top_p=1e-9)] == max(row)


@given(rows, st.floats(0, 0.999999), temperatures, st.integers(0, 14), shares)
def test_the_impossible_is_never_chosen(row, point, temperature, top_k, top_p) -> None:
    assert row[draw(row, point, temperature=temperature, top_k=top_k, top_p=top_p)] > -math.inf


@given(distinct_rows, st.floats(0, 0.999999), temperatures, st.integers(0, 20))
def test_top_k_of_the_whole_vocabulary_or_more_is_no_limit(row, point, temperature, beyond) -> None:
    free = draw(row, point, temperature=temperature)

    assert draw(row, point, temperature=temperature, top_k=len(row) + beyond) == free


@pytest.mark.parametrize("point", [0.0, 0.5, 1 - 2**-53])
def test_a_single_token_is_always_chosen(point: float) -> None:
    assert draw([3.0], point) == 0
    assert draw([3.0], point, temperature=0.1, top_k=1, top_p=0.1) == 0


def test_both_ends_of_the_unit_interval_are_covered() -> None:
    assert draw([1.0, 2.0, 0.0], 0.0) == 1
    assert draw([1.0, 2.0, 0.0], 1 - 2**-53) == 2


@pytest.mark.parametrize("top_k", [0, 3])
def test_ties_share_equally(top_k: int) -> None:
    drawn = Counter(draw([1.0, 1.0, 1.0, -50.0], (n + 0.5) / 300, top_k=top_k) for n in range(300))

    assert drawn == {0: 100, 1: 100, 2: 100}


def test_of_tied_tokens_at_the_border_exactly_top_k_remain() -> None:
    drawn = {draw([1.0, 1.0, 1.0, 1.0], (n + 0.5) / 100, top_k=2) for n in range(100)}

    assert len(drawn) == 2


def test_of_tied_tokens_temperature_zero_takes_the_first() -> None:
    assert draw([0.0, 2.0, 2.0], temperature=0) == 1


def test_a_very_low_temperature_does_not_overflow() -> None:
    assert draw([1000.0, 999.0, -1000.0], 0.999, temperature=1e-6) == 0


def test_the_same_seed_draws_the_same_tokens() -> None:
    row = np.random.default_rng(1).standard_normal(50).astype(np.float32)

    def drawn(seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        return [choose(row, rng, temperature=1.0, top_k=40, top_p=0.95) for _ in range(20)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_logits_are_left_as_they_are() -> None:
    row = np.array([1.0, 3.0, 2.0], np.float32)

    choose(row, Fixed(0.5), temperature=0.7, top_k=2, top_p=0.9)
    penalized(row, [0, 1], 1.5)

    assert row.tolist() == [1.0, 3.0, 2.0]


@given(rows, st.lists(st.integers(0, 11), max_size=30), st.floats(0.1, 10))
def test_a_penalty_divides_positive_logits_and_multiplies_negative_ones_once(row, recent, penalty) -> None:
    recent = [token for token in recent if token < len(row)]

    changed = penalized(np.array(row, np.float32), recent, penalty)

    for token, value in enumerate(row):
        wanted = value if token not in recent else value / penalty if value > 0 else value * penalty
        assert changed[token] == pytest.approx(wanted, rel=1e-5)


@given(rows, st.lists(st.integers(0, 11), max_size=30), st.floats(1, 10))
def test_a_penalty_above_one_makes_no_token_likelier(row, recent, penalty) -> None:
    recent = [token for token in recent if token < len(row)]
    before = np.array(row, np.float32)

    assert (penalized(before, recent, penalty) <= before).all()


@pytest.mark.parametrize(("recent", "penalty"), [([], 2.0), ([0, 1], 1.0)])
def test_without_a_penalty_or_recent_tokens_nothing_is_copied(recent, penalty) -> None:
    row = np.array([1.0, 2.0], np.float32)

    assert penalized(row, recent, penalty) is row
