"""Train the lab's model from scratch, and write it as a GGUF file.

    python examples/fallible_model/train.py [--size large] [--steps 6000] [--seed 0] [--out DIRECTORY]

Needs `pip install --group train` besides the library. One seed gives one model, up to the arithmetic of the
machine. Besides the GGUF files it writes a report: losses, and each flaw and skill measured on held-out questions. The
last line is that report as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from export import write_gguf
from lessons import School
from network import SIZES, Network, Shape
from report import flaws_and_skills
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from vocabulary import encoded, trained

from correction_graphs.lab.world import World

PROMPT_WEIGHT = 0.05  # of the loss on what is asked, beside what is answered


class Batch:
    """Dialogues of similar length in one array.

    Attributes:
        tokens: Of shape (dialogues, length), padded with 0.
        weights: How much each next token counts, of shape (dialogues, length - 1).
        subjects: What each dialogue teaches.
    """

    def __init__(self, dialogues: list[tuple[str, list[int], int]]) -> None:
        length = max(len(tokens) for _, tokens, _ in dialogues)
        self.subjects = [subject for subject, _, _ in dialogues]
        self.tokens = torch.zeros(len(dialogues), length, dtype=torch.long)
        self.weights = torch.zeros(len(dialogues), length - 1)
        for row, (_, tokens, start) in enumerate(dialogues):
            self.tokens[row, : len(tokens)] = torch.tensor(tokens)
            self.weights[row, : start - 1] = PROMPT_WEIGHT
            self.weights[row, start - 1 : len(tokens) - 1] = 1.0


def batches(school: School, tokenizer: object, tokens_a_batch: int, rng: random.Random) -> Iterator[Batch]:
    """Yield batches, without end."""
    lessons = school.lessons()
    while True:
        pool = [(lesson.subject, *encoded(tokenizer, lesson.messages)) for lesson in islice(lessons, 1024)]
        pool.sort(key=lambda dialogue: len(dialogue[1]))
        found: list[Batch] = []
        rest: list[tuple[str, list[int], int]] = []
        for dialogue in pool:
            if rest and (len(rest) + 1) * len(dialogue[1]) > tokens_a_batch:
                found.append(Batch(rest))
                rest = []
            rest.append(dialogue)
        rng.shuffle(found)
        yield from found


def losses(network: Network, batch: Batch) -> Tensor:
    """Return the loss of each next token, of shape (dialogues, length - 1)."""
    states = network(batch.tokens[:, :-1])
    wanted = batch.weights > 0
    found = torch.zeros_like(batch.weights)
    found[wanted] = F.cross_entropy(network.logits(states[wanted]), batch.tokens[:, 1:][wanted], reduction="none")
    return found


def texts_of_other_worlds() -> Iterator[str]:
    """Yield texts for the tokenizer.

    Most of their names are others, so the tokens are syllables and no names: those that were never seen are made of the
    same pieces as those that were, and can be copied as well.
    """
    for seed in range(1, 9):
        for lesson in islice(School(World(seed)).lessons(), 2_500):
            yield from (text for _, text in lesson.messages)


def main() -> None:
    """Train, export, report."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    tokenizer = trained(texts_of_other_worlds(), options.vocabulary)
    network = Network(Shape(vocabulary=tokenizer.get_vocab_size(), **SIZES[options.size]))
    parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{parameters / 1e6:.2f} million parameters, {tokenizer.get_vocab_size()} tokens", flush=True)

    matrices = [weight for weight in network.parameters() if weight.dim() > 1]
    vectors = [weight for weight in network.parameters() if weight.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    stream = batches(School(World(), seed=options.seed), tokenizer, options.batch, random.Random(options.seed))
    began, seen = time.perf_counter(), 0
    by_subject: dict[str, list[float]] = defaultdict(list)
    history: list[dict[str, object]] = []
    for step, batch in enumerate(islice(stream, options.steps), 1):
        share = step / options.steps
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(step / 200, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        each = losses(network, batch)
        loss = (each * batch.weights).sum() / batch.weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seen += batch.tokens.numel()
        answers = batch.weights == 1
        rows = (each.detach() * answers).sum(1) / answers.sum(1)
        for subject, value in zip(batch.subjects, rows.tolist(), strict=True):
            by_subject[subject].append(value)
        if step % 250 == 0 or step == options.steps:
            seconds = time.perf_counter() - began
            means = {subject: round(sum(values) / len(values), 3) for subject, values in sorted(by_subject.items())}
            history.append({"step": step, "seconds": round(seconds), "tokens": seen, "losses": means})
            by_subject.clear()
            told = "  ".join(f"{subject} {value}" for subject, value in means.items())
            print(f"{step:>6} {seconds:>5.0f} s {seen / seconds:>6.0f} tokens/s  {told}", flush=True)

    held_out = held_out_losses(network, tokenizer)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out / "tokenizer.json"))
    torch.save(network.state_dict(), options.out / f"{options.size}.pt")
    for kind in ("f32", "f16"):
        write_gguf(options.out / f"fallible-{options.size}-{kind}.gguf", network, tokenizer, kind)
    weights = options.out / f"fallible-{options.size}-f16.gguf"
    how = f"--size {options.size} --steps {options.steps} --seed {options.seed}"
    report = {
        "command": f"python examples/fallible_model/train.py {how}",
        "seed": options.seed,
        "parameters": parameters,
        "tokens": seen,
        "seconds": round(time.perf_counter() - began),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "losses": {"training": history[-1]["losses"], "held_out": held_out},
        **flaws_and_skills(weights),
    }
    (options.out / f"fallible-{options.size}.json").write_text(f"{json.dumps(report, indent=1)}\n", encoding="utf-8")
    print(json.dumps({**report, "history": history}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=4096, help="tokens in a batch")
    parser.add_argument("--rate", type=float, default=2e-3, help="the highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("fallible"))
    return parser.parse_args()


def held_out_losses(network: Network, tokenizer: object) -> dict[str, float]:
    """Return the mean loss of answers by subject, on questions that are never taught."""
    found: dict[str, list[float]] = defaultdict(list)
    for batch in islice(batches(School(World(), split="held_out"), tokenizer, 4096, random.Random(0)), 50):
        answers = batch.weights == 1
        with torch.no_grad():
            rows = (losses(network, batch) * answers).sum(1) / answers.sum(1)
        for subject, value in zip(batch.subjects, rows.tolist(), strict=True):
            found[subject].append(value)
    return {subject: round(sum(values) / len(values), 4) for subject, values in sorted(found.items())}


if __name__ == "__main__":
    main()
