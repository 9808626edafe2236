"""Corrects a file of questions: one after another in this process, or with Ray Data on as many workers as you have.

python examples/batch_ray.py                                     # two built-in questions, to see that it works
python examples/batch_ray.py questions.jsonl answers.jsonl --method s2a --model openai:gpt-5-mini
python examples/batch_ray.py questions.jsonl answers.jsonl --model model.gguf --workers 4   # pip install "ray[data]"

Each line of the input is {"id": …, "question": …}; without an id, the number of the line is taken. Other fields are
left alone: join by id. Each line of the output has id, question, answer, status, result (what the method tells of its
run) and settings; or error, in the place of answer and status. Lines are written as answers come, with workers not in
the order of the input.

The same command goes on where a run was stopped: what is answered is not asked again, what failed is. One run at a time
may write to an output. A worker that is killed is started again with the question that it had. Each question meets an
empty cache and the same seed, so that its answer does not depend on the others, on their order or on the number of
workers (a model behind an API gives no such promise).

By default the embedded SmolLM2 model (extra `smol`) answers. It is small and judges badly; see --model.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple, Self

from correction_graphs import RainSettings, Template, __version__, load_template
from correction_graphs.backends.cached import CachedBackend
from correction_graphs.cac import create_cac_graph
from correction_graphs.errors import CorrectionError
from correction_graphs.models import is_local, load_model
from correction_graphs.rain.graph import create_rain_graph
from correction_graphs.s2a import create_s2a_graph

QUESTIONS = (
    "The doctor told the nurse that she was running late. Who was running late?",
    "Write one sentence about a farmer and a banker.",
)
TEMPLATES = {"cac": "bias", "s2a": "unbiased", "rain": "harmless"}
RETRIES = 3  # of a question whose worker died with it; one that kills every worker must not be tried for ever
MOST_BLOCKS = 10_000  # of Ray Data; a block, most often one question, is what is done again when a worker dies
SECONDS_BETWEEN_LINES = 30
INTERRUPTED = 130  # what shells report after Ctrl-C


class BatchError(Exception):
    """Nothing can be done before the user has changed something."""


# Input and output


class Item(NamedTuple):
    """A question, and what it is known by."""

    id: int | str
    question: str

    @property
    def key(self) -> str:
        """Tells apart 1 and "1", which JSON does, too."""
        return json.dumps(self.id)


def read_questions(path: Path) -> list[Item]:
    """Read the input, all of it before anything is asked: a mistake in the last line should not cost a night.

    Raises:
        BatchError: Names file and line.
    """
    places: dict[str, int] = {}
    items = []
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            item = _item(line, number)
        except ValueError as error:
            raise BatchError(f"{path}:{number}: {error}") from error
        if item.key in places:
            raise BatchError(f"{path}:{number}: the id {item.key} is that of line {places[item.key]}, too")
        places[item.key] = number
        items.append(item)
    return items


def _item(line: bytes, number: int) -> Item:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # not UTF-8, too
        record = None
    if not isinstance(record, dict):
        start = line[:60].decode(errors="replace")
        raise ValueError(f"{start!r} is no JSON object, such as {_EXAMPLE}")  # noqa: TRY004
    question, name = record.get("question"), record.get("id", number)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"`question` is {question!r}; give a text")
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise ValueError(f"`id` is {name!r}; give a text or a whole number")  # noqa: TRY004
    f"{name}{question}".encode()  # half of a surrogate pair could not be written to the output
    return Item(name, question)


class Output:
    """The file of answers: read and put in order when it is opened, then appended to, a whole line at a time.

    Attributes:
        answered: The keys of all questions that are answered.
        other_settings: How many of these answers were made with other settings, by what differs.
    """

    def __init__(self, path: Path, items: Iterable[Item], settings: dict[str, Any]) -> None:
        self.path = path.resolve()  # a link stays one
        self.answered: set[str] = set()
        self.other_settings: dict[str, int] = {}
        self._asked = {item.key: item.question for item in items}
        self._settings = settings
        if self.path.exists():
            self._put_in_order()
        self._file = self.path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: str) -> None:
        """Append a line, and see it on the disk before anything else happens."""
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _put_in_order(self) -> None:
        """Leave out what will be tried again, and the half line of a run that was killed."""
        ordered = self.path.with_name(self.path.name + ".part")
        with self.path.open("rb") as old, ordered.open("wb") as new:
            same = [self._keep(number, line, new) for number, line in enumerate(old, 1)]
            new.flush()
            os.fsync(new.fileno())
        if all(same):
            ordered.unlink()
        else:
            ordered.replace(self.path)

    def _keep(self, number: int, line: bytes, new: BinaryIO) -> bool:
        """Copy a line if it is to stay; returns whether that leaves the file as it was."""
        is_whole = line.endswith(b"\n")
        try:
            record = json.loads(line)
            key, question, failed = json.dumps(record["id"]), record["question"], "error" in record
            made_with = record["settings"].items()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if not is_whole and (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
                return False
            raise BatchError(f"{self.path}:{number}: not a line of answers; give another OUTPUT") from None
        if key in self._asked and question != self._asked[key]:
            raise BatchError(
                f"{self.path}:{number}: there, the id {key} is that of {question!r}; in the input it is that of "
                f"{self._asked[key]!r}. Give another OUTPUT, or ids that stay with their questions"
            )
        if key in self.answered or (failed and key in self._asked):
            return False
        new.write(line if is_whole else line + b"\n")
        if not failed:
            self.answered.add(key)
            difference = ", ".join(
                f"{name} {value!r}, now {self._settings.get(name)!r}"
                for name, value in made_with
                if value != self._settings.get(name)
            )
            if difference:
                self.other_settings[difference] = self.other_settings.get(difference, 0) + 1
        return is_whole


_EXAMPLE = '{"id": "q1", "question": "Who was Ada Lovelace?"}'
_BEGINNING = b'{"id": '  # of every line that we write


def _line(record: dict[str, Any]) -> str:
    # A model behind an API may write half of a surrogate pair; JSON can spell that, UTF-8 cannot.
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace").decode()


# Correcting


@dataclass(frozen=True)
class Settings:
    """All that a worker has to know."""

    method: str
    template: Template
    model: str
    max_tokens: int
    temperature: float | None
    seed: int | None
    threads: int

    @property
    def is_local(self) -> bool:
        """Whether the model computes on the worker's machine."""
        return is_local(self.model)

    def sampling(self) -> dict[str, Any]:
        """What was said of sampling; a provider may not know these words, so what was not said is not passed on."""
        said = {"temperature": self.temperature, "seed": self.seed}
        return {name: value for name, value in said.items() if value is not None}

    def told(self) -> dict[str, Any]:
        """What decides on the answers, as it stands in each line."""
        return {
            "method": self.method,
            "template": self.template.name,
            "template_sha256": self.template.sha256,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "version": __version__,
        }


