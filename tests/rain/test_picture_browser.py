"""The page of a search in a real browser: it shows every text as text, loads and runs nothing, and can be read anywhere."""

from __future__ import annotations

import re
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

from correction_graphs.results import RainCommit, RainNode, RainResult, TemplateInfo

pytestmark = pytest.mark.slow


def node(text: str, value: float, visits: int = 1, **more: Any) -> RainNode:
    return RainNode(tokens=(1,), text=text, prior=0.5, visits=visits, n=visits, value=value, judged=value, **more)


def commit(text: str, value: float, visits: int, *rewound: RainNode) -> RainCommit:
    return RainCommit(
        tokens=(1,),
        text=text,
        value=value,
        visits=visits,
        reason="iterations",
        iterations=16,
        evaluations=12,
        rewinds=9,
        forwarded_tokens=900,
        judge_tokens=600,
        searched=(*rewound, node(text, value, visits, committed=True)),
    )


def chain(depth: int) -> RainNode:
    below = node(LONG, -1.0)
    for number in range(depth):
        below = node(f"{number} {HOSTILE}", -0.9, 2, children=(below,))
    return below


WORTH = [-1.0 + step / 4 for step in range(9)]  # each shade once
TEXTS = [f"Be kind. {HOSTILE}", "\n\n", LONG, " Talk.", *(f" {number}." for number in range(len(WORTH)))]
RESULT = RainResult(
    text="".join(TEXTS),
    stop_reason="stop",
    commits=(
        commit(TEXTS[0], 0.5, 9, node(f"Shout. {HOSTILE}", -0.5, 4, children=(node(LONG, -0.75),)), node(LONG, 0.0)),
        commit(TEXTS[1], 0.75, 3, chain(40)),
        commit(TEXTS[2], 0.0, 2, *(node(f"No {value}.", value) for value in WORTH)),
        commit(TEXTS[3], 1.0, 1),
        *(commit(text, value, 1) for text, value in zip(TEXTS[4:], WORTH, strict=True)),
    ),
    seconds=2.0,
    template=TemplateInfo(name=HOSTILE, version="1", language="en", sha256="f" * 64),
    error=HOSTILE,
)
PAGE = RESULT.to_html(f"Who was late? {HOSTILE}")

PROBE = """
const look = (one) => { const css = getComputedStyle(one); return [css.color, ground(one), css.fontWeight]; };
const line = (one) => getComputedStyle(one, "::before");
Object.assign(told, {
  reply: shown(".reply")[0].textContent,
  marks: shown(".reply mark").map((one) => [one.title, ...look(one)]),
  committed: shown(".committed > .row > .said").map(look),
  rewound: shown(".left .said").map(look),
  values: shown(".value").map((one) => [one.textContent, ...look(one)]),
  faint: shown(".visits, summary, .alone, .scale, dt").map(look),
  trunk: shown(".trunk > li").map((one) => [line(one).width, line(one).backgroundColor, line(one).display]),
  branches: shown(".left li").slice(0, 3).map((one) => [line(one).borderBottomWidth, line(one).borderBottomColor]),
  rows: shown(".row").map((one) => [one.title, one.getBoundingClientRect().height, one.getBoundingClientRect().right]),
  cut: shown(".left .said").filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent),
  page: ground(document.body),
});
shown("details").forEach((one) => { one.open = false; });
told.folded = shown(".left .said").filter((one) => one.checkVisibility()).length;
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


def test_a_hostile_reply_neither_runs_nor_loads_anything(browse: Browse, site: Site) -> None:
    nothing_runs_or_loads(browse, site, PAGE, "stop: Who was late?")


def test_the_reply_is_shown_letter_by_letter(probed: Probe) -> None:
    assert probed()["reply"] == RESULT.text.replace("\x00", "\ufffd")


# What it looks like


def test_the_committed_path_stands_out_from_what_was_rewound(probed: Probe) -> None:
    told = probed()

    assert len(told["committed"]) == len(TEXTS)
    assert len({tuple(look) for look in told["committed"]}) == 1
    committed, rewound = told["committed"][0], told["rewound"][0]
    assert committed[0] != rewound[0]
    assert int(committed[2]) > int(rewound[2])
    assert told["trunk"][0][1] != told["branches"][0][1]


def test_lines_are_as_wide_as_they_were_walked(probed: Probe) -> None:
    told = probed()
    trunk = [float(width.removesuffix("px")) for width, *_ in told["trunk"][:-1]]
    branches = [float(width.removesuffix("px")) for width, _ in told["branches"]]

    assert trunk[0] == 7.0
    assert trunk[0] > branches[0] > branches[1] > 0
    assert [display for *_, display in told["trunk"]][-1] == "none", "nothing follows the last"


def test_each_shade_of_value_is_another_colour(probed: Probe) -> None:
    for dark in (False, True):
        colors = {text: ground for text, _, ground, _ in probed(dark=dark)["values"]}
        shades = {colors[f"{value:+.2f}".replace("-", "\u2212")] for value in WORTH}
        assert len(shades) == len(WORTH)


def test_all_texts_and_figures_show_on_hover(probed: Probe) -> None:
    told = probed()

    hints = [title for title, *_ in told["rows"] if title]
    assert len(hints) == sum(1 for _ in re.finditer('class="said"', PAGE))
    assert f"{LONG}\nvalue \u22120.75, judged \u22120.75, 1 visit, prior 0.50" in hints
    assert told["marks"][0][0].endswith("\nvalue +0.50, judged +0.50, 9 visits, prior 0.50")


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out(probed: Probe, width: int) -> None:
    told = probed(width)

    assert told["content"] <= told["window"] <= max(width, 500), "some browsers have no narrower window"
    assert max(right for *_, right in told["rows"]) <= told["window"]


def test_what_was_rewound_takes_a_line_each(probed: Probe) -> None:
    told = probed(400)

    assert LONG in told["cut"]
    heights = {title.split("\n")[0]: height for title, height, _ in told["rows"]}
    assert heights["No -1.0."] < 40


def test_steps_can_be_folded(probed: Probe) -> None:
    assert probed()["folded"] == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_words_can_be_read_by_day_and_by_night(probed: Probe, *, dark: bool) -> None:
    told = probed(dark=dark)

    assert (luminance(told["page"]) < 0.5) is dark
    looks = [look[-3:] for name in ("marks", "values", "committed", "rewound", "faint") for look in told[name]]
    for ink, ground, _ in looks:
        assert contrast(ink, ground) >= 4.5, (ink, ground)


def test_a_search_of_sixty_commits_with_fifty_branches_each_is_drawn(browse: Browse, tmp_path: Path) -> None:
    many = tuple(node(f"Number {number}.", -0.5) for number in range(49))
    result = RainResult(text="A " * 60, stop_reason="length", commits=(commit("A ", 0.5, 1, *many),) * 60)

    told = prober(browse, result.to_html("Why?"), PROBE, tmp_path / "page.html")(400)

    assert told["content"] <= told["window"]
    assert len(told["rewound"]) == 60 * 49


def test_a_picture_of_it_can_be_taken(browse: Browse, site: Site, tmp_path: Path) -> None:
    a_picture_is_taken(browse, site, PAGE, tmp_path / "page.png")
