"""RAIN writes the answers that a rule in plain Python checks: each draft is searched for, and rewound on the way.

python examples/rain_in_cac.py                        # the embedded SmolLM2 model (extra `smol`)
python examples/rain_in_cac.py --model model.gguf     # any other GGUF file: RAIN reads the model's logits
"""

from __future__ import annotations

import argparse

from correction_graphs import CheckRequest, Verdict, create_cac_graph
from correction_graphs.models import smollm2_path
from correction_graphs.rain.chat import ChatRain
from correction_graphs.rain.settings import RainSettings

QUESTION = "Describe the sea."
WORDS = ("blue", "water", "wave", "deep", "salt", "fish")


def vividness(text: str) -> float:
    """What the search looks for inside an answer: words that one can see, and no word twice."""
    words = [word.strip(".,").lower() for word in text.split()]
    seen = sum(any(word.startswith(wanted) for word in words) for wanted in WORDS)
    repeated = 1 - len(set(words)) / len(words) if words else 0.0
    return max(-1.0, min(1.0, seen / 2 - 0.5 - repeated))


def names_the_fish(request: CheckRequest) -> Verdict:
    """What is checked when an answer is there."""
    return Verdict(
        passed="fish" in request.answer.lower(),
        critique="The answer says nothing of who lives in the sea. Name the fish.",
        score=vividness(request.answer),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()

    path = smollm2_path() if options.model == "smollm2" else options.model
    settings = RainSettings(max_new_tokens=40, lengths=(16,), max_iterations=5, seed=1)
    chat = ChatRain.from_gguf(path, judge=vividness, settings=settings)
    graph = create_cac_graph(chat, checker=names_the_fish, template="correctness", max_rounds=1)
    out = graph.invoke({"messages": [("user", QUESTION)]})

    result, answer = out["cac"], out["messages"][-1]
    for number, done in enumerate(result.rounds, 1):
        print(f"answer {number}: {done.answer}")
        print("passed" if done.verdict.passed else done.verdict.critique)
    rain = answer.response_metadata["rain"]
    print(f"returned: answer {[done.answer for done in result.rounds].index(answer.text) + 1} ({result.status})")
    print(f"its search judged {rain['evaluations']} texts and rewound {rain['rewinds']} times")


if __name__ == "__main__":
    main()
