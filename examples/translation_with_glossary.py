"""A translation is checked against a glossary: the score is the share of terms respected, the critique names the rest.

What the model says is scripted by default, since the embedded model translates too badly. The check is real, and a
plain function. With --model, nothing is scripted.

python examples/translation_with_glossary.py
python examples/translation_with_glossary.py --model openai:gpt-5-mini
"""

from __future__ import annotations

import argparse

from correction_graphs import CheckRequest, Verdict, create_cac_graph
from correction_graphs.models import load_model
from correction_graphs.testing import ScriptedChatModel

SOURCE = "The invoice is payable by the due date. After that, a late fee is added."
GLOSSARY = {"invoice": "Rechnung", "due date": "Fälligkeitsdatum", "late fee": "Mahngebühr"}
SCRIPT = [
    "Die Faktura ist bis zum Stichtag zahlbar. Danach kommt ein Säumniszuschlag hinzu.",
    "Die Rechnung ist bis zum Fälligkeitsdatum zahlbar. Danach kommt ein Säumniszuschlag hinzu.",
    "Die Rechnung ist bis zum Fälligkeitsdatum zahlbar. Danach kommt eine Mahngebühr hinzu.",
]


def follows_the_glossary(request: CheckRequest) -> Verdict:
    due = {term: wanted for term, wanted in GLOSSARY.items() if term in SOURCE.lower()}
    missed = {term: wanted for term, wanted in due.items() if wanted.lower() not in request.answer.lower()}
    return Verdict(
        passed=not missed,
        critique=" ".join(f"Translate {term!r} as {wanted!r}." for term, wanted in missed.items()),
        score=1 - len(missed) / len(due),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="translates, such as openai:gpt-5-mini or model.gguf")
    options = parser.parse_args()
    if not options.model:
        print("scripted replies; give --model for a real one")

    model = load_model(options.model) if options.model else ScriptedChatModel(SCRIPT)
    graph = create_cac_graph(model, checker=follows_the_glossary, template="correctness", max_rounds=3)
    out = graph.invoke({"messages": [("user", f"Translate into German. Write the translation only.\n\n{SOURCE}")]})

    print(f"source: {SOURCE}")
    for number, done in enumerate(out["cac"].rounds, 1):
        print(f"\ntranslation {number}: {done.answer}")
        print(f"glossary: {done.verdict.score:.0%}. {done.verdict.critique}".rstrip())
    print(f"\nreturned: translation {out['cac'].chosen + 1} ({out['cac'].status})")


if __name__ == "__main__":
    main()
