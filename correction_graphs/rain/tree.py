"""The search tree (RAIN paper, sections 3.1 to 3.3): token sets, what is known of them, and where to look next.

Pure bookkeeping. A node is a token set; the path from the root to it is a text. The root stands for the text committed
so far. Nothing here knows a model, a text or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from correction_graphs.rain.settings import RainSettings

Vector = NDArray[np.float64]


class Node:
    """A token set.

    Attributes:
        tokens: The set; empty for the first root.
        likelihood: What its prior is in proportion to: the probability the model gave it, compared with its siblings'.
        prior: p of the paper; those of siblings add up to 1.
        visits: How often a walk passed or ended here.
        n: The same plus what similar siblings shared; n of the paper, may be fractional.
        value: Mean of all values backed up, from -1 to 1; v of the paper, q of the code. 0 before the first.
        embedding: Mean embedding of the texts that begin with this set, from here to the end of what was judged.
        judged: The value of the text that ends here; None before it was judged.
        depth: Token sets of the reply up to and with this one, committed ones included; 0 for the first root.
        finished: Whether the reply cannot go on after it.
        samples: Samples drawn so far for its children, duplicates included.
        in_flight: Walks that passed here and have no value yet.
    """

    __slots__ = (
        *("children", "depth", "embedding", "finished", "in_flight", "judged", "likelihood", "n"),
        *("parent", "prior", "samples", "tokens", "value", "visits"),
    )

    def __init__(
        self,
        tokens: Sequence[int] = (),
        *,
        likelihood: float = 1.0,
        parent: Node | None = None,
        depth: int = 0,
        finished: bool = False,
    ) -> None:
        self.tokens = tuple(tokens)
        self.likelihood = likelihood
        self.parent = parent
        self.depth = depth
        self.finished = finished
        self.prior = 0.0
        self.visits = 0
        self.n = 0.0
        self.value = 0.0
        self.embedding: Vector | None = None
        self.judged: float | None = None
        self.children: list[Node] = []
        self.samples = 0
        self.in_flight = 0

    def __repr__(self) -> str:
        return f"<Node {self.tokens} visits={self.visits} n={self.n:g} value={self.value:.3g} prior={self.prior:.3g}>"

    def path(self) -> list[Node]:
        """The nodes from the root's child to this one; empty for the root."""
        nodes = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def walk(self) -> Iterator[Node]:
        """This node and all below."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children)


def new_root(depth: int = 0) -> Node:
    """Return a root that counts as visited once, with value 0.

    The official code spends its first iteration on judging the text at the root, which is the empty reply; all that
    follows from it is the root's visit, since nothing compares a root's value with another. So it is not judged.
    """
    root = Node(depth=depth)
    root.visits, root.n = 1, 1.0
    return root


def add_children(
    node: Node, proposals: Sequence[tuple[Sequence[int], float, bool]], settings: RainSettings
) -> list[Node]:
    """Attach the proposals (tokens, likelihood, finished) that are not there yet, and renew all priors.

    The order of children is that in which they were proposed; it breaks ties.

    Returns:
        The children that are new.
    """
    there = {child.tokens for child in node.children}
    new: list[Node] = []
    for tokens, likelihood, finished in proposals:
        child = Node(tokens, likelihood=likelihood, parent=node, depth=node.depth + 1, finished=finished)
        if child.tokens not in there:
            there.add(child.tokens)
            new.append(child)
    node.children += new
    renew_priors(node, settings)
    return new


def greedy_likelihood(greedy: float, samples: Sequence[float]) -> float:
    """Return the likelihood of the greedy candidate beside distinct samples, as the official code has it.

    At most as likely as all samples together, and at least as the likeliest and the unlikeliest of them together; where
    these contradict each other, the latter holds. Alone, it keeps its own probability.
    """
    return max(min(greedy, sum(samples)), max(samples) + min(samples)) if samples else greedy


def renew_priors(node: Node, settings: RainSettings) -> None:
    """Set the children's priors in proportion to their likelihoods; at the root, mixed with the uniform distribution.

    (In the official code priors of added children and of those before do not add up to 1; here they always do.)
    """
    if not node.children:
        return
    count = len(node.children)
    total = sum(child.likelihood for child in node.children)
    uniform = settings.root_uniform if node.parent is None else 0.0
    for child in node.children:
        share = child.likelihood / total if total > 0 else 1 / count
        child.prior = (1 - uniform) * share + uniform / count


def select(node: Node, settings: RainSettings) -> Node:
    """Return the child to go to: the one with the highest score; of several, the one proposed first.

    A walk in flight counts as a visit with value -1, so that the next one goes elsewhere.
    """
    flights = sum(child.in_flight for child in node.children)
    visits = node.n if settings.puct == "code" else sum(child.n for child in node.children)
    root = math.sqrt(visits + flights)

    def score(child: Node) -> float:
        n = child.n + child.in_flight
        value = (child.value * child.n - child.in_flight) / n if n else _first_value(node, settings)
        if settings.puct == "code":
            value = (value + 1) / 2
        return value + settings.exploration * child.prior * root / (1 + n)

    return max(node.children, key=score)


def _first_value(node: Node, settings: RainSettings) -> float:
    return -1.0 if settings.unvisited == "worst" else node.value


def wants_more(node: Node, settings: RainSettings) -> bool:
    """Whether candidates are to be added to a node that has some (the paper's dynamic node addition).

    All children were visited, all have a value below `add_below`, there are fewer than `max_children`, and, if
    `add_variance` is set, all have embeddings that differ little: the Euclidean norm of their sample variance (n - 1 in
    the denominator; so never with a single child) is below `add_variance` times the nominal length of a candidate here.
    """
    children = node.children
    if not 0 < len(children) < settings.max_children or not all(child.visits for child in children):
        return False
    if max(child.value for child in children) >= settings.add_below:
        return False
    if settings.add_variance is None:
        return True
    embeddings = [child.embedding for child in children if child.embedding is not None]
    if len(embeddings) < max(len(children), 2):
        return False
    spread = float(np.linalg.norm(np.var(np.stack(embeddings), axis=0, ddof=1)))
    return spread < settings.add_variance * settings.length(node.depth)


def back_up(
    leaf: Node, value: float, settings: RainSettings, embeddings: Sequence[Vector] | Vector | None = None
) -> None:
    """Count a visit with this value at the leaf and above it; share it with similar siblings (the paper's equation 2).

    From the leaf upwards, at each node: visits and n grow by 1, value and embedding become the new means (the
    embedding's over visits, the value's over n). Then every other child of its parent that has an embedding, and whose
    cosine s with this node's new mean is above `similarity`, gets the value too, with the weight gamma * s: into its
    value and n, not its visits. At the root, only visits, n and value change.

    Args:
        leaf: Where the walk ended.
        value: What was found, from -1 to 1.
        settings: The search's.
        embeddings: One for each node of `leaf.path()`: of the text from this node on to the end of what was judged.
    """
    path = leaf.path()
    for at in range(len(path) - 1, -1, -1):
        node = path[at]
        _count(node, value, 1.0)
        node.visits += 1
        if embeddings is None:
            continue
        if node.embedding is None:
            node.embedding = np.array(embeddings[at])
        else:
            node.embedding = node.embedding + (embeddings[at] - node.embedding) / node.visits
        if settings.similarity is not None:
            _share(node, value, settings.similarity, settings.gamma)
    root = path[0].parent if path else leaf
    if root is not None:
        _count(root, value, 1.0)
        root.visits += 1


def _count(node: Node, value: float, weight: float) -> None:
    """Take a value into a node's mean; rounding does not lead out of the range of values."""
    node.n += weight
    node.value = min(max(node.value + (value - node.value) * weight / node.n, -1.0), 1.0)


def _share(node: Node, value: float, threshold: float, gamma: float) -> None:
    for sibling in node.parent.children if node.parent else ():
        if sibling is node or sibling.embedding is None or node.embedding is None:
            continue
        cosine = _cosine(node.embedding, sibling.embedding)
        if cosine > threshold and gamma * cosine > 0:
            _count(sibling, value, gamma * cosine)


def _cosine(one: Vector, other: Vector) -> float:
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def best_child(node: Node, settings: RainSettings) -> Node | None:
    """Return the visited child that would be committed now; None if none was visited.

    By `commit_by`: the highest n, ties by value; or the highest value, ties by n. Of equals, the one proposed first.
    """
    visited = [child for child in node.children if child.visits]
    if settings.commit_by == "visits":
        return max(visited, key=lambda child: (child.n, child.value), default=None)
    return max(visited, key=lambda child: (child.value, child.n), default=None)


def accepted(node: Node, settings: RainSettings) -> bool:
    """Whether the search below a root may end: its best child has more visits and a higher value than required."""
    best = best_child(node, settings)
    return best is not None and best.visits > settings.accept_visits and best.value > settings.accept_value


def commit(child: Node, settings: RainSettings) -> Node:
    """Make a child of the root the new root: its subtree is kept, its siblings and the old root are let go."""
    child.parent = None
    renew_priors(child, settings)
    return child
