"""The search does what the paper says: walk for walk the same as a slow, literal transcription of its description."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from transcription import Added, Committed, Reply, Walk, World

from correction_graphs.backends.base import Branch
from correction_graphs.rain import tree
from correction_graphs.rain.judge import Candidate, Value
from correction_graphs.rain.search import Commit, Judged, Search
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.steps import Steps, drive
from correction_graphs.testing import ToyBackend

SPELLING = [
    *(bytes([b]) for b in b"abcdefghij .,\n"),
    b"ab",
    b"cd.",
    b"the",
    "é".encode(),
    b"\xc3",
    b"\xa9",
    b"!",
    b"?",
    b"",
]
END = len(SPELLING) - 1
PROMPT = (3, 1, 4)


# --- Worlds: models, values and embeddings, all functions of the text ---------------------------------------------


def noise(*what: object) -> np.random.Generator:
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def model(seed: int, spread: float, end: float, memory: int) -> Callable[[Sequence[int]], Any]:
    """Logits with this spread, `end` more for the end token, that depend on the last `memory` tokens."""

    @cache
    def logits(tokens: tuple[int, ...]) -> Any:
        row = spread * noise("model", seed, tokens[-memory:]).standard_normal(len(SPELLING))
        row[END] += end
        return row.astype(np.float32)

    return lambda tokens: logits(tuple(tokens))


MODELS: dict[str, Callable[[int], Callable[[Sequence[int]], Any]]] = {
    "flat": lambda seed: model(seed, 0.3, 0, 99),
    "usual": lambda seed: model(seed, 2, -1, 99),
    "peaked": lambda seed: model(seed, 6, -3, 99),
    "certain": lambda seed: model(seed, 30, -20, 99),
    "ends early": lambda seed: model(seed, 2, 3, 99),
    "never ends": lambda seed: model(seed, 2, -40, 99),
    "repeats itself": lambda seed: model(seed, 4, -3, 1),
    "all alike": lambda seed: model(seed, 0, 0, 99),
}
VALUES: dict[str, Callable[[int], Callable[[str], float]]] = {
    "any": lambda seed: lambda text: noise("value", seed, text).uniform(-1, 1),
    "votes": lambda seed: lambda text: float(noise("value", seed, text).integers(-1, 2)),
    "bad": lambda seed: lambda text: noise("value", seed, text).uniform(-1, -0.2),
    "good": lambda seed: lambda text: noise("value", seed, text).uniform(0.75, 1),
    "mostly bad": lambda seed: lambda text: 1.0 if noise("value", seed, text).random() < 0.1 else -1.0,
    "by beginning": lambda seed: lambda text: noise("value", seed, text[:2]).uniform(-1, 1),
    "against a": lambda seed: lambda text: 1 - 2 * text.count("a") / max(len(text), 1),
}
EMBEDDINGS: dict[str, Callable[[int], Callable[[str], Any]]] = {
    "unlike": lambda seed: lambda text: noise("embed", seed, text).standard_normal(8),
    "nearly the same": lambda seed: lambda text: 1 + 0.02 * noise("embed", seed, text).standard_normal(8),
    "in groups": lambda seed: (
        lambda text: (
            1 * noise("group", seed, text[:1]).standard_normal(8) + 0.1 * noise("embed", seed, text).standard_normal(8)
        )
    ),
    "by letters": lambda seed: lambda text: np.array([1 + text.count(letter) for letter in "abcdefgh"], float),
    "the same": lambda seed: lambda text: np.array([1.0, 0, 0]),
}
SMALL = {
    "lengths": (1, 2, 3),
    "candidates": 4,
    "top_k": 6,
    "max_children": 7,
    "max_iterations": 16,
    "fresh_iterations": 5,
    "accept_visits": 3,
    "simulation_tokens": 6,
    "add_variance": 0.3,
}
CHANGES: dict[str, dict[str, Any]] = {
    "as published": {},
    "equation 1": {"puct": "eq1"},
    "no sharing": {"similarity": None},
    "no embeddings": {"similarity": None, "add_variance": None},
    "added anywhere": {"add_variance": None},
    "added if not good": {"add_variance": None, "add_below": 0.7},
    "much shared": {"gamma": 1.0, "similarity": 0.5},
    "all shared": {"gamma": 0.5, "similarity": 0.0},
    "easily accepted": {"accept_value": 0.1, "accept_visits": 1},
    "never accepted": {"accept_value": 1.0},
    "hot": {"temperature": 2.0},
    "little exploration": {"exploration": 0.3},
    "root as it is": {"root_uniform": 0.0},
    "judged as it is": {"simulation_tokens": 0},
    "long from the start": {"lengths": (4,)},
    "one token each": {"lengths": (1,)},
    "three at first": {"min_iterations": 3, "accept_visits": 0, "accept_value": -0.5},
    "stop texts": {"stop": ("b", ". ", "ab")},
}


def pick(options: dict[str, Any], random: np.random.Generator) -> str:
    return list(options)[int(random.integers(len(options)))]


class Case:
    """A world and settings, drawn by number."""

    def __init__(self, number: int, *, small: bool, backend: ToyBackend | None = None) -> None:
        random = noise("case", number, small)
        names = [pick(options, random) for options in (MODELS, VALUES, EMBEDDINGS, CHANGES)]
        self.name = f"case {number} ({'small' if small else 'published'} constants): " + ", ".join(names)
        constants = (SMALL if small else {}) | CHANGES[names[3]]
        length = int(random.integers(1, 16 if small else 24))
        self.settings = RainSettings.paper(seed=number, max_new_tokens=length, **constants)
        world = World(
            logits=MODELS[names[0]](number),
            spelling=SPELLING,
            end=END,
            prompt=PROMPT,
            value=VALUES[names[1]](number),
            embed=cache(EMBEDDINGS[names[2]](number)) if self.settings.needs_embeddings else None,
        )
        if backend is not None:
            spelling = [backend.token_bytes(token) for token in range(backend.n_vocab)]
            world = world._replace(logits=backend.memory.logits, spelling=spelling, end=backend.END)
        self.world = world
        self.backend: Any = backend or WorldBackend(world)


# --- Running the search, and seeing its walks -----------------------------------------------------------------------


class WorldBackend:
    """The model of a world behind the interface that the search is written against, without a cache."""

    name = "world"
    n_ctx = 256
    forwarded_tokens = forward_calls = cells_in_use = 0

    def __init__(self, world: World) -> None:
        self.world = world
        self.n_vocab = len(world.spelling)

    def token_bytes(self, token: int) -> bytes:
        return self.world.spelling[token]

    def is_end(self, token: int) -> bool:
        return token == self.world.end

    def open(self, tokens: Sequence[int]) -> Branch:
        return Branch(list(tokens))

    def fork(self, branch: Branch) -> Branch:
        return Branch(list(branch.tokens))

    def extend(self, branch: Branch, tokens: Sequence[int]) -> None:
        branch.tokens.extend(tokens)

    def rewind(self, branch: Branch, length: int) -> None:
        del branch.tokens[length:]

    def release(self, branch: Branch) -> None:
        branch.released = True

    def cached_tokens(self, branch: Branch) -> int:
        return 0

    def forward(self, branches: Sequence[Branch]) -> Any:
        assert not any(branch.released for branch in branches)
        return np.stack([self.world.logits(branch.tokens) for branch in branches])


class Session:
    """Judges by the world's value, and keeps what it was shown."""

    prompt_tokens = question_tokens = 0

    def __init__(self, world: World) -> None:
        self.world = world
        self.shown: list[str] = []

    def evaluate(self, candidates: Sequence[Candidate]) -> Steps[list[Value]]:
        self.shown += [candidate.text for candidate in candidates]
        return [Value(self.world.value(candidate.text)) for candidate in candidates]
        yield

    def close(self) -> None:
        pass


