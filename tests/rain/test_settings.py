"""RAIN's constants: what they are, and which combinations are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from correction_graphs.errors import SettingsError
from correction_graphs.rain.settings import RainSettings


def test_paper_has_the_constants_of_the_official_code() -> None:
    paper = RainSettings.paper()

    assert [paper.length(depth) for depth in (0, 1, 2, 3, 50)] == [1, 2, 4, 10, 10]
    assert (paper.candidates, paper.top_k, paper.temperature, paper.max_children, paper.add) == (10, 15, 1.0, 20, 1)
    assert (paper.exploration, paper.puct, paper.unvisited, paper.root_uniform) == (2.0, "code", "worst", 0.25)
    assert (paper.similarity, paper.gamma, paper.add_variance, paper.add_below) == (0.95, 0.2, 0.03, 0.0)
    assert (paper.max_iterations, paper.fresh_iterations) == (50, 15)
    assert (paper.accept_visits, paper.accept_value, paper.commit_by, paper.leaves) == (6, 0.8, "visits", 1)
    assert paper.pauses == (",", ".", "?", ":", ";", "\n")


def test_paper_takes_changes() -> None:
    assert RainSettings.paper(seed=3, similarity=None).model_dump() == {
        **RainSettings.paper().model_dump(),
        "seed": 3,
        "similarity": None,
    }


def test_the_default_needs_no_embeddings_and_paper_does() -> None:
    assert not RainSettings().needs_embeddings
    assert RainSettings.paper().needs_embeddings
    assert not RainSettings.paper(similarity=None, add_variance=None).needs_embeddings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lengths": ()}, "lengths"),
        ({"lengths": (4, 0)}, "lengths.1"),
        ({"temperature": 0}, "temperature"),
        ({"similarity": 1.5}, "similarity"),
        ({"accept_value": 2}, "accept_value"),
        ({"exploration": float("nan")}, "exploration"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"stop": ("",)}, "stop.0"),
        ({"seed": -1}, "seed"),
        ({"seeed": 1}, "seeed"),
        ({"candidates": 20}, "`candidates` is 20, but a node may have `max_children` = 12"),
        ({"fresh_iterations": 40}, "`fresh_iterations` is 40, above `max_iterations` = 6"),
        ({"min_iterations": 5}, "`min_iterations` is 5, above `fresh_iterations` = 2"),
        ({"accept_visits": 16}, "`accept_visits` is 16, which `max_iterations` = 6 never exceeds"),
        ({"simulation_tokens": 5, "pauses": ()}, "`pauses` is empty"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(wrong: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=r"RAIN settings: ") as caught:
        RainSettings(**wrong)

    assert said in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        RainSettings().seed = 1
