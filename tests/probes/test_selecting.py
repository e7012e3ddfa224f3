"""Validation evaluations of heads while they train, with heads whose numbers are known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tapct.probes.heads import CandidateHeads, DivergedError
from tapct.probes.selecting import ValidationEvaluations
from tapct.records import CaseResult

CASES = [SimpleNamespace(name=name, value=value) for name, value in (("c0", 1.0), ("c1", 3.0))]


def result(case: str, loss: float) -> CaseResult:
    return CaseResult(case=case, patient=case, loss=loss, padding_voxels=(0, 0, 0), outcome={"x": {"y": loss}})


def evaluated(head: nn.Module, case: SimpleNamespace) -> tuple[dict, CaseResult]:
    """A head diverges on cases above its bias; its loss is the value of the case times its weight."""
    if case.value > head.bias:
        raise DivergedError(case.name)
    loss = case.value * float(head.weight)
    return {"loss": loss}, result(case.name, loss)


def head(weight: float, most: float) -> nn.Linear:
    made = nn.Linear(1, 1)
    with torch.no_grad():
        made.weight.fill_(weight)
        made.bias.fill_(most)
    return made


def test_candidates_are_told_scores_and_mean_losses_and_a_diverged_head_has_none():
    candidates = CandidateHeads([0], [0.1, 0.2, 0.3], lambda: nn.Linear(1, 1), seed=0)
    scored = []

    def score(results):
        scored.append([one.case for one in results])
        return -sum(one.loss for one in results)

    evaluations = ValidationEvaluations(candidates, evaluated, score)
    for step in (1, 2):
        evaluations.begin([head(9.0, 2.0), head(2.0, 5.0), head(1.0, 5.0)])
        logged = [evaluations.evaluate(case, step) for case in CASES]
        evaluations.end(step)
        assert logged == [{"loss": 9.0}, {"loss": 6.0}], "of the first that has not diverged on the case"
    assert scored == [["c0", "c1"]] * 4, "a head that has diverged on one case has no score"
    assert [one.scores for one in candidates.all] == [
        [(1, None), (2, None)],
        [(1, -8.0), (2, -8.0)],
        [(1, -4.0), (2, -4.0)],
    ]
    assert [one.best and one.best.loss for one in candidates.all] == [None, 4.0, 2.0]


def test_when_every_head_has_diverged_there_is_nothing_to_go_on_with():
    evaluations = ValidationEvaluations(
        CandidateHeads([0], None, lambda: nn.Linear(1, 1), seed=0), evaluated, lambda _: 0.0
    )
    evaluations.begin([head(1.0, 0.0)])
    with pytest.raises(DivergedError, match="every head has diverged at step 7"):
        evaluations.evaluate(CASES[0], 7)
