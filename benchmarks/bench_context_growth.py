"""How the context of the answer call grows from round to round, strategy by strategy, on a local model.

The model really writes every answer, with a temperature and a seed for each call; one that it gave before is drawn
again, as a repeated answer ends a run. The checker rejects all of them with the same critique, so that every round is
made. Each strategy begins with an empty cache. After the run with demonstrations the same model is asked several other
questions, which counts what the prompt cache saves once it holds the demonstrations.

    python benchmarks/bench_context_growth.py [--model FILE.gguf] [--rounds N] [--max-tokens N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from correction_graphs import ChatLlama, CheckRequest, Verdict, create_cac_graph
from correction_graphs.demonstrations import Demonstration, DemonstrationBank
from correction_graphs.models import smollm2_path

QUESTION = (
    "A museum sells tickets for 12 euros. On Monday 30 people came, on Tuesday 45, and on Wednesday it was closed. "
    "How much money did the museum take in on these three days? Explain in two sentences."
)
CRITIQUE = "The total is wrong. Multiply the price of a ticket by the number of visitors of both days, and say how."
QUESTIONS = [
    "A baker sells 14 loaves in the morning and 9 in the afternoon at 3 euros each. What does he earn?",
    "A train travels 80 kilometres an hour for two and a half hours. How far does it get?",
    "Lena has 50 euros and buys four books at 11 euros each. What is left?",
    "A tank holds 240 litres and loses 12 litres an hour. When is it empty?",
    "Six friends share a bill of 93 euros equally. What does each of them pay?",
    "A garden is 8 metres long and 5 metres wide. How much fence goes around it?",
]
DEMONSTRATIONS = [
    Demonstration(question=question, answer=answer, critique=critique, corrected=right)
    for question, answer, critique, right in [
        (
            "A cinema sells 20 tickets at 9 euros and 15 at 6 euros. What does it take in?",
            "The cinema sells 35 tickets at 9 euros each, so it takes in 315 euros.",
            "The 15 cheaper tickets cost 6 euros, not 9; multiply each group by its own price.",
            "20 tickets at 9 euros are 180 euros, 15 at 6 euros are 90 euros. It takes in 270 euros.",
        ),
        (
            "Tom runs 4 kilometres on each of 5 days and 7 kilometres on Saturday. How far does he run?",
            "Tom runs 4 + 5 + 7 = 16 kilometres in the week.",
            "The five days must be multiplied by 4 kilometres, not added to them.",
            "On five days he runs 5 times 4, that is 20 kilometres. With Saturday's 7 it is 27 kilometres.",
        ),
        (
            "A shirt of 40 euros is reduced by a quarter. What does it cost now?",
            "A quarter of 40 is 10, so the shirt costs 10 euros now.",
            "10 euros is the reduction. The price is what is left of 40 euros.",
            "A quarter of 40 euros is 10 euros. The shirt costs 40 - 10 = 30 euros now.",
        ),
        (
            "Three painters need 8 hours for a house. How long does one of them need alone?",
            "Three painters need 8 hours, so one needs 8 / 3, less than 3 hours.",
            "One painter alone is slower than three, so the time must be longer, not shorter.",
            "The house is 3 times 8, that is 24 hours of work. One painter needs 24 hours.",
        ),
        (
            "A box holds 12 eggs. How many boxes do 100 eggs need?",
            "100 divided by 12 is 8 with 4 left, so 8 boxes are needed.",
            "The 4 eggs that are left need a box, too.",
            "8 boxes hold 96 eggs, and the other 4 need one more. 9 boxes are needed.",
        ),
        (
            "It is 10:50. The bus comes in 25 minutes. At what time?",
            "10:50 and 25 minutes are 10:75, so the bus comes at 10:75.",
            "An hour has 60 minutes; 10:75 is not a time of day.",
            "10 minutes later it is 11:00, and 15 more are left. The bus comes at 11:15.",
        ),
        (
            "Anna is 6 years older than Ben, who is twice as old as Carl. Carl is 7. How old is Anna?",
            "Ben is 14 years old, and Anna is 6 years younger, so she is 8.",
            "Anna is older than Ben, so the 6 years must be added.",
            "Ben is twice 7, that is 14. Anna is 14 + 6 = 20 years old.",
        ),
        (
            "A recipe for 4 people needs 600 grams of flour. How much is needed for 6?",
            "For 6 people it is 600 + 2, that is 602 grams of flour.",
            "Find what one person needs first, then multiply by the number of people.",
            "One person needs 600 / 4 = 150 grams. Six people need 6 times 150, that is 900 grams.",
        ),
    ]
]
STRATEGIES: dict[str, Any] = {
    "self": "self",
    "self_instruct": "self_instruct",
    "fresh": "fresh",
    "ranked": "ranked",
    f"demonstrations ({len(DEMONSTRATIONS)})": DemonstrationBank(DEMONSTRATIONS),
}


class Varied(Runnable[Any, AIMessage]):
    """A model that gives no answer twice: it draws with one seed after another until an answer is new.

    Attributes:
        calls: What the first draw of each call cost, by the node of the graph that made it.
    """

    def __init__(self, chat: ChatLlama, seed: int) -> None:
        self.chat = chat
        self.seeds = count(seed)
        self.given: set[str] = set()
        self.calls: dict[str, list[dict[str, int]]] = {}

    def invoke(self, input: list[BaseMessage], config: RunnableConfig | None = None, **_: Any) -> AIMessage:  # noqa: A002
        draws = (self.chat.invoke(input, config, seed=seed) for seed in self.seeds)
        reply = next(draws)
        usage: Any = reply.usage_metadata
        call = {
            "prompt": usage["input_tokens"],
            "cached": usage["input_token_details"]["cache_read"],
            "written": usage["output_tokens"],
        }
        self.calls.setdefault((config or {}).get("metadata", {})["langgraph_node"], []).append(call)
        while " ".join(reply.text.split()) in {*self.given, ""}:
            reply = next(draws)
        self.given.add(" ".join(reply.text.split()))
        return reply


def rejects(_: CheckRequest) -> Verdict:
    """Reject whatever it is."""
    return Verdict(passed=False, critique=CRITIQUE)


def grow(chat: ChatLlama, strategy: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the answer calls of one run cost."""
    model, began = Varied(chat, options.seed), time.perf_counter()
    graph = create_cac_graph(
        model, checker=rejects, template="correctness", strategy=strategy, max_rounds=options.rounds
    )
    # One at a time, so that each sample gets the same seed in every run.
    graph.invoke({"messages": [("user", QUESTION)]}, {"max_concurrency": 1})
    calls, samples = model.calls["generate"], model.calls.get("recontextualize", [])
    prompts = [call["prompt"] for call in calls]
    return {
        "prompt": prompts,
        "growth": [later - earlier for earlier, later in pairwise(prompts)],
        "written": [call["written"] for call in calls],
        "cached_share": [round(call["cached"] / call["prompt"], 3) for call in calls],
        "samples": len(samples),
        "samples_cached_share": cached_share(samples) if samples else None,
        "seconds": round(time.perf_counter() - began, 2),
    }


