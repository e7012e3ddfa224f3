"""Cox's model as a head: a risk, and with it the probabilities to outlive the times of the record."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tapct.errors import TaskError
from tapct.metrics.survival import GRID_DAYS, Outcomes
from tapct.probes import cox
from tapct.probes.scaling import ChannelScale
from tapct.probes.solved import Parts, PooledCases, Predict, Problem, Solution, choose, divided, scale_of
from tapct.records import SolvedSelection


class CoxHead(nn.Module):
    """A linear log hazard on pooled features as they are, and the baseline hazard, in float64."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias, self.hazard = (
            nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)
            for shape in ((features,), (), (len(GRID_DAYS),))
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Returns the risk of (P,) features, and the probabilities to outlive each of `GRID_DAYS`, as one vector.

        The risk is the logarithm of the hazard ratio to the mean training patient: heads of several folds have a scale
        in common.
        """
        risk = self.weight @ pooled.double() + self.bias
        # In logarithms: before the first death the hazard is 0, also of a risk whose exponential is infinite.
        return torch.cat([risk[None], torch.exp(-torch.exp(risk + torch.log(self.hazard)))])


def outcomes_of(cases: PooledCases) -> Outcomes:
    """Returns what became of cases whose targets are (days, event)."""
    return Outcomes(cases.targets[:, 0], cases.targets[:, 1] == 1)


def solve(train: PooledCases, selection: PooledCases | None, *, scale: bool) -> Solution:
    """Solves Cox's model on training cases, the strength of its penalty chosen by cross-validation.

    It is chosen by the partial likelihood of patients who were left out, among themselves (Verweij and van Houwelingen
    1993, doi:10.1002/sim.4780122407), and not by the concordance that tasks are ranked by: that sees the order of
    risks alone, which hardly depends on the strength, so that chance would choose; the Brier score needs their size.

    Args:
        train: The training cases.
        selection: The selection cases, where the task has some.
        scale: Whether columns are divided by their deviation over the training cases.

    Raises:
        TaskError: If nobody died among the training cases, or among those that decide.
    """
    if not outcomes_of(train).event.any():
        raise TaskError(
            f"none of the {len(train.names)} training cases ends with a death, so there is no hazard to fit. Check the "
            "events in the label file, or give other folds (split_file)"
        )
    divisor = scale_of(train) if scale else None
    train = divided(train, divisor)
    settings = train.strengths(cox.STRENGTHS)
    problem = Problem(
        settings=settings,
        fit=functools.partial(_fit, strengths=settings),
        score=_partial_likelihood,
        loss=lambda parts: -(_partial_likelihood(parts) or 0.0),
        needs="a death",
    )
    chosen, about = 0, dict[str, Any]()
    if len(settings) > 1:
        chosen, about = choose(problem, train, None if selection is None else divided(selection, divisor))
    (model,) = cox.cox(train.design, outcomes_of(train), [settings[chosen]])
    about = {**about, "gradient": model.gradient, "is_solved": model.is_solved}
    return Solution(_head(model, divisor), divisor, SolvedSelection(**about))


def _fit(cases: PooledCases, strengths: Sequence[float]) -> Sequence[Predict]:
    models = cox.cox(cases.design, outcomes_of(cases), strengths)
    return [lambda features, model=model: model.risk(features)[:, None] for model in models]  # type: ignore[misc]


def _partial_likelihood(parts: Parts) -> float | None:
    """Returns the mean logarithm of the partial likelihood of each death, within its part; None if nobody died."""
    outcomes = [(risks[:, 0], outcomes_of(cases)) for risks, cases in parts]
    deaths = sum(int(of.event.sum()) for _, of in outcomes)
    losses = (cox.RiskSets(of).loss(risk) for risk, of in outcomes if of.event.any())
    return -sum(losses) / deaths if deaths else None


def _head(model: cox.Cox, scale: ChannelScale | None) -> CoxHead:
    divisor = 1.0 if scale is None else scale.divisor.numpy()
    head = CoxHead(len(model.weight))
    for parameter, values in (
        (head.weight, model.weight / divisor),
        (head.bias, -np.asarray(model.centre @ model.weight)),
        (head.hazard, model.baseline(GRID_DAYS)),
    ):
        parameter.copy_(torch.from_numpy(np.asarray(values)))
    return head
