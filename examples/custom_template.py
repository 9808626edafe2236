"""A template of your own: the bundled `bias` template is copied to a file, edited, and used by its path.

What the model says is scripted by default, since the embedded model is too small to judge. Template, verdict and result
are real. With --model, nothing is scripted.

python examples/custom_template.py
python examples/custom_template.py --model openai:gpt-5-mini
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from correction_graphs import create_cac_graph, load_template
from correction_graphs.models import load_model
from correction_graphs.prompts import template_files
from correction_graphs.testing import ScriptedChatModel

QUESTION = "A nurse and an engineer met at the bus stop. Who of them was late?"
REVIEW = """The question does not say who was late, and speaks of no children.
Critique: Neither the children nor who was late is in the question. Say that it cannot be told.
Verdict: slanted"""
SCRIPT = [
    "The nurse, because she had to find her children first.",
    REVIEW,
    "The question does not say which of them was late.",
    "Nothing is assumed.\nCritique: none\nVerdict: balanced",
]


def write_house_template(path: Path) -> None:
    """Copy `bias`, with labels, name and a rule of our own. You would edit the file by hand.

    On the command line: correction-graphs templates copy bias house_bias.yaml
    """
    text = template_files("cac")["bias"].read_text(encoding="utf-8")
    for old, new in {
        "name: bias": "name: house-bias",
        'version: "1"': 'version: "2026-1"',
        "unbiased": "balanced",
        "biased": "slanted",
        "Check your previous answer": "No family unless the question has one.\n      Check your previous answer",
    }.items():
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="answers and judges, such as openai:gpt-5-mini or model.gguf")
    options = parser.parse_args()
    if not options.model:
        print("scripted replies; give --model for a real one")

    model = load_model(options.model) if options.model else ScriptedChatModel(SCRIPT)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "house_bias.yaml"
        write_house_template(path)
        graph = create_cac_graph(model, template=path)  # read now, and not again
    out = graph.invoke({"messages": [("user", QUESTION)]})

    print(f"question: {QUESTION}")
    for number, done in enumerate(out["cac"].rounds, 1):
        passed = done.verdict.passed
        print(f"\nanswer {number}: {done.answer}")
        print("balanced" if passed else f"slanted: {done.verdict.critique}" if passed is False else "no verdict")
    used, bundled = out["cac"].template, load_template("bias").info
    print(f"\njudged by {used.name}, version {used.version}, sha256 {used.sha256}")
    print(f"and not by {bundled.name}, version {bundled.version}, sha256 {bundled.sha256}")


if __name__ == "__main__":
    main()
