"""The synthetic analysis in `examples/in_context_alignment`: its data and theory, and, where PyTorch is, its learners."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "in_context_alignment"


@pytest.fixture(autouse=True)
def modules_of_the_example(monkeypatch):
    """Importable for one test, as they are for `run.py`, and then gone: their names are common ones."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == FOLDER:
            del sys.modules[name]


@pytest.fixture
def torch():
    found = pytest.importorskip("torch", reason="PyTorch is not installed: pip install --group train")
    found.set_num_threads(1)
    return found


def tasks(count=6, *, seed=3, length=5, variant="segment"):
    from synthetic_tasks import draw_tasks

    return draw_tasks(seed, range(count), length=length, variant=variant)


# The data


def test_with_one_bad_map_all_responses_lie_on_one_segment_and_with_independent_ones_they_do_not():
    def ranks(drawn):
        return [np.linalg.matrix_rank(one - one.mean(axis=0), tol=1e-9) for one in drawn.responses]

    assert ranks(tasks(variant="segment")) == [1] * 6
    assert ranks(tasks(variant="independent", length=8)) == [5] * 6


@pytest.mark.parametrize("variant", ["segment", "independent"])
def test_the_reward_says_how_near_a_response_is_to_the_target(variant):
    drawn = tasks(variant=variant, length=200)
    distances = np.linalg.norm(drawn.responses - drawn.targets[:, None], axis=2)
    for near, rewards in zip(distances, drawn.rewards, strict=True):
        assert np.corrcoef(near, rewards)[0, 1] < -0.6
    assert 0 <= drawn.rewards.min() < 0.05
    assert 0.95 < drawn.rewards.max() <= 1


def test_a_task_is_the_same_in_whatever_batch_and_another_one_for_another_seed():
    from synthetic_tasks import draw_tasks

    alone = draw_tasks(3, [4], length=5, variant="segment")
    assert np.array_equal(alone.responses[0], tasks().responses[4])
    assert not np.allclose(tasks().queries, tasks(seed=4).queries)


def test_noise_replaces_as_many_rewards_as_it_says_and_no_response():
    from synthetic_tasks import with_noise

    clean = tasks(200, length=10)
    for probability in (0.0, 0.25, 0.5, 0.75, 1.0):
        noisy = with_noise(clean, probability)
        assert np.mean(noisy.rewards != clean.rewards) == pytest.approx(probability, abs=0.03)
        assert np.array_equal(noisy.responses, clean.responses)
    assert np.array_equal(with_noise(clean, 0.5).rewards, with_noise(clean, 0.5).rewards)


def test_rewards_that_are_all_noise_say_nothing_of_the_responses():
    from synthetic_tasks import with_noise

    clean = tasks(400, length=10)
    noisy = with_noise(clean, 1.0)
    assert abs(np.corrcoef(clean.rewards.ravel(), noisy.rewards.ravel())[0, 1]) < 0.05
    near = -np.linalg.norm(clean.responses - clean.targets[:, None], axis=2)
    assert abs(np.corrcoef(near.ravel(), noisy.rewards.ravel())[0, 1]) < 0.05
    assert np.corrcoef(near.ravel(), clean.rewards.ravel())[0, 1] > 0.5


def test_a_reward_replaced_at_one_probability_is_the_same_at_a_higher_one():
    from synthetic_tasks import with_noise

    clean = tasks(50)
    some, more = with_noise(clean, 0.3).rewards, with_noise(clean, 0.6).rewards
    replaced = some != clean.rewards
    assert replaced.any()
    assert np.array_equal(some[replaced], more[replaced])


def test_the_trivial_answers_after_n_responses_know_n_responses():
    from synthetic_tasks import copy_best, running_mean

    drawn = tasks()
    for task, n in itertools.product(range(6), range(1, 6)):
        seen = drawn.responses[task, :n]
        assert np.array_equal(copy_best(drawn)[task, n - 1], seen[drawn.rewards[task, :n].argmax()])
        assert np.allclose(running_mean(drawn)[task, n - 1], seen.mean(axis=0))


def test_the_error_is_one_minus_the_cosine():
    from synthetic_tasks import error

    predictions = np.asarray([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 1.0]])
    assert error(predictions, np.asarray([[5.0, 0.0]])) == pytest.approx([0, 1, 2, 1 - 1 / math.sqrt(2)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks(variant="line"), "variant is 'line'; expected one of ('segment', 'independent')"),
        (lambda: tasks(length=0), "length is 0; a task has at least 1 response"),
    ],
)
def test_impossible_tasks_are_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_an_impossible_probability_is_refused():
    from synthetic_tasks import with_noise

    with pytest.raises(ValueError, match=re.escape("probability is 1.5; expected a number from 0 to 1")):
        with_noise(tasks(), 1.5)