def ask_all(chat: ChatLlama, bank: DemonstrationBank) -> list[dict[str, int]]:
    """Return what each of several questions costs with the demonstrations in front: one answer, which passes."""
    graph = create_cac_graph(chat.bind(max_tokens=1), checker=lambda _: True, template="correctness", strategy=bank)
    results = [graph.invoke({"messages": [("user", question)]})["cac"] for question in QUESTIONS]
    return [{"prompt": result.usage.input_tokens, "cached": result.usage.cached_tokens} for result in results]


def cached_share(calls: list[dict[str, int]]) -> float:
    """Return which part of the prompt tokens came from the cache."""
    return round(sum(call["cached"] for call in calls) / sum(call["prompt"] for call in calls), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; by default the embedded SmolLM2")
    parser.add_argument("--rounds", type=int, default=4, help="revisions; all are made, the checker passes nothing")
    parser.add_argument("--max-tokens", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path = options.model or smollm2_path()

    grown: dict[str, dict[str, Any]] = {}
    asked: list[dict[str, int]] = []
    for name, strategy in STRATEGIES.items():
        chat = ChatLlama.from_gguf(path, temperature=1.0, repeat_penalty=1.15, max_tokens=options.max_tokens)
        grown[name] = grow(chat, strategy, options)
        if isinstance(strategy, DemonstrationBank):
            asked = ask_all(chat, strategy)
        chat.backend.close()
    print("prompt tokens of the answer call, and the share of them that came from the cache")
    print(" " * 20 + "".join(f"{f'answer {number + 1}':>10}" for number in range(options.rounds + 1)))
    for name, run in grown.items():
        growth = ", ".join(f"{more:+}" for more in run["growth"])
        print(f"{name:<20}{''.join(f'{tokens:>10}' for tokens in run['prompt'])}   growth: {growth}")
        print(f"{'':<20}{''.join(f'{share:>10.1%}' for share in run['cached_share'])}   {run['seconds']} s")
    ranked = grown["ranked"]
    print(
        f"ranked drew {ranked['samples']} further answers; "
        f"{ranked['samples_cached_share']:.1%} of their prompt tokens came from the cache"
    )
    first, share = cached_share(asked[:1]), cached_share(asked[1:])
    print(
        f"{len(DEMONSTRATIONS)} demonstrations: of the prompt tokens of the first further question {first:.1%} came "
        f"from the cache, of those of the {len(asked) - 1} after it {share:.1%}"
    )
    print(
        json.dumps(
            {
                "schema": 1,
                "benchmark": "context_growth",
                "model": path.name,
                "python": sys.version.split()[0],
                "rounds": options.rounds,
                "max_tokens": options.max_tokens,
                "seed": options.seed,
                "strategies": grown,
                "demonstrations": {"questions": asked, "cached_share_after_first": share},
            }
        )
    )


if __name__ == "__main__":
    main()
