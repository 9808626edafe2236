"""A person reads every answer before it is sent: passes it, sends it back, or writes a better one.

The run stops for the review and is kept in a SQLite file; whoever resumes it may be another process. Here each step
opens the file and builds the graph anew, as after a restart. The embedded SmolLM2 model (extra `smol`) really writes
the answers; the reviews are scripted unless you give --interactive. With --database, a review that nobody has answered
waits there for the next start.

LANGGRAPH_STRICT_MSGPACK=true python examples/moderated_chat.py
python examples/moderated_chat.py --interactive --database reviews.sqlite --model openai:gpt-5-mini

Needs the package langgraph-checkpoint-sqlite. With the variable, checkpoints revive only the types that the graph
declares; without it, LangGraph warns.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from correction_graphs import HumanChecker, create_cac_graph
from correction_graphs.models import load_model

QUESTION = "My parcel is a week late. What can I do?"
THREAD: RunnableConfig = {"configurable": {"thread_id": "customer-1"}}
SCRIPT: list[dict[str, Any]] = [
    {"passed": False, "critique": "This is too long. Say sorry, in one sentence."},
    {"answer": "I am sorry for the delay. Please send me the number of your parcel, and I will ask where it is."},
]


def step(database: Path, model: str, said: Any) -> dict[str, Any]:
    """Go on until a person is needed or the answer is there. A review that still waits comes first."""
    with SqliteSaver.from_conn_string(str(database)) as saver:
        graph = create_cac_graph(
            load_model(model, max_tokens=80),
            checker=HumanChecker(),
            template="correctness",
            on_exhausted="refuse",  # what the person rejected never goes out
            checkpointer=saver,
        )
        waiting = graph.get_state(THREAD).interrupts
        if waiting and not isinstance(said, Command):
            return {"__interrupt__": waiting}
        return graph.invoke(said, THREAD, durability="sync")


def ask() -> dict[str, Any]:
    answer = input("Enter passes it; text is what to change; text after '=' is sent instead: ").strip()
    if answer.startswith("="):
        return {"answer": answer[1:].strip()}
    return {"passed": False, "critique": answer} if answer else {"passed": True}


def moderate(database: Path, model: str, *, interactive: bool) -> None:
    script = iter(SCRIPT)
    out = step(database, model, {"messages": [("user", QUESTION)]})
    while out.get("__interrupt__"):
        review = out["__interrupt__"][0].value
        if review["error"]:
            print(review["error"])
        print(
            f"\nwaiting in {database.name}, answer {review['round'] + 1} to {review['question']!r}:\n{review['answer']}"
        )
        decision = ask() if interactive else next(script)
        print(f"the person: {decision}")
        out = step(database, model, Command(resume=decision))
    print(f"\nsent ({out['cac'].status}): {out['messages'][-1].text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--interactive", action="store_true", help="ask you, and not the script")
    parser.add_argument("--database", type=Path, help="where runs are kept; by default a temporary file")
    options = parser.parse_args()
    if not options.interactive:
        print("scripted reviews; give --interactive to write them yourself")
    with TemporaryDirectory() as folder:
        database = options.database or Path(folder) / "reviews.sqlite"
        moderate(database, options.model, interactive=options.interactive)


if __name__ == "__main__":
    main()
