"""What is run, and how it is summed up: transformers of several designs, gradient descent, and two trivial answers.

A run is one design on one variant of the data with one seed, which fixes the weights to start from, the tasks it is
trained on and those it is measured on. A curve is the mean error over the latter after n = 2, 3, ... responses. What is
reported is the mean of the curves of all seeds, with Student's 95% interval for a mean of so many. The interval thus
holds all that a new seed would change: the training, and which tasks are drawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from learners import SHORTEST, Training, descent_predictions, final_loss, train, transformer_predictions
from synthetic_tasks import (
    INDEPENDENT,
    SEGMENT,
    VARIANTS,
    Array,
    Tasks,
    Variant,
    copy_best,
    draw_tasks,
    error,
    running_mean,
    with_noise,
)
from transformer import Design

NOISE = (0.0, 0.25, 0.5, 0.75, 1.0)
BASE = "base"
DESIGNS: dict[str, Design] = {
    BASE: Design(),
    "depth 1": Design(depth=1),
    "depth 2": Design(depth=2),
    "depth 6": Design(depth=6),
    "linear attention": Design(attention="linear"),
    "1 head": Design(heads=1),
    "6 heads": Design(heads=6),
    "no feed-forward": Design(feed_forward=False),
}
ARMS: tuple[tuple[str, Variant], ...] = (
    (BASE, SEGMENT),
    (BASE, INDEPENDENT),
    *((name, SEGMENT) for name in DESIGNS if name != BASE),
)
GRADIENT_DESCENT, COPY_BEST, RUNNING_MEAN = "gradient descent", "copy the best", "running mean"
REFERENCES = (GRADIENT_DESCENT, COPY_BEST, RUNNING_MEAN)
RIGHT, BEST_MINUS_WORST = "W x", "best minus worst response"
_ORDER = [*itertools.product(REFERENCES, VARIANTS), *ARMS]

_TEST_SEED = 1_000_000  # tasks of seed s are trained on, tasks of this plus s are measured on
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t, 1 to 9 degrees of freedom


@dataclass(frozen=True)
class Plan:
    """Everything that decides the numbers."""

    seeds: tuple[int, ...] = (0, 1, 2)
    tasks: int = 1024
    training: Training = field(default_factory=Training)
    designs: tuple[str, ...] = tuple(DESIGNS)

    def __post_init__(self) -> None:
        most = len(_T_975) + 1
        if len(self.seeds) not in range(2, most + 1) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; an interval needs from 2 to {most} different seeds")
        if unknown := set(self.designs) - set(DESIGNS):
            raise ValueError(f"unknown designs {sorted(unknown)}; there are {sorted(DESIGNS)}")


Curves = dict[str, list[float]]  # noise probability, as text for JSON, to the error after each n


@dataclass(frozen=True)
class Run:
    """The outcome of one learner or reference, one variant, one seed."""

    name: str
    variant: Variant
    seed: int
    curves: Curves
    seconds: float = 0.0
    parameters: int = 0
    losses: tuple[float, ...] = ()


def references(variant: Variant, seed: int, plan: Plan) -> list[Run]:
    """Measure gradient descent, copying the best response, and the running mean."""
    answers: dict[str, Callable[[Tasks], Array]] = {
        GRADIENT_DESCENT: lambda tasks: descent_predictions(tasks, seed=seed)[0],
        COPY_BEST: lambda tasks: copy_best(tasks)[:, SHORTEST - 1 :],
        RUNNING_MEAN: lambda tasks: running_mean(tasks)[:, SHORTEST - 1 :],
    }
    return [Run(name, variant, seed, _curves(answer, variant, seed, plan)) for name, answer in answers.items()]


def trained(name: str, variant: Variant, seed: int, plan: Plan) -> Run:
    """Train one transformer and measure it."""
    done = train(DESIGNS[name], plan.training, variant=variant, seed=seed)
    curves = _curves(lambda tasks: transformer_predictions(done.model, tasks), variant, seed, plan)
    parameters = sum(weights.numel() for weights in done.model.parameters())
    return Run(name, variant, seed, curves, round(done.seconds, 1), parameters, _thinned(done.losses))


def losses_of_answers(plan: Plan) -> Iterator[dict[str, Any]]:
    """Say what loss the right answer has, and what others have, when all responses are ranked by true rewards.

    No answer can be expected from a learner that has a higher loss than another one within its reach.
    """
    for variant in VARIANTS:
        by_seed = [_losses_of_answers(variant, seed, plan) for seed in plan.seeds]
        for answer in by_seed[0]:
            found = interval(np.asarray([[losses[answer]] for losses in by_seed]))
            yield {"answer": answer, "variant": variant, "n": plan.training.length, **found}


def _losses_of_answers(variant: Variant, seed: int, plan: Plan) -> dict[str, float]:
    tasks = _test_tasks(variant, seed, plan)
    every = np.arange(plan.tasks)
    best = tasks.responses[every, tasks.rewards.argmax(axis=1)]
    worst = tasks.responses[every, tasks.rewards.argmin(axis=1)]
    answers = {
        RIGHT: tasks.targets,
        BEST_MINUS_WORST: best - worst,
        GRADIENT_DESCENT: descent_predictions(tasks, seed=seed)[0][:, -1],
        COPY_BEST: best,
        RUNNING_MEAN: tasks.responses.mean(axis=1),
    }
    return {name: final_loss(answer, tasks) for name, answer in answers.items()}


def _test_tasks(variant: Variant, seed: int, plan: Plan) -> Tasks:
    return draw_tasks(_TEST_SEED + seed, range(plan.tasks), length=plan.training.length, variant=variant)


def _curves(answer: Callable[[Tasks], Array], variant: Variant, seed: int, plan: Plan) -> Curves:
    tasks = _test_tasks(variant, seed, plan)
    return {f"{p:g}": _listed(error(answer(with_noise(tasks, p)), tasks.targets[:, None]).mean(axis=0)) for p in NOISE}


def _thinned(losses: list[float], parts: int = 30) -> tuple[float, ...]:
    return tuple(_listed(np.asarray([part.mean() for part in np.array_split(losses, min(parts, len(losses)))])))


def _listed(values: Array) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def interval(values: Array) -> dict[str, list[float]]:
    """Return mean and 95% interval over the first axis, which is the seeds."""
    seeds = len(values)
    mean = values.mean(axis=0)
    margin = _T_975[seeds - 2] * values.std(axis=0, ddof=1) / math.sqrt(seeds)
    return {"mean": _listed(mean), "low": _listed(mean - margin), "high": _listed(mean + margin)}


def summarise(runs: list[Run], plan: Plan) -> dict[str, Any]:
    """Put runs together: curves with intervals, and by what each differs from the base transformer, seed by seed."""
    runs = sorted(
        runs, key=lambda run: (_ORDER.index((run.name, run.variant)), run.seed)
    )  # in whatever order they ended
    complete = [
        (name, variant, found)
        for name, variant in dict.fromkeys((run.name, run.variant) for run in runs)
        if len(found := [run for run in runs if (run.name, run.variant) == (name, variant)]) == len(plan.seeds)
    ]
    curves = {(name, variant): _over_seeds(found) for name, variant, found in complete}
    return {
        "schema": 1,
        "measure": "1 - cos(prediction, W x), mean over tasks",
        "interval": f"Student's t, 95%, over {len(plan.seeds)} seeds; each has its own weights and tasks",
        "seeds": list(plan.seeds),
        "tasks_per_seed": plan.tasks,
        "training": asdict(plan.training),
        "gradient_descent": {"steps": 50, "rate": 0.1, "optimizer": "Adam"},
        "n": list(range(SHORTEST, plan.training.length + 1)),
        "noise": list(NOISE),
        "designs": {name: asdict(DESIGNS[name]) for name in plan.designs},
        "curves": [
            {"name": name, "variant": variant, "noise": noise, **interval(values)}
            for (name, variant), by_noise in curves.items()
            for noise, values in by_noise.items()
        ],
        "differences": list(_differences(curves)),
        "runs": [asdict(run) for run in runs],
    }


def _over_seeds(runs: list[Run]) -> dict[str, Array]:
    return {noise: np.asarray([run.curves[noise] for run in runs]) for noise in runs[0].curves}


def _differences(curves: dict[tuple[str, Variant], dict[str, Array]]) -> Iterator[dict[str, Any]]:
    for (name, variant), by_noise in curves.items():
        if name != BASE and (BASE, variant) in curves:
            for noise, values in by_noise.items():
                paired = interval(values - curves[BASE, variant][noise])
                yield {"name": name, "minus": BASE, "variant": variant, "noise": noise, **paired}
