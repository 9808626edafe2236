"""Runs CaC graphs in processes that may be killed at any moment, and has them killed.

The modules are imported once; a run is a forked child, which starts within milliseconds. Jobs come as JSON lines on
stdin, and what became of each goes out as a JSON line. A child leaves nothing but files in the job's folder:

`log`: One JSON line for every event, synced to the disk before anything else happens: `start` and `end` of each call of
    the model and of the checker, and `found`, the calls whose outcome lies in the checkpointer when a run begins.
`result`: What the graph returned, renamed into place when it is whole.

A call is known by its reply, and a reply holds a digest of all that was asked, the replies before it included: a run
that resumes from anything but what the killed one knew says something else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"  # read when LangGraph is imported, so before that

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph.state import CompiledStateGraph

from correction_graphs import CheckRequest, LLMCritic, Verdict, create_cac_graph

with contextlib.suppress(ImportError):  # not installed, or without libpq
    from langgraph.checkpoint.postgres import PostgresSaver

INPUT = {"messages": [SystemMessage("Be brief."), HumanMessage("Which city?", id="question")]}
MAX_ROUNDS = 3


class Log:
    """The events of one thread, from all of its processes."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, event: str, *calls: str) -> None:
        """Append a line, at once and for good."""
        os.write(self._file, json.dumps({"event": event, "calls": calls}).encode() + b"\n")
        os.fsync(self._file)

    def call(self, reply: str) -> str:
        """Log a call around the 5 to 20 ms that it takes."""
        self.write("start", reply)
        time.sleep(0.005 + int(_digest(reply), 16) % 16 / 1000)
        self.write("end", reply)
        return reply


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


class Writer(BaseChatModel):
    """Answers with the number of its answer."""

    log: Any

    @property
    def _llm_type(self) -> str:
        return "writer"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        number = 1 + sum(isinstance(message, AIMessage) for message in messages)
        reply = self.log.call(f"Answer {number} to {_asked(messages)}")
        usage = {"input_tokens": len(messages), "output_tokens": len(reply), "total_tokens": len(messages) + len(reply)}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(reply, usage_metadata=usage))])


class Judge(BaseChatModel):
    """Finds a third answer correct, and no other."""

    log: Any

    @property
    def _llm_type(self) -> str:
        return "judge"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        label = "correct" if messages[-2].text.startswith("Answer 3 ") else "incorrect"
        critique = self.log.call(f"Flaw in {_asked(messages)}.")
        reply = AIMessage(f"Let me see.\nCritique: {critique}\nVerdict: {label}")
        return ChatResult(generations=[ChatGeneration(message=reply)])


def _asked(messages: list[BaseMessage]) -> str:
    return _digest(*(f"{message.type}: {message.text}" for message in messages))


def build(checker: str, log: Log, saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A graph that ends at its limit of rounds ("function"), or passes in the third ("critic")."""

    def finds_a_flaw(request: CheckRequest) -> Verdict:
        known = [text for done in request.rounds for text in (done.answer, done.verdict.critique)]
        critique = log.call(f"Flaw in {_digest(*known, request.answer)}.")
        return Verdict(passed=False, critique=critique, score=0.9 if len(request.rounds) == 1 else 0.4)

    return create_cac_graph(
        Writer(log=log),
        checker=finds_a_flaw if checker == "function" else LLMCritic(Judge(log=log), template="correctness"),
        template="correctness",
        max_rounds=MAX_ROUNDS,
        checkpointer=saver,
    )


@contextlib.contextmanager
def open_saver(where: str) -> Iterator[BaseCheckpointSaver[Any]]:
    """The saver of a PostgreSQL database (a connection string), of an SQLite file (a path), or of this process ("")."""
    if not where:
        yield InMemorySaver()
    elif where.startswith("postgresql:"):
        with PostgresSaver.from_conn_string(where) as saver:
            yield saver
    else:
        with contextlib.closing(sqlite3.connect(where, check_same_thread=False)) as connection:
            yield SqliteSaver(connection)


def stored_calls(saver: BaseCheckpointSaver[Any], config: Any) -> list[str] | None:
    """The calls that a resumed run has no reason to repeat; None if nothing at all was stored."""
    newest = saver.get_tuple(config)
    if newest is None:
        return None
    values = {**newest.checkpoint["channel_values"]}
    values.update({channel: value for _, channel, value in newest.pending_writes or ()})
    story = values.get("cac") or values.get("cac_progress")  # the result takes the place of the progress
    rounds = story.rounds if story else ()
    return [text for done in rounds for text in (done.answer, done.verdict and done.verdict.critique) if text]


def run(job: dict[str, Any]) -> None:
    """Begin the job's thread, or go on with it, as far as this process lives."""
    folder = Path(job["folder"])
    config = {"configurable": {"thread_id": job["thread"]}}
    log = Log(folder)
    with open_saver(job["saver"]) as saver:
        graph = build(job["checker"], log, saver)
        stored = stored_calls(graph.checkpointer, config)
        log.write("found", *(stored or ()))
        out = graph.invoke(INPUT if stored is None else None, config, durability="sync")
    result = {
        "messages": [[message.type, message.text] for message in out["messages"]],
        "answer": out["cac"].answer,
        "cac": out["cac"].model_dump(mode="json"),
    }
    (folder / "result.part").write_text(json.dumps(result))
    (folder / "result.part").rename(folder / "result")


def fork(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a child, and kill it after `kill_after` seconds unless that is None."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(job)
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    if job["kill_after"] is not None:
        time.sleep(max(0.0, started + job["kill_after"] - time.monotonic()))
        os.kill(child, signal.SIGKILL)  # without effect on a child that has ended: nobody has waited for it yet
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"killed": code == -signal.SIGKILL, "code": code, "seconds": time.monotonic() - started}


def main() -> None:
    """Answer the jobs on stdin, one by one."""
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(fork(job)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
