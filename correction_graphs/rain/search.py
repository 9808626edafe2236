"""RAIN: search for the next token set, judge, rewind, commit (RAIN paper, algorithm 1).

    outer, until the reply ends: run inner searches; commit the best child of the root, and keep its subtree
    inner: walk down from the root to a leaf; simulate how it goes on to a pause; judge the text; pass the value up

One search is one reply. It is written without a loop around the model: it yields requests (see `steps`), so that
several searches can share batches. What is found depends on the settings, the prompt and the model alone, whatever else
runs beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from correction_graphs.backends.base import Branch, Logits, RewindableBackend, detokenize
from correction_graphs.errors import CorrectionError, JudgeError, SearchContextError, SettingsError
from correction_graphs.rain import tree
from correction_graphs.rain.judge import Candidate, Value, ValueSession
from correction_graphs.rain.proposals import Draft, Next, next_tokens
from correction_graphs.rain.randomness import generator_for
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.steps import Forward, Steps
from correction_graphs.rain.tree import Node
from correction_graphs.results import RainNode

T = TypeVar("T")
Reason = Literal["accepted", "iterations", "deadline", "forwarded_tokens"]
StopReason = Literal["stop", "length", "context", "deadline", "forwarded_tokens"]


class Embed(Protocol):
    """Turns texts into vectors."""

    def __call__(self, texts: Sequence[str]) -> Steps[NDArray[Any]]:
        """Return an array with a row for each text."""
        ...


class Judged(NamedTuple):
    """A text was judged.

    Attributes:
        text: The whole reply as it was judged, simulation included.
        value: From -1 to 1.
        known: False where the judge could not tell.
        depth: Token sets after the committed text.
        rewound: Whether this left the text judged before, so that one was rejected.
    """

    text: str
    value: float
    known: bool
    depth: int
    rewound: bool


class Counts(NamedTuple):
    """What was done.

    Attributes:
        iterations: Walks from the root to a leaf and back.
        evaluations: Texts that the judge was shown; the same text is shown once, or twice if the
            reply also ends with it.
        rewinds: Iterations that ended elsewhere than at or below the text that was judged or committed last: the walk
            went back, and left that text.
        forwarded_tokens: Tokens that had to be computed, those of the judge included.
        judge_tokens: The judge's part.
    """

    iterations: int = 0
    evaluations: int = 0
    rewinds: int = 0
    forwarded_tokens: int = 0
    judge_tokens: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class Commit(NamedTuple):
    """One token set became part of the reply.

    Attributes:
        tokens: The set; its last is the end token where the model ended the reply. Empty in a last commit that only
            brings the text held back before.
        text: What the reply's text grew by. What may be the beginning of a stop text, or of a character, is held back
            until the next commit.
        value: Its mean value.
        visits: Walks through it.
        reason: Why no further iterations were run.
        counts: What was done for it.
        finished: Whether this ends the reply.
        searched: The root's visited children, this one among them.
    """

    tokens: tuple[int, ...]
    text: str
    value: float
    visits: int
    reason: Reason
    counts: Counts
    finished: bool
    searched: tuple[RainNode, ...]


class _LimitError(Exception):
    """A limit was reached inside an iteration, which is given up."""


class Search:
    """The search for one reply.

    What `RainSettings.paper()` does, where the paper and the notes on the official code leave a choice:

    - The first root counts as visited once; the empty reply is not judged (`tree.new_root`).
    - A leaf is expanded when a walk comes to it again, not when it is judged. The walk then goes on to one of the
      children. Selection and commits are as with expansion at once, and leaves never visited again cost nothing.
    - On its way down, a walk asks at each expanded node whether candidates are to be added (`tree.wants_more`), adds
      them, and selects among all children.
    - Candidates: where their length is 1, or there is room for no more, the likeliest tokens, one after another; their
      likelihood is their probability at `temperature`. Else one greedy draft, then samples, each with its own
      generator: `generator_for(seed, "propose", reply before it, number)`, the number counting the samples ever
      drawn at this node from 0 (the greedy one draws none). A draft ends at an end token, which belongs to it, at a
      stop text, or at the nominal length. Duplicates of children are dropped and not replaced. Likelihoods: the
      product of the tokens' probabilities among the `top_k`; the greedy one's as in `tree.greedy_likelihood`, at the
      expansion.
    - Simulation: `generator_for(seed, "simulate", reply before it, 0)`, one draw a token from the whole vocabulary;
      none if the text ends with a pause already, or the reply has ended.
    - A node is judged once; a finished leaf that is visited again counts its value again.
    - Embedded are, for each node on the path, the texts from its own tokens to the end of the simulation,
      a stop text in it included.
    - All children's priors are renewed when some are added, and mixed with the uniform distribution when their parent
      becomes the root.
    - A node after which there is no room for more tokens is a leaf for ever, as one at which the reply ends.

    Args:
        backend: The model.
        prompt_tokens: The prompt, to be continued.
        session: Judges replies; the search closes it.
        settings: How to search.
        embed: Embeds texts, for the settings that compare them.
        on_event: Called with each `Judged` and each `Commit`.
        clock: Returns seconds.

    Raises:
        SearchContextError: If the context is too small.
        SettingsError: If the settings need embeddings and `embed` is missing, or the prompt is empty.
    """

    def __init__(
        self,
        backend: RewindableBackend,
        prompt_tokens: Sequence[int],
        session: ValueSession,
        settings: RainSettings,
        *,
        embed: Embed | None = None,
        on_event: Callable[[Judged | Commit], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if settings.needs_embeddings and embed is None:
            raise SettingsError(
                "these settings compare texts, and there is nothing to embed them with; give `embed`, or set "
                "`similarity` and `add_variance` to None"
            )
        if not prompt_tokens:
            raise SettingsError("the prompt has no tokens; give at least one")
        self.settings = settings
        self.committed: list[tuple[int, ...]] = []
        self.stop_reason: StopReason | None = None
        self.counts = Counts()
        self._backend = backend
        self._session = session
        self._embed = embed if settings.needs_embeddings else None
        self._on_event = on_event or (lambda _: None)
        self._clock = clock
        self._deadline: float | None = None
        self._stops = tuple(stop.encode() for stop in settings.stop)
        self._ends = tuple(end.encode() for end in settings.ends)
        self._pauses = tuple(pause.encode() for pause in settings.pauses)
        judge = getattr(session, "prompt_tokens", 0) + getattr(session, "question_tokens", 0)
        self._room = min(settings.max_new_tokens, backend.n_ctx - max(len(prompt_tokens), judge))
        first = min(settings.length(0), settings.max_new_tokens)
        if self._room < first:
            raise SearchContextError(prompt=len(prompt_tokens), judge=judge, reply=first, limit=backend.n_ctx)
        self._root = tree.new_root()
        self._reply: tuple[int, ...] = ()  # the committed tokens
        self._shown = 0  # characters of `text` that commits have brought
        self._next: dict[tuple[int, ...], Next] = {}  # by the tokens after the committed ones
        self._values: dict[tuple[str, bool], Value] = {}
        self._last: Node | None = None  # where the last iteration ended
        self._branch = backend.open(prompt_tokens)  # prompt and committed text: kept alive, so kept in the cache

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._read(self._reply).text

    @property
    def root(self) -> Node:
        """The tree below the committed text."""
        return self._root

    def resume(self, committed: Sequence[Sequence[int]]) -> Self:
        """Go on after token sets that an earlier search committed; their computation is repeated when it is needed.

        The search below them begins anew, so it may find something else than one that was not interrupted.

        Raises:
            SettingsError: If this search has committed something already, or the reply is longer than it may be.
        """
        sets = [tuple(tokens) for tokens in committed if tokens]
        tokens = tuple(token for token_set in sets for token in token_set)
        if self.committed:
            raise SettingsError("this search has begun; resume a fresh one")
        if len(tokens) > self._room:
            raise SettingsError(f"the reply to resume has {len(tokens)} tokens, but there is room for {self._room}")
        self._backend.extend(self._branch, tokens)
        self.committed = sets
        self._reply = tokens
        self._root = tree.new_root(len(sets))
        reply = self._read(tokens)
        self._shown = len(self._safe(reply))
        if reply.finished or len(tokens) >= self._room:
            self.stop_reason = self._end_of(reply)
            self._shown = len(reply.text)
        return self

    def commit(self) -> Steps[Commit | None]:
        """Run inner searches and commit one token set (one step of the outer loop).

        Returns:
            What was committed; None when the reply has ended, and `stop_reason` says why. A limit that is reached ends
            the search for this set: the best of what was judged is committed, until nothing judged is left. The
            first set of a reply is searched with one iteration at least, whatever the limits.

        Raises:
            JudgeError: If the value function raised, or returned no value from -1 to 1 (see `on_bad_value`).
        """
        if self.stop_reason is not None:
            return None
        if self._deadline is None and self.settings.max_seconds is not None:
            self._deadline = self._clock() + self.settings.max_seconds
        before = self.counts
        reason = yield from self._search()
        child = tree.best_child(self._root, self.settings)
        if child is None:
            self.stop_reason = "deadline" if reason == "deadline" else "forwarded_tokens"
            rest = self._newly_shown()
            if not rest:
                return None
            done = Commit((), rest, self._root.value, 0, reason, self.counts - before, finished=True, searched=())
        else:
            searched = self._snapshot(child)
            self._take(child)
            done = Commit(
                tokens=child.tokens,
                text=self._newly_shown(),
                value=child.value,
                visits=child.visits,
                reason=reason,
                counts=self.counts - before,
                finished=child.finished,
                searched=searched,
            )
        self._on_event(done)
        return done

    def run(self) -> Steps[list[Commit]]:
        """Search to the end of the reply, and close."""
        commits = []
        try:
            while (done := (yield from self.commit())) is not None:
                commits.append(done)
            return commits
        finally:
            self.close()

    def close(self) -> None:
        """Give up what is held in the backend; closing again does nothing."""
        self._backend.release(self._branch)
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The inner loop

    def _search(self) -> Steps[Reason]:
        settings = self.settings
        wanted = max(settings.max_iterations - self._root.visits, settings.fresh_iterations)
        done = 0
        while True:
            if done >= settings.min_iterations and tree.accepted(self._root, settings):
                return "accepted"
            if done >= wanted:
                return "iterations"
            if limit := self._limit():
                return limit
            try:
                done += yield from self._iterate(min(settings.leaves, wanted - done))
            except _LimitError:
                continue

    def _limit(self) -> Literal["deadline", "forwarded_tokens"] | None:
        """Which limit is reached; none is before there is anything to return."""
        if not self._reply and not any(child.visits for child in self._root.children):
            return None
        most = self.settings.max_forwarded_tokens
        if most is not None and self.counts.forwarded_tokens >= most:
            return "forwarded_tokens"
        return "deadline" if self._deadline is not None and self._clock() >= self._deadline else None

    def _iterate(self, count: int) -> Steps[int]:
        """Take up to `count` walks at once, judge where they end, and back up; return how many there were."""
        entered: list[Node] = []
        try:
            leaves = yield from self._walk_down(count, entered)
            found = yield from self._evaluate(leaves)
        finally:
            for node in entered:
                node.in_flight -= 1
        for leaf, (candidate, value, embeddings) in zip(leaves, found, strict=True):
            rewound = self._last is not None and self._last not in (*leaf.path(), self._root)
            self._last = leaf
            self.counts = self.counts._replace(
                iterations=self.counts.iterations + 1, rewinds=self.counts.rewinds + rewound
            )
            leaf.judged = value.value
            tree.back_up(leaf, value.value, self.settings, embeddings)
            self._on_event(Judged(candidate.text, value.value, value.known, len(leaf.path()), rewound))
        return len(leaves)

    def _walk_down(self, count: int, entered: list[Node]) -> Steps[list[Node]]:
        """Return the leaves that `count` walks lead to, without those that would meet; they stay marked as entered."""
        leaves: list[Node] = []
        asked: set[Node] = set()
        walks = [self._root] * count
        while walks:
            waiting: list[Node] = []
            for start in walks:
                node = start
                while node.visits and not node.finished and (node in asked or not self._wanted(node)):
                    node = tree.select(node, self.settings)
                    node.in_flight += 1
                    entered.append(node)
                if node.visits and not node.finished:
                    waiting.append(node)
                elif node not in leaves:
                    leaves.append(node)
            asked.update(waiting)
            yield from self._propose(list(dict.fromkeys(waiting)))
            walks = waiting
        return leaves

    def _wanted(self, node: Node) -> int:
        """How many candidates are to be proposed at a node before a walk goes on from it."""
        if not node.children:
            return self.settings.candidates
        if tree.wants_more(node, self.settings):
            return min(self.settings.add, self.settings.max_children - len(node.children))
        return 0

    # Candidates

    def _propose(self, nodes: Sequence[Node]) -> Steps[None]:
        """Attach candidates to nodes, all written in one go."""
        drafts = {node: self._drafts(node) for node in nodes}
        yield from self._write([draft for some in drafts.values() for draft in some])
        for node, some in drafts.items():
            proposals = self._proposals(node, some)
            node.samples += sum(draft.sampled for draft in some)
            tree.add_children(node, proposals, self.settings)

    def _drafts(self, node: Node) -> list[Draft]:
        place, reply = self._tokens(node)
        wanted = self._wanted(node)
        limit = min(self.settings.length(node.depth), self._room - len(reply))
        greedy = 0 if node.children else 1
        if limit == 1:  # no samples, but what the greedy one finds is needed
            wanted, greedy = 1, 1
        before = self._bytes(reply)
        generators: list[np.random.Generator | None] = [None] * greedy
        generators += [
            generator_for(self.settings.seed, "propose", reply, node.samples + index)
            for index in range(wanted - greedy)
        ]
        return [
            Draft(
                place,
                before,
                limit=limit,
                ends=self._ends,
                min_length=self.settings.min_length,
                generator=generator,
            )
            for generator in generators
        ]

    def _proposals(self, node: Node, drafts: Sequence[Draft]) -> list[tuple[tuple[int, ...], float, bool]]:
        """Return tokens, likelihood and whether the reply ends there, for each draft or likeliest token."""
        place, reply = self._tokens(node)
        room = self._room - len(reply)
        if min(self.settings.length(node.depth), room) == 1:
            known = self._next[place]
            there = len(node.children)
            weights = known.among(len(known.tokens), self.settings.temperature)
            tokens = known.tokens[there : there + self._wanted(node)]
            return [
                ((int(token),), float(weight), room == 1 or self._ends_with(reply, int(token)))
                for token, weight in zip(tokens, weights[there:], strict=False)
            ]
        product = self.settings.likelihood == "product"
        found = {
            tuple(draft.tokens): draft.probability if product else draft.probability ** (1 / len(draft.tokens))
            for draft in reversed(drafts)
        }
        if not node.children and product:
            greedy = tuple(drafts[0].tokens)
            found[greedy] = tree.greedy_likelihood(
                drafts[0].probability, [likelihood for tokens, likelihood in found.items() if tokens != greedy]
            )
        ended = {tuple(draft.tokens): draft.ended for draft in drafts}
        return [(tokens, found[tokens], is_end or len(tokens) == room) for tokens, is_end in ended.items()]

    def _ends_with(self, reply: tuple[int, ...], token: int) -> bool:
        probe = Draft((), self._bytes(reply), limit=1, ends=())
        probe.append(token, self._backend, self._stops)
        return probe.ended

    def _write(self, drafts: Sequence[Draft]) -> Steps[None]:
        """Write all drafts, a batch a step; what is known already is not computed."""
        kept = max(self.settings.top_k, self.settings.max_children)
        try:
            while True:
                waiting = [draft for draft in drafts if not self._go_on(draft)]
                if not waiting:
                    return
                if self._limit():
                    raise _LimitError
                rows = yield from self._forward([self._branch_of(draft) for draft in waiting])
                for draft, row in zip(waiting, rows, strict=True):
                    known = self._next.get(draft.place)
                    if known is None:
                        known = self._next[draft.place] = next_tokens(row, kept)
                    token = draft.choose(known, self.settings, row)
                    if token is not None:
                        draft.append(token, self._backend, self._stops)
        finally:
            for draft in drafts:
                if draft.branch is not None:
                    self._backend.release(draft.branch)

    def _branch_of(self, draft: Draft) -> Branch:
        """The draft's branch, with all that is written."""
        if draft.branch is None:
            draft.branch = self._backend.fork(self._branch)
        written = len(draft.branch) - len(self._branch)
        self._backend.extend(draft.branch, draft.place[written:])
        return draft.branch

    def _go_on(self, draft: Draft) -> bool:
        """Write as far as is known; whether the draft is done."""
        while not draft.done:
            token = draft.choose(self._next.get(draft.place), self.settings)
            if token is None:
                return False
            draft.append(token, self._backend, self._stops)
        return True

    # Judging

    def _evaluate(self, leaves: Sequence[Node]) -> Steps[list[tuple[Candidate, Value, NDArray[Any] | None]]]:
        """Return for each leaf what was judged, its value, and the embeddings of its path."""
        simulated = yield from self._simulate(leaves)
        candidates = [self._read((*self._tokens(leaf)[1], *simulated.get(leaf, ()))) for leaf in leaves]
        new = {
            (candidate.text, candidate.finished): candidate
            for candidate in candidates
            if (candidate.text, candidate.finished) not in self._values
        }
        if new:
            values = yield from self._ask(list(new.values()))
            self._values.update(zip(new, values, strict=True))
        embeddings = yield from self._embedded(leaves, simulated)
        return [
            (candidate, self._values[candidate.text, candidate.finished], vectors)
            for candidate, vectors in zip(candidates, embeddings, strict=True)
        ]

    def _simulate(self, leaves: Sequence[Node]) -> Steps[dict[Node, tuple[int, ...]]]:
        drafts = {}
        for leaf in leaves:
            place, reply = self._tokens(leaf)
            text = self._bytes(reply)
            limit = min(self.settings.simulation_tokens, self._room - len(reply))
            if limit > 0 and not leaf.finished and not text.endswith(self._pauses):
                drafts[leaf] = Draft(
                    place,
                    text,
                    limit=limit,
                    ends=self._pauses,
                    generator=generator_for(self.settings.seed, "simulate", reply, 0),
                    whole_vocabulary=True,
                )
        yield from self._write(list(drafts.values()))
        return {leaf: tuple(draft.tokens) for leaf, draft in drafts.items()}

    def _ask(self, candidates: Sequence[Candidate]) -> Steps[list[Value]]:
        """Ask the value function, and see to it that what comes back are values."""
        name = getattr(self._session, "name", type(self._session).__name__)
        before = self.counts.forwarded_tokens
        try:
            values = yield from self._counting(self._session.evaluate(candidates))
        except CorrectionError:
            raise
        except Exception as error:
            raise JudgeError(
                f"the value function {name!r} raised {type(error).__name__} while judging "
                f"{candidates[0].text[-80:]!r}; what was committed before is in the search's `text`"
            ) from error
        judged = self.counts.forwarded_tokens - before
        self.counts = self.counts._replace(
            evaluations=self.counts.evaluations + len(candidates), judge_tokens=self.counts.judge_tokens + judged
        )
        if len(values) != len(candidates):
            raise JudgeError(f"the value function {name!r} returned {len(values)} values for {len(candidates)} texts")
        return [self._checked(value, candidate, name) for value, candidate in zip(values, candidates, strict=True)]

    def _checked(self, value: Value, candidate: Candidate, name: str) -> Value:
        if not value.known:
            return value._replace(value=0.0)
        if math.isfinite(value.value) and -1 <= value.value <= 1:
            return value
        if self.settings.on_bad_value == "unknown":
            return Value(0.0, known=False, details=value.details)
        raise JudgeError(
            f"the value function {name!r} returned {value.value} for {candidate.text[-80:]!r}; give a number from -1 "
            "to 1, or set `on_bad_value` to 'unknown'. What was committed before is in the search's `text`"
        )

    def _embedded(
        self, leaves: Sequence[Node], simulated: dict[Node, tuple[int, ...]]
    ) -> Steps[list[NDArray[Any] | None]]:
        """Return for each leaf the embeddings of the texts from each node of its path to the end of the simulation."""
        if self._embed is None:
            return [None] * len(leaves)
        texts: list[str] = []
        sizes: list[int] = []
        for leaf in leaves:
            tail = simulated.get(leaf, ())
            own: list[str] = []
            for node in reversed(leaf.path()):
                tail = (*node.tokens, *tail)
                own.append(detokenize(self._backend, tail))
            texts += own[::-1]
            sizes.append(len(own))
        vectors = yield from self._embed(texts)
        return list(np.split(np.asarray(vectors, dtype=np.float64), np.cumsum(sizes)[:-1]))

    # Tokens and text

    def _tokens(self, node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens from the committed text to a node's end, and the same after the committed ones."""
        place = tuple(token for step in node.path() for token in step.tokens)
        return place, (*self._reply, *place)

    def _bytes(self, tokens: Sequence[int]) -> bytes:
        return b"".join(map(self._backend.token_bytes, tokens))

    def _read(self, tokens: Sequence[int]) -> Candidate:
        """Return the reply that tokens spell: without an end token or stop text, and what follows these."""
        kept = list(tokens)
        end = next((at for at, token in enumerate(kept) if self._backend.is_end(token)), None)
        data = self._bytes(kept if end is None else kept[:end])
        cut = min((at for stop in self._stops if (at := data.find(stop)) >= 0), default=None)
        if cut is not None:
            data = data[:cut]
        if end is not None or cut is not None:
            kept = kept[:end]
            size = sum(len(self._backend.token_bytes(token)) for token in kept)
            while kept and size > len(data):
                size -= len(self._backend.token_bytes(kept.pop()))
        finished = end is not None or cut is not None
        return Candidate(tuple(kept), data.decode("utf-8", errors="replace"), finished)

    def _safe(self, reply: Candidate) -> str:
        """The text of a reply without what may turn out to begin a stop text, or a character."""
        if reply.finished:
            return reply.text
        text = reply.text.rstrip("\ufffd")
        longest = max(map(len, self.settings.stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.settings.stop):
                return text[:-size]
        return text

    def _newly_shown(self) -> str:
        reply = self._read(self._reply)
        text = reply.text if self.stop_reason is not None else self._safe(reply)
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new

    # The outer loop

    def _take(self, child: Node) -> None:
        """Make a child the root."""
        self._backend.extend(self._branch, child.tokens)
        self._reply += child.tokens
        self.committed.append(child.tokens)
        size = len(child.tokens)
        self._next = {place[size:]: known for place, known in self._next.items() if place[:size] == child.tokens}
        self._root = self._last = tree.commit(child, self.settings)  # the text now stands there
        if child.finished:
            self.stop_reason = self._end_of(self._read(self._reply))

    def _end_of(self, reply: Candidate) -> StopReason:
        if reply.finished:
            return "stop"
        return "length" if len(self._reply) >= self.settings.max_new_tokens else "context"

    def _snapshot(self, committed: Node) -> tuple[RainNode, ...]:
        def of(node: Node) -> RainNode:
            return RainNode(
                tokens=node.tokens,
                text=detokenize(self._backend, node.tokens),
                prior=node.prior,
                visits=node.visits,
                n=node.n,
                value=node.value,
                judged=node.judged,
                committed=node is committed,
                children=() if node is committed else tuple(of(child) for child in node.children if child.visits),
            )

        return tuple(of(child) for child in self._root.children if child.visits)

    # Counting

    def _forward(self, branches: Sequence[Branch]) -> Steps[Logits]:
        self._count(branches)
        rows: Logits = yield Forward(branches)
        return rows

    def _counting(self, steps: Steps[T]) -> Steps[T]:
        """Pass requests on, and count what is to be computed for them."""
        try:
            request = next(steps)
            while True:
                if isinstance(request, Forward):
                    self._count(request.branches)
                try:
                    answer = yield request
                except Exception as error:  # noqa: BLE001  (it is the asker's)
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            steps.close()

    def _count(self, branches: Sequence[Branch]) -> None:
        """Count the tokens that `forward` has to compute: each once, however many branches share it."""
        new = 0
        before: list[int] = []
        for branch in sorted(branches, key=lambda branch: branch.tokens):
            known = max(self._backend.cached_tokens(branch), _common_length(before, branch.tokens))
            new += len(branch) - known
            before = branch.tokens
        self.counts = self.counts._replace(forwarded_tokens=self.counts.forwarded_tokens + new)


def _common_length(one: list[int], other: list[int]) -> int:
    """How many first tokens two texts share; by bisection, since comparing slices is quick and a loop is not."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
