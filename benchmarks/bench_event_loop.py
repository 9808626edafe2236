"""How long an event loop stands still while a search on it shares a local model with somebody else.

A RAIN search runs on the loop; in half of the trials, in turn, a chat model reads a long prompt on the same backend at
the same time, in a thread. A third task ticks every 5 ms and notes the longest pause of each trial.

    python benchmarks/bench_event_loop.py [--model FILE.gguf] [--trials N] [--words N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from measuring import arbitrary

from correction_graphs import ChatLlama, RainSettings, create_rain_graph
from correction_graphs.models import smollm2_path

TICK = 0.005


async def longest_pause(work: Any) -> float:
    """Return the longest time between two ticks, less the tick, while `work` is under way."""
    pauses = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            pauses.append(time.perf_counter() - began - TICK)

    ticking = asyncio.create_task(tick())
    await work
    ticking.cancel()
    return max(pauses)


async def measure(chat: ChatLlama, trials: int, words: int) -> dict[str, list[float]]:
    settings = RainSettings(max_new_tokens=12, candidates=2, max_iterations=4, seed=0)
    search = create_rain_graph(chat.backend, judge=arbitrary, settings=settings)
    found: dict[str, list[float]] = {"alone": [], "beside a long prompt": []}

    async def asked(number: int, *, beside: bool) -> None:
        reading = asyncio.create_task(chat.ainvoke(f"{number} " + "word " * words)) if beside else None
        await asyncio.sleep(0.1)  # now it computes
        await search.ainvoke({"messages": [("user", f"How is a bicycle mended, in {number} steps?")]})
        if reading:
            await reading

    await asked(0, beside=False)  # what is loaded at the first use
    for number in range(trials):
        for name, pauses in found.items():
            pauses.append(round(await longest_pause(asked(number, beside=name != "alone")), 4))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; by default the embedded SmolLM2")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--words", type=int, default=1000, help="of the long prompt")
    options = parser.parse_args()
    chat = ChatLlama.from_gguf(options.model or smollm2_path(), max_tokens=4)
    found = asyncio.run(measure(chat, options.trials, options.words))
    for name, pauses in found.items():
        print(f"{name:>20}: longest pause {max(pauses) * 1000:.0f} ms, median of the trials' longest "
              f"{sorted(pauses)[len(pauses) // 2] * 1000:.0f} ms, n = {len(pauses)}")  # fmt: skip
    print(json.dumps({"benchmark": "event_loop", "words": options.words, "longest_pause_s": found}))


if __name__ == "__main__":
    main()