def embedder(world: World) -> Any:
    def embed(texts: Sequence[str]) -> Steps[Any]:
        return np.array([world.embed(text) for text in texts])
        yield

    return embed if world.embed else None


BACK_UP, ADD_CHILDREN = tree.back_up, tree.add_children


class Recorded:
    """A search that has been run, and what it did in the transcription's terms.

    Commits are told in events; walks and additions are seen where the search enters them into its tree.
    """

    def __init__(self, case: Case) -> None:
        self.trace: list[Walk | Added | Committed] = []
        self.told: list[tuple[str, float, int, bool]] = []
        world, backend, session = case.world, case.backend, Session(case.world)
        with patch.object(tree, "back_up", self.back_up), patch.object(tree, "add_children", self.add_children):
            self.search = Search(
                backend, world.prompt, session, case.settings, embed=embedder(world), on_event=self.on_event
            )
            drive(self.search.run(), backend)
        self.shown = session.shown

    def back_up(self, leaf: tree.Node, value: float, settings: RainSettings, embeddings: Any = None) -> None:
        BACK_UP(leaf, value, settings, embeddings)
        path = leaf.path()
        families = [[numbers(child) for child in node.parent.children] for node in path if node.parent]
        self.trace.append(Walk(sets(path), value, embeddings, families))

    def add_children(self, node: tree.Node, proposals: Any, settings: RainSettings) -> list[tree.Node]:
        new = ADD_CHILDREN(node, proposals, settings)
        if new:
            self.trace.append(Added(sets(node.path()), list(sets(new))))
        return new

    def on_event(self, event: Judged | Commit) -> None:
        if isinstance(event, Commit):
            picture = [seen(node) for node in event.searched]
            self.trace.append(Committed(event.tokens, event.reason == "accepted", picture))
        else:
            self.told.append((event.text, event.value, event.depth, event.rewound))


