"""An agent reads a specification with a tool and writes code; your tests run on it, and what fails goes back to it.

What the model says is scripted by default, since the embedded model is too small to call tools. The tool, the tests and
their failure are real. With --model (one that can call tools), nothing is scripted.

The code runs on this machine with your rights. That is no security sandbox: see `CodeChecker`.

python examples/coding_agent.py
python examples/coding_agent.py --model openai:gpt-5-mini
"""

from __future__ import annotations

import argparse

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from correction_graphs import CaCMiddleware, CodeChecker
from correction_graphs.models import load_model
from correction_graphs.testing import ScriptedChatModel

TASK = "Write the Python function that the specification 'shares' asks for. Reply with one block of code."
SPECIFICATIONS = {
    "shares": "shares(cents: int, people: int) -> list[int] splits a bill. No cent may get lost, and no two shares may "
    "differ by more than one cent. Larger shares come first."
}
TESTS = """
def test_even():
    assert shares(90, 3) == [30, 30, 30]

def test_no_cent_is_lost():
    assert sum(shares(100, 3)) == 100

def test_larger_shares_come_first():
    assert shares(5, 3) == [2, 2, 1]
"""
FIRST = """```python
def shares(cents, people):
    return [cents // people] * people
```"""
SECOND = """```python
def shares(cents, people):
    share, rest = divmod(cents, people)
    return [share + (at < rest) for at in range(people)]
```"""
SCRIPT: list[str | AIMessage] = [
    AIMessage("", tool_calls=[{"name": "read_specification", "args": {"name": "shares"}, "id": "call-1"}]),
    FIRST,
    SECOND,
]


@tool
def read_specification(name: str) -> str:
    """Return the text of a specification."""
    return SPECIFICATIONS.get(name, f"There is no such specification; there are: {', '.join(SPECIFICATIONS)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model that can call tools, such as openai:gpt-5-mini")
    options = parser.parse_args()
    if not options.model:
        print("scripted replies; give --model for a real one")

    model = load_model(options.model) if options.model else ScriptedChatModel(SCRIPT)
    checked = CaCMiddleware(CodeChecker(TESTS, allow_execution=True), template="correctness", max_rounds=3)
    agent = create_agent(model, [read_specification], middleware=[checked])  # type: ignore[arg-type]
    out = agent.invoke({"messages": [HumanMessage(TASK)]})

    for message in out["messages"]:
        if isinstance(message, ToolMessage):
            print(f"\nthe tool {message.name} said: {message.text}")
    for number, done in enumerate(out["cac"].rounds, 1):
        print(f"\nanswer {number}:\n{done.answer}")
        print("all tests passed" if done.verdict.passed else done.verdict.critique)
    roles = ", ".join(message.type for message in out["messages"])
    print(f"\nreturned: answer {out['cac'].chosen + 1} ({out['cac'].status}); in the history: {roles}")


if __name__ == "__main__":
    main()
