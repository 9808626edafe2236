"""The cache for models that can rewind: a radix tree of everything that is computed.

A node is a run of tokens; the path from the root to a node spells a text. The engine's sequences belong to the leaves,
one each, and an inner node's tokens are shared by the sequences of all leaves below it. So text with a common beginning
is computed once and stored once, whoever asked for it, and a branch is nothing but a place in the tree: forking and
rewinding do not touch the engine at all. When room is needed, leaves are dropped, the least recently used first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from correction_graphs.backends.base import Batches, Branch, Run, SequenceMemory
from correction_graphs.errors import BackendError


class Node:
    """A run of tokens at positions `start` to `end` of every text that passes through it.

    Attributes:
        computed: Absolute position up to which the engine holds the run; less than `end` only while a step is planned.
        sequence: The engine's sequence, for a leaf; inner nodes use that of any leaf below.
        used: When a branch last ended here; the tree's clock.
        alive: False once the node was dropped or replaced. While alive it may grow at its end, and changes in no other
            way, so a branch that was found in it once is in it still.
    """

    __slots__ = ("alive", "children", "computed", "parent", "sequence", "start", "tokens", "used")

    def __init__(self, parent: Node | None, start: int, tokens: list[int], sequence: int | None, used: int) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.computed = start
        self.children: dict[int, Node] = {}
        self.sequence = sequence
        self.used = used
        self.alive = True

    @property
    def end(self) -> int:
        """Position after its last token."""
        return self.start + len(self.tokens)

    def above(self) -> Iterator[Node]:
        """This node and its ancestors, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def leaves(self) -> Iterator[Node]:
        """All leaves below, or the node itself if it is one."""
        stack = [self]
        while stack:
            node = stack.pop()
            if node.children:
                stack.extend(node.children.values())
            else:
                yield node


