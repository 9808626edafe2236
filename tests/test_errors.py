"""What errors say and carry also where they cross a process, or are copied."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from correction_graphs import create_cac_graph, errors
from correction_graphs.errors import CheckerError, CorrectionError
from correction_graphs.results import CacResult, RainResult
from correction_graphs.testing import ScriptedChatModel

SPECIAL = {
    "ContextLengthError": lambda kind: kind(3, 2),
    "SearchContextError": lambda kind: kind(prompt=1, judge=2, reply=3, limit=4),
    "MissingExtraError": lambda kind: kind("a search", extra="llama"),
    "SearchError": lambda kind: kind("it failed", result=RainResult(text="so far", stop_reason="failed")),
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CorrectionError)]


def made(kind):
    if issubclass(kind, errors.RunError):
        return kind("it failed", result=CacResult(status="failed"))
    return SPECIAL.get(kind.__name__, lambda kind: kind("it failed"))(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_is_like_the_error(kind, way):
    error = made(kind)
    twin = way(error)
    assert type(twin) is kind
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


def fails(number):
    graph = create_cac_graph(ScriptedChatModel(["Sydney."]), checker=lambda request: 1 / 0)
    return graph.invoke({"messages": [("user", f"Question {number}?")]})


def test_an_error_reaches_the_process_that_waits_for_it():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        error = pool.submit(fails, 1).exception(timeout=120)
        assert isinstance(error, CheckerError)
        assert error.result.answer == "Sydney."
        assert pool.submit(len, "abc").result(timeout=120) == 3, "and the pool is usable"
