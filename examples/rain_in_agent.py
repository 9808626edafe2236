"""An agent whose model searches for its answer: RAIN, with a value function in plain Python that likes plain language.

Nothing is scripted. The same model answers without a search as well, for comparison; one answer each is no measurement.

python examples/rain_in_agent.py                      # the embedded SmolLM2 model (extra `smol`)
python examples/rain_in_agent.py --model model.gguf   # any other GGUF file: RAIN reads the model's logits
"""

from __future__ import annotations

import argparse
import re
from itertools import pairwise

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from correction_graphs import ChatLlama, ChatRain, RainSettings
from correction_graphs.models import smollm2_path

TASK = "You explain things to children."
QUESTION = "What is a rainbow?"
A_LONG_WORD = 7


def plainness(text: str) -> float:
    """From 1 for a text without long words that says nothing twice, down to -1."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    if not words:
        return -1.0
    long = sum(len(word) >= A_LONG_WORD for word in words) / len(words)
    pairs = list(pairwise(words))
    repeated = 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
    return max(-1.0, 1 - 3 * long - 3 * repeated)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="a GGUF file")
    options = parser.parse_args()

    path = smollm2_path() if options.model == "smollm2" else options.model
    settings = RainSettings(lengths=(24,), min_length=8, max_iterations=8, accept_value=0.7, max_new_tokens=100, seed=1)
    searching = ChatRain.from_gguf(path, judge=plainness, settings=settings)
    straight = ChatLlama(backend=searching.backend, max_tokens=100)  # the same weights, loaded once

    for name, model in (("straight on", straight), ("searched", searching)):
        agent = create_agent(model, system_prompt=TASK)
        answer = agent.invoke({"messages": [HumanMessage(QUESTION)]})["messages"][-1]
        print(f"\n{name}, value {plainness(answer.text):+.2f}: {answer.text}")
    rain = answer.response_metadata["rain"]
    print(f"\nthe search judged {rain['evaluations']} texts and rewound {rain['rewinds']} times")


if __name__ == "__main__":
    main()
