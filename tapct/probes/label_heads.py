"""Heads for 0/1 labels on pooled features: logistic regression, nearest neighbours, class means.

Each label is solved on the cases that state it: those whose target is not NaN.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tapct.metrics.ranks import stated
from tapct.probes import solvers
from tapct.probes.adaptors import Head
from tapct.probes.scaling import ChannelScale
from tapct.probes.solved import (
    Fit,
    Parts,
    PooledCases,
    Predict,
    Problem,
    Solution,
    choose,
    deal_folds,
    divided,
    joined,
    linear_head,
    scale_of,
)
from tapct.records import SolvedSelection

NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)

Score = Callable[[np.ndarray, np.ndarray], float | None]
"""The ranked metric of (N, K) logits and targets; None where it is undefined."""


class NeighbourHead(nn.Module):
    """The training cases themselves, centred and scaled, and how many of the nearest are asked."""

    centre: torch.Tensor
    divisor: torch.Tensor
    cases: torch.Tensor
    targets: torch.Tensor
    neighbours: torch.Tensor

    def __init__(self, features: int, outputs: int, cases: int) -> None:
        super().__init__()
        shapes = {
            "centre": (features,),
            "divisor": (features,),
            "cases": (cases, features),
            "targets": (cases, outputs),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("neighbours", torch.tensor(1))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Returns the (K,) logits of (P,) features."""
        one = ((pooled.double() - self.centre) / self.divisor)[None].cpu().numpy()
        count, targets = int(self.neighbours), self.targets.cpu().numpy()
        votes = solvers.neighbour_votes(self.cases.cpu().numpy(), targets, one, [count])[0, 0]
        return torch.from_numpy(vote_logits(votes, asked(targets, count))).to(pooled.device)


def asked(targets: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns (K,) how many neighbours are asked for each label: no more than training cases state it.

    Args:
        targets: (M, K) of the training cases.
        neighbours: How many are to be asked.
    """
    return np.minimum(neighbours, (~np.isnan(targets)).sum(axis=0))


def vote_logits(share: np.ndarray, neighbours: int | np.ndarray) -> np.ndarray:
    """Returns the log odds of a share of positives among neighbours, half a vote added to each side."""
    positives = share * neighbours
    return np.log((positives + 0.5) / (neighbours - positives + 0.5))


def solve(
    kind: Head,
    train: PooledCases,
    selection: PooledCases | None,
    score: Score,
    *,
    scale: bool,
    strengths: Sequence[float] = solvers.STRENGTHS,
) -> Solution:
    """Solves a head on training cases; what there is to choose is the penalty, or the number of neighbours.

    Args:
        kind: "linear", "knn" or "prototype".
        train: The training cases.
        selection: The selection cases.
        score: The ranked metric.
        scale: Whether channels are divided by their deviation over the training cases.
        strengths: Penalties that "linear" chooses from.

    Raises:
        TaskError: If the metric is undefined on the cases that decide.
    """
    divisor = scale_of(train) if scale else None
    train = divided(train, divisor)
    problem = _problem(kind, train, score, train.strengths(strengths))
    chosen, about = 0, dict[str, Any]()
    if len(problem.settings) > 1:
        chosen, about = choose(problem, train, None if selection is None else divided(selection, divisor))
    if kind == "knn":
        head = _neighbour_head(train, int(problem.settings[chosen]), divisor)
        return Solution(head, divisor, SolvedSelection(**about))
    solution = problem.fit(train)[chosen]
    assert isinstance(solution, solvers.Linear)
    about = {**about, "gradient": solution.gradient, "is_solved": solution.is_solved}
    return Solution(linear_head(solution, divisor), divisor, SolvedSelection(**about))


def _problem(kind: Head, train: PooledCases, score: Score, strengths: Sequence[float]) -> Problem:
    settings, fit = _candidates(kind, train, strengths)

    def cross_entropy(parts: Parts) -> float:
        logits, targets = stated(*joined(parts))
        return float(np.logaddexp(0, (1 - 2 * targets) * logits).mean())

    return Problem(
        settings=settings,
        fit=fit,
        score=lambda parts: score(*joined(parts)),
        loss=cross_entropy,
        needs="both answers of a label",
    )


def _candidates(kind: Head, train: PooledCases, strengths: Sequence[float]) -> tuple[Sequence[float], Fit]:
    """Returns the settings to choose from, the one that ties prefer last, and what fits heads with each."""
    if kind == "prototype":
        return (0.0,), lambda cases: [solvers.prototype(cases.features, cases.targets)]
    if kind == "linear":
        return strengths, lambda cases: solvers.logistic(
            solvers.Design(cases.features, cases.table), cases.targets, strengths
        )
    fewest = min((len(rows) for rows, _ in deal_folds(train)), default=len(train.features))
    counts = [count for count in NEIGHBOURS if count <= fewest]

    def fit(cases: PooledCases) -> Sequence[Predict]:
        centre = cases.features.mean(axis=0)

        def votes(features: np.ndarray, count: int) -> np.ndarray:
            near = solvers.neighbour_votes(cases.features - centre, cases.targets, features - centre, [count])
            return vote_logits(near[0], asked(cases.targets, count))

        return [functools.partial(votes, count=count) for count in counts]

    return counts, fit


def _neighbour_head(train: PooledCases, neighbours: int, scale: ChannelScale | None) -> NeighbourHead:
    (cases, features), outputs = train.features.shape, train.targets.shape[1]
    head, centre = NeighbourHead(features, outputs, cases), train.features.mean(axis=0)
    divisor = np.ones(features) if scale is None else scale.divisor.numpy()
    head.centre.copy_(torch.from_numpy(centre * divisor))
    head.divisor.copy_(torch.from_numpy(divisor))
    head.cases.copy_(torch.from_numpy(train.features - centre))
    head.targets.copy_(torch.from_numpy(train.targets))
    head.neighbours.fill_(neighbours)
    return head
