"""RAIN, written down step by step from its description, as a yardstick for `correction_graphs.rain.search`.

Slow on purpose. Whatever the algorithm needs to know of the model it asks the model, each time anew, with the whole text;
the tree is dicts and lists; there are no caches, batches or branches. Of the package it takes the constants
(`RainSettings`) and the way to name random numbers (`generator_for`), and nothing of the search itself.

Sections are those of the RAIN paper (Li et al., ICLR 2024); where the paper leaves something open, the docstring of
`Search` says what is done, and so does this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from correction_graphs.rain.randomness import generator_for
from correction_graphs.rain.settings import RainSettings

Tokens = tuple[int, ...]
Node = dict[str, Any]


class World(NamedTuple):
    """What surrounds the search: all are pure functions.

    Attributes:
        logits: The model: a row of next-token logits after a whole list of tokens, prompt included.
        spelling: The bytes of each token.
        end: The token that ends a reply.
        prompt: Tokens before the reply.
        value: How good a text is, from -1 to 1.
        embed: The vector of a text; None where the settings compare no texts.
    """

    logits: Callable[[Tokens], Any]
    spelling: Sequence[bytes]
    end: int
    prompt: Tokens
    value: Callable[[str], float]
    embed: Callable[[str], Any] | None


class Walk(NamedTuple):
    """One inner iteration: where it led, what it found, and what the nodes beside its path were after it."""

    path: tuple[Tokens, ...]
    value: float
    embeddings: Any
    families: list[list[tuple[Any, ...]]]


class Added(NamedTuple):
    """Candidates that became children of a node, in order."""

    path: tuple[Tokens, ...]
    children: list[Tokens]


class Committed(NamedTuple):
    """A token set that became part of the reply, and the whole tree it was chosen from."""

    tokens: Tokens
    accepted: bool
    tree: list[Any]


class Reply:
    """One reply, and how it was found.

    Attributes:
        trace: Walks, additions and commits, in order.
        judged: Texts whose value was asked for, in order.
        told: For each walk the text at its end, its value, token sets after the committed text, and whether the walk
            was a rewind: ended elsewhere than at or below the text that was judged or committed last.
        iterations: Walks taken.
        rewinds: How many of them were rewinds.
        close_calls: Numbers of the walks on which two numbers were equal but for rounding, which then decides.
    """

    def __init__(self, world: World, settings: RainSettings) -> None:
        self.world = world
        self.settings = settings
        self.tokens: Tokens = ()
        self.root = new_node((), likelihood=1.0, depth=0)
        self.root.update(visits=1, n=1.0)  # as if the empty reply had been judged
        self.trace: list[Walk | Added | Committed] = []
        self.judged: list[str] = []
        self.told: list[tuple[str, float, int, bool]] = []
        self.iterations = 0
        self.rewinds = 0
        self.close_calls: set[int] = set()
        self.last: Tokens = ()  # the text that was judged or committed last

    # --- Outer loop (section 3.2, algorithm 1) --------------------------------------------------------------------

    def write(self) -> None:
        while not self.is_over(self.tokens):
            self.commit(accepted=self.search())

    def search(self) -> bool:
        """Whether the search ended because a child of the root was accepted."""
        inherited = self.root["visits"]
        enough = max(self.settings.max_iterations, inherited + self.settings.fresh_iterations)
        for t in range(inherited, enough):
            self.iterate()
            if t + 1 - inherited >= self.settings.min_iterations:
                best = most_visited(self.root)
                if best["visits"] > self.settings.accept_visits and self.below(self.settings.accept_value, best["q"]):
                    return True
        return False

    def commit(self, *, accepted: bool) -> None:
        best = most_visited(self.root)
        self.trace.append(Committed(best["tokens"], accepted, [picture(child) for child in self.root["children"]]))
        self.tokens += best["tokens"]
        self.last = self.tokens
        self.root = best
        self.set_priors(best)

    # --- Inner loop (section 3.2) ---------------------------------------------------------------------------------

    def iterate(self) -> None:
        path = self.walk_down()
        value, embeddings = self.evaluate(path)
        self.walk_up(path, value, embeddings)
        self.iterations += 1
        sets = tuple(node["tokens"] for node in path[1:])
        families = [[numbers(child) for child in node["children"]] for node in path[:-1]]
        self.trace.append(Walk(sets, value, embeddings, families))

    def walk_down(self) -> list[Node]:
        path = [self.root]
        while path[-1]["visits"] > 0 and not self.is_over(self.text_tokens(path)):
            if not path[-1]["children"]:
                self.expand(path)
            elif self.wants_more(path[-1]):
                self.add_one(path)
            path.append(self.select(path[-1]))
        return path

    def select(self, node: Node) -> Node:
        """Equation 1; "code" has values from 0 to 1 and the parent's n under the root."""
        c = self.settings.exploration
        scores = []
        for child in node["children"]:
            q = child["q"] if child["visits"] else -1.0
            if self.settings.puct == "code":
                scores.append((q + 1) / 2 + c * child["p"] * math.sqrt(node["n"]) / (1 + child["n"]))
            else:
                siblings = sum(sibling["n"] for sibling in node["children"])
                scores.append(q + c * child["p"] * math.sqrt(siblings) / (1 + child["n"]))
        best: Node = node["children"][scores.index(max(scores))]
        for child, score in zip(node["children"], scores, strict=True):
            if score > max(scores) - 1e-9 and any(child[name] != best[name] for name in ("p", "n", "q")):
                self.close_calls.add(self.iterations)
        return best

    def below(self, one: float, other: float) -> bool:
        if one != other and abs(one - other) < 1e-9:
            self.close_calls.add(self.iterations)
        return one < other

    def evaluate(self, path: list[Node]) -> tuple[float, list[Any] | None]:
        """Section 3.3: simulate to a pause, and judge."""
        whole = self.text_tokens(path)
        simulated = self.simulate(whole)
        leaf = path[-1]
        text = self.spell(whole + simulated)
        if leaf["judged"] is None:
            self.judged.append(text)
            leaf["judged"] = self.world.value(text)
        rewound = whole[: len(self.last)] != self.last
        self.rewinds += rewound
        self.last = whole
        self.told.append((text, leaf["judged"], len(path) - 1, rewound))
        if self.world.embed is None:
            return leaf["judged"], None
        embeddings = []
        for i in range(1, len(path)):
            own = sum((node["tokens"] for node in path[i:]), ())
            embeddings.append(self.world.embed(self.bytes_of(own + simulated).decode(errors="replace")))
        return leaf["judged"], embeddings

    def walk_up(self, path: list[Node], value: float, embeddings: list[Any] | None) -> None:
        """Mean value and mean embedding; then equation 2."""
        for i in range(len(path) - 1, -1, -1):
            node = path[i]
            take_in(node, value, 1.0)
            node["visits"] += 1
            if i == 0 or embeddings is None:
                continue
            if node["e"] is None:
                node["e"] = embeddings[i - 1]
            else:
                node["e"] = node["e"] + (embeddings[i - 1] - node["e"]) / node["visits"]
            if self.settings.similarity is None:
                continue
            for sibling in path[i - 1]["children"]:
                if sibling is not node and sibling["e"] is not None:
                    s = cosine(sibling["e"], node["e"])
                    if self.below(self.settings.similarity, s):
                        take_in(sibling, value, self.settings.gamma * s)

    # --- Candidates (sections 3.2 and 3.4) ------------------------------------------------------------------------

    def expand(self, path: list[Node]) -> None:
        node = path[-1]
        before = self.text_tokens(path)
        count = self.settings.candidates
        if self.length(path) == 1:
            self.attach(path, self.likeliest(before)[:count])
            return
        greedy, p_greedy = self.draft(before, node["depth"], None)
        samples: dict[Tokens, float] = {}
        for _ in range(count - 1):
            tokens, p = self.sample(path)
            if tokens != greedy:
                samples.setdefault(tokens, p)
        if samples:
            p_greedy = max(min(p_greedy, sum(samples.values())), max(samples.values()) + min(samples.values()))
        self.attach(path, [(greedy, p_greedy), *samples.items()])

    def wants_more(self, node: Node) -> bool:
        """Values uniformly low, and all that was found nearly the same."""
        children = node["children"]
        if len(children) >= self.settings.max_children:
            return False
        if not all(child["visits"] for child in children):
            return False
        if not all(self.below(child["q"], self.settings.add_below) for child in children):
            return False
        if self.settings.add_variance is None:
            return True
        if len(children) == 1:
            return False
        spread = np.linalg.norm(np.var([child["e"] for child in children], axis=0, ddof=1))
        return bool(spread < self.settings.add_variance * self.settings.length(node["depth"]))

    def add_one(self, path: list[Node]) -> None:
        node = path[-1]
        if self.length(path) == 1:
            self.attach(path, self.likeliest(self.text_tokens(path))[len(node["children"]) :][:1])
        else:
            self.attach(path, [self.sample(path)])

    def length(self, path: list[Node]) -> int:
        """How many tokens a candidate has after this path: fewer than planned where the reply may not be longer."""
        room = self.settings.max_new_tokens - len(self.text_tokens(path))
        return min(self.settings.length(path[-1]["depth"]), room)

    def attach(self, path: list[Node], candidates: list[tuple[Tokens, float]]) -> None:
        node = path[-1]
        there = [child["tokens"] for child in node["children"]]
        new = [(tokens, p) for tokens, p in candidates if tokens not in there]
        for tokens, p in new:
            node["children"].append(new_node(tokens, likelihood=p, depth=node["depth"] + 1))
        self.set_priors(node)
        if new:
            self.trace.append(Added(tuple(node["tokens"] for node in path[1:]), [tokens for tokens, _ in new]))

    def set_priors(self, node: Node) -> None:
        total = sum(child["likelihood"] for child in node["children"])
        for child in node["children"]:
            child["p"] = child["likelihood"] / total
            if node is self.root:
                share = self.settings.root_uniform
                child["p"] = (1 - share) * child["p"] + share / len(node["children"])

    # --- The model's words ----------------------------------------------------------------------------------------

    def likeliest(self, before: Tokens) -> list[tuple[Tokens, float]]:
        """All single tokens, the likeliest first, with their probabilities."""
        row = self.ask(before)
        p = softmax([x / self.settings.temperature for x in row])
        return [((token,), p[token]) for token in ranked(row)]

    def sample(self, path: list[Node]) -> tuple[Tokens, float]:
        node, before = path[-1], self.text_tokens(path)
        generator = generator_for(self.settings.seed, "propose", before, node["drawn"])
        node["drawn"] += 1
        return self.draft(before, node["depth"], generator)

    def draft(self, before: Tokens, depth: int, generator: np.random.Generator | None) -> tuple[Tokens, float]:
        """A token set: greedy, or drawn from the `top_k` likeliest, and the product of the tokens' probabilities."""
        written: Tokens = ()
        product = 1.0
        while len(written) < self.settings.length(depth) and not self.is_over(before + written):
            row = self.ask(before + written)
            order = ranked(row)[: self.settings.top_k]
            p = softmax([row[token] / self.settings.temperature for token in order])
            at = 0 if generator is None else first_above(generator.random(), p)
            written += (order[at],)
            product *= p[at]
        return written, product

    def simulate(self, before: Tokens) -> Tokens:
        generator = generator_for(self.settings.seed, "simulate", before, 0)
        written: Tokens = ()
        while len(written) < self.settings.simulation_tokens:
            if self.is_over(before + written) or self.spell(before + written).endswith(self.settings.pauses):
                break
            row = self.ask(before + written)
            order = ranked(row)
            p = softmax(row)
            written += (order[first_above(generator.random(), [p[token] for token in order])],)
        return written

    def ask(self, reply: Tokens) -> list[float]:
        return [float(x) for x in self.world.logits(self.world.prompt + reply)]

    # --- Texts ----------------------------------------------------------------------------------------------------

    def text_tokens(self, path: list[Node]) -> Tokens:
        return sum((node["tokens"] for node in path[1:]), self.tokens)

    def is_over(self, reply: Tokens) -> bool:
        if len(reply) >= self.settings.max_new_tokens or self.world.end in reply:
            return True
        return any(stop.encode() in self.bytes_of(reply) for stop in self.settings.stop)

    def bytes_of(self, tokens: Tokens) -> bytes:
        return b"".join(self.world.spelling[token] for token in tokens)

    def spell(self, tokens: Tokens) -> str:
        written = self.bytes_of(tokens)
        ends = [written.find(stop.encode()) for stop in self.settings.stop if stop.encode() in written]
        return written[: min(ends, default=len(written))].decode(errors="replace")