class Corrector:
    """One loaded model and one graph, which answer a question at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model = _loaded(settings)
        if settings.method == "cac":
            self._graph = create_cac_graph(self._model, template=settings.template)
        elif settings.method == "s2a":
            self._graph = create_s2a_graph(self._model, template=settings.template)
        else:
            search = RainSettings(max_new_tokens=settings.max_tokens, **settings.sampling())
            self._graph = create_rain_graph(self._model, judge=settings.template, settings=search)

    def line(self, item: Item) -> str:
        """Answer a question, and return its line of the output."""
        self._forget()
        record: dict[str, Any] = item._asdict()
        try:
            out = self._graph.invoke({"messages": [("user", item.question)]})
        except Exception as error:  # noqa: BLE001  (whatever a client raises belongs to this question alone)
            result = getattr(error, "result", None)
            record |= _failure(type(error).__name__, str(error))
        else:
            result = out[self._settings.method]
            record |= {"answer": out["messages"][-1].text, "status": _status(result)}
        record["result"] = None if result is None else result.model_dump(mode="json")
        return _line({**record, "settings": self._settings.told()})

    def _forget(self) -> None:
        """Empty the model's cache: what it holds changes the order of sums, and so can tip a near tie."""
        backend = getattr(self._model, "backend", None)
        if isinstance(backend, CachedBackend):
            backend.forget()


