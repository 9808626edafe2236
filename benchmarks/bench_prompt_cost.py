"""What a CaC run costs on a local model: prompt tokens against forwarded tokens, call by call.

A prompt token is one that a call asks the model to read; a forwarded token is one that went through the model, counted
by the backend. The control replays the very same calls, each on a freshly loaded model: what is paid without a cache.

    python benchmarks/bench_prompt_cost.py [--model FILE.gguf] [--rounds N] [--max-tokens N]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from correction_graphs import ChatLlama, create_cac_graph
from correction_graphs.models import smollm2_path

QUESTION = (
    "A museum sells tickets for 12 euros. On Monday 30 people came, on Tuesday 45, and on Wednesday it was closed. "
    "How much money did the museum take in on these three days? Explain in two sentences."
)


class Ledger(BaseCallbackHandler):
    """Writes down, for each call of one model, what it was asked and what the backend forwarded for it."""

    run_inline = True

    def __init__(self, chat: ChatLlama) -> None:
        self.backend = chat.backend
        self.calls: list[dict[str, Any]] = []
        self.asked: list[list[BaseMessage]] = []

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """A call begins."""
        self.asked.append(messages[0])
        self.calls.append({"forwarded": -self.backend.forwarded_tokens, "seconds": -time.perf_counter()})

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """A call ends."""
        call = self.calls[-1]
        call["forwarded"] += self.backend.forwarded_tokens
        call["seconds"] = round(call["seconds"] + time.perf_counter(), 3)
        generation = response.generations[0][0]
        if isinstance(generation, ChatGeneration):
            usage = getattr(generation.message, "usage_metadata", None) or {}
            call["prompt"] = usage["input_tokens"]
            call["cached"] = usage["input_token_details"]["cache_read"]
            call["written"] = usage["output_tokens"]


def added(calls: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: sum(call[key] for call in calls) for key in calls[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; by default the embedded SmolLM2")
    parser.add_argument("--rounds", type=int, default=2, help="revisions; all are made, the checker passes nothing")
    parser.add_argument("--max-tokens", type=int, default=64)
    options = parser.parse_args()
    path = options.model or smollm2_path()

    def load() -> ChatLlama:
        return ChatLlama.from_gguf(path, max_tokens=options.max_tokens, repeat_penalty=1.15)

    chat = load()
    ledger = Ledger(chat)
    graph = create_cac_graph(chat, template="correctness", style="natural_language", max_rounds=options.rounds)
    graph.invoke({"messages": [("user", QUESTION)]}, {"callbacks": [ledger]})
    chat.backend.close()

    cold: list[dict[str, Any]] = []
    for messages in ledger.asked:
        fresh = load()
        control = Ledger(fresh)
        fresh.invoke(messages, {"callbacks": [control]})
        fresh.backend.close()
        cold += control.calls

    names = [f"{'check of ' * (number % 2)}answer {number // 2 + 1}" for number in range(len(cold))]
    print("call                prompt  cached  written  forwarded  seconds   without a cache: forwarded  seconds")
    for name, *calls in zip([*names, "all"], [*ledger.calls, added(ledger.calls)], [*cold, added(cold)], strict=True):
        warm, control_call = calls
        print(
            f"{name:<18}{warm['prompt']:>8}{warm['cached']:>8}{warm['written']:>9}{warm['forwarded']:>11}"
            f"{warm['seconds']:>9.2f}{control_call['forwarded']:>29}{control_call['seconds']:>9.2f}"
        )
    ratio = added(ledger.calls)["forwarded"] / added(cold)["forwarded"]
    print(f"forwarded tokens: {ratio:.2f} of those without a cache (one run, n = 1 question)")
    print(
        json.dumps(
            {
                "schema": 1,
                "benchmark": "prompt_cost",
                "model": path.name,
                "python": sys.version.split()[0],
                "rounds": options.rounds,
                "calls": ledger.calls,
                "no_cache": cold,
                "forwarded_ratio": round(ratio, 4),
            }
        )
    )


if __name__ == "__main__":
    main()
