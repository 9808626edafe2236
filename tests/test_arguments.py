"""The wording in which arguments are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from correction_graphs.arguments import expect, whole_number
from correction_graphs.errors import SettingsError


@pytest.mark.parametrize("allowed", [("soft", "vote"), {"soft": 1, "vote": 2}])
@pytest.mark.parametrize("given", ["hard", None, 1, ["soft"]])
def test_a_choice_is_refused_with_what_there_is_to_choose_from(given: Any, allowed: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        expect("mode", given, allowed, also=", or a function")

    assert str(caught.value) == f"`mode` is {given!r}; it is one of 'soft', 'vote', or a function"
    expect("mode", "vote", allowed)


@pytest.mark.parametrize("given", [0, -1, True, 1.0, "1", None])
def test_a_number_is_refused_with_the_range_it_is_of(given: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        whole_number("samples", given, 1, "a number of answers")

    assert str(caught.value) == f"`samples` is {given!r}; give a number of answers, 1 or more"
    whole_number("samples", 1, 1, "a number of answers")
    whole_number("samples", np.int64(1), 1, "a number of answers")


def test_a_number_may_have_a_highest_value() -> None:
    whole_number("quorum", 3, 1, "how many must vote", most=3)
    with pytest.raises(SettingsError, match=r"^`quorum` is 4; give how many must vote, from 1 to 3$"):
        whole_number("quorum", 4, 1, "how many must vote", most=3)
