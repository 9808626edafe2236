"""A proof under load: all methods on one model at the same time, while everything that can break does.

    python benchmarks/soak.py [--minutes 20] [--seed 0] [--json FILE] [--model FILE.gguf] [--patience 120]

Threads that invoke, stream and batch, and an event loop that does the same, share one local model with a memory so
small that it evicts all the time. Most requests have a fault: they are cancelled, closed half-way, given too little
time or too long a text, or work with a checker, judge, filter or model that raises, returns nonsense or is late; for
some of the time, llama.cpp itself refuses batches. After each, a plain question must get the answer that it got before.
A second process does the same and gets Ctrl-C at random moments.

Load comes in waves. After each, everything is counted that must be as it was: branches, threads, files, memory. Exit
status 1 if a promise is broken; a request that hangs has all stacks printed. The last line is one JSON document. What
is asked, and which fault it has, follows from the seed; what happens at the same moment does not.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager, nullcontext, suppress
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp.llama_cpp as engine
import numpy as np
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from measuring import arbitrary

from correction_graphs import Budget, ChatLlama, ChatRain, RainSettings
from correction_graphs.backends.llama_cpp import LlamaCppBackend
from correction_graphs.cac import create_cac_graph
from correction_graphs.errors import CorrectionError
from correction_graphs.lab.arms import lab_template
from correction_graphs.lab.model import fallible_path
from correction_graphs.lab.world import World
from correction_graphs.rain.graph import create_rain_graph
from correction_graphs.rain.judge import SelfEvaluation
from correction_graphs.s2a import create_s2a_graph

N_CTX = 448  # tokens that a branch may hold
CELLS = 512  # of llama.cpp's memory: `LlamaCppBackend` asks for 64 more, and llama.cpp gives multiples of 256
SEQUENCES = 12
LONGEST = 48  # tokens of an answer: the longest that the lab's model has reason to write
SURE = 0.5  # what a greedy token is ahead of the next, in logits: a thousand times what rounding can tip
THREADS, TASKS = 3, 4
GROWTH = 0.05
INTERRUPTS = 4  # after each wave
START = 600  # seconds in which a process has to be ready: a busy machine may take minutes to import it all
SETTLE = 60.0  # seconds in which has to end what ends by itself

KINDS = ("plain", "cac", "s2a", "rain", "rain graph")
GRAPHS = ("cac", "s2a", "rain graph")
SYNC, ASYNC = ("invoke", "stream", "batch"), ("ainvoke", "astream", "abatch")
FAULTS: dict[str, tuple[str, ...]] = {
    "cancelled": KINDS,
    "closed half-way": KINDS,
    "dropped half-way": KINDS,
    "deadline": KINDS,
    "step timeout": GRAPHS,
    "oversized": KINDS,
    "broken checker": ("cac",),
    "broken judge": ("rain", "rain graph"),
    "broken filter": ("s2a",),
    "broken model": ("cac", "s2a"),
}
WAYS: dict[str, tuple[str, ...]] = {
    "cancelled": ASYNC,
    "closed half-way": ("stream", "astream"),
    "dropped half-way": ("stream", "astream"),
}
HOW = ("raises", "not a number", "garbage", "late")


class Request(NamedTuple):
    """What is asked of which method, how, and what goes wrong."""

    kind: str
    fault: str
    way: str
    texts: tuple[str, ...]


class Ended(NamedTuple):
    """What became of one text of a request."""

    outcome: str
    error: BaseException | None = None


# Parts that break


class Faltering(BaseChatModel):
    """Passes an answer on piece by piece, and fails in the middle of every second one."""

    inner: ChatLlama
    moments: Any

    @property
    def _llm_type(self) -> str:
        return "faltering"

    def _pieces(self) -> Iterator[None]:
        """Yield for each piece that gets through, then fail."""
        left = self.moments.choice((math.inf, self.moments.randrange(6)))
        for number in count():
            if number >= left:
                raise ConnectionError("the line broke")
            yield

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        allowed = self._pieces()
        pieces: Any = self.inner.write(messages, ())
        with closing(pieces):
            for piece in pieces:
                next(allowed)
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece.text))

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        allowed = self._pieces()
        pieces: Any = self.inner.awrite(messages, ())
        async with aclosing(pieces):
            async for piece in pieces:
                next(allowed)
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece.text))

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return _whole([chunk.text for chunk in self._stream(messages)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return _whole([chunk.text async for chunk in self._astream(messages)])


class Nonsense(BaseChatModel):
    """A filter that raises, says nothing, rambles, or is late."""

    how: str

    @property
    def _llm_type(self) -> str:
        return "nonsense"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        if self.how == "raises":
            raise ConnectionError("no route to the filter")
        if self.how == "late":
            time.sleep(0.1)
        return _whole({"garbage": ["\x00 Question: Question: 7?? "] * 200}.get(self.how, []))


def _whole(pieces: Sequence[str]) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(pieces)))])


def broken(how: str, moments: random.Random, *, waits: bool) -> Callable[[Any], Any]:
    """Return a checker or judge that works in one of three calls; an async one if it `waits`."""

    def outcome() -> Any:
        if moments.random() < 1 / 3:
            return False
        if how == "raises":
            raise ConnectionError("no route to the judge")
        return {"not a number": math.nan, "garbage": {"verdict": object()}, "late": True}[how]

    def judge(_: Any) -> Any:
        if how == "late":
            time.sleep(0.1)
        return outcome()

    async def ajudge(_: Any) -> Any:
        if how == "late":
            await asyncio.sleep(0.1)
        return outcome()

    return ajudge if waits else judge


@contextmanager
def failing_engine(moments: random.Random, share: float = 0.02) -> Iterator[None]:
    """Have llama.cpp refuse this share of batches."""
    decode = engine.llama_decode
    no_room = 1  # as llama.cpp says it
    engine.llama_decode = lambda *given: no_room if moments.random() < share else decode(*given)
    try:
        yield
    finally:
        engine.llama_decode = decode


# The methods


def build(backend: LlamaCppBackend, kind: str, fault: str, moments: random.Random, *, waits: bool) -> Any:
    """Return a method, with the fault in it where it is one of its parts or settings."""
    how, hurry = moments.choice(HOW), 0.3 * moments.random() ** 3 + 1e-4
    late = fault == "deadline"
    greedy = ChatLlama(backend=backend, max_tokens=LONGEST, temperature=0)
    if kind == "plain":
        return ChatLlama(backend=backend, max_tokens=LONGEST, timeout=hurry) if late else greedy
    budget = Budget(seconds=hurry) if late else None
    writer: Any = Faltering(inner=greedy, moments=moments) if fault == "broken model" else greedy
    graph: Any
    if kind == "cac":
        judges: dict[str, Any] = {}
        if fault == "broken checker":
            judges["checker"] = broken(how, moments, waits=waits)
        policy: Any = moments.choice(("raise", "accept", "revise"))
        graph = create_cac_graph(
            writer, template=lab_template("fair"), max_rounds=1, budget=budget, on_checker_error=policy, **judges
        )
    elif kind == "s2a":
        after: Any = moments.choice(("original", "raise")) if fault != "none" else "original"
        graph = create_s2a_graph(
            writer,
            template=lab_template(moments.choice(("unbiased", "relevant"))),
            filter_model=Nonsense(how=how) if fault == "broken filter" else None,
            on_filter_failure=after,
            budget=budget,
        )
    else:
        judge = value_function(fault, how, moments, waits=waits)
        chat = ChatRain(backend=backend, judge=judge, settings=search(moments, hurry if late else None))
        if kind == "rain":
            return chat
        graph = create_rain_graph(chat)
    if fault == "step timeout":
        graph.step_timeout = hurry
    return graph


def value_function(fault: str, how: str, moments: random.Random, *, waits: bool) -> Any:
    """Return what judges a search: the model itself, or a function."""
    if fault == "broken judge":
        return broken(how, moments, waits=waits)
    return moments.choice((arbitrary, SelfEvaluation(lab_template("harmless"), examples=False)))


def search(moments: random.Random, seconds: float | None) -> RainSettings:
    """Return settings that rewind often."""
    candidates = moments.choice((1, 2, 4))
    return RainSettings(
        lengths=(6,), min_length=3, candidates=candidates, max_new_tokens=LONGEST, max_iterations=3,
        accept_value=0.5, max_seconds=seconds, seed=moments.randrange(1000),
        on_bad_value=moments.choice(("raise", "unknown")),
    )  # fmt: skip


# Asking


def asked(kind: str, text: str) -> Any:
    """Return the input of a method."""
    return {"messages": [("user", text)]} if kind in GRAPHS else text


def streamed(request: Request, target: Any, text: str) -> Any:
    """Begin a stream."""
    begin = target.astream if request.way.startswith("a") else target.stream
    more = {"stream_mode": ["values", "messages", "custom"]} if request.kind in GRAPHS else {}
    return begin(asked(request.kind, text), **more)


def judge_end(request: Request, found: Any, *, engine_fails: bool = False) -> Ended:
    """Say what an answer or an exception amounts to."""
    if not isinstance(found, BaseException):
        return Ended("answered")
    if isinstance(found, CorrectionError):
        expected = engine_fails or request.fault != "none"
        return Ended(type(found).__name__ if expected else "failed without a fault", found)
    if isinstance(found, asyncio.CancelledError) and request.fault == "cancelled":
        return Ended("cancelled")
    if isinstance(found, TimeoutError) and request.fault == "step timeout":  # LangGraph's own, as was asked for
        return Ended("step timeout")
    return Ended("untyped", found)


def answer_in(kind: str, out: Any) -> str:
    """Return the text of an answer.

    Raises:
        TypeError: If it is no answer.
    """
    message = out["messages"][-1] if kind in GRAPHS else out
    if not isinstance(message, AIMessage):
        raise TypeError(f"{kind} returned {message!r:.200}, which is no answer")
    return str(message.text)


class Soak:
    """A model under load, and the record of what happened to it.

    Args:
        model: A GGUF file.
        seed: Of what is asked, and of faults.
        patience: Seconds after which a request counts as hanging.
        sequences: Of the model's memory.
        make: Returns a method that is to be asked; see `build`.
    """

    def __init__(
        self,
        model: Path,
        *,
        seed: int = 0,
        patience: float = 120,
        sequences: int = SEQUENCES,
        make: Callable[..., Any] = build,
    ) -> None:
        self.model, self.seed, self.patience, self.make = model, seed, patience, make
        self.backend = LlamaCppBackend(model, n_ctx=N_CTX, n_sequences=sequences, n_threads=1)
        self.greedy = ChatLlama(backend=self.backend, max_tokens=LONGEST, temperature=0)
        self.questions = tuple(_questions())
        self.probes = self._sure()
        self.ended: Counter[tuple[str, str, str]] = Counter()
        self.ways: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.told: list[str] = []  # of what must not happen, the first of each
        self.wrong_answers = self.probed = self.unheard = self.hangs = 0
        self.cells = 0
        self.engine_fails = False
        self._lock = threading.Lock()
        self._numbers = count()
        self.begun: deque[Request] = deque(maxlen=3)
        self._running: dict[int, tuple[float, Request]] = {}
        self._loops: list[asyncio.AbstractEventLoop] = []

    def close(self) -> None:
        """Free the model."""
        self.backend.close()

    # What is known to be right

    def _sure(self) -> dict[str, str]:
        """Return questions and their answers, such that no token of an answer is a near tie: rounding decides none."""
        sure: dict[str, str] = {}
        for text in self.questions:
            if self._margin(text) > SURE:
                sure[text] = str(self.greedy.invoke(text).text)
            if len(sure) == 8:
                break
        if not sure:
            raise SystemExit(f"{self.model} is not sure of any answer, so answers cannot be compared; give another")
        return sure

    def _margin(self, text: str) -> float:
        branch = self.backend.open(self.backend.chat_tokens([{"role": "user", "content": text}]))
        smallest = math.inf
        for _ in range(LONGEST):
            row = self.backend.forward([branch])[0]
            second, first = np.sort(row)[-2:]
            smallest = min(smallest, float(first - second))
            if self.backend.is_end(token := int(row.argmax())):
                break
            self.backend.extend(branch, [token])
        self.backend.release(branch)
        return smallest

    def probe(self, text: str) -> None:
        """Ask a plain question whose answer is known."""
        if self.engine_fails:
            return  # it is asked when the wave is over
        self._compare(text, str(self.greedy.invoke(text).text))

    async def aprobe(self, text: str) -> None:
        """Do what `probe` does."""
        if not self.engine_fails:
            self._compare(text, str((await self.greedy.ainvoke(text)).text))

    def _compare(self, text: str, said: str) -> None:
        with self._lock:
            self.probed += 1
            if said != self.probes[text]:
                self.wrong_answers += 1
                self._tell("answer", f"{text!r} was answered {self.probes[text]!r}, and now {said!r}")

    # Requests

    def draw(self, moments: random.Random, ways: Sequence[str]) -> Request:
        """Return a request that can be made in one of these ways."""
        kind, way = moments.choice(KINDS), moments.choice(tuple(ways))
        can = [name for name, kinds in FAULTS.items() if kind in kinds and way in WAYS.get(name, (way,))]
        fault = moments.choice(can) if moments.random() < 0.65 else "none"
        texts = moments.choices(self.questions, k=3 if way.endswith("batch") else 1)
        if fault == "oversized":
            texts = [" ".join([text] * moments.randint(N_CTX // 16, N_CTX // 4)) for text in texts]
        return Request(kind, fault, way, tuple(texts))

    def ask(self, request: Request, moments: random.Random) -> None:
        """Make a request in this thread, and a plain one after it."""
        with self._watched(request):
            target = self.make(self.backend, request.kind, request.fault, moments, waits=False)
            self._note(request, self._found(request, target, moments))
            self.cells = max(self.cells, self.backend.cells_in_use)
            self.probe(moments.choice(tuple(self.probes)))

    def _found(self, request: Request, target: Any, moments: random.Random) -> Sequence[Any]:
        inputs = [asked(request.kind, text) for text in request.texts]
        try:
            if request.way == "invoke":
                return [self._checked(request, target.invoke(inputs[0]))]
            if request.way == "batch":
                found = target.batch(inputs, return_exceptions=True)
                return [self._checked(request, each) for each in found]
            stream = streamed(request, target, request.texts[0])
            if request.fault.endswith("half-way"):
                for _ in islice(stream, moments.randrange(8)):
                    pass
                if request.fault == "closed half-way":
                    stream.close()
                return [None]
            return [self._checked(request, _last(request, list(stream)))]
        except Exception as error:  # noqa: BLE001  (it is judged)
            return [error]

    async def aask(self, request: Request, moments: random.Random) -> None:
        """Make a request on this event loop, and a plain one after it."""
        with self._watched(request):
            waits = moments.random() < 0.5
            target = self.make(self.backend, request.kind, request.fault, moments, waits=waits)
            own, task = asyncio.current_task(), asyncio.create_task(self._afound(request, target, moments))
            if request.fault == "cancelled":
                await asyncio.wait([task], timeout=moments.random() ** 3)
                for _ in range(moments.choice((1, 1, 3))):
                    task.cancel()
                    await asyncio.sleep(0)
            try:
                self._note(request, await task)
            except asyncio.CancelledError as error:
                if own and own.cancelling():  # by Ctrl-C
                    raise
                self._note(request, [error])
            await self.aprobe(moments.choice(tuple(self.probes)))

    async def _afound(self, request: Request, target: Any, moments: random.Random) -> Sequence[Any]:
        inputs = [asked(request.kind, text) for text in request.texts]
        try:
            if request.way == "ainvoke":
                return [self._checked(request, await target.ainvoke(inputs[0]))]
            if request.way == "abatch":
                found = await target.abatch(inputs, return_exceptions=True)
                return [self._checked(request, each) for each in found]
            stream = streamed(request, target, request.texts[0])
            if request.fault.endswith("half-way"):
                left = moments.randrange(8)
                async for _ in stream:
                    left -= 1
                    if left < 0:
                        break
                if request.fault == "closed half-way":
                    await stream.aclose()
                return [None]
            return [self._checked(request, _last(request, [each async for each in stream]))]
        except Exception as error:  # noqa: BLE001  (it is judged)
            return [error]

    def _checked(self, request: Request, found: Any) -> Any:
        return found if isinstance(found, BaseException) else answer_in(request.kind, found)

    def _note(self, request: Request, found: Sequence[Any]) -> None:
        with self._lock:
            self.ways[request.way] += 1
            for each in found:
                ended = judge_end(request, each, engine_fails=self.engine_fails)
                outcome = "closed" if each is None else ended.outcome
                self.ended[request.kind, self._fault(request), outcome] += 1
                if outcome in ("untyped", "failed without a fault"):
                    stack = "".join(traceback.format_exception(ended.error))
                    self._tell(f"{outcome} {request.kind} {request.fault} {type(ended.error).__name__}", stack)

    def _fault(self, request: Request) -> str:
        return f"{request.fault}, engine refuses" if self.engine_fails else request.fault

    def _tell(self, what: str, more: str) -> None:
        if not any(each.startswith(f"{what}:") for each in self.told):
            self.told.append(f"{what}: {more}")

    @contextmanager
    def _watched(self, request: Request) -> Iterator[None]:
        number, began = next(self._numbers), time.monotonic()
        self.begun.append(request)
        self._running[number] = began, request
        try:
            yield
        finally:
            del self._running[number]
            if request.fault == "none":
                self.seconds[request.kind].append(time.monotonic() - began)

    # Waves

    def wave(self, number: int, seconds: float) -> bool:
        """Put the model under load for a while; False if a request hangs, after which nothing can be counted."""
        until = time.monotonic() + seconds
        workers = [threading.Thread(target=self._work, args=(f"{number} {at}", until)) for at in range(THREADS)]
        workers.append(threading.Thread(target=lambda: asyncio.run(self._awork(number, until))))
        moments = random.Random(f"{self.seed} engine {number}")
        self.engine_fails = number % 4 == 1
        with failing_engine(moments) if self.engine_fails else nullcontext():
            for worker in workers:
                worker.daemon = True  # one that hangs must not keep the process
                worker.start()
            while any(worker.is_alive() for worker in workers):
                time.sleep(0.05)
                if late := self._late():
                    self._dump(late)
                    return False
        self.engine_fails = False
        for text in self.probes:
            self.probe(text)
        return True

    def _work(self, name: str, until: float) -> None:
        moments = random.Random(f"{self.seed} {name}")
        while time.monotonic() < until:
            self.ask(self.draw(moments, SYNC), moments)

    async def _awork(self, number: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.hear(context.get("exception"), str(context["message"])))
        self._loops = [loop]

        async def work(at: int) -> None:
            moments = random.Random(f"{self.seed} {number} async {at}")
            while time.monotonic() < until:
                await self.aask(self.draw(moments, ASYNC), moments)

        await asyncio.gather(*map(work, range(TASKS)))
        self._loops = []

    def hear(self, error: BaseException | None, where: str) -> None:
        """Note an exception that reached nobody."""
        with self._lock:
            self.unheard += 1
            stack = "".join(traceback.format_exception(error)) if error else ""
            self._tell(f"unheard {type(error).__name__}", f"{where}\n{stack}")

    def _late(self) -> list[Request]:
        now = time.monotonic()
        return [request for began, request in list(self._running.values()) if now - began > self.patience]

    def _dump(self, late: Sequence[Request]) -> None:
        self.hangs += len(late)
        for request in late:
            print(f"HANGS after {self.patience:g} s: {request!r:.300}", file=sys.stderr)
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        for loop in self._loops:
            for task in asyncio.all_tasks(loop):
                task.print_stack(file=sys.stderr)


def _last(request: Request, pieces: Sequence[Any]) -> Any:
    if request.kind in GRAPHS:
        return [piece for mode, piece in pieces if mode == "values"][-1]
    return AIMessage("".join(piece.text for piece in pieces))


def _questions() -> Iterator[str]:
    world = World()
    facts = world.fact_questions("held_out", suggests=("wrong",))
    for three in islice(zip(facts, world.situations("held_out"), world.requests("held_out"), strict=False), 40):
        yield from (item.text for item in three)


# What is to be as it was


class Counts(NamedTuple):
    """What a process holds."""

    threads: int
    files: int
    resident: int


def counted() -> Counts:
    """Count threads, open files and bytes in memory (Linux)."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (a folder that lists itself)
    return Counts(threading.active_count(), files, int(fields[1]) * os.sysconf("SC_PAGE_SIZE"))