# The theory


def setting(responses):
    random = np.random.default_rng(responses)
    query = random.standard_normal(5)
    return random.standard_normal((5, 5)), query / np.linalg.norm(query), random.standard_normal((responses, 5))


def test_the_step_on_the_weights_follows_the_gradient_of_the_loss():
    from theory import loss, step_on_weights

    weights, query, responses = setting(3)
    moved = (weights - step_on_weights(weights, query, responses, 1, rate=1.0)).ravel()
    for entry in range(25):
        nudge = np.zeros(25)
        nudge[entry] = 1e-6
        up, down = (loss(weights + sign * nudge.reshape(5, 5), query, responses, 1) for sign in (1, -1))
        assert moved[entry] == pytest.approx((up - down) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("responses", [2, 7])
def test_a_step_on_the_weights_equals_the_stated_update_of_the_responses(responses):
    from theory import loss, step_on_responses, step_on_weights

    weights, query, given = setting(responses)
    stepped = step_on_weights(weights, query, given, 1, rate=0.05)
    moved = step_on_responses(weights, query, given, 1, rate=0.05)
    assert stepped @ query - given == pytest.approx(weights @ query - moved)
    assert loss(stepped, query, given, 1) == pytest.approx(loss(weights, query, moved, 1))
    assert loss(stepped, query, given, 1) < loss(weights, query, given, 1)


def test_one_layer_of_two_head_attention_makes_that_update_if_the_responses_are_equally_long():
    from theory import step_by_attention, step_on_responses

    weights, query, given = setting(7)
    rewards = np.asarray([0.1, 0.4, 0.9, 0.3, 0.2, 0.5, 0.6])

    def apart(responses, sharpness):
        attended = step_by_attention(weights, query, responses, rewards, rate=0.1, sharpness=sharpness)
        return np.abs(attended - step_on_responses(weights, query, responses, 2, rate=0.1)).max()

    equally_long = given / np.linalg.norm(given, axis=1, keepdims=True)
    assert apart(equally_long, 200.0) < 1e-12
    assert apart(equally_long, 1.0) > 1e-2
    assert apart(given, 200.0) > 1e-2


# The loss


def by_the_book(scores, rewards):
    ranked = [score for _, score in sorted(zip(rewards, scores, strict=True), reverse=True)]
    return sum(math.log(sum(map(math.exp, ranked[i:]))) - ranked[i] for i in range(len(ranked)))


def test_the_loss_of_two_responses_by_hand(torch):
    from plackett_luce import plackett_luce

    # The second is preferred, with odds exp(0.5 - 0.1) to 1; the third is not seen.
    found = plackett_luce(torch.tensor([[[0.1, 0.5, 9.0]]]), torch.tensor([[0.2, 0.7, 1.0]]), torch.tensor([2]))
    assert found.item() == pytest.approx(math.log(1 + math.exp(-0.4)), abs=1e-6)


def test_the_loss_for_all_lengths_at_once_is_the_loss_of_each_by_itself(torch):
    from plackett_luce import plackett_luce

    random = torch.Generator().manual_seed(1)
    scores = 4 * torch.randn(3, 5, 6, generator=random)
    rewards = torch.rand(3, 6, generator=random)
    found = plackett_luce(scores, rewards, torch.arange(2, 7))
    for task, row in itertools.product(range(3), range(5)):
        n = row + 2
        expected = by_the_book(scores[task, row, :n].tolist(), rewards[task, :n].tolist())
        assert found[task, row].item() == pytest.approx(expected, abs=1e-4)


def test_responses_that_are_not_seen_have_no_gradient_and_the_others_a_finite_one(torch):
    from plackett_luce import plackett_luce

    scores = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(2)).requires_grad_()
    rewards = torch.rand(2, 5, generator=torch.Generator().manual_seed(3))
    plackett_luce(scores, rewards, torch.arange(2, 6)).sum().backward()
    for row in range(4):
        assert (scores.grad[:, row, : row + 2] != 0).all()
        assert (scores.grad[:, row, row + 2 :] == 0).all()
    assert scores.grad.isfinite().all()