# --- Small things -------------------------------------------------------------------------------------------------


def new_node(tokens: Tokens, *, likelihood: float, depth: int) -> Node:
    return {
        "tokens": tokens,
        "likelihood": likelihood,
        "p": 0.0,
        "visits": 0,
        "n": 0.0,
        "q": 0.0,
        "e": None,
        "judged": None,
        "depth": depth,
        "drawn": 0,
        "children": [],
    }


def numbers(node: Node) -> tuple[Any, ...]:
    """What is compared of a node."""
    return node["tokens"], node["p"], node["visits"], node["n"], node["q"], node["judged"]


def picture(node: Node) -> list[Any]:
    return [numbers(node), [picture(child) for child in node["children"]]]


def most_visited(root: Node) -> Node:
    visited = [child for child in root["children"] if child["visits"]]
    return max(visited, key=lambda child: (child["n"], child["q"]))


def take_in(node: Node, value: float, weight: float) -> None:
    """Equation 2; written as an increment, so that rounding leaves the mean of equal values equal to them."""
    node["n"] += weight
    node["q"] += (value - node["q"]) * weight / node["n"]


def ranked(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    exponentials = [math.exp(x - top) for x in row]
    total = sum(exponentials)
    return [x / total for x in exponentials]


def first_above(u: float, p: list[float]) -> int:
    running = 0.0
    for index, share in enumerate(p):
        running += share
        if running > u:
            return index
    return len(p) - 1


def cosine(one: Any, other: Any) -> float:
    return float(np.dot(one, other) / math.sqrt(np.dot(one, one) * np.dot(other, other)))
