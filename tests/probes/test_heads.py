"""The head that is reported: which of several, and with which weights."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from tapct.errors import TaskError
from tapct.probes.heads import CandidateHeads, DivergedError, LossCurve, SharedByRuns, finite_loss

RATES = (0.1, 0.01)


def candidates(runs=(0,), rates=RATES, seed=7, **options) -> CandidateHeads:
    return CandidateHeads(runs, rates, lambda: nn.Linear(3, 2), seed, **options)


def stamp(heads: CandidateHeads, step: int) -> None:
    """Gives every head weights that say which it is, and at which step."""
    for number, candidate in enumerate(heads.all):
        for parameter in candidate.head.parameters():
            nn.init.constant_(parameter, 100 * number + step)


def after(heads: CandidateHeads, looks, losses=None) -> CandidateHeads:
    """The heads after looks at the selection cases, one a step, each with weights of its own."""
    for step, scores in enumerate(looks, start=1):
        stamp(heads, step)
        heads.observe(scores, [1.0] * len(scores) if losses is None else losses[step - 1], step)
    stamp(heads, 99)
    return heads


def assert_chosen(chosen, looks, losses, rate, step):
    number = RATES.index(rate)
    assert chosen.run == 0
    assert chosen.state.keys() == {"weight", "bias"}
    assert all((tensor == 100 * number + step).all() for tensor in chosen.state.values())
    by_rate = [
        {"learning_rate": r, "scores": [[s, scores[i]] for s, scores in enumerate(looks, start=1)]}
        for i, r in enumerate(RATES)
    ]
    decided = {"score": looks[step - 1][number], "loss": losses[step - 1][number], "patients": 31}
    assert chosen.selection.content() == {"learning_rate": rate, "step": step, **decided, "candidates": by_rate}


@pytest.mark.parametrize(
    ("looks", "rate", "step"),
    [
        ([[0.2, 0.1], [0.5, 0.3], [0.4, 0.4]], 0.1, 2),  # the best is neither the first nor the last
        ([[0.2, 0.1], [0.3, 0.9], [0.4, 0.4]], 0.01, 2),
        ([[0.9, 0.1], [0.3, 0.2]], 0.1, 1),
        ([[0.1, 0.2], [0.3, 0.9]], 0.01, 2),
        ([[0.5, 0.1], [0.5, 0.2]], 0.1, 1),  # ties in all: the first look
        ([[0.5, 0.5]], 0.1, 1),  # and the first rate
        ([[0.1, 0.5], [0.5, 0.4]], 0.1, 2),
        ([[-0.3, -0.1], [-0.2, -0.4]], 0.01, 1),  # a score may be negative, as that of a loss
        ([[0.0, None], [0.0, None]], 0.1, 1),
        ([[None, 0.0], [0.1, None], [None, None]], 0.1, 2),  # undefined, or diverged, at times
        ([[0.5, 0.1], [0.5 + 1e-15, 0.2]], 0.1, 1),  # rounding is no difference,
        ([[0.5, 0.1], [0.5 + 1e-9, 0.2]], 0.1, 2),  # and the least one is
    ],
)
def test_the_best_look_of_a_run_is_reported_with_the_weights_it_had_then(looks, rate, step):
    heads = after(candidates(patients=31), looks)
    assert_chosen(heads.choose(0, 99, by_score=True), looks, [[1.0, 1.0]] * len(looks), rate, step)


@pytest.mark.parametrize(
    ("looks", "losses", "rate", "step"),
    [
        ([[0.5, 0.1], [0.5, 0.1]], [[2.0, 0.1], [1.0, 0.1]], 0.1, 2),  # equal scores: the lower loss
        ([[0.5, 0.1], [0.5, 0.1]], [[1.0, 0.1], [2.0, 0.1]], 0.1, 1),
        ([[0.5, 0.5]], [[2.0, 1.0]], 0.01, 1),  # and so between rates
        ([[0.5, 0.5]], [[1.0, 2.0]], 0.1, 1),
        ([[0.5, 0.1], [0.6, 0.1]], [[1.0, 0.1], [9.0, 0.1]], 0.1, 2),  # a loss never beats a score
        ([[0.6, 0.1], [0.5, 0.1]], [[9.0, 0.1], [1.0, 0.1]], 0.1, 1),
        ([[0.5, 0.1], [0.5 + 1e-15, 0.1]], [[1.0, 0.1], [2.0, 0.1]], 0.1, 1),
        ([[0.5, 0.1], [0.5 - 1e-15, 0.1]], [[2.0, 0.1], [1.0, 0.1]], 0.1, 2),
        ([[0.5, 0.1], [0.5, 0.1]], [[1.0, 0.1], [1.0 - 1e-15, 0.1]], 0.1, 1),
    ],
)
def test_of_equal_scores_the_lower_loss_is_reported(looks, losses, rate, step):
    heads = after(candidates(patients=31), looks, losses)
    assert_chosen(heads.choose(0, 99, by_score=True), looks, losses, rate, step)


def test_any_order_of_scores_gives_the_largest():
    for scores in itertools.permutations([0.1, 0.2, 0.3, 0.4]):
        looks = [list(scores[:2]), list(scores[2:])]
        assert after(candidates(), looks).choose(0, 99, by_score=True).selection.score == 0.4


def test_a_run_is_chosen_from_its_own_heads():
    heads = after(candidates(runs=(0, 1)), [[0.1, 0.2, 0.9, 0.8], [0.3, 0.1, 0.7, 0.95]])
    first, second = (heads.choose(run, 99, by_score=True) for run in (0, 1))
    assert [(c.run, c.selection.learning_rate, c.selection.score) for c in (first, second)] == [
        (0, 0.1, 0.3),
        (1, 0.01, 0.95),
    ]
    assert (second.state["weight"] == 302).all()
    assert [len(look.scores) for look in second.selection.candidates] == [2, 2]


def test_a_run_without_any_score_is_an_error_and_not_the_last_head():
    heads = after(candidates(runs=(0, 1)), [[None, None, 0.5, 0.6]])
    with pytest.raises(TaskError, match="no head has a score"):
        heads.choose(0, 99, by_score=True)
    assert heads.choose(1, 99, by_score=True).selection.score == 0.6
    with pytest.raises(TaskError, match="never looked at"):
        candidates().choose(0, 99, by_score=True)


def test_the_last_head_is_that_of_now_whatever_was_seen_of_it():
    heads = after(candidates(runs=(3, 4), rates=None), [[0.9, 0.1]])
    chosen = heads.choose(4, 12, by_score=False)
    seen = [{"learning_rate": None, "scores": [[1, 0.1]]}]
    assert chosen.selection.content() == {"learning_rate": None, "step": 12, "score": None, "candidates": seen}
    assert (chosen.run, (chosen.state["weight"] == 199).all()) == (4, True)
    stamp(heads, 0)
    assert (chosen.state["weight"] == 199).all(), "a head that trains on changes nothing of what was chosen"


def test_the_reported_weights_are_those_for_features_as_they_are():
    """Heads train on scaled features; folding makes weights that need no scale."""
    heads = candidates(rates=None, folded=lambda state: {name: tensor * 10 for name, tensor in state.items()})
    after(heads, [[0.1]])
    for by_score, stamped in ((True, 1), (False, 99)):
        assert (heads.choose(0, 99, by_score=by_score).state["weight"] == 10 * stamped).all()
    assert heads.all[0].start_sha256 != candidates(rates=None).all[0].start_sha256


def test_what_is_not_to_decay_does_not():
    decayed, free = candidates(rates=(0.1,)).parameter_groups(["bias"])
    assert [len(g["params"]) for g in (decayed, free)] == [1, 1]
    assert (decayed["params"][0].ndim, free["params"][0].ndim) == (2, 1)
    assert (decayed.get("weight_decay"), free["weight_decay"]) == (None, 0.0)
    assert decayed["lr"] == free["lr"] == 0.1


def test_heads_of_a_run_start_alike_and_runs_apart_from_the_session_s_seed():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    heads = candidates(runs=(0, 2), seed=7)
    assert torch.equal(torch.rand(2), expected), "the generator outside continues as it was"
    assert [(c.run, c.rate) for c in heads.all] == [(0, 0.1), (0, 0.01), (2, 0.1), (2, 0.01)]
    for candidate in heads.all:
        torch.manual_seed(7 + candidate.run)
        alone = nn.Linear(3, 2)
        assert torch.equal(candidate.head.weight, alone.weight)
        assert torch.equal(candidate.head.bias, alone.bias)
    hashes = [c.start_sha256 for c in heads.all]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    assert len({id(c.head.weight) for c in heads.all}) == 4, "heads share no parameter"
    assert list(heads.modules) == [c.head for c in heads.all]


def test_each_head_trains_at_its_own_rate():
    heads = candidates(runs=(0, 1))
    before = [copy.deepcopy(c.head.weight) for c in heads.all]
    optimizer = torch.optim.SGD(heads.parameter_groups(), lr=5.0)
    for candidate in heads.all:
        candidate.head.weight.sum().backward()
    optimizer.step()
    for candidate, weight in zip(heads.all, before, strict=True):
        torch.testing.assert_close(weight - candidate.head.weight, torch.full((2, 3), candidate.rate))
    assert [g["lr"] for g in torch.optim.SGD(candidates(rates=None).parameter_groups(), lr=5.0).param_groups] == [5.0]


def test_the_reported_loss_is_that_of_the_reported_head():
    heads = candidates(runs=(0, 1))
    for batch in range(3):
        heads.trained(torch.tensor([1.0, 2.0, 3.0, 4.0]) + batch)
    after(heads, [[0.1, 0.2, 0.4, 0.3]])
    assert heads.choose(0, 99, by_score=True).losses == [2.0, 3.0, 4.0]
    assert heads.choose(1, 99, by_score=True).losses == [3.0, 4.0, 5.0]


def test_a_loss_curve_keeps_nothing_of_the_batch_that_it_was_given():
    curve, losses = LossCurve(), torch.zeros(1)
    for batch in range(22):  # two more than there are stretches at most
        losses.fill_(batch)
        curve.add(losses)
        if batch == 19:
            assert curve.means(0) == list(range(20))
    assert curve.means(0) == [2 * k + 0.5 for k in range(11)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_the_case(value):
    assert finite_loss(torch.tensor(0.25), "c1") == 0.25
    with pytest.raises(DivergedError, match=rf"the loss on c1 is {value}: .*learning rate"):
        finite_loss(torch.tensor(value), "c1")


def test_the_runs_of_a_session_share_it():
    session = SharedByRuns()
    assert copy.deepcopy(session) is session