def _loaded(settings: Settings) -> Any:
    threads = {"n_threads": settings.threads} if settings.is_local else {}
    return load_model(settings.model, max_tokens=settings.max_tokens, **threads, **settings.sampling())


def _failure(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}}


def _status(result: Any) -> str:
    """Return why a run of CaC or RAIN ended; of S2A, whether what was answered is the filtered text or the original."""
    if hasattr(result, "texts"):
        return "original" if any(text.fallback for text in result.texts) else "filtered"
    return str(getattr(result, "status", None) or result.stop_reason)


# Where it is done


def here(settings: Settings, items: list[Item]) -> Iterator[str]:
    """Answer in this process, one question after another."""
    corrector = Corrector(settings)
    for item in items:
        yield corrector.line(item)


class Worker:
    """A `Corrector` as an actor of Ray Data, which takes and returns columns."""

    def __init__(self, settings: Settings) -> None:
        self._corrector: Corrector | None = None
        self._problem = ""
        try:
            self._corrector = Corrector(settings)
        except CorrectionError as error:  # Ray would start an actor again that cannot be started
            self._problem = str(error)

    def __call__(self, columns: dict[str, Any]) -> dict[str, list[str]]:
        if self._corrector is None:
            return {"line": [""], "problem": [self._problem]}
        (item,) = (Item(*json.loads(item)) for item in columns["item"])
        return {"line": [self._corrector.line(item)], "problem": [""]}


def on_ray(settings: Settings, items: list[Item], *, workers: int, gpus: float) -> Iterator[str]:
    """Answer on workers of a Ray cluster: that of RAY_ADDRESS, or else one that is started on this machine."""
    try:
        import ray  # noqa: PLC0415  (an optional dependency)
        import ray.data  # noqa: PLC0415
        from ray.util.annotations import RayDeprecationWarning  # noqa: PLC0415
    except ImportError as error:
        raise BatchError('--workers needs Ray: pip install "ray[data]"; or leave it out') from error
    cpus = settings.threads if settings.is_local else 0
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        machine = {"num_cpus": workers * max(cpus, 1), "num_gpus": math.ceil(workers * gpus) or None}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **machine)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # what does not come back is told below
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        # Ray means to take the keyword for retries away, and has no other way yet to set it.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        rows = [{"item": json.dumps(item)} for item in items]
        answers = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map_batches(
            Worker,
            fn_constructor_args=(settings,),
            batch_size=1,
            # The next question waits here, not behind another one in a worker.
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows)), max_tasks_in_flight_per_actor=1),
            num_cpus=cpus,
            num_gpus=gpus or None,
            max_task_retries=RETRIES,
        )
        for row in answers.iter_rows():
            if row["problem"]:
                raise BatchError(row["problem"])
            yield row["line"]
    finally:
        ray.shutdown()


def correct(
    settings: Settings, items: list[Item], output: Output, run: Callable[[list[Item]], Iterator[str]], *, quiet: bool
) -> int:
    """Answer what is not answered yet; returns how many failed."""
    left = {item.key: item for item in items if item.key not in output.answered}
    progress = Progress(len(items), len(items) - len(left), quiet=quiet)
    for line in run(list(left.values())) if left else ():
        record = json.loads(line)
        if left.pop(json.dumps(record["id"]), None):  # Ray may do again what was done when a worker died
            output.write(line)
            progress.step(failed="error" in record)
    for item in left.values():
        lost = _failure("WorkerDiedError", f"no answer came back after {1 + RETRIES} tries; Ray's logs may tell why")
        output.write(_line({**item._asdict(), **lost, "result": None, "settings": settings.told()}))
        progress.step(failed=True)
    progress.end()
    return progress.failed