def sets(nodes: Sequence[tree.Node]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(node.tokens) for node in nodes)


def numbers(node: Any) -> tuple[Any, ...]:
    return tuple(node.tokens), node.prior, node.visits, node.n, node.value, node.judged


def seen(node: Any) -> list[Any]:
    """A node of a commit's picture as the transcription has it."""
    return [numbers(node), [seen(child) for child in node.children]]


def visited(picture: list[Any], committed: tuple[int, ...] | None = None) -> list[Any]:
    """A picture of the transcription as in commits: without what was not visited, or comes with the next commits."""
    return [[own, [] if own[0] == committed else visited(children)] for own, children in picture if own[2]]


# --- Comparing ----------------------------------------------------------------------------------------------------


class Comparison:
    """A case, searched and transcribed.

    Attributes:
        difference: What the search did otherwise than the transcription, if anything.
        close: Whether they parted where numbers were equal but for rounding. What follows is not compared.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.expected = Reply(case.world, case.settings)
        self.expected.write()
        self.actual = Recorded(case)
        self.close = False
        self.difference = self._in_steps() or (None if self.close else self._in_sum())

    def _in_steps(self) -> str | None:
        walks = 0
        for step, (ours, theirs) in enumerate(zip(self.actual.trace, self.expected.trace, strict=False)):
            wanted = theirs
            if isinstance(theirs, Committed):
                wanted = theirs._replace(tree=visited(theirs.tree, theirs.tokens))
            if not alike(ours, wanted):
                self.close = walks in self.expected.close_calls
                where = f"{self.case.name}, step {step} of {len(self.expected.trace)}"
                return None if self.close else f"{where}:\n  search        {ours}\n  transcription {wanted}"
            walks += isinstance(theirs, Walk)
        return None

    def _in_sum(self) -> str | None:
        ours, theirs = self.actual, self.expected
        counts = ours.search.counts
        pairs = {
            "steps": (len(ours.trace), len(theirs.trace)),
            "texts shown to the judge": (list(dict.fromkeys(ours.shown)), list(dict.fromkeys(theirs.judged))),
            "what was told of each walk": (ours.told, theirs.told),
            "iterations, rewinds": ((counts.iterations, counts.rewinds), (theirs.iterations, theirs.rewinds)),
            "the reply": (ours.search.text, theirs.spell(theirs.tokens)),
        }
        wrong = [f"{what}: {one}, expected {other}" for what, (one, other) in pairs.items() if one != other]
        return f"{self.case.name}: {'; '.join(wrong)}" if wrong else None


def alike(one: Any, other: Any) -> bool:
    """Equal, but for rounding."""
    if isinstance(one, float | np.ndarray) or isinstance(other, np.ndarray):
        return other is not None and bool(np.allclose(one, other, rtol=1e-9, atol=1e-9))
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def compare(numbers: Iterable[int], *, small: bool) -> list[Comparison]:
    return [Comparison(Case(number, small=small)) for number in numbers]


@pytest.mark.parametrize("block", range(20))
def test_the_search_takes_the_walks_of_the_description(block: int) -> None:
    compared = compare(range(20 * block, 20 * block + 20), small=True)

    assert not [each.difference for each in compared if each.difference]
    assert sum(each.close for each in compared) <= 1


@pytest.mark.parametrize("block", range(5))
def test_the_search_takes_them_with_the_published_constants(block: int) -> None:
    compared = compare(range(10 * block, 10 * block + 10), small=False)

    assert not [each.difference for each in compared if each.difference]
    assert sum(each.close for each in compared) <= 1


def test_the_search_takes_them_on_a_backend_with_a_cache() -> None:
    compared = [
        Comparison(Case(number, small=True, backend=ToyBackend(n_ctx=64, n_sequences=8))) for number in range(6)
    ]

    assert not [each.difference for each in compared if each.difference]


def happenings(reply: Reply) -> Iterator[str]:
    """What can be seen in a trace."""
    settings = reply.settings
    inherited = 1
    steps: list[Any] = []
    for step in reply.trace:
        steps.append(step)
        if isinstance(step, Committed):
            walks = [each.path for each in steps if isinstance(each, Walk)]
            planned = max(settings.max_iterations - inherited, settings.fresh_iterations)
            yield "accepted" if step.accepted else "out of iterations"
            if inherited > 1 and planned == settings.fresh_iterations:
                yield "much inherited"
            if len(set(walks)) < len(walks):
                yield "an end visited again"
            inherited = next(own[2] for own, _ in step.tree if own[0] == step.tokens)
            yield from additions([each for each in steps if isinstance(each, Added)], settings)
            steps = []
        elif isinstance(step, Walk) and any(n != visits for family in step.families for _, _, visits, n, *_ in family):
            yield "a value shared"
    if reply.rewinds:
        yield "rewound"
    yield "ended by the model" if reply.tokens[-1] == reply.world.end else "ended by its length, or a stop text"


def additions(steps: Sequence[Added], settings: RainSettings) -> Iterator[str]:
    """What can be seen where candidates were added, between two commits."""
    children: Counter[Any] = Counter()
    for step in steps:
        if step.path in children:
            yield "a candidate added"
        elif 1 < len(step.children) < settings.candidates:
            yield "a duplicate dropped"
        children[step.path] += len(step.children)
        if children[step.path] == settings.max_children:
            yield "no room for another candidate"


def test_the_cases_show_all_that_can_happen() -> None:
    """Else that both agree would say little."""
    seen: Counter[str] = Counter()
    for number in range(100):
        case = Case(number, small=True)
        reply = Reply(case.world, case.settings)
        reply.write()
        seen.update(set(happenings(reply)))

    assert len(seen) == 11
    assert min(seen.values()) >= 5, seen