def test_scores_are_cosines(torch):
    from plackett_luce import cosine_scores

    predictions = torch.tensor([[[2.0, 0.0], [1.0, 1.0]]])
    responses = torch.tensor([[[3.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]])
    half = 1 / math.sqrt(2)
    assert torch.allclose(
        cosine_scores(predictions, responses), torch.tensor([[[1.0, 0.0, -1.0], [half, half, -half]]])
    )


# The transformer

VARIANTS = [
    dict(zip(("attention", "feed_forward", "heads", "depth"), values, strict=True))
    for values in itertools.product(("softmax", "linear"), (True, False), (1, 3), (1, 3))
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def test_a_later_token_changes_no_earlier_prediction_in_any_variant(torch, variant):
    from learners import as_tensors
    from transformer import CausalTransformer, Design

    model = CausalTransformer(Design(width=12, **variant), 5, seed=0).double()
    queries, responses, rewards = (part.double() for part in as_tensors(tasks(2)))
    before = model(queries, responses, rewards)
    for late in range(5):
        for changed in (responses, rewards):
            other = changed.clone()
            other[:, late] += 1
            given = (queries, other, rewards) if changed is responses else (queries, responses, other)
            after = model(*given)
            assert torch.equal(after[:, : late + 1], before[:, : late + 1])
            assert not torch.allclose(after[:, late + 1], before[:, late + 1])


def test_linear_and_softmax_attention_have_the_same_weights_and_differ_in_what_they_do(torch):
    from learners import as_tensors
    from transformer import CausalTransformer, Design

    soft, linear = (CausalTransformer(Design(attention=kind), 5, seed=0) for kind in ("softmax", "linear"))
    given = as_tensors(tasks(2))
    assert all(torch.equal(a, b) for a, b in zip(soft.parameters(), linear.parameters(), strict=True))
    assert not torch.allclose(soft(*given), linear(*given), atol=1e-2)


def test_linear_attention_is_linear_in_the_scores_and_softmax_attention_is_not(torch):
    from transformer import CausalAttention, Design

    tokens = torch.randn(1, 7, 12, generator=torch.Generator().manual_seed(0))
    for kind, linear in (("linear", True), ("softmax", False)):
        layer = CausalAttention(Design(width=12, attention=kind), 7)
        with torch.no_grad():
            layer.output.bias.zero_()
            once = layer(tokens)
            layer.project.weight[:12] *= 2  # the queries
            layer.project.bias[:12] *= 2
            assert torch.allclose(layer(tokens), 2 * once, atol=1e-5) is linear


def test_the_number_of_heads_changes_no_number_of_weights(torch):
    from transformer import CausalTransformer, Design

    counts = {
        sum(weights.numel() for weights in CausalTransformer(Design(heads=heads), 5, seed=0).parameters())
        for heads in (1, 3, 6)
    }
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "heads is 5, which does not divide width 48"),
        ({"attention": "none"}, "attention is 'none'; expected 'softmax' or 'linear'"),
    ],
)
def test_an_impossible_design_is_refused(torch, settings, message):
    from transformer import Design

    with pytest.raises(ValueError, match=re.escape(message)):
        Design(**settings)


def test_tasks_of_another_length_are_refused(torch):
    from learners import as_tensors
    from transformer import CausalTransformer, Design

    with pytest.raises(ValueError, match=re.escape("a task has 5 responses; this model was made for 4")):
        CausalTransformer(Design(), 4, seed=0)(*as_tensors(tasks()))


# The learners


def test_gradient_descent_lowers_its_loss_and_comes_near_what_was_published(torch):
    from learners import descent_predictions
    from synthetic_tasks import error

    drawn = tasks(400, length=8)
    predictions, losses = descent_predictions(drawn, seed=0)
    assert losses[-1] < losses[0] - 0.5
    found = error(predictions, drawn.targets[:, None]).mean(axis=0)
    assert found[[0, 3, 6]] == pytest.approx([0.385, 0.329, 0.312], abs=0.05)


def test_each_prediction_of_gradient_descent_is_a_fit_of_its_own(torch):
    from dataclasses import replace

    from learners import descent_predictions

    drawn = tasks(4)
    other = drawn.responses.copy()
    other[2, 3:] += 1  # responses 4 and 5 of the third task
    before, after = (descent_predictions(given, seed=0)[0] for given in (drawn, replace(drawn, responses=other)))
    differs = (before != after).any(axis=2)
    assert differs[2, 2:].all()
    assert differs.sum() == 2


def test_a_transformer_learns_and_the_same_seed_gives_the_same_one(torch):
    from learners import Training, train, transformer_predictions
    from synthetic_tasks import error
    from transformer import Design

    fresh = tasks(200, seed=99, length=6, variant="independent")

    def trained(steps, seed):
        training = Training(steps=steps, batch=32, rate=3e-3, length=6)
        return train(Design(depth=1), training, variant="independent", seed=seed)

    def mean_error(run):
        return error(transformer_predictions(run.model, fresh), fresh.targets[:, None]).mean()

    first, again, other = (trained(60, seed) for seed in (0, 0, 1))
    assert mean_error(trained(0, 0)) > 0.9
    assert mean_error(first) < 0.75
    assert first.losses == again.losses != other.losses


