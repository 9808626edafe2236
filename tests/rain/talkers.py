"""Backends without weights that say what they are told, and what the tests of searches share."""

from __future__ import annotations

import faulthandler
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from correction_graphs.backends.base import RewindableBackend
from correction_graphs.rain.settings import RainSettings
from correction_graphs.testing import ToyBackend

END = ToyBackend.END


def choosing(*texts: str, seconds_a_row: float = 0.0, ends: bool = True, **settings: Any) -> ToyBackend:
    """A backend that answers every prompt with one of `texts`, a byte a token: the first is likelier than the others.

    Args:
        texts: What it may say.
        seconds_a_row: How long it takes for a row of logits.
        ends: Whether it ends its turn after that; if not, it goes on with spaces.
        **settings: Of `ToyBackend`.
    """
    backend = ToyBackend(**{"n_ctx": 1024, "n_cells": 8192, "n_sequences": 64, **settings})

    def logits(tokens: list[int]) -> np.ndarray:
        time.sleep(seconds_a_row)
        turn = len(tokens) - tokens[::-1].index(END)  # where the newest turn begins
        written = bytes(tokens[turn + len("assistant: ") :])
        row = np.full(backend.n_vocab, -40, np.float32)
        for rank, text in enumerate(texts):
            spoken = text.encode()
            if spoken.startswith(written):
                token = spoken[len(written)] if len(written) < len(spoken) else END if ends else ord(" ")
                row[token] = max(row[token], 2.0 if rank == 0 else 1.0)
        if row.max() < 0:
            row[END if ends else ord(" ")] = 2.0
        return row

    backend.memory.logits = logits
    return backend


def liking(word: str) -> Any:
    """A judge that likes texts with a word in them."""

    def judge(text: str) -> float:
        return 1.0 if word in text else -0.5

    return judge


def variety(text: str) -> float:
    """A judge with something to say on any text, from its bytes alone."""
    data = text.encode()
    return (2 * len(set(data)) / len(data) - 1) * 0.9 if data else 0.0


def open_branches(backend: RewindableBackend) -> int:
    """Branches that nobody gave up, once what nobody holds is gone."""
    gc.collect()
    return backend.live_branches


@contextmanager
def watchdog(seconds: float = 60) -> Iterator[None]:
    """End the test run, with the stacks of all threads, where something waits for ever."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def small(**changes: Any) -> RainSettings:
    """Settings for small texts; the defaults are tuned for a real model's, and change."""
    constants = {
        "lengths": (32,),
        "min_length": 4,
        "add": 4,
        "add_below": 0.5,
        "leaves": 4,
        "max_iterations": 16,
        "fresh_iterations": 4,
        "accept_value": 0.5,
    }
    return RainSettings(**{**constants, **changes})
