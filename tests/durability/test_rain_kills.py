"""A RAIN run whose process is killed at any moment goes on in another, and no committed word is lost or said twice.

What is promised under `durability="sync"`: a token set that lies in the checkpointer stays, word for word. The search
after it begins anew, so a killed run may end otherwise than an undisturbed one; here it cannot, since the model has one
good thing to say.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes that it kills"),
]

TEXT = "".join(f"It is good, {word}. " for word in ("one", "two", "three", "four", "five", "six")) + "Yes."

WORKER = """
import contextlib, json, os, signal, sqlite3, sys, time, traceback
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
from langgraph.checkpoint.sqlite import SqliteSaver
from correction_graphs.rain.graph import create_rain_graph
from talkers import choosing, liking

THREAD = {"configurable": {"thread_id": "1"}}

def run(folder):
    with contextlib.closing(sqlite3.connect(folder + "/sqlite", check_same_thread=False)) as connection:
        saver = SqliteSaver(connection)
        backend = choosing("It is bad.", TEXT, seconds_a_row=0.001)
        graph = create_rain_graph(backend, judge=liking("good"), checkpointer=saver)
        stored = graph.checkpointer.get_tuple(THREAD)  # which knows the types of the graph
        values = stored.checkpoint["channel_values"] if stored else {}
        story = values.get("rain") or getattr(values.get("rain_progress"), "result", None)
        with open(folder + "/log", "a") as log:
            log.write(json.dumps([list(commit.tokens) for commit in story.commits] if story else []) + "\\n")
        ask = None if stored else {"messages": [("user", "hi")]}
        out = graph.invoke(ask, THREAD, durability="sync")
        texts = [message.text for message in out["messages"]]
        commits = [list(commit.tokens) for commit in out["rain"].commits]
        with open(folder + "/part", "w") as file:
            json.dump({"texts": texts, "commits": commits, "pieces": [c.text for c in out["rain"].commits]}, file)
        os.rename(folder + "/part", folder + "/result")

for line in sys.stdin:
    job = json.loads(line)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(job["folder"])
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if job["kill_after"] is not None:
        time.sleep(job["kill_after"])
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps({"code": code, "seconds": time.monotonic() - began}), flush=True)
"""


def test_a_run_killed_at_any_moment_keeps_every_word(tmp_path: Path) -> None:
    talkers = Path(__file__).parent.parent / "rain"
    moments, kills, resumed = random.Random(3), 0, 0
    with subprocess.Popen(
        [sys.executable, "-c", f"TEXT = {TEXT!r}\n{textwrap.dedent(WORKER)}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(talkers)},
        text=True,
    ) as worker:

        def work(folder: Path, kill_after: float | None = None) -> dict[str, Any]:
            print(json.dumps({"folder": str(folder), "kill_after": kill_after}), file=worker.stdin, flush=True)
            done = json.loads(worker.stdout.readline())
            assert done["code"] in (0, -signal.SIGKILL)
            return done

        undisturbed = tmp_path / "undisturbed"
        undisturbed.mkdir()
        work(undisturbed)
        expected = json.loads((undisturbed / "result").read_text())
        assert expected["texts"] == ["hi", TEXT]
        (tmp_path / "timed").mkdir()
        usual = work(tmp_path / "timed")["seconds"]

        deadline = time.monotonic() + 300
        while kills < 20 and time.monotonic() < deadline:
            folder = tmp_path / str(kills)
            folder.mkdir()
            code, killed = -1, 0
            while code != 0:
                code = work(folder, moments.uniform(0.1, 1.1) * usual if killed < 3 else None)["code"]
                killed += code != 0
            kills += killed
            result = json.loads((folder / "result").read_text())
            assert result["texts"] == ["hi", TEXT]
            assert "".join(result["pieces"]) == TEXT
            found = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
            for earlier, later in zip(found, [*found[1:], result["commits"]], strict=True):
                assert later[: len(earlier)] == earlier, "what was stored stays"
            resumed += any(found)
            if not killed:
                kills += 0
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
        worker.stdin.close()
    assert kills >= 10
    assert resumed >= 3, "the moments were spread over the run"