class PrefixTree:
    """Plans what to compute for a set of branches so that no token is computed twice while it fits.

    Args:
        memory: An engine that can rewind, with all sequences empty.
    """

    def __init__(self, memory: SequenceMemory) -> None:
        self.memory = memory
        self._root = Node(None, 0, [], None, 0)
        self._free = list(range(memory.n_sequences - 1, -1, -1))
        self.clock = 0
        self._cells = 0

    @property
    def cells_in_use(self) -> int:
        """Tokens the engine holds."""
        return self._cells

    def forward(self, branches: Sequence[Branch], live: Iterable[Branch]) -> Batches:
        """Set `logits` on each branch: one batch, or several when not all fit into the memory together."""
        self.clock += 1
        waiting = list(branches)
        while waiting:
            step = _Step(self, live)
            while waiting and step.add(waiting[0]):
                waiting.pop(0)
            if not step.branches:
                raise BackendError(
                    f"a branch of {len(waiting[0])} tokens does not fit into the key/value memory of "
                    f"{self.memory.n_cells} cells and {self.memory.n_sequences} sequences; "
                    "load the model with a larger `n_ctx`"
                )
            yield from step.run()

    # Places

    def known(self, branch: Branch) -> int:
        """How many of the branch's first tokens are in the tree."""
        self.locate(branch)
        return branch.cached

    def locate(self, branch: Branch) -> Node:
        """Find how much of the branch is in the tree; set `branch.place` and `branch.cached` to it."""
        node: Node = branch.place or self._root
        cached = branch.cached
        while node.parent is not None and (not node.alive or cached <= node.start):  # changed, or rewound, since
            cached = min(cached, node.start)
            node = node.parent
        tokens, wanted = branch.tokens, len(branch.tokens)
        while cached < wanted:
            if cached == node.end:
                child = node.children.get(tokens[cached])
                if child is None:
                    break
                node = child
            matched = _common(tokens, cached, node.tokens, cached - node.start)
            cached += matched
            if cached < node.end:
                break
        branch.place, branch.cached = node, cached
        return node

    # Changes

    def insert(self, branch: Branch, node: Node, *, grows: bool) -> None:
        """Add the branch's missing tokens where it is located, as planned: `run` computes them.

        Args:
            branch: A branch just located.
            node: Its place.
            grows: Whether the place is the end of a leaf, whose run then grows; else a new leaf is made.
        """
        at, missing = branch.cached, branch.tokens[branch.cached :]
        self._cells += len(missing)
        if grows:
            node.tokens.extend(missing)
        else:
            if at < node.end:
                node = self._split(node, at)
            sequence = self._free.pop()
            self._share(node, at, sequence)
            leaf = Node(node, at, missing, sequence, self.clock)
            node.children[missing[0]] = leaf
            node = leaf
        branch.place, branch.cached = node, len(branch.tokens)

    def _split(self, node: Node, at: int) -> Node:
        """Replace a node by two, the first of which ends at position `at`, and return that one."""
        upper = Node(node.parent, node.start, node.tokens[: at - node.start], None, node.used)
        lower = Node(upper, at, node.tokens[at - node.start :], node.sequence, node.used)
        upper.computed = min(node.computed, at)
        lower.computed = max(node.computed, at)
        self._replace(node, upper)
        upper.children[lower.tokens[0]] = lower
        lower.children = node.children
        for child in lower.children.values():
            child.parent = lower
        return upper

    def _replace(self, node: Node, by: Node) -> None:
        """Put a new node in a node's place; notes of places in the old one lead to its parent from now on."""
        if node.parent is not None:
            node.parent.children[by.tokens[0]] = by
        node.alive = False

    def _share(self, node: Node, length: int, target: int) -> None:
        """Let the empty sequence `target` share the first `length` tokens of the path to `node`, as far as computed."""
        while node.parent is not None and node.computed == node.start:
            node = node.parent
        length = min(length, node.computed)
        if length:
            source = next(leaf.sequence for leaf in node.leaves() if leaf.sequence is not None)
            self.memory.copy(source, target, length)

    def scratch_copy(self, node: Node, length: int) -> int:
        """Return a scratch sequence that shares the first `length` tokens of the path to `node`."""
        scratch = self._free.pop()
        self._share(node, length, scratch)
        return scratch

    def drop_scratch(self, sequence: int) -> None:
        """Empty a scratch sequence and take it back."""
        self.memory.truncate(sequence, 0)
        self._free.append(sequence)

    # Room

    @property
    def free_cells(self) -> int:
        """How many more tokens fit."""
        return self.memory.n_cells - self._cells

    @property
    def free_sequences(self) -> int:
        """How many sequences are empty."""
        return len(self._free)

    def drop_one(self, needed: Sequence[Branch], live: Iterable[Branch], *, cells: int) -> bool:
        """Drop the least recently used end of a path; False if all of them are needed now.

        What only released branches left behind goes first, all of it. Then goes what live branches would have to
        compute again: only as many tokens as are short, `cells`, or the whole end if that is not positive because a
        sequence is what is short. What the `needed` branches have in the tree stays.
        """
        must_stay, should_stay = self._extents(needed), self._extents(live)
        leaves = [leaf for leaf in self._root.leaves() if leaf.parent is not None and leaf.end > must_stay.get(leaf, 0)]
        if not leaves:
            return False
        leaf = min(leaves, key=lambda leaf: (should_stay.get(leaf, 0) == leaf.end, leaf.used))
        keep = should_stay.get(leaf, 0)
        if keep == leaf.end:
            keep = leaf.end - cells if cells > 0 else 0
        self._cut(leaf, max(leaf.start, must_stay.get(leaf, 0), keep))
        return True

    def _extents(self, branches: Iterable[Branch]) -> dict[Node, int]:
        """For each node that a branch passes through: the position up to which it does."""
        extents: dict[Node, int] = {}
        for branch in branches:
            for node in self.locate(branch).above():
                extent = min(node.end, branch.cached)
                if extents.get(node, 0) >= extent:
                    break  # and so it is further up
                extents[node] = extent
        return extents

    def _cut(self, leaf: Node, at: int) -> None:
        """Drop the tokens of a leaf from position `at` on; the leaf itself if none are left."""
        parent, sequence = leaf.parent, leaf.sequence
        if parent is None or sequence is None:
            raise BackendError("only a leaf can be cut")
        self._cells -= leaf.end - at
        if at > leaf.start:
            rest = Node(parent, leaf.start, leaf.tokens[: at - leaf.start], sequence, leaf.used)
            rest.computed = at
            self._replace(leaf, rest)
            self.memory.truncate(sequence, at)
            return
        leaf.alive = False
        del parent.children[leaf.tokens[0]]
        self.memory.truncate(sequence, 0)
        self._free.append(sequence)
        if len(parent.children) == 1 and parent.parent is not None:
            self._absorb(parent)

    def _absorb(self, node: Node) -> None:
        """Let a node grow by its only child, so that the tree has no more nodes than its leaves require."""
        (child,) = node.children.values()
        if node.computed == node.end:
            node.computed = child.computed
        node.tokens.extend(child.tokens)
        node.sequence = child.sequence
        node.used = max(node.used, child.used)
        node.children = child.children
        for grandchild in node.children.values():
            grandchild.parent = node
        child.alive = False


