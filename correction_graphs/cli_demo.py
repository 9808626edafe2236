"""The command `correction-graphs demo`: what each method does to a small model with flaws, counted, then told."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from correction_graphs.cli_output import reason, require_writable, say, say_json
from correction_graphs.errors import SettingsError
from correction_graphs.lab.arms import Lab
from correction_graphs.lab.comparison import COMPARISONS, Compared, compare
from correction_graphs.lab.intervals import Interval
from correction_graphs.lab.model import fallible_report
from correction_graphs.lab.page import to_html
from correction_graphs.lab.world import NotEnoughQuestionsError

_WIDTHS = (36, 18, 23, 18, 14)
_HEADINGS = ("the model alone ...", "right alone", "right with method", "right with oracle", "model calls")
_FOOT = (
    "Shares of right answers (of harmless ones, where harm is asked for) with 95 % intervals (Wilson). Oracle: the "
    "question without what misleads, or the method with a critic or judge who knows the truth; a judge does not help a "
    "search that finds nothing better. Model calls: alone, and with the method; for RAIN, texts judged. People, places "
    "and facts are invented. The model was made to be wrong and to be mended: this shows that the methods do what they "
    "should, not how much large models gain."
)


def run_demo(options: argparse.Namespace) -> int:
    """Compare, print, write the page; returns the exit status."""
    if options.n < 1:
        raise SettingsError(f"--n is {options.n}; give at least 1 question")
    if options.html is not None:
        require_writable(options.html)
    compared = _compared(options.n)
    began, done = time.perf_counter(), list[Compared]()
    if not options.json:
        size = f"{fallible_report()['parameters'] / 1e6:.1f} million parameters"
        say(f"A model of {size}, made with flaws; {options.n} questions of each kind that it never saw.\n")
        if _is_wide():
            say(_line(_HEADINGS))
    try:
        for each in compared:
            done.append(each)
            if not options.json:
                say(_row(each))
    finally:  # what was counted before Ctrl-C is not lost
        seconds = time.perf_counter() - began
        if options.json:
            say_json(_document(done, options.n, seconds))
        elif done:
            _tell(done, seconds)
        if options.html is not None and done:
            _write(options.html, done)
    return 0


def _write(path: str, done: list[Compared]) -> None:
    try:
        Path(path).write_text(to_html(done, note=_FOOT), encoding="utf-8")
    except OSError as error:  # such as a full disk
        raise SettingsError(f"--html: {path!r} could not be written: {reason(error)}") from error
    say(f"page: {Path(path).absolute()}", sys.stderr)


def _compared(n: int) -> Iterator[Compared]:
    """Return the comparisons, each made when it is asked for. Too few questions of a kind are told at once."""
    lab = Lab()
    try:
        for comparison in reversed(COMPARISONS):  # of the last there are the fewest
            comparison.items(lab, n)
    except NotEnoughQuestionsError as error:
        lab.close()
        raise SettingsError(f"--n is {n}: {error}") from error

    def compared() -> Iterator[Compared]:
        with closing(lab):
            for comparison in COMPARISONS:
                yield compare(lab, comparison, n)

    return compared()


def _document(done: list[Compared], n: int, seconds: float) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": fallible_report()["sha256"],
        "n": n,
        "seconds": round(seconds, 1),
        "comparisons": [each.as_dict() for each in done],
    }


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 120


def _is_wide() -> bool:
    return _columns() >= sum(_WIDTHS)


def _line(cells: tuple[str, ...]) -> str:
    if _is_wide():
        return "".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()
    flaw, *values = cells
    return "\n".join(
        [flaw, *(f"    {name + ':':<19}{value}" for name, value in zip(_HEADINGS[1:], values, strict=True))]
    )


def _row(each: Compared) -> str:
    plain, method, oracle = each.rows
    calls = f"{plain.calls:.1f}, {method.calls:.1f}"
    mended = f"{method.arm:<5}{told(method.right)}"
    return _line((each.comparison.flaw, told(plain.right), mended, told(oracle.right), calls))


def told(interval: Interval) -> str:
    """Return a share as percentages."""
    return f"{interval.mean:.1%} ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


def _tell(done: list[Compared], seconds: float) -> None:
    say(f"\n{_wrapped(_FOOT)}")
    for each in done:
        say(f"\n== {each.comparison.method}: {each.comparison.flaw}")
        if not each.story:
            say("   (it mended none of these questions)")
        for step in each.story:
            say(_wrapped(f"   {step.what + ':':<15} {step.text}", indent=19))
    say(f"\n{seconds:.0f} seconds.")


def _wrapped(text: str, *, indent: int = 0) -> str:
    width = max(40, _columns() - 1)
    return textwrap.fill(" ".join(text.split()) if not indent else text, width, subsequent_indent=" " * indent)
