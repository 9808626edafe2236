"""RAIN on a model behind an OpenAI-compatible endpoint, with a value function in plain Python that likes short words.

Nothing is scripted. By default the program starts `llama_cpp.server` with the embedded SmolLM2 model on this machine
(extras `openai` and `smol`, and `pip install "llama-cpp-python[server]"`), and ends it again. That server computes one
request at a time; vLLM and llama.cpp's own server compute all of a step together.

python examples/rain_over_http.py
python examples/rain_over_http.py --base-url http://127.0.0.1:8000/v1 --vocabulary model.gguf   # vLLM, llama.cpp
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from correction_graphs import ChatRain, RainSettings
from correction_graphs.backends.openai_completions import OpenAICompletionsBackend
from correction_graphs.models import smollm2_path

QUESTION = "What is a rainbow?"
A_LONG_WORD = 7
SECONDS_TO_START = 60


def plainness(text: str) -> float:
    """From 1 for a text without long words, down to -1."""
    words = re.findall(r"[^\W\d_]+", text)
    return max(-1.0, 1 - 4 * sum(len(word) >= A_LONG_WORD for word in words) / len(words)) if words else -1.0


@contextmanager
def local_server(model: str) -> Iterator[str]:
    """Run `llama_cpp.server` with a GGUF file, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    options = ["--model", model, "--port", str(port), "--n_ctx", "256", "--verbose", "False"]
    options += ["--n_threads", cores, "--n_threads_batch", cores]  # more than may be used make it far slower
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([sys.executable, "-m", "llama_cpp.server", *options], stdout=quiet, stderr=quiet)  # noqa: S603  (this interpreter)
    try:
        until = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models"):
                    break
            except OSError:
                if server.poll() is not None or time.monotonic() > until:
                    raise SystemExit('no server; pip install "llama-cpp-python[server]"') from None
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def search(backend: OpenAICompletionsBackend) -> None:
    """Answer with a search, and say what it took."""
    settings = RainSettings(
        lengths=(16,), min_length=6, max_iterations=4, add_below=0.8, accept_value=0.8, max_new_tokens=32, seed=1
    )
    began = time.perf_counter()
    answer = ChatRain(backend=backend, judge=plainness, settings=settings).invoke(QUESTION)
    rain = answer.response_metadata["rain"]
    print(f"{answer.text}\n")
    print(f"value {plainness(answer.text):+.2f}; judged {rain['evaluations']} texts, rewound {rain['rewinds']} times")
    print(f"{backend.usage.requests} requests in {backend.forward_calls} steps, {time.perf_counter() - began:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="an endpoint that takes prompts as token numbers")
    parser.add_argument("--vocabulary", default=str(smollm2_path()), help="a GGUF file of the model served there")
    options = parser.parse_args()

    if options.base_url:
        with OpenAICompletionsBackend(options.base_url, vocabulary=options.vocabulary) as backend:
            search(backend)
        return
    # This server takes texts only, and its context is what it was started with.
    with (
        local_server(options.vocabulary) as url,
        OpenAICompletionsBackend(url, vocabulary=options.vocabulary, prompts="text", n_ctx=255) as backend,
    ):
        search(backend)


if __name__ == "__main__":
    main()