def test_an_interval_over_seeds_is_students(torch):
    from experiments import interval

    found = interval(np.asarray([[1.0], [2.0], [3.0]]))
    margin = 4.303 / math.sqrt(3)
    assert found == {"mean": [2.0], "low": [round(2 - margin, 5)], "high": [round(2 + margin, 5)]}


def test_seeds_are_compared_with_themselves_in_whatever_order_the_runs_ended(torch):
    from experiments import BASE, COPY_BEST, NOISE, Plan, Run, summarise

    def run(name, seed, value):
        return Run(name, "segment", seed, {f"{noise:g}": [value] for noise in NOISE})

    plan = Plan(seeds=(0, 1))
    runs = [run(BASE, 0, 0.3), run(BASE, 1, 0.7), run(COPY_BEST, 0, 0.2), run(COPY_BEST, 1, 0.6)]
    found = summarise([runs[0], runs[3], runs[1], runs[2]], plan)
    assert found == summarise(runs, plan)
    for difference in found["differences"]:
        assert (difference["name"], difference["minus"]) == (COPY_BEST, BASE)
        assert difference["low"] == difference["mean"] == difference["high"] == [-0.1]
    assert len(found["differences"]) == len(NOISE)


def test_the_right_answer_has_not_the_lowest_loss(torch):
    from experiments import BEST_MINUS_WORST, COPY_BEST, GRADIENT_DESCENT, RIGHT, RUNNING_MEAN, Plan, losses_of_answers

    found = {
        row["answer"]: row["mean"][0]
        for row in losses_of_answers(Plan(seeds=(0, 1), tasks=100))
        if row["variant"] == "segment"
    }
    assert sorted(found, key=found.get) == [GRADIENT_DESCENT, BEST_MINUS_WORST, RIGHT, COPY_BEST, RUNNING_MEAN]


def test_what_was_stopped_before_all_its_seeds_were_done_is_not_summed_up(torch):
    from experiments import BASE, NOISE, Plan, Run, summarise

    runs = [Run(BASE, "segment", seed, {f"{noise:g}": [0.5] for noise in NOISE}) for seed in (0, 1)]
    assert summarise(runs, Plan())["curves"] == []
    assert len(summarise(runs, Plan(seeds=(0, 1)))["curves"]) == len(NOISE)


@pytest.mark.parametrize("seeds", [(0,), (1, 1)])
def test_a_plan_without_two_seeds_is_refused(torch, seeds):
    from experiments import Plan

    with pytest.raises(ValueError, match="an interval needs from 2 to 10 different seeds"):
        Plan(seeds=seeds)


# What is kept


def test_the_kept_numbers_are_those_of_the_plan_in_the_code(torch):
    from dataclasses import asdict

    from experiments import ARMS, DESIGNS, REFERENCES, Plan, interval
    from synthetic_tasks import VARIANTS

    kept = json.loads((FOLDER / "results" / "results.json").read_text(encoding="utf-8"))
    plan = Plan()
    assert kept["designs"] == {name: asdict(design) for name, design in DESIGNS.items()}
    assert (kept["seeds"], kept["tasks_per_seed"], kept["training"]) == (
        list(plan.seeds),
        plan.tasks,
        asdict(plan.training),
    )
    arms = {*ARMS, *itertools.product(REFERENCES, VARIANTS)}
    assert {(curve["name"], curve["variant"]) for curve in kept["curves"]} == arms
    assert len(kept["curves"]) == len(arms) * len(kept["noise"])
    for curve in kept["curves"]:
        runs = [run for run in kept["runs"] if (run["name"], run["variant"]) == (curve["name"], curve["variant"])]
        again = interval(np.asarray([run["curves"][curve["noise"]] for run in runs]))
        assert {key: curve[key] for key in again} == again


def test_the_kept_table_is_that_of_the_kept_numbers(torch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install --group train")
    from run import table

    kept = json.loads((FOLDER / "results" / "results.json").read_text(encoding="utf-8"))
    assert table(kept) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_figure_is_drawn_from_the_kept_numbers_alone(torch, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install --group train")
    import run

    (tmp_path / "results.json").write_bytes((FOLDER / "results" / "results.json").read_bytes())
    monkeypatch.setattr(sys, "argv", ["run.py", "--plot-only", "--output", str(tmp_path)])
    run.main()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert "gradient descent" in capsys.readouterr().out


def test_a_figure_without_numbers_says_what_to_do(torch, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install --group train")
    import run

    monkeypatch.setattr(sys, "argv", ["run.py", "--plot-only", "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        run.main()
    assert f"there is no {tmp_path / 'results.json'}; run without --plot-only first" in capsys.readouterr().err
