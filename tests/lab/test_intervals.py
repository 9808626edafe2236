"""The lab's statistics against textbook values and brute force."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correction_graphs.lab.intervals import bootstrap, difference, share, sign_test


def test_wilsons_interval_has_the_textbook_values():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for (hits, n), ends in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        found = share([True] * hits + [False] * (n - hits))
        assert (found.low, found.high) == pytest.approx(ends, abs=5e-5)
        assert (found.mean, found.n) == (hits / n, n)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_an_interval_holds_its_mean(outcomes):
    for found in (share(outcomes), bootstrap([float(each) for each in outcomes])):
        assert -1e-9 <= found.low <= found.mean + 1e-9
        assert found.mean - 1e-9 <= found.high <= 1 + 1e-9


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=100))
def test_a_paired_difference_has_a_width_and_no_side(pairs):
    before, after = zip(*pairs, strict=True)
    there, back = difference(before, after), difference(after, before)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert there.low - 1e-9 <= there.mean <= there.high + 1e-9
    assert there.high > there.low


def test_paired_intervals_hold_the_true_difference_nineteen_times_in_twenty():
    rng = random.Random(0)
    held = 0
    for _ in range(1000):
        drawn = rng.choices([(True, True), (False, True), (True, False), (False, False)], (0.3, 0.3, 0.1, 0.3), k=60)
        found = difference(*zip(*drawn, strict=True))
        held += found.low <= 0.2 <= found.high
    assert 0.93 <= held / 1000 <= 0.985


@given(st.integers(0, 7), st.integers(0, 7))
def test_the_sign_test_counts_the_coin_tosses_that_are_as_lopsided(mended, spoiled):
    n = mended + spoiled
    tosses = list(itertools.product((0, 1), repeat=n))
    lopsided = sum(abs(2 * sum(toss) - n) >= abs(mended - spoiled) for toss in tosses)
    assert sign_test(mended, spoiled) == pytest.approx(lopsided / len(tosses))


def test_the_sign_test_does_not_overflow():
    assert sign_test(3000, 0) == 0.0
    assert sign_test(1500, 1500) == 1.0


@pytest.mark.parametrize("mean", [share, bootstrap])
def test_no_values_have_no_mean(mean):
    with pytest.raises(ValueError, match="give at least one"):
        mean([])
