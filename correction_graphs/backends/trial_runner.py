"""Tries model files, in a process of its own. `trial` runs this file with another Python, and reads what it says.

A request comes in on standard input, as JSON: where to import from, how much memory may be taken, the settings and the
files. A line of JSON goes out when llama.cpp is loaded, and one about each file: what is wrong with it, or null.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from correction_graphs.backends.llama_cpp import LlamaCppBackend

_TEXT = "Hello, world. 1 + 1 = 2\n"


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.buffer.read())
    sys.path[:] = request["sys_path"]
    told = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what llama.cpp prints is no answer

    def say(what: str | None) -> None:
        print(json.dumps({"said": what}), file=told, flush=True)

    _limit(request["memory"])
    from correction_graphs.backends.llama_cpp import LlamaCppBackend  # noqa: PLC0415  (found only from here on)

    say("ready")
    for path in request["paths"]:
        try:
            with LlamaCppBackend(path, **request["settings"]) as backend:
                _use(backend)
        except ValueError as error:  # as those of this package are
            say(str(error))
        except Exception as error:  # noqa: BLE001  (whatever it is, the file cannot be used)
            say(f"{path!r} is no model file to use: {type(error).__name__}: {error}")
        else:
            say(None)


def _limit(memory: int | None) -> None:
    try:
        import resource  # noqa: PLC0415  (not on every system)
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # as large as the model
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if memory is not None and (most == resource.RLIM_INFINITY or memory < most):
        resource.setrlimit(resource.RLIMIT_DATA, (memory, most))


def _use(backend: LlamaCppBackend) -> None:
    """Do what every user of a model does: look at all its tokens, render a conversation, compute."""
    _ = backend.name
    for token in range(backend.n_vocab):
        backend.token_bytes(token)
        backend.is_end(token)
    tokens: list[Any] = [*backend.tokenize(_TEXT), *backend.tokenize(_TEXT, special=True)]
    with contextlib.suppress(ValueError):  # it refuses such a conversation, which is its right
        tokens = backend.chat_tokens([{"role": "user", "content": _TEXT}])
    branch = backend.open(tokens[-backend.n_ctx :] or [0])
    backend.forward([branch])


if __name__ == "__main__":
    main()
