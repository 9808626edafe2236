"""`examples/server_postgres`: what can be told of it without Docker, and its graphs on a real PostgreSQL."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from langgraph.checkpoint.memory import InMemorySaver

from correction_graphs import create_cac_graph
from correction_graphs.testing import ScriptedChatModel
from tests.durability.conftest import postgres, postgres_folder

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "server_postgres"
QUESTION = "I am sure that it is Sydney. What is the capital of Australia?"
__all__ = ["postgres", "postgres_folder"]  # fixtures


# The containers


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((FOLDER / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def test_the_services_are_those_of_the_servers_own_generator(services):
    docker = pytest.importorskip("langgraph_cli.docker", reason="not installed: pip install langgraph-cli")
    version = docker.Version(24, 0, 0)
    generated = docker.compose_as_dict(docker.DockerCapabilities(version, version, False), port=8123)["services"]
    assert services.keys() == generated.keys()
    for name in ("langgraph-postgres", "langgraph-redis"):
        for key in ("image", "command", "volumes", "healthcheck"):
            assert services[name].get(key) == generated[name].get(key), (name, key)
    ours, theirs = services["langgraph-api"], generated["langgraph-api"]
    assert ours["depends_on"] == theirs["depends_on"]
    assert ours["environment"]["REDIS_URI"] == theirs["environment"]["REDIS_URI"]
    uri = theirs["environment"]["POSTGRES_URI"]
    assert ours["environment"]["POSTGRES_URI"].replace("${POSTGRES_PASSWORD}", "postgres") == uri
    assert ours["ports"] == ["127.0.0.1:" + theirs["ports"][0].strip('"')]


def test_the_graphs_get_the_variables_that_they_read(services):
    read = re.findall(r'environ\.get\("(\w+)"\)', (ROOT / "examples" / "served_graphs.py").read_text(encoding="utf-8"))
    given = services["langgraph-api"]["environment"]
    assert {name for name in given if name.startswith("CORRECTION_GRAPHS_")} == set(read)
    assert given.items() >= json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))["env"].items()


def test_the_page_names_the_graphs_the_image_and_the_port(services):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 40
    graphs = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))["graphs"]
    (named,) = re.findall(r"^The graphs of \S+ \(([^)]*)\)", page, re.MULTILINE)
    assert re.findall(r"`(\w+)`", named) == list(graphs)
    assert f"langgraph build -t {services['langgraph-api']['image']}\n" in page
    address = services["langgraph-api"]["ports"][0].removesuffix(":8000")
    assert f"http://{address}/runs/wait" in page


# On PostgreSQL


def started(database, graph, thread, question=QUESTION):
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONIOENCODING": "utf-8"}
    options = ("--database", database, "--max-tokens", "16", "--threads", "1")
    return subprocess.Popen(
        [sys.executable, str(FOLDER / "durable.py"), graph, thread, question, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )


def printed(*arguments):
    process = started(*arguments)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    return out


def next_step(saver, thread):
    """The number of the newest stored step; -2 if there is none."""
    stored = saver.get_tuple({"configurable": {"thread_id": thread}})
    return stored.metadata["step"] if stored else -2


@pytest.mark.gguf
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
@pytest.mark.parametrize(("graph", "steps"), [("cac", (1, 2, 3)), ("s2a", (1,))])
def test_a_killed_run_goes_on_and_a_finished_one_has_a_next_turn(postgres, smollm2_path, graph, steps):
    from langgraph.checkpoint.postgres import PostgresSaver

    undisturbed = printed(postgres, graph, f"{graph} undisturbed")
    with PostgresSaver.from_conn_string(postgres) as saver:
        for step in steps:
            process = started(postgres, graph, f"{graph} killed")
            end = time.monotonic() + 120
            while next_step(saver, f"{graph} killed") < step:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        resumed = printed(postgres, graph, f"{graph} killed")
    first, rest = resumed.split("\n", 1)
    assert re.fullmatch(r"goes on with the unfinished run at '\w+'; no other question is asked", first)
    assert rest == undisturbed

    turn = printed(postgres, graph, f"{graph} killed", "And of Canada?")
    assert "goes on" not in turn
    assert turn.endswith(", 4 messages in the thread\n")


class KilledError(Exception):
    pass


class DyingSaver(InMemorySaver):
    """Fails like a process that dies before the checkpoint of a step, when the results before it are stored."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def put(self, config, checkpoint, metadata, new_versions):
        if metadata["step"] == self.step:
            self.step = None
            raise KilledError
        return super().put(config, checkpoint, metadata, new_versions)


@pytest.mark.parametrize("step", range(6))
def test_a_run_that_dies_before_a_checkpoint_goes_on_and_asks_no_second_question(step):
    durable = example()
    saver = DyingSaver(step)
    graph = create_cac_graph(ScriptedChatModel(["Sydney.", "Canberra."]), checker=knows, checkpointer=saver)
    with pytest.raises(KilledError):
        durable.ask(graph, "t", QUESTION)
    out = durable.ask(graph, "t", QUESTION)
    assert saver.step is None
    assert [message.text for message in out["messages"]] == [QUESTION, "Canberra."]
    assert [done.answer for done in out["cac"].rounds] == ["Sydney.", "Canberra."]


def knows(request):
    return "Canberra" in request.answer


def example():
    pytest.importorskip("psycopg", reason='not installed: pip install "psycopg[binary]"', exc_type=ImportError)
    found = importlib.util.spec_from_file_location("durable", FOLDER / "durable.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_database_that_is_not_there_is_told_in_a_line(tmp_path):
    pytest.importorskip("psycopg", reason='not installed: pip install "psycopg[binary]"', exc_type=ImportError)
    process = started(f"postgresql:///none?host={tmp_path}", "cac", "t")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("durable.py: connection")
    assert "Traceback" not in err
