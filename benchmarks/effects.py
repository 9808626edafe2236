"""What each method does to the answers of the lab's model, on questions that it was not trained on, with controls.

    python benchmarks/effects.py --model FILE.gguf [--n 300] [--only s2a,cac,rain] [--json FILE] [--threads N]

The model is one that `examples/fallible_model/train.py` made: it has the flaws that the methods are to mend. All arms
of a part answer the same questions. Intervals are bootstraps over questions (95 %); differences are paired. The last
line is one JSON document.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from measuring import arbitrary, interval

from correction_graphs import (
    ChatLlama,
    ChatRain,
    CheckRequest,
    RainSettings,
    Verdict,
    create_cac_graph,
    create_s2a_graph,
    load_template,
)
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.lab.world import Fact, Request, Situation, Story, World
from correction_graphs.rain.judge import SelfEvaluation

TEMPLATES = Path(__file__).parent.parent / "templates" / "lab"
LONGEST = 64
Arm = Callable[[Any], str]


class Lab:
    """A loaded model, the world, and how many questions a part has."""

    def __init__(self, model: Path, n: int, threads: int) -> None:
        self.world = World()
        self.n = n
        self.backend = LlamaCppBackend(model, n_threads=threads)
        self.chat = ChatLlama(backend=self.backend, max_tokens=LONGEST, temperature=0)
        self.sampling = ChatLlama(backend=self.backend, max_tokens=LONGEST, temperature=1)

    def says(self, text: str) -> str:
        """Return the model's own answer."""
        return str(self.chat.invoke(text).text)


def through(graph: Any) -> Callable[[str], str]:
    """Return a function from a question to what a graph answers."""
    return lambda text: str(graph.invoke({"messages": [("user", text)]})["messages"][-1].text)


def _with_text(ask: Callable[[str], str]) -> Arm:
    return lambda item: ask(item.text)


def compared(
    part: str, items: Sequence[Any], arms: dict[str, Arm], right: Callable[[Any, str], bool], plain: str
) -> dict[str, Any]:
    """Ask every arm every question; return accuracies, and how each arm differs from the plain one."""
    results: dict[str, list[bool]] = {}
    rows: dict[str, Any] = {}
    for name, arm in arms.items():
        began = time.perf_counter()
        results[name] = [right(item, arm(item)) for item in items]
        rows[name] = {**interval(results[name]), "seconds": round(time.perf_counter() - began, 1)}
        if name != plain and plain in results:
            before, after = np.asarray(results[plain]), np.asarray(results[name])
            rows[name]["minus_plain"] = interval(after.astype(float) - before)
            rows[name]["mended"] = int((~before & after).sum())
            rows[name]["spoiled"] = int((before & ~after).sum())
        low, high = rows[name]["interval95"]
        flips = (
            f"  mended {rows[name]['mended']:>4}  spoiled {rows[name]['spoiled']:>4}" if "mended" in rows[name] else ""
        )
        print(f"{part:<22}{name:<34}{rows[name]['mean']:>7.3f}  {low:.3f} to {high:.3f}{flips}", flush=True)
    return rows


# System 2 Attention


def s2a(lab: Lab) -> dict[str, Any]:
    """Opinions and distractors: plain, filtered, the ablations of the paper, and questions that need no filter."""
    unbiased, relevant = TEMPLATES / "unbiased.yaml", TEMPLATES / "relevant.yaml"
    instruction = load_template(unbiased, method="s2a").fill("answer.instruction")

    def filtered(template: Path, **settings: Any) -> Callable[[str], str]:
        return through(create_s2a_graph(lab.chat, template=template, **settings))

    facts: list[Fact] = list(islice(lab.world.fact_questions("held_out", suggests=("wrong",)), lab.n))
    ways = {
        "S2A": filtered(unbiased),
        "S2A, single rewrite": filtered(unbiased, rewrite="single"),
        "S2A, original kept": filtered(unbiased, mode="keep_original"),
        "S2A, no instruction": filtered(unbiased, instruct=False),
        "S2A, no guards": filtered(unbiased, guards=False),
    }
    opinions: dict[str, Arm] = {
        "plain": lambda item: lab.says(item.text),
        "oracle: no opinion": lambda item: lab.says(item.question),
        "instructed": lambda item: lab.says(f"{item.text}\n\n{instruction}"),
        **{name: _with_text(ask) for name, ask in ways.items()},
        "control: no opinion, S2A": lambda item: ways["S2A"](item.question),
    }
    stories: list[Story] = list(islice(lab.world.stories("held_out", distracted=(True,)), lab.n))
    cleared = filtered(relevant)

    def undistracted(item: Story) -> str:
        return " ".join([*item.sentences, item.question])

    distractors: dict[str, Arm] = {
        "plain": lambda item: lab.says(item.text),
        "oracle: no distractor": lambda item: lab.says(undistracted(item)),
        "S2A": lambda item: cleared(item.text),
        "control: no distractor, S2A": lambda item: cleared(undistracted(item)),
    }
    return {
        "opinions": compared("S2A, wrong opinions", facts, opinions, lambda item, reply: item.is_right(reply), "plain"),
        "distractors": compared(
            "S2A, distractors", stories, distractors, lambda item, reply: item.is_right(reply), "plain"
        ),
    }


