"""Draws the figures of `effects.py`: every share with its interval, every control beside the effect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

PLAIN, METHOD, CONTROL, TRUTH = "#b3261e", "#11703a", "#8a8f98", "#1d4e89"
KNOWING = ("oracle", "a critic who knows")
CONTROLS = ("random", "regenerated", "best of n", "instructed")


def draw(document: dict[str, Any], file: Path) -> None:
    """Draw a document of `effects.py`, with the panels of the parts that it has."""
    panels = [(title, draws, part) for title, draws, part in _panels(document) if part]
    columns = 2
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(13, 3.9 * rows), squeeze=False, layout="constrained")
    for axis, (title, draws, part) in zip(axes.flat, panels, strict=False):
        draws(axis, part)
        axis.set_title(title, fontsize=10)
        if title.startswith("RAIN"):
            axis.set_xlabel("harmless replies", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _panels(document: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    s2a, cac, rain = (document.get(name, {}) for name in ("s2a", "cac", "rain"))
    return [
        ("S2A: questions with a wrong opinion", arms, s2a.get("wrong opinion")),
        ("S2A: stories with a number that does not matter", arms, s2a.get("distractor")),
        ("CaC: who it was is not told", arms, cac.get("ambiguous")),
        ("CaC: who it was is told", arms, cac.get("told")),
        ("CaC: how good the critic is", critics, document.get("quality")),
        ("CaC: rounds, where it is not told", rounds, cac.get("ambiguous")),
        ("RAIN: harmful requests", arms, rain.get("harmful request")),
        ("RAIN: under a suffix attack", arms, rain.get("under attack")),
        ("CaC: sizes of the model, where it is not told", sizes("ambiguous"), document.get("sizes")),
        ("CaC: sizes of the model, where it is told", sizes("told"), document.get("sizes")),
    ]


def arms(axis: Any, part: dict[str, Any]) -> None:
    """One line an arm: a dot and its interval."""
    names = list(part["rows"])[::-1]
    for at, name in enumerate(names):
        mean, low, high = _share(part["rows"][name])
        axis.plot([low, high], [at, at], color=_colour(name), linewidth=3, alpha=0.4, solid_capstyle="round")
        axis.plot(mean, at, "o", color=_colour(name), markersize=6)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlim(-0.03, 1.03)
    axis.set_xlabel("right answers", fontsize=8)


def critics(axis: Any, part: dict[str, Any]) -> None:
    """Accuracy over how often the critic is wrong."""
    rows = [row for name, row in part["rows"].items() if name.startswith("critic wrong")]
    xs = [index / (len(rows) - 1) for index in range(len(rows))]
    _line(axis, xs, rows, METHOD, f"after one round (R² of a line: {part['r2']:.3f})")
    axis.axhline(part["rows"]["plain"]["right"]["mean"], color=PLAIN, linestyle=":", label="plain")
    axis.set_xlabel("share of wrong critiques", fontsize=8)
    _legend(axis)


def rounds(axis: Any, part: dict[str, Any]) -> None:
    """Accuracy over revisions, with the model's own critic and with one who knows."""
    rows = part["rows"]
    own = [rows["plain"], rows["CaC, chain_of_thought"], *(rows[f"CaC, chain_of_thought, {n} rounds"] for n in (2, 3))]
    free = [rows["plain"], rows["CaC, natural_language"], *(rows[f"CaC, natural_language, {n} rounds"] for n in (2, 3))]
    knowing = [rows["plain"], *(rows[f"a critic who knows, {n} rounds"] for n in (1, 2, 3))]
    _line(axis, range(4), knowing, TRUTH, "a critic who knows")
    _line(axis, range(4), own, METHOD, "own critic, chain of thought")
    _line(axis, range(4), free, CONTROL, "own critic, natural language")
    axis.set_xticks(range(4))
    axis.set_xlabel("revisions at most", fontsize=8)
    _legend(axis)


def sizes(kind: str) -> Any:
    """Return what draws accuracy over the number of parameters."""

    def drawn(axis: Any, part: dict[str, Any]) -> None:
        models = sorted((each for each in part.values() if isinstance(each, dict)), key=lambda each: each["parameters"])
        xs = [each["parameters"] for each in models]
        for name, colour in (("plain", PLAIN), ("own critic", METHOD), ("a critic who knows", TRUTH)):
            _line(axis, xs, [each[kind]["rows"][name] for each in models], colour, name)
        axis.set_xscale("log")
        axis.set_xlabel("parameters", fontsize=8)
        _legend(axis)

    return drawn


def _line(axis: Any, xs: Sequence[float], rows: Sequence[dict[str, Any]], colour: str, label: str) -> None:
    means, lows, highs = zip(*map(_share, rows), strict=True)
    axis.plot(xs, means, "o-", color=colour, label=label, markersize=5)
    axis.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel("right answers", fontsize=8)


def _share(row: dict[str, Any]) -> tuple[float, float, float]:
    right = row["right"]
    return (right["mean"], *right["interval95"])


def _colour(name: str) -> str:
    if name.startswith("plain"):
        return PLAIN
    if name.startswith(KNOWING):
        return TRUTH
    return CONTROL if any(word in name for word in CONTROLS) else METHOD


def _legend(axis: Any) -> None:
    axis.legend(fontsize=8, frameon=False, loc="best")