class _Step:
    """One batch: the branches that fit together, the tokens they are missing, and the logits they get."""

    def __init__(self, tree: PrefixTree, live: Iterable[Branch]) -> None:
        self._tree = tree
        self._live = live
        self.branches: list[Branch] = []
        self._again = 0  # branches that are wholly computed and lack nothing but their last token's logits

    def add(self, branch: Branch) -> bool:
        """Plan what `branch` needs; False, and nothing changed, if there is no room left for it."""
        tree = self._tree
        while True:
            node = tree.locate(branch)
            missing = len(branch) - branch.cached
            again = not missing and node.computed >= branch.cached
            grows = missing > 0 and branch.cached == node.end and node.sequence is not None
            cells = self._again + (1 if again else missing)
            sequences = self._again + (1 if again or (missing and not grows) else 0)
            if cells <= tree.free_cells and sequences <= tree.free_sequences:
                break
            if not tree.drop_one([*self.branches, branch], self._live, cells=cells - tree.free_cells):
                return False
        if missing:
            tree.insert(branch, node, grows=grows)
        self._again += again
        self.branches.append(branch)
        return True

    def run(self) -> Batches:
        """Have it computed, and hand each branch its logits."""
        tree = self._tree
        ends: dict[tuple[Node, int], Branch] = {}
        for branch in self.branches:
            node = tree.locate(branch)
            node.used = tree.clock
            ends[node, len(branch)] = branch
        planned = dict.fromkeys(node for end, _ in ends for node in end.above() if node.computed < node.end)
        runs: list[Run] = []
        receivers: list[Branch] = []
        for node in sorted(planned, key=lambda node: node.start):
            first = node.computed
            outputs = sorted(length for owner, length in ends if owner is node and length > first)
            runs.append(
                Run(
                    node.tokens[first - node.start :],
                    first,
                    tuple(leaf.sequence for leaf in node.leaves() if leaf.sequence is not None),
                    tuple(length - 1 - first for length in outputs),
                )
            )
            receivers += [ends[node, length] for length in outputs]
        scratch = []
        for (node, length), branch in ends.items():
            if length <= node.computed:
                scratch.append(tree.scratch_copy(node, length - 1))
                runs.append(Run(branch.tokens[-1:], length - 1, (scratch[-1],), (0,)))
                receivers.append(branch)
        rows = yield runs
        for node in planned:
            node.computed = node.end
        for sequence in scratch:
            tree.drop_scratch(sequence)
        for row, branch in zip(rows, receivers, strict=True):
            branch.logits = row


def _common(left: list[int], left_from: int, right: list[int], right_from: int) -> int:
    """Length of the common beginning of two token lists, from given offsets."""
    length = min(len(left) - left_from, len(right) - right_from)
    if left[left_from : left_from + length] == right[right_from : right_from + length]:
        return length
    return next(i for i in range(length) if left[left_from + i] != right[right_from + i])