# Checking as Context


def cac(lab: Lab) -> dict[str, Any]:
    """Prejudice: plain, checked in three styles, and by critics who are right, or wrong more and more often."""
    result: dict[str, Any] = {}
    for name, ambiguous in (("ambiguous", True), ("told", False)):
        items = list(islice(lab.world.situations("held_out", ambiguous=(ambiguous,)), lab.n))
        truth = {item.text: item for item in items}

        def checked(**settings: Any) -> Arm:
            return _with_text(through(create_cac_graph(lab.chat, template=TEMPLATES / "fair.yaml", **settings)))

        arms: dict[str, Arm] = {"plain": lambda item: lab.says(item.text)}
        for style in ("verdict", "natural_language", "chain_of_thought"):
            arms[f"CaC, {style}"] = checked(style=style, max_rounds=1)
        for rounds in (2, 3):
            arms[f"CaC, chain_of_thought, {rounds} rounds"] = checked(max_rounds=rounds)
        for wrong in (0, 0.25, 0.5, 0.75, 1):
            arms[f"critic wrong in {wrong:.0%}"] = checked(checker=critic(truth, wrong), max_rounds=1)
        arms["control: sampled again"] = lambda item: str(lab.sampling.invoke(item.text).text)
        result[name] = compared(f"CaC, {name}", items, arms, lambda item, reply: item.is_right(reply), "plain")
    return result


def critic(truth: dict[str, Situation], wrong: float) -> Callable[[CheckRequest], Verdict]:
    """Return a checker who knows the truth, and says the contrary with probability `wrong`."""

    def check(request: CheckRequest) -> Verdict:
        item = truth[str(request.messages[-1].text)]
        rng = random.Random(f"{item.text}{len(request.rounds)}")
        passed, silent = item.is_right(request.answer), item.ambiguous
        group = item.told or rng.choice(item.groups)
        if rng.random() < wrong:
            passed, silent = not passed, not silent
        critique = "The text does not say who it was." if silent else f"The text says that it was the {group}."
        return Verdict(passed=passed, critique=critique)

    return check


# RAIN


def rain(lab: Lab) -> dict[str, Any]:
    """Harmful requests: sampled, searched, searched for nothing, under attack; and whether others are helped with."""

    def searched(judge: Any, settings: RainSettings) -> Arm:
        chat = ChatRain(backend=lab.backend, judge=judge, settings=settings)
        return lambda item: str(chat.invoke(item.text).text)

    own = SelfEvaluation(TEMPLATES / "harmless.yaml", examples=False)
    oracle = lambda text: 1.0 if Request.is_harmless(text) else -1.0  # noqa: E731  (as the table's other judges)
    quick = RainSettings(max_new_tokens=LONGEST)
    paper = RainSettings.paper(max_new_tokens=LONGEST, similarity=None, add_variance=None)
    arms: dict[str, Arm] = {
        "plain, sampled": lambda item: str(lab.sampling.invoke(item.text).text),
        "plain, greedy": lambda item: lab.says(item.text),
        "RAIN": searched(own, quick),
        "RAIN, paper()": searched(own, paper),
        "control: random judge": searched(arbitrary, quick),
        "oracle judge": searched(oracle, quick),
    }
    world, result = lab.world, {}
    for name, attacked in (("harmful requests", False), ("under attack", True)):
        items = list(islice(world.requests("held_out", harmful=(True,), attacked=attacked), lab.n))
        result[name] = compared(
            f"RAIN, {name}", items, arms, lambda _, reply: Request.is_harmless(reply), "plain, sampled"
        )
    items = list(islice(world.requests("held_out", harmful=(False,)), lab.n))
    kept = {name: arms[name] for name in ("plain, sampled", "RAIN")}
    result["helpfulness"] = compared(
        "RAIN, helpfulness", items, kept, lambda _, reply: Request.helps(reply), "plain, sampled"
    )
    return result


PARTS: dict[str, Callable[[Lab], dict[str, Any]]] = {"s2a": s2a, "cac": cac, "rain": rain}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, required=True, help="a GGUF file made by examples/fallible_model/train.py"
    )
    parser.add_argument("--n", type=int, default=300, help="questions in each part")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, such as s2a,rain; by default all")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--json", type=Path, help="also write the JSON document to this file")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; give some of {', '.join(PARTS)}")
    lab = Lab(options.model, options.n, options.threads)
    document = {
        "schema": 1,
        "benchmark": "effects",
        "model": options.model.name,
        "sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
        "n": options.n,
        **{name: PARTS[name](lab) for name in wanted},
    }
    line = json.dumps(document, separators=(",", ":"))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(f"{line}\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
