"""The tree, against examples worked out by hand, and against what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correction_graphs.rain import tree
from correction_graphs.rain.settings import RainSettings
from correction_graphs.rain.tree import Node

PAPER = RainSettings.paper()
EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def family(likelihoods: list[float], chosen: RainSettings = PAPER) -> Node:
    """A root with children [0], [1], ..."""
    root = tree.new_root()
    tree.add_children(root, [([at], likelihood, False) for at, likelihood in enumerate(likelihoods)], chosen)
    return root


def test_a_node_is_shown_with_what_the_search_knows_of_it() -> None:
    root = family([0.75, 0.25])
    tree.back_up(root.children[0], 0.5, PAPER)

    assert repr(root.children[0]).startswith("<Node (0,) visits=1 n=1 value=0.5 prior=0.")


# --- Priors


def test_priors_of_the_root_are_mixed_with_the_uniform_distribution() -> None:
    root = family([0.6, 0.2])

    # 0.75 * 0.6 / 0.8 + 0.25 / 2, and the same with 0.2
    assert [child.prior for child in root.children] == pytest.approx([0.6875, 0.3125])


def test_priors_elsewhere_are_not() -> None:
    root = family([1.0])
    (child,) = root.children
    tree.add_children(child, [([7], 0.6, False), ([8], 0.2, False)], PAPER)

    assert [each.prior for each in child.children] == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(
    ("greedy", "samples", "expected"),
    [
        (0.5, [], 0.5),
        (0.5, [0.1, 0.2], 0.3),  # at most as likely as all samples together
        (0.25, [0.2, 0.1, 0.05], 0.25),  # between the bounds: as it is
        (0.1, [0.2, 0.1, 0.05], 0.25),  # at least the likeliest and the unlikeliest together
        (0.5, [0.2], 0.4),  # the bounds contradict each other: 0.2 and 0.4
    ],
)
def test_the_greedy_candidate_s_likelihood(greedy: float, samples: list[float], expected: float) -> None:
    assert tree.greedy_likelihood(greedy, samples) == pytest.approx(expected)


def test_added_children_take_from_the_priors_of_all_others() -> None:
    root = family([0.6, 0.2])
    (new,) = tree.add_children(root, [([1], 0.9, False), ([5], 0.2, False)], PAPER)  # [1] is there already

    assert new.tokens == (5,)
    assert [child.prior for child in root.children] == pytest.approx([0.75 * p + 0.25 / 3 for p in (0.6, 0.2, 0.2)])


# --- Selection


def test_selection_by_the_code_s_formula() -> None:
    root = family([3.0, 1.0], PAPER.model_copy(update={"root_uniform": 0.0}))
    seen, unseen = root.children
    seen.visits, seen.n, seen.value = 3, 3.0, -0.5
    root.n = 4.0

    # The seen one scores (-0.5 + 1) / 2 + 2 * 0.75 * sqrt(4) / 4 = 1.0, the unseen 0 + 2 * 0.25 * sqrt(4) / 1 = 1.0: a tie
    assert tree.select(root, PAPER) is seen
    seen.value = -0.52
    assert tree.select(root, PAPER) is unseen


def test_selection_by_the_paper_s_formula_counts_siblings_and_keeps_the_scale() -> None:
    chosen = RainSettings.paper(puct="eq1", unvisited="parent", exploration=1.0)
    root = family([1.0, 1.0], chosen)
    seen, unseen = root.children
    seen.visits, seen.n, seen.value, root.value = 4, 4.0, 0.5, 0.1

    # The seen one scores 0.5 + 0.5 * sqrt(4) / 5 = 0.7, the unseen one 0.1 + 0.5 * sqrt(4) / 1 = 1.1.
    assert tree.select(root, chosen) is unseen
    root.value = -0.31  # the unseen one: 0.69 now
    assert tree.select(root, chosen) is seen
    assert tree.select(root, chosen.model_copy(update={"unvisited": "worst"})) is seen


def test_the_first_proposed_wins_a_tie() -> None:
    assert tree.select(family([0.3, 0.3, 0.3]), PAPER).tokens == (0,)


def test_a_walk_in_flight_sends_the_next_one_elsewhere() -> None:
    root = family([0.4, 0.3, 0.3])
    gone = []
    for _ in range(3):
        gone.append(tree.select(root, PAPER))
        gone[-1].in_flight += 1

    assert [node.tokens for node in gone] == [(0,), (1,), (2,)]


# --- Backup


def test_backup_is_a_running_mean_along_the_path() -> None:
    root = family([0.5, 0.5])
    first, other = root.children
    (below,) = tree.add_children(first, [([9], 1.0, False)], PAPER)
    tree.back_up(first, 1.0, PAPER)
    tree.back_up(below, -1.0, PAPER)
    tree.back_up(below, 0.0, PAPER)

    assert (below.visits, below.n, below.value) == (2, 2.0, -0.5)
    assert (first.visits, first.n, first.value) == (3, 3.0, 0.0)
    assert (root.visits, root.n, root.value) == (4, 4.0, 0.0)  # the first visit of a root has the value 0
    assert (other.visits, other.n) == (0, 0.0)


def test_similar_siblings_share_by_equation_2() -> None:
    root = family([1.0, 1.0, 1.0])
    first, like, unlike = root.children
    tree.back_up(like, 1.0, PAPER, [np.array([0.96, 0.28])])
    tree.back_up(unlike, 1.0, PAPER, [np.array([0.936, -0.352])])
    tree.back_up(first, -1.0, PAPER, [EAST])

    # cos = 0.96 > 0.95: n = 1 + 0.2 * 0.96, v = (1 * 1 + 0.192 * -1) / 1.192; visits are the true ones
    assert (like.n, like.value, like.visits) == (pytest.approx(1.192), pytest.approx(0.808 / 1.192), 1)
    assert (unlike.n, unlike.value) == (1.0, 1.0)  # 0.936 is not above 0.95
    assert (first.n, first.value) == (1.0, -1.0)
    assert root.n == 4.0


def test_an_unvisited_sibling_gets_nothing_unlike_in_the_paper_s_example() -> None:
    """There, v becomes similarity times s; equation 2 would give s itself, and the code leaves such siblings alone."""
    root = family([1.0, 1.0])
    first, unvisited = root.children
    tree.back_up(first, -1.0, PAPER, [EAST])

    assert (unvisited.n, unvisited.value) == (0.0, 0.0)


def test_embeddings_are_compared_by_their_means_this_visit_included() -> None:
    root = family([1.0, 1.0])
    first, other = root.children
    tree.back_up(first, 0.0, PAPER, [EAST])
    tree.back_up(other, 0.0, PAPER, [EAST + NORTH])
    tree.back_up(first, 1.0, PAPER, [NORTH])  # the mean is now halfway: the other's very direction

    assert first.embedding == pytest.approx([0.5, 0.5])
    assert other.n == pytest.approx(1.2)
    assert other.value == pytest.approx(0.2 / 1.2)


def test_embeddings_of_length_zero_are_like_nothing() -> None:
    root = family([1.0, 1.0])
    for child in root.children:
        tree.back_up(child, 1.0, PAPER, [np.zeros(2)])

    assert [child.n for child in root.children] == [1.0, 1.0]


# --- Addition


def visited(values: list[float], embeddings: list[np.ndarray] | None = None) -> Node:
    root = family([1.0] * len(values))
    for at, (child, value) in enumerate(zip(root.children, values, strict=True)):
        tree.back_up(child, value, RainSettings.paper(similarity=None), [embeddings[at]] if embeddings else None)
    return root


def test_candidates_are_added_where_all_are_bad_and_alike() -> None:
    # sample variance of 0 and 0.2 is 0.02, below 0.03 * 1 token
    assert tree.wants_more(visited([-0.1, -0.2], [EAST, EAST + 0.2 * NORTH]), PAPER)


@pytest.mark.parametrize(
    ("values", "apart"),
    [
        ([0.0, -1.0], 0.0),  # one is not bad
        ([-1.0, -1.0], 0.25),  # variance 0.03125, norm above 0.03
        ([-1.0], 0.0),  # alike with whom
    ],
)
def test_candidates_are_not_added_otherwise(values: list[float], apart: float) -> None:
    assert not tree.wants_more(visited(values, [EAST, EAST + apart * NORTH][: len(values)]), PAPER)


def test_spread_is_measured_against_the_length_of_candidates_there() -> None:
    root = visited([-1.0, -1.0], [EAST, EAST + 0.25 * NORTH])
    root.depth = 1  # candidates of two tokens: 0.03125 < 0.06

    assert tree.wants_more(root, PAPER)


def test_nothing_is_added_before_all_were_visited_or_beyond_the_limit() -> None:
    ours = RainSettings(max_children=2)
    root = family([1.0, 1.0], ours)
    tree.back_up(root.children[0], -1.0, ours)
    assert not tree.wants_more(root, RainSettings())
    tree.back_up(root.children[1], -1.0, ours)
    assert tree.wants_more(root, RainSettings())
    assert not tree.wants_more(root, ours)


# --- Commit


def test_the_paper_commits_by_visits_with_shared_ones_and_ours_by_value() -> None:
    root = visited([-1.0, 1.0, 0.5])
    root.children[0].n += 0.1

    assert tree.best_child(root, PAPER) is root.children[0]
    assert tree.best_child(root, RainSettings()) is root.children[1]
    root.children[0].n -= 0.1  # ties go by value
    assert tree.best_child(root, PAPER) is root.children[1]
    assert tree.best_child(tree.new_root(), PAPER) is None


def test_acceptance_needs_more_visits_and_a_higher_value_than_stated() -> None:
    root = visited([0.81])
    (child,) = root.children
    child.visits = 6
    assert not tree.accepted(root, PAPER)
    child.visits = 7
    assert tree.accepted(root, PAPER)
    child.value = 0.8
    assert not tree.accepted(root, PAPER)


def test_a_commit_lets_the_old_root_go_and_smooths_the_new_one_s_priors() -> None:
    root = family([1.0, 1.0])
    child = root.children[0]
    tree.add_children(child, [([5], 0.6, False), ([6], 0.2, False)], PAPER)
    kept = child.children[:]

    new = tree.commit(child, PAPER)

    assert new is child
    assert new.parent is None
    assert new.children == kept
    assert [each.prior for each in new.children] == pytest.approx([0.6875, 0.3125])


# --- What always holds


@st.composite
def searches(draw: st.DrawFn) -> tuple[RainSettings, list[tuple[int, float, float, float]]]:
    changes = {
        "puct": draw(st.sampled_from(["code", "eq1"])),
        "unvisited": draw(st.sampled_from(["worst", "parent"])),
        "similarity": draw(st.sampled_from([None, 0.5, 0.95, -1.0])),
        "gamma": draw(st.floats(0, 1)),
        "max_children": 12,
        "root_uniform": draw(st.floats(0, 1)),
    }
    number = st.floats(-1, 1)
    steps = draw(st.lists(st.tuples(st.integers(1, 4), number, number, number), min_size=1, max_size=60))
    return RainSettings.paper(**changes), steps


@settings(max_examples=200)
@given(searches())
def test_counts_priors_and_values_hold_together(
    made: tuple[RainSettings, list[tuple[int, float, float, float]]],
) -> None:
    chosen, steps = made
    root = tree.new_root()
    committed = 0
    for at, (width, value, x, y) in enumerate(steps):
        node = root
        while node.visits:
            if not node.children:
                tree.add_children(node, [([child], abs(x) + child, False) for child in range(width)], chosen)
            elif tree.wants_more(node, chosen):
                tree.add_children(node, [([100 + at], abs(y), False)], chosen)
            node = tree.select(node, chosen)
        path = node.path()
        tree.back_up(node, value, chosen, [np.array([x, y + 0.1 * step]) for step in range(len(path))])
        if at % 10 == 9 and (best := tree.best_child(root, chosen)) is not None:
            inside = {id(each) for each in best.walk()}
            siblings = {id(each) for child in root.children if child is not best for each in child.walk()}
            before, root = root, tree.commit(best, chosen)
            committed += 1
            assert {id(each) for each in root.walk()} == inside
            reached = {id(each.parent) for each in root.walk()}
            assert id(before) not in reached
            assert not siblings & reached

        for each in root.walk():
            assert -1 <= each.value <= 1
            assert each.n >= each.visits - 1e-9
            assert each.in_flight == 0
            if each.children:
                assert each.visits == 1 + sum(child.visits for child in each.children)
                assert sum(child.prior for child in each.children) == pytest.approx(1)
                assert all(child.parent is each for child in each.children)
                assert all(child.depth == each.depth + 1 for child in each.children)
    assert root.depth == committed
