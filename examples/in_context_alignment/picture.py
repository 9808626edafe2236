"""The figure, drawn from the JSON document alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from experiments import BASE, COPY_BEST, GRADIENT_DESCENT, NOISE, RUNNING_MEAN
from matplotlib import pyplot as plt
from synthetic_tasks import INDEPENDENT, SEGMENT, Variant

# Okabe and Ito's colours, told apart by most people with colour-blindness
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#777777"
CLEAN = "0"

Lines = list[tuple[str, str, str]]  # design, label, colour


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw all panels into one picture."""
    mpl.use("Agg")
    curves = {(c["name"], c["variant"], c["noise"]): c for c in document["curves"]}
    figure, axes = plt.subplots(2, 4, figsize=(17, 8), sharex=True, layout="constrained")
    base = document["designs"][BASE]

    for panel, variant in ((axes[0, 0], SEGMENT), (axes[0, 1], INDEPENDENT)):
        _lines(panel, document["n"], curves, variant, [(BASE, "transformer", BLUE)])
        _curve(panel, document["n"], curves.get((GRADIENT_DESCENT, variant, CLEAN)), "gradient descent", ORANGE)
    for panel, variant in ((axes[0, 2], SEGMENT), (axes[0, 3], INDEPENDENT)):
        _noise(panel, document["n"], curves, variant)
    compared: list[Lines] = [
        [
            ("depth 1", "depth 1", ORANGE),
            ("depth 2", "depth 2", GREEN),
            (BASE, f"depth {base['depth']}", BLUE),
            ("depth 6", "depth 6", PURPLE),
        ],
        [(BASE, "softmax attention", BLUE), ("linear attention", "linear attention", VERMILION)],
        [("1 head", "1 head", ORANGE), (BASE, f"{base['heads']} heads", BLUE), ("6 heads", "6 heads", GREEN)],
        [(BASE, "with feed-forward", BLUE), ("no feed-forward", "without", VERMILION)],
    ]
    for panel, lines in zip(axes[1], compared, strict=True):
        _lines(panel, document["n"], curves, SEGMENT, lines)

    for run in document["runs"]:  # a mean hides that some seeds have learned and others not
        if run["name"] == "linear attention":
            axes[1, 1].plot(document["n"], run["curves"][CLEAN], color=VERMILION, linewidth=0.7)
    axes[1, 1].plot([], [], color=VERMILION, linewidth=0.7, label="linear, single seeds")

    titles = (
        "(a) one bad map per task",
        "(a) independent bad maps",
        "(b) noisy rewards, one bad map",
        "(b) noisy rewards, independent bad maps",
        "(c) depth",
        "(d) attention",
        f"(e) heads, width {base['width']}",
        "(f) feed-forward",
    )
    for panel, title in zip(axes.flat, titles, strict=True):
        panel.set_title(title)
        panel.set_ylim(0, 1.5)
        panel.grid(alpha=0.25)
        if panel.get_legend_handles_labels()[0]:  # none, if a run was stopped early
            panel.legend(fontsize=7, loc="upper right", ncols=2)
    for panel in axes[:, 0]:
        panel.set_ylabel("1 - cos(prediction, W x)")
    for panel in axes[1]:
        panel.set_xlabel("responses seen, n")
    figure.suptitle(
        f"In-context alignment: mean over {len(document['seeds'])} seeds of {document['tasks_per_seed']} tasks each; "
        "bands: 95% intervals over seeds. (c) to (f): one bad map, true rewards",
        fontsize=11,
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _curve(
    panel: Any, lengths: list[int], curve: dict[str, Any] | None, label: str, colour: str, *, style: str = "-"
) -> None:
    if curve is None:  # the run was stopped before this one
        return
    panel.plot(lengths, curve["mean"], style, color=colour, label=label, linewidth=1.4)
    panel.fill_between(lengths, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)


def _lines(panel: Any, lengths: list[int], curves: dict[Any, Any], variant: Variant, lines: Lines) -> None:
    for name, label, colour in lines:
        _curve(panel, lengths, curves.get((name, variant, CLEAN)), label, colour)
    _curve(panel, lengths, curves.get((COPY_BEST, variant, CLEAN)), "copy the best response", GREY, style=":")
    _curve(panel, lengths, curves.get((RUNNING_MEAN, variant, CLEAN)), "mean of the responses", GREY, style="--")


def _noise(panel: Any, lengths: list[int], curves: dict[Any, Any], variant: Variant) -> None:
    for probability, colour in zip(NOISE, (BLUE, SKY, GREEN, ORANGE, VERMILION), strict=True):
        noise = f"{probability:g}"
        _curve(panel, lengths, curves.get((BASE, variant, noise)), f"transformer, p = {noise}", colour)
        _curve(panel, lengths, curves.get((GRADIENT_DESCENT, variant, noise)), "", colour, style="--")
        _curve(panel, lengths, curves.get((COPY_BEST, variant, noise)), "", colour, style=":")
    _curve(panel, lengths, curves.get((RUNNING_MEAN, variant, CLEAN)), "mean of the responses", GREY, style="--")
    for label, style in (("dashed: gradient descent", "--"), ("dotted: copy the best", ":")):
        panel.plot([], [], style, color="black", label=label)
