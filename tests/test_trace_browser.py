"""The page of a run in a real browser: it shows every text as text, loads and runs nothing, and can be read anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import (
    HOSTILE,
    LONG,
    Browse,
    Probe,
    Site,
    a_picture_is_taken,
    browser,
    contrast,
    luminance,
    nothing_runs_or_loads,
    prober,
    serving,
)

from correction_graphs.results import CacResult, Round, Usage, Verdict, Vote

pytestmark = pytest.mark.slow


def judged(answer: str, *, passed: bool | None, **more: Any) -> Round:
    vote = Vote(name=HOSTILE, passed=passed, critique=LONG)
    verdict = Verdict(passed=passed, critique=f"A gender is assumed. {HOSTILE}", reasoning=LONG, votes=(vote,))
    return Round(answer=answer, verdict=verdict, usage=Usage(model_calls=2), **more)


RESULT = CacResult(
    status="passed",
    rounds=(
        judged(f"The nurse was late.\n\n{HOSTILE}", passed=False),
        judged(f"It is open who was late.\n\n{HOSTILE}\n{LONG}", passed=None, changed=True),
        judged(f"Nobody knows.\n\n{HOSTILE}", passed=True, changed=True),
    ),
    chosen=2,
)
PAGE = RESULT.to_html(f"Who was late? {HOSTILE}")

PROBE = """
const place = (one) => { const {left, top, width} = one.getBoundingClientRect(); return {left, top, width}; };
const paint = (css) => shown(css).slice(0, 1).map((one) => [css, getComputedStyle(one).color, ground(one)])[0];
Object.assign(told, {
  articles: shown("article").map(place),
  answers: shown("article > .text").map((one) => one.textContent),
  paints: ["p", "article", "ins", "del", "article .faint", "footer", ".word.passed", ".word.failed", ".word.unclear"]
    .map(paint),
  card: ground(shown("article")[0]),
  marks: shown("article ins, article del").map((one) => [one.tagName, one.textContent, ground(one),
    getComputedStyle(one).textDecorationLine]),
});
told.kept = shown("article del").map((one) => getComputedStyle(one).display);
document.querySelector("#removed").click();
told.removed = shown("article del").map((one) => getComputedStyle(one).display);
"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    return browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def probed(browse: Browse, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return prober(browse, PAGE, PROBE, tmp_path_factory.mktemp("page") / "page.html")


# Nothing is loaded, and nothing runs


def test_a_hostile_answer_neither_runs_nor_loads_anything(browse: Browse, site: Site) -> None:
    nothing_runs_or_loads(browse, site, PAGE, "passed: Who was late?")


def test_texts_are_shown_letter_by_letter(probed: Probe) -> None:
    assert probed()["answers"][0] == f"The nurse was late.\n\n{HOSTILE}".replace("\x00", "\ufffd")


# What it looks like


def test_in_a_wide_window_the_answers_stand_side_by_side(probed: Probe) -> None:
    told = probed(1400)
    articles = told["articles"]

    assert told["content"] <= told["window"] == 1400
    assert len({article["top"] for article in articles}) == 1
    assert len({round(article["width"]) for article in articles}) == 1
    assert articles[0]["left"] + articles[0]["width"] < articles[1]["left"] < articles[2]["left"]


def test_in_a_narrow_window_they_stand_one_below_the_other_and_nothing_sticks_out(
    probed: Probe,
) -> None:
    told = probed(400)
    articles = told["articles"]

    assert told["content"] <= told["window"] <= 500, "some browsers have no narrower window"
    assert len({article["left"] for article in articles}) == 1
    assert articles[0]["top"] < articles[1]["top"] < articles[2]["top"]


def test_what_changed_is_marked_and_what_was_taken_out_can_be_hidden(probed: Probe) -> None:
    told = probed()
    marks = told["marks"]

    assert next(text for tag, text, *_ in marks if tag == "DEL") == "The nurse "
    assert next(text for tag, text, *_ in marks if tag == "INS") == "It is open who "
    assert {(tag, line) for tag, _, _, line in marks} == {("DEL", "line-through"), ("INS", "underline")}
    colors = {tag: color for tag, _, color, _ in marks}
    assert len({told["card"], *colors.values()}) == 3
    assert (set(told["kept"]), set(told["removed"])) == ({"inline"}, {"none"})


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_words_can_be_read_by_day_and_by_night(probed: Probe, *, dark: bool) -> None:
    told = probed(dark=dark)

    assert (luminance(told["card"]) < 0.5) is dark
    for name, ink, ground in told["paints"]:
        assert contrast(ink, ground) >= 4.5, name


def test_a_picture_of_it_can_be_taken(browse: Browse, site: Site, tmp_path: Path) -> None:
    a_picture_is_taken(browse, site, PAGE, tmp_path / "page.png")
