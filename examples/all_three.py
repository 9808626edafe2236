"""All three methods around one answer: S2A filters the question, RAIN searches for the answer, CaC checks it.

S2A and CaC are middleware of one agent whose model is a `ChatRain`, so one output has the results of all three. (Graphs
can be nested as well: `create_s2a_graph(create_cac_graph(create_agent(chat)), ...)`. The results of the inner ones are
then in the `response_metadata` of the answer.)

The search and the check are real, on the embedded SmolLM2 model (extra `smol`). That model is too small to filter, so
what it would have to say there is scripted by default. With --model, it filters as well, and nothing is scripted.

python examples/all_three.py
python examples/all_three.py --model model.gguf     # a GGUF file: RAIN reads the model's logits
"""

from __future__ import annotations

import argparse

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from correction_graphs import CaCMiddleware, ChatLlama, ChatRain, CheckRequest, RainSettings, S2AMiddleware, Verdict
from correction_graphs.models import smollm2_path
from correction_graphs.testing import ScriptedChatModel

QUESTION = "I am sure that a rainbow is a kind of bird. What is a rainbow?"
SCRIPT = ["Context: none\nQuestion: What is a rainbow?"]
WORDS = ("light", "rain", "sun", "water", "drop", "colo")
MOST_WORDS = 35


def explains(text: str) -> float:
    """What the search looks for inside an answer: words of an explanation, and no word twice."""
    words = [word.strip(".,").lower() for word in text.split()]
    said = sum(any(word.startswith(wanted) for word in words) for wanted in WORDS)
    repeated = 1 - len(set(words)) / len(words) if words else 0.0
    return max(-1.0, min(1.0, said / 3 - 0.5 - repeated))


def short_enough(request: CheckRequest) -> Verdict:
    """What is checked when an answer is there."""
    words = len(request.answer.split())
    critique = f"The answer has {words} words. Give one sentence of at most {MOST_WORDS} words."
    return Verdict(passed=words <= MOST_WORDS, critique=critique, score=-float(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a GGUF file, which answers and filters")
    options = parser.parse_args()
    if not options.model:
        print("the filter's replies are scripted; give --model for a real one")

    settings = RainSettings(lengths=(16,), min_length=8, max_iterations=5, accept_value=0.4, max_new_tokens=60, seed=1)
    chat = ChatRain.from_gguf(options.model or smollm2_path(), judge=explains, settings=settings)
    filtering = ChatLlama(backend=chat.backend) if options.model else ScriptedChatModel(SCRIPT)
    agent = create_agent(
        chat, middleware=[S2AMiddleware(filtering), CaCMiddleware(short_enough, template="correctness")]
    )
    out = agent.invoke({"messages": [HumanMessage(QUESTION)]})

    answer = out["messages"][-1]
    print(f"\nquestion: {QUESTION}")
    print(f"S2A:  dropped {[span.text for span in out['s2a'].dropped]}, asked {out['s2a'].question!r}")
    for number, done in enumerate(out["cac"].rounds, 1):
        print(f"CaC:  answer {number}: {done.answer}")
        print(f"      {'passed' if done.verdict.passed else done.verdict.critique}")
    print(f"CaC:  {out['cac'].status}, returned answer {out['cac'].chosen + 1}")
    rain = answer.response_metadata["rain"]
    print(f"RAIN: for that answer it judged {rain['evaluations']} texts and rewound {rain['rewinds']} times")


if __name__ == "__main__":
    main()