class Progress:
    """Tells how far it is: in one line on a terminal, elsewhere now and then."""

    def __init__(self, total: int, before: int, *, quiet: bool) -> None:
        self.failed = 0
        self._total, self._done, self._before = total, before, before
        self._began = self._told = time.monotonic()
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()

    def step(self, *, failed: bool) -> None:
        """Count a question."""
        self._done += 1
        self.failed += failed
        now = time.monotonic()
        if self._quiet or not (self._terminal or now - self._told > SECONDS_BETWEEN_LINES):
            return
        self._told = now
        pace = (now - self._began) / (self._done - self._before)
        rest = pace * (self._total - self._done) / 60
        text = f"{self._done} of {self._total}, {self.failed} failed; {pace:.1f} s each, about {rest:.0f} min left"
        before, after = ("\r", "  ") if self._terminal else ("", "\n")
        print(before, text, sep="", end=after, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and not self._quiet:
            print(file=sys.stderr)


# The command


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    if options.input is not None and options.output is None:
        parser.error("give an OUTPUT as well: the file that answers are written to")
    try:
        if options.input is None:
            return demonstrate(options)
        return batch(options, Path(options.input), Path(options.output))
    except (BatchError, CorrectionError, OSError) as error:
        print(f"batch_ray.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def batch(options: argparse.Namespace, source: Path, target: Path, *, quiet: bool = False) -> int:
    """Answer a file; returns the exit status: 1 if a question failed."""
    settings = _settings(options)
    items = read_questions(source)
    if target.exists() and source.samefile(target):
        raise BatchError(f"INPUT and OUTPUT are both {str(target)!r}; give another OUTPUT")

    def run(left: list[Item]) -> Iterator[str]:
        if options.workers:
            return on_ray(settings, left, workers=options.workers, gpus=options.gpus)
        return here(settings, left)

    with Output(target, items, settings.told()) as output:
        for difference, count in output.other_settings.items():
            print(
                f"{count} answer(s) in {target} were made with other settings and are kept: {difference}. "
                "Give another OUTPUT to have all made alike.",
                file=sys.stderr,
            )
        failed = correct(settings, items, output, run, quiet=quiet)
    if not quiet:
        print(f"{len(items) - failed} answered, {failed} failed: {target}")
    return 1 if failed else 0


def demonstrate(options: argparse.Namespace) -> int:
    """Answer the built-in questions into a temporary file, and show what is in it."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "questions.jsonl", Path(folder) / "answers.jsonl"
        source.write_text("".join(_line({"question": question}) + "\n" for question in QUESTIONS), encoding="utf-8")
        status = batch(options, source, target, quiet=True)
        for line in target.read_bytes().splitlines():  # of bytes: a text has other ends of lines, too
            record = json.loads(line)
            print(f"question {record['id']}: {record['question']}")
            error = record.get("error")
            print(f"{error['type']}: {error['message']}" if error else f"{record['status']}: {record['answer']}")
    return status


def _settings(options: argparse.Namespace) -> Settings:
    model = options.model
    if model.lower().endswith(".gguf") and not model.startswith("hf:"):
        model = str(Path(model).absolute())  # a worker may be in another folder
    settings = Settings(
        method=options.method,
        template=load_template(options.template or TEMPLATES[options.method], method=options.method),
        model=model,
        max_tokens=options.max_tokens or (256 if options.input else 32),
        temperature=options.temperature,
        seed=options.seed,
        # Workers that have more threads together than there are cores wait for one another most of the time.
        threads=options.threads or max(1, _cores() // max(1, options.workers)),
    )
    return replace(settings, seed=0) if settings.is_local and settings.seed is None else settings


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("input", nargs="?", metavar="INPUT", help="questions, a JSON line each")
    add("output", nargs="?", metavar="OUTPUT", help="answers, a JSON line each; needed with INPUT")
    add("--method", choices=sorted(TEMPLATES), default="cac")
    add(
        "--template", help="name or file; by default " + ", ".join(f"{it} for {name}" for name, it in TEMPLATES.items())
    )
    add("--model", default="smollm2", help="smollm2, FILE.gguf, hf:OWNER/REPO/FILE.gguf, openai:NAME, …")
    add("--workers", type=_at_least(0), default=0, help="actors of Ray; 0, the default, is this process")
    add("--threads", type=_at_least(1), help="of each local model; by default all cores are shared out")
    add("--gpus", type=float, default=0, help="of each worker, such as 1 or 0.5; 0 by default")
    add("--max-tokens", type=_at_least(1), help="longest answer; 256 by default, for the built-in questions 32")
    add("--temperature", type=float, help="0 for the likeliest answer; by default the model's own")
    add("--seed", type=_at_least(0), help="of each question; 0 by default where the model is local")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


if __name__ == "__main__":
    sys.exit(main())
