"""The command `correction-graphs demo`: what each method does to a small model with flaws, counted, then told."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from correction_graphs.cli_output import printable, require_writable, say, say_json
from correction_graphs.errors import SettingsError
from correction_graphs.lab.arms import Lab
from correction_graphs.lab.comparison import COMPARISONS, Compared, compare
from correction_graphs.lab.intervals import Interval
from correction_graphs.lab.model import fallible_report
from correction_graphs.lab.page import to_html
from correction_graphs.lab.stories import Step

_WIDTHS = (36, 18, 23, 18, 14)
_HEADINGS = ("flaw of the model", "alone", "with method", "oracle", "model calls")
_FOOT = (
    "Right answers with 95 % intervals (Wilson). Oracle: the question without what misleads, or a critic or judge who\n"
    "knows the truth. Model calls: an answer alone, and with the method; for RAIN, texts judged. The model was made\n"
    "to be wrong and to be mended: this shows that the methods do what they should, not how much large models gain."
)


def run_demo(options: argparse.Namespace) -> int:
    """Compare, print, write the page; returns the exit status."""
    if options.n < 1:
        raise SettingsError(f"--n is {options.n}; give at least 1 question")
    if options.html:
        require_writable(options.html)
    began, parameters = time.perf_counter(), fallible_report()["parameters"]
    done: list[Compared] = []
    if not options.json:
        size = f"{parameters / 1e6:.1f} million parameters"
        say(f"A model of {size}, made with flaws; {options.n} questions of each kind that it never saw.\n")
        say(_line(_HEADINGS))
    for each in _compared(options.n):
        done.append(each)
        if not options.json:
            say(_row(each))
    seconds = time.perf_counter() - began
    if options.json:
        say_json(_document(done, options.n, seconds))
    else:
        say(f"\n{_FOOT}")
        for each in done:
            _tell(each)
        say(f"\n{seconds:.0f} seconds.")
    if options.html:
        page = to_html(done, note=_FOOT)
        Path(options.html).write_text(page, encoding="utf-8")
        if not options.json:
            say(f"page: {Path(options.html).absolute()}")
    return 0


def _compared(n: int) -> Iterator[Compared]:
    lab = Lab()
    try:
        for comparison in COMPARISONS:
            yield compare(lab, comparison, n)
    finally:
        lab.close()


def _document(done: list[Compared], n: int, seconds: float) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": fallible_report()["sha256"],
        "n": n,
        "seconds": round(seconds, 1),
        "comparisons": [each.as_dict() for each in done],
    }


def _line(cells: tuple[str, ...]) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _row(each: Compared) -> str:
    plain, method, oracle = each.rows
    calls = f"{plain.calls:.1f}, {method.calls:.1f}"
    return _line(
        (each.comparison.flaw, told(plain.right), f"{method.arm:<5}{told(method.right)}", told(oracle.right), calls)
    )


def told(interval: Interval) -> str:
    """Return a share as percentages."""
    return f"{interval.mean:.1%} ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


def _tell(each: Compared) -> None:
    say(f"\n== {each.comparison.method}: {each.comparison.flaw}")
    if not each.story:
        say("   (it mended none of these questions)")
    for step in each.story:
        say(_told(step))


def _told(step: Step) -> str:
    text = " ".join(step.text.split())
    return f"   {step.what + ':':<15} {printable(text)}"
