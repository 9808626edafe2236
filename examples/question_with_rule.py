"""A rule in plain Python checks a local model's answer; the model gets the complaint and answers again.

python examples/question_with_rule.py                              # the embedded SmolLM2 model (extra `smol`)
python examples/question_with_rule.py --model openai:gpt-5-mini    # any other model
"""

from __future__ import annotations

import argparse

from correction_graphs import CheckRequest, Verdict, create_cac_graph
from correction_graphs.models import load_model

QUESTION = "Describe the city of Canberra."
MOST_WORDS = 25


def short_enough(request: CheckRequest) -> Verdict:
    words = len(request.answer.split())
    return Verdict(
        passed=words <= MOST_WORDS,
        critique=f"The answer has {words} words. Give one sentence of at most {MOST_WORDS} words.",
        score=-float(words),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()

    graph = create_cac_graph(load_model(options.model, max_tokens=120), checker=short_enough, template="correctness")
    for event in graph.stream({"messages": [("user", QUESTION)]}, stream_mode="custom"):
        if event["type"] == "cac.draft":
            print(f"answer {event['round'] + 1}: {event['answer']}")
        elif event["type"] == "cac.verdict":
            print("passed" if event["passed"] else event["critique"])
        elif event["type"] == "cac.end":
            print(f"returned: answer {event['round'] + 1} ({event['status']}), {event['usage']['model_calls']} calls")


if __name__ == "__main__":
    main()
