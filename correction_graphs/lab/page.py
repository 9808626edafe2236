"""The demo as a page: shares of right answers as dots with their intervals, then a story of each method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from correction_graphs.html_page import Html, element, page, section, table
from correction_graphs.lab.comparison import Compared, Row

_STYLE = """
body { max-width: 60rem; }
.plot { display: grid; grid-template-columns: 15rem 1fr 11rem; gap: .35rem 1rem; align-items: center; }
.plot .axis { color: var(--faint); font-size: .8rem; display: flex; justify-content: space-between; }
.track { position: relative; height: 1.2rem; }
.track::before { content: ""; position: absolute; inset: .6rem 0 auto; border-top: 1px solid var(--line); }
.track i { position: absolute; top: .45rem; height: .3rem; border-radius: 1rem; background: currentColor;
  opacity: .45; }
.track b { position: absolute; top: .25rem; width: .7rem; height: .7rem; margin-left: -.35rem; border-radius: 50%;
  background: currentColor; }
.plain { color: var(--failed); } .method { color: var(--passed); } .oracle { color: var(--faint); }
.numbers { font-variant-numeric: tabular-nums; font-size: .85rem; color: var(--faint); }
@media (max-width: 40rem) { .plot { grid-template-columns: 1fr; } }
"""
_TONES = ("plain", "method", "oracle")


def to_html(done: Sequence[Compared], *, note: str) -> str:
    """Return one HTML page, which loads nothing and runs nothing.

    Args:
        done: What was compared.
        note: What is to be known about the numbers.
    """
    return page("correction_graphs: the methods on a model with flaws", *_body(done, note), style=_STYLE)


def _body(done: Sequence[Compared], note: str) -> Iterator[Html]:
    yield element("h1", "What the methods mend")
    yield element("p", note)
    for each in done:
        told = element("p", f"{each.comparison.method}. {each.rows[0].right.n} questions that were never trained on.")
        yield section(f"The model {each.comparison.flaw}", told, _plot(each.rows), *_story(each))


def _plot(rows: Sequence[Row]) -> Html:
    axis = element("div", *(element("span", f"{percent} %") for percent in (0, 25, 50, 75, 100)), class_="axis")
    cells = [element("div"), axis, element("div", "right answers, model calls", class_="numbers")]
    for row, tone in zip(rows, _TONES, strict=True):
        low, mean, high = (f"{100 * share:.2f}" for share in (row.right.low, row.right.mean, row.right.high))
        line = element("i", style=f"left:{low}%;width:{float(high) - float(low):.2f}%")
        track = element("div", line, element("b", style=f"left:{mean}%"), class_=f"track {tone}")
        interval = f"{float(mean):.1f} % ({float(low):.1f} to {float(high):.1f}), {row.calls:.1f} calls"
        cells += [element("div", row.arm), track, element("div", interval, class_="numbers")]
    return element("div", *cells, class_="plot")


def _story(each: Compared) -> Iterator[Html]:
    if each.story:
        yield element("h3", "For example")
        yield table([(step.what, step.text) for step in each.story])
