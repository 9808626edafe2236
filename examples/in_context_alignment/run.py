"""The synthetic analysis of the CaC paper (section 4), small enough for a CPU: does a transformer align in context?

python examples/in_context_alignment/run.py                  # everything; 21 minutes on one core (--jobs 1)
python examples/in_context_alignment/run.py --quick          # hardly trained, to see that it runs; about a minute
python examples/in_context_alignment/run.py --plot-only      # the figure again, from the numbers of an earlier run

Needs `pip install --group train` (PyTorch and matplotlib), and neither a language model nor the rest of this project.
Writes results.json and results.png to --output, by default the folder `results` beside this file; with --quick or
--steps, to a folder among the temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from experiments import ARMS, BASE, GRADIENT_DESCENT, Plan, Run, losses_of_answers, references, summarise, trained
from learners import Training
from picture import CLEAN, draw
from synthetic_tasks import SEGMENT, VARIANTS, Variant

QUICK = Plan(seeds=(0, 1), tasks=128, training=Training(steps=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 steps and 2 seeds: shows that it runs, and no more")
    parser.add_argument("--steps", type=int, help=f"training steps of each transformer instead of {Training().steps}")
    parser.add_argument("--plot-only", action="store_true", help="draw results.png from the results.json in --output")
    parser.add_argument("--output", type=Path, help="folder for results.json and results.png")
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=min(2, cores), help="trainings at a time, one core each")
    options = parser.parse_args()
    for name in ("jobs", "steps"):
        if (given := getattr(options, name)) is not None and given < 1:
            parser.error(f"--{name} is {given}; give 1 or more")

    plan = QUICK if options.quick else Plan()
    if options.steps is not None:
        plan = replace(plan, training=replace(plan.training, steps=options.steps))
    folder = options.output or default_folder(published=plan == Plan())
    numbers = folder / "results.json"
    if options.plot_only:
        if not numbers.exists():
            parser.error(f"there is no {numbers}; run without --plot-only first, or give the folder as --output")
        document = json.loads(numbers.read_text(encoding="utf-8"))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for document in measure(plan, options.jobs):
            numbers.write_text(json.dumps(document) + "\n", encoding="utf-8")
    draw(document, folder / "results.png")
    print(table(document))
    print(f"wrote {folder / 'results.png'}" + ("" if options.plot_only else f" and {numbers}"))


def default_folder(*, published: bool) -> Path:
    return Path(__file__).parent / "results" if published else Path(tempfile.gettempdir(), "in_context_alignment")


def measure(plan: Plan, jobs: int) -> Iterator[dict[str, Any]]:
    """Do every run, several at a time, and yield what there is after each: a run that is stopped leaves its numbers."""
    started = time.perf_counter()
    losses = list(losses_of_answers(plan))
    runs = []
    for run in do_all(plan, jobs):
        runs.append(run)
        minutes = (time.perf_counter() - started) / 60
        print(
            f"{minutes:5.1f} min  seed {run.seed}  {run.variant:11}  {run.name:26}"
            f"  error at the last n {run.curves[CLEAN][-1]:.3f}",
            flush=True,
        )
        machine = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "jobs": jobs,
            "minutes": round(minutes, 1),
        }
        command = " ".join(["python", *sys.argv])
        yield {**summarise(runs, plan), "losses": losses, "made_by": command, "environment": machine}


def do_all(plan: Plan, jobs: int) -> Iterator[Run]:
    arms = [(name, variant) for name, variant in ARMS if name in plan.designs]
    context = get_context("spawn")  # a fork of a process with PyTorch's threads in it may hang
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending = [
            pool.submit(one, name, variant, seed, plan)
            for name, variant in [*((GRADIENT_DESCENT, variant) for variant in VARIANTS), *arms]
            for seed in plan.seeds
        ]
        for future in as_completed(pending):
            yield from future.result()


def one(name: str, variant: Variant, seed: int, plan: Plan) -> list[Run]:
    return references(variant, seed, plan) if name == GRADIENT_DESCENT else [trained(name, variant, seed, plan)]


def table(document: dict[str, Any]) -> str:
    """Return errors with true and with noisy rewards, and the difference to the base transformer with its interval."""
    first, last = document["n"][0], document["n"][-1]
    columns = [(CLEAN, first), (CLEAN, 5), (CLEAN, last), ("0.5", last), ("1", last)]
    curves = {(c["name"], c["variant"], c["noise"]): c for c in document["curves"]}
    differences = {(c["name"], c["variant"]): c for c in document["differences"] if c["noise"] == CLEAN}
    head = [
        "bad maps",
        "learner",
        *(f"p = {p}, n = {n}" for p, n in columns),
        f"minus the base transformer, p = 0, n = {last}",
    ]
    lines = [head, ["---"] * len(head)]
    for variant in VARIANTS:
        for name in (name for name, of, noise in curves if (of, noise) == (variant, CLEAN)):
            cells = [_cell(curves[name, variant, noise], n - first) for noise, n in columns]
            difference = differences.get((name, variant))
            label = "transformer, base" if name == BASE else name
            maps = "one" if variant == SEGMENT else variant
            lines.append([maps, label, *cells, _cell(difference, -1, sign="+") if difference else ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(curve: dict[str, Any], at: int, *, sign: str = "") -> str:
    return f"{curve['mean'][at]:{sign}.3f} ± {curve['high'][at] - curve['mean'][at]:.3f}"


if __name__ == "__main__":
    main()