def settled(baseline: Counts, backend: LlamaCppBackend) -> Counts:
    """Count once what ends by itself has ended, or `SETTLE` seconds and ten looks have passed."""
    until = time.monotonic() + SETTLE
    for looks in count(1):
        gc.collect()
        now = counted()
        same = now.threads <= baseline.threads and now.files <= baseline.files and not backend.live_branches
        if same or (looks >= 10 and time.monotonic() > until):
            break
        time.sleep(0.02)
    return now


def ends_held(backend: LlamaCppBackend, sequences: int) -> int:
    """Return how many different texts the memory can hold at once: fewer if sequences were lost."""
    tokens = range(8, 8 + sequences)
    branches = [backend.open([token, token + 1]) for token in tokens]
    backend.forward(branches)
    for branch in branches:
        backend.extend(branch, [9])
    held = sum(backend.cached_tokens(branch) == 2 for branch in branches)
    for branch in branches:
        backend.release(branch)
    return held


# Ctrl-C


class Interrupted:
    """A process that does the same and is interrupted at random moments."""

    def __init__(self, model: Path, seed: int, patience: float) -> None:
        self.patience, self.sent, self.sent_again, self.broken = patience, 0, 0, 0
        self.told: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self._moments = random.Random(f"{seed} interrupts")
        command = [sys.executable, __file__, "--interrupted", "--seed", str(seed), "--model", str(model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ready = False

    def interrupt(self, times: int) -> bool:
        """Have it work, send Ctrl-C, and read what became of it; False if it does not answer."""
        for _ in range(times):
            if not self._begins() or not self._say("go") or self._line() is None:
                return False
            time.sleep(self._moments.random() ** 2)
            self._process.send_signal(signal.SIGINT)
            self.sent += 1
            told = self._line(again=self.patience / 8)
            if told is None:
                return False
            self.outcomes[told["outcome"]] += 1
            if told["broken"]:
                self.broken += 1
                self.told += told["broken"][:1]
        return True

    def end(self) -> int:
        """Interrupt it for the last time, and return its exit status."""
        if self._begins() and self._say("last"):
            self._line()
            time.sleep(self._moments.random())
            self._process.send_signal(signal.SIGINT)
            self.sent += 1
        try:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(self.patience / 8)
            self._process.send_signal(signal.SIGINT)
            self.sent_again += 1
            return self._process.wait(self.patience)
        except subprocess.TimeoutExpired:
            self._hangs()
            return self._process.wait()
        finally:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()

    def _begins(self) -> bool:
        """Wait for it to be ready, the first time; False if it has ended."""
        self._ready = self._ready or self._line(START) is not None
        return self._ready and self._process.poll() is None

    def _say(self, word: str) -> bool:
        try:
            print(word, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return False
        return True

    def _line(self, patience: float | None = None, *, again: float | None = None) -> dict[str, Any] | None:
        """Return what it says; sends Ctrl-C `again` after so many seconds: Python loses one in a weak reference."""
        found: list[str] = []
        stdout = self._process.stdout
        reader = threading.Thread(target=lambda: found.append(stdout.readline() if stdout else ""), daemon=True)
        reader.start()
        reader.join(again or patience or self.patience)
        if again and not found:
            self._process.send_signal(signal.SIGINT)
            self.sent_again += 1
            reader.join(patience or self.patience)
        if not found:
            self._hangs()
        if not found or not found[0]:
            self.broken += 1
            self.told.append(f"the interrupted process said nothing (exit status {self._process.poll()})")
            return None
        line: dict[str, Any] = json.loads(found[0])
        return line

    def _hangs(self) -> None:
        self._process.send_signal(signal.SIGUSR1)  # prints its stacks
        time.sleep(1)
        self._process.kill()


def be_interrupted(model: Path, seed: int) -> int:
    """Work until Ctrl-C, say what it left behind, and do so again when told; returns the exit status."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    soak = Soak(model, seed=seed, sequences=random.Random(seed).choice((2, 4, 32)))
    moments = random.Random(f"{seed} interrupted")
    _say({"ready": True})
    for word in sys.stdin:
        try:
            _say({"began": True})
            _work_until_interrupted(soak, moments)
        except KeyboardInterrupt as stopped:
            if word.strip() == "last":
                return 130
            outcome = type(stopped.result).__name__ if hasattr(stopped, "result") else "no result"
        _say({"outcome": outcome, "broken": _left_behind(soak, moments)})
    return 0


def _work_until_interrupted(soak: Soak, moments: random.Random) -> None:
    async def several() -> None:
        await asyncio.gather(*(soak.aask(soak.draw(moments, ASYNC), moments) for _ in range(3)))

    while True:
        for _ in range(3):
            soak.ask(soak.draw(moments, SYNC), moments)
        asyncio.run(several())


def _left_behind(soak: Soak, moments: random.Random) -> list[str]:
    told: list[str] = []
    until = time.monotonic() + SETTLE
    while soak.backend.live_branches and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
    if live := soak.backend.live_branches:
        newest = "; ".join(f"{each.kind}, {each.fault}, {each.way}" for each in soak.begun)
        told.append(f"{live} branches are left after Ctrl-C in one of {newest}")
    soak.probe(moments.choice(tuple(soak.probes)))
    told += soak.told
    soak.told.clear()
    return told


def _say(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)


# The run


def run(soak: Soak, seconds: float, interrupted: Interrupted | None) -> dict[str, Any]:
    """Put the model under load for so many seconds, and return what was found, promises among it."""
    fresh = ends_held(soak.backend, SEQUENCES)
    began = time.monotonic()
    length = max(1.0, min(15.0, seconds / 12))
    soak.wave(-1, min(length, 2))  # what is imported and made at the first use
    gc.collect()
    baseline = counted()
    resident: list[int] = []
    left: Counter[str] = Counter()
    names: set[str] = set()
    waves, alive = 0, True
    while alive and (waves < 4 or time.monotonic() - began < seconds):
        alive = soak.wave(waves, length)
        if not alive:
            break
        now = settled(baseline, soak.backend)
        resident.append(now.resident)
        left["branches"] = max(left["branches"], soak.backend.live_branches)
        left["threads"] = max(left["threads"], now.threads - baseline.threads)
        if now.threads > baseline.threads:
            names.update(thread.name for thread in threading.enumerate())
        left["files"] = max(left["files"], now.files - baseline.files)
        alive = interrupted is None or interrupted.interrupt(INTERRUPTS)
        waves += 1
        if waves % 10 == 0:
            print(f"{time.monotonic() - began:>6.0f} s  {sum(soak.ended.values()):>7} ended", flush=True)
    status = interrupted.end() if interrupted else 130
    early = resident[len(resident) // 5 :]
    growth = float(np.median(early[-3:]) / np.median(early[:3])) - 1 if early else 0.0
    held = ends_held(soak.backend, SEQUENCES) if not soak.hangs else 0
    by_outcome: Counter[str] = Counter()
    for (_, _, outcome), number in soak.ended.items():
        by_outcome[outcome] += number
    enough = seconds >= 120
    promises = {
        "no request hangs": not soak.hangs,
        "no error is untyped": not by_outcome["untyped"],
        "no error is unheard": not soak.unheard,
        "requests without a fault are answered": not by_outcome["failed without a fault"],
        "answers stay as they were": not soak.wrong_answers,
        "branches are given back": not left["branches"],
        "sequences are given back": held == fresh,
        "cells are bounded": soak.cells <= CELLS,
        "threads end": left["threads"] <= 0,
        "files are closed": left["files"] <= 0,
        "Ctrl-C ends what it interrupts, and nothing else": interrupted is None
        or (not interrupted.broken and status == 130),
    }
    if enough:
        promises[f"memory grows by less than {GROWTH:.0%}"] = growth < GROWTH
    return {
        "promises": promises,
        "kept": all(promises.values()),
        "waves": waves,
        "seconds": round(time.monotonic() - began, 1),
        "requests": sum(soak.ways.values()),
        "ways": dict(soak.ways),
        "ended": [[*key, number] for key, number in sorted(soak.ended.items())],
        "outcomes": dict(by_outcome),
        "plain_answers_compared": soak.probed,
        "wrong_answers": soak.wrong_answers,
        "hangs": soak.hangs,
        "unheard": soak.unheard,
        "left": dict(left),
        "threads_left": sorted(names),
        "ends_held": {"fresh": fresh, "after": held},
        "cells_max": soak.cells,
        "forwarded_tokens": soak.backend.forwarded_tokens,
        "resident_mib": {"at_20_percent": early[0] >> 20, "at_the_end": early[-1] >> 20} if early else {},
        "memory_growth": round(growth, 4),
        "interrupts": {
            "sent": interrupted.sent if interrupted else 0,
            "sent_again": interrupted.sent_again if interrupted else 0,
            "results": dict(interrupted.outcomes) if interrupted else {},
            "broken": interrupted.broken if interrupted else 0,
            "exit_status": status,
        },
        "seconds_without_a_fault": {kind: _quantiles(each) for kind, each in sorted(soak.seconds.items())},
        "told": [*soak.told, *(interrupted.told if interrupted else ())][:20],
    }


def _quantiles(seconds: Sequence[float]) -> dict[str, Any]:
    middle, late = np.quantile(seconds, (0.5, 0.99))
    return {"p50": round(float(middle), 4), "p99": round(float(late), 4), "n": len(seconds)}


def show(found: Mapping[str, Any]) -> None:
    """Print a run for people."""
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for kind, fault, outcome, number in found["ended"]:
        table[kind, fault][outcome] += number
    for (kind, fault), outcomes in table.items():
        said = ", ".join(f"{outcome} {number}" for outcome, number in outcomes.most_common())
        print(f"{kind:<12}{fault:<34}{sum(outcomes.values()):>7}  {said}")
    for kind, each in found["seconds_without_a_fault"].items():
        print(f"{kind:<12}without a fault: p50 {each['p50']:.3f} s, p99 {each['p99']:.3f} s, n = {each['n']}")
    for name in ("requests", "plain_answers_compared", "left", "cells_max", "ends_held", "resident_mib", "interrupts"):
        print(f"{name.replace('_', ' ')}: {found[name]}")
    print(f"memory: {found['memory_growth']:+.1%} from 20 % of the run to its end")
    for each in found["told"]:
        print(f"\n{each}")
    for promise, kept in found["promises"].items():
        print(f"{'kept' if kept else 'BROKEN':<8}{promise}")


def main() -> int:
    """Run it, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="how long; by default 20")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked, and of faults")
    parser.add_argument("--json", type=Path, help="also write the JSON document to this file")
    parser.add_argument("--model", type=Path, help="a GGUF file; by default the lab's")
    parser.add_argument("--patience", type=float, default=120, help="seconds after which a request hangs")
    parser.add_argument("--interrupted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.minutes <= 0 or options.patience <= 0:
        parser.error("`--minutes` and `--patience` are above 0")
    model = options.model or fallible_path()
    if options.interrupted:
        return be_interrupted(model, options.seed)
    load = os.getloadavg()[0]
    interrupted = Interrupted(model, options.seed, options.patience)
    soak = Soak(model, seed=options.seed, patience=options.patience)
    sys.unraisablehook = lambda told: soak.hear(told.exc_value, str(told.err_msg or told.object))
    threading.excepthook = lambda told: soak.hear(told.exc_value, f"in the thread {told.thread}")
    found = run(soak, 60 * options.minutes, interrupted)
    show(found)
    document = {
        "schema": 1,
        "benchmark": "soak",
        "model": model.name,
        "seed": options.seed,
        "minutes": options.minutes,
        "n_ctx": N_CTX,
        "n_sequences": SEQUENCES,
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "machine": platform.machine(),
        "python": sys.version.split()[0],
        **{name: version(name) for name in ("llama-cpp-python", "langgraph", "langchain-core")},
        **found,
    }
    line = json.dumps(document, separators=(",", ":"))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(f"{line}\n", encoding="utf-8")
    print(line, flush=True)
    if soak.hangs:
        os._exit(1)  # threads that hang would keep the process
    soak.close()
    return 0 if found["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
