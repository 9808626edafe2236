"""Fuzz one target, guided by coverage: `python fuzz/run.py verdicts --minutes 10`. See README.md here."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
TARGETS = ("verdicts", "replies", "templates", "command_line")
_LONGEST = 4096  # bytes of an input that is made up
_KEPT_BYTES = 45_000  # of one target's corpus
_KEPT_LONGEST = 1500  # bytes of an input that is kept
_BETWEEN = 60.0  # seconds between two inputs that are made long


def main() -> int:
    """Fuzz, or keep what a run has found; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10, help="how long")
    parser.add_argument("--keep", action="store_true", help="fuzz no more; put the best of the last run into corpus/")
    parser.add_argument("--try", dest="tried", type=Path, metavar="FILE", help="run one input, such as a finding")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir(), "correction-graphs-fuzz"), help="for what is made up"
    )
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if options.tried:
        importlib.import_module(options.target).check(options.tried.read_bytes())
        print("nothing found")
        return 0
    inputs = options.work / options.target / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    if options.keep:
        return keep(options.target, inputs)
    return fuzz(options.target, options.minutes, inputs)


# Fuzzing


def fuzz(name: str, minutes: float, inputs: Path) -> int:
    """Run atheris; what it finds is told, kept in `findings` beside `inputs`, and does not end the run."""
    try:
        import atheris  # noqa: PLC0415  (replaying a corpus does not need it)
    except ImportError:
        print("fuzzing needs atheris: pip install atheris", file=sys.stderr)
        return 1
    with atheris.instrument_imports(include=["correction_graphs"]):
        target = importlib.import_module(name)
    seeds = inputs.with_name("seeds")
    seeds.mkdir(exist_ok=True)
    for data in target.seeds():
        _write(seeds, data)
    words = inputs.with_name("words.txt")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))
    watched = Watched(target, inputs.with_name("findings"))
    corpus = HERE / "corpus" / name
    arguments = [
        f"-max_total_time={int(minutes * 60)}", f"-max_len={_LONGEST}", f"-dict={words}", "-timeout=300",
        "-rss_limit_mb=3000", "-print_final_stats=1", f"-artifact_prefix={inputs.parent}/",
        str(inputs), str(seeds), *([str(corpus)] if corpus.is_dir() else []),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *arguments], watched.check)
    atheris.Fuzz()
    return 0  # not reached: libFuzzer ends the process


class Watched:
    """Tries inputs, and keeps one of each kind that fails."""

    def __init__(self, target: Any, findings: Path) -> None:
        self._target = target
        self._findings = findings
        self._known: set[str] = set()
        self._slowest = 0.0
        self._last = time.monotonic()

    def check(self, data: bytes) -> None:
        """Try one input; now and then, one that takes long is made long."""
        began = time.process_time()
        self._tried(self._target.check, data)
        pace = (time.process_time() - began) / (len(data) + 50)
        stretch = getattr(self._target, "stretch", None)
        if stretch and data and pace > self._slowest and time.monotonic() - self._last > _BETWEEN:
            self._slowest, self._last = pace, time.monotonic()
            self._tried(stretch, data)
        self._slowest *= 0.99999  # so that others have their turn

    def _tried(self, function: Any, data: bytes) -> None:
        try:
            function(data)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding)
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = str(error).split(":")[0] if type(error).__name__ == "Finding" else f"{last.filename}:{last.lineno}"
            kind = f"{type(error).__name__} {said}"
            if kind not in self._known:
                self._known.add(kind)
                self._findings.mkdir(exist_ok=True)
                file = _write(self._findings, data)
                file.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="replace")
                print(f"FOUND {kind}: {file}", file=sys.stderr, flush=True)


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def _write(folder: Path, data: bytes) -> Path:
    file = folder / hashlib.sha256(data).hexdigest()[:16]
    file.write_bytes(data)
    return file


# Keeping


def keep(name: str, inputs: Path) -> int:
    """Put into the corpus, the shortest first, each input that goes a way through the code that no other went.

    Seeds are left out unless they are there already: they are tests of their own.
    """
    target = importlib.import_module(name)
    corpus = HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    seen: set[Any] = set()
    kept: list[bytes] = []
    contents = {file.read_bytes() for folder in (inputs, corpus) for file in folder.iterdir()}
    for data in sorted(contents, key=lambda data: (len(data), data)):
        if len(data) > _KEPT_LONGEST or sum(map(len, kept)) + len(data) > _KEPT_BYTES:
            continue
        if new := ways(target, data) - seen:
            seen |= new
            kept.append(data)
    for file in corpus.iterdir():
        file.unlink()
    for data in kept:
        _write(corpus, data)
    print(json.dumps({"target": name, "kept": len(kept), "bytes": sum(map(len, kept)), "ways": len(seen)}))
    return 0


def ways(target: Any, data: bytes) -> set[Any]:
    """Return the pairs of lines of the target's modules that an input runs one after the other."""
    files = {str(Path(sys.modules[module].__file__ or "")) for module in target.MODULES}
    found: set[Any] = set()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        last = [0]

        def local(frame: FrameType, event: str, _: object) -> Any:
            if event == "line":
                found.add((frame.f_code.co_filename, last[0], frame.f_lineno))
                last[0] = frame.f_lineno
            return local

        return local if event == "call" else None

    sys.settrace(trace)
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return found


if __name__ == "__main__":
    sys.exit(main())
