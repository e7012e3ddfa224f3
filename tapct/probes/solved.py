"""Heads that are solved, not stepped: fitted on pooled features, their strength chosen by cross-validation."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tapct import numeric
from tapct.errors import TaskError
from tapct.probes import solvers
from tapct.probes.adaptors import Head
from tapct.probes.scaling import ChannelScale, Moments
from tapct.records import SolvedSelection

FOLDS = 5
CONSTANT = 1e-9
"""As in `tapct.probes.scaling`; of features that were averaged in float64, with a free intercept."""

NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100)

Score = Callable[[np.ndarray, np.ndarray], float | None]
"""The ranked metric of (N, K) logits and targets; None where it is undefined."""


@dataclass(frozen=True, eq=False)
class PooledCases:
    """Cases as one vector each.

    Attributes:
        names: (N,) their names.
        patients: (N,) the patient of each.
        features: (N, P) float64.
        targets: (N, K) of 0 and 1, float64.
    """

    names: Sequence[str]
    patients: Sequence[str]
    features: np.ndarray
    targets: np.ndarray

    def some(self, rows: np.ndarray) -> "PooledCases":
        """Returns the cases at these places."""
        names, patients = ([of[i] for i in rows] for of in (self.names, self.patients))
        return PooledCases(names, patients, self.features[rows], self.targets[rows])


class LinearHead(nn.Module):
    """A linear head in float64 on pooled features as they are."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, features, dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float64), requires_grad=False)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Returns the (K,) logits of (P,) features."""
        return self.weight @ pooled.double() + self.bias


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
        counts = [int(self.neighbours)]
        votes = solvers.neighbour_votes(self.cases.cpu().numpy(), self.targets.cpu().numpy(), one, counts)[0, 0]
        return torch.from_numpy(vote_logits(votes, counts[0])).to(pooled.device)


def vote_logits(share: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns the log odds of a share of positives among neighbours, half a vote added to each side."""
    positives = share * neighbours
    return np.log((positives + 0.5) / (neighbours - positives + 0.5))


@dataclass(frozen=True, eq=False)
class Solution:
    """A solved head.

    Attributes:
        head: For pooled features as they are.
        scale: What the features were divided by; None where they were not.
        selection: What was chosen, from what, and by how many patients.
    """

    head: nn.Module
    scale: ChannelScale | None
    selection: SolvedSelection


def solve(kind: Head, train: PooledCases, selection: PooledCases | None, score: Score, *, scale: bool) -> Solution:
    """Solves a head on training cases.

    What there is to choose (the penalty, the number of neighbours) is chosen on all patients that may decide: training
    patients as cross-validation predicts them, whole patients at a time, and the selection patients as a head of all
    training patients does. A handful of selection patients alone would choose by luck. Of equal scores the lower loss
    decides, of equal losses the stronger penalty, or the more neighbours.

    Args:
        kind: "linear", "knn" or "prototype".
        train: The training cases.
        selection: The selection cases.
        score: The ranked metric.
        scale: Whether channels are divided by their deviation over the training cases.

    Raises:
        TaskError: If the metric is undefined on the cases that decide.
    """
    divisor = Moments.over([torch.from_numpy(train.features.T)]).scale(CONSTANT) if scale else None
    train = _divided(train, divisor)
    settings, fit = _candidates(kind, train)
    chosen, about = 0, dict[str, Any]()
    if len(settings) > 1:
        chosen, about = _choose(
            settings, fit, train, None if selection is None else _divided(selection, divisor), score
        )
    if kind == "knn":
        return Solution(_neighbour_head(train, int(settings[chosen]), divisor), divisor, SolvedSelection(**about))
    solution = fit(train)[chosen]
    assert isinstance(solution, solvers.Linear)
    about = {**about, "gradient": solution.gradient, "is_solved": solution.is_solved}
    return Solution(_linear_head(solution, divisor), divisor, SolvedSelection(**about))


Predict = Callable[[np.ndarray], np.ndarray]
"""From (N, P) features to (N, K) logits."""

Fit = Callable[[PooledCases], Sequence[Predict]]
"""One head a setting, fitted on cases."""


def _candidates(kind: Head, train: PooledCases) -> tuple[Sequence[float], Fit]:
    """Returns the settings to choose from, the one that ties prefer last, and what fits heads with each."""
    if kind == "prototype":
        return (0.0,), lambda cases: [solvers.prototype(cases.features, cases.targets)]
    if kind == "linear":
        return solvers.STRENGTHS, lambda cases: solvers.logistic(solvers.Design(cases.features), cases.targets)
    fewest = min((len(rows) for rows, _ in _folds(train)), default=len(train.features))
    counts = [count for count in NEIGHBOURS if count <= fewest]

    def fit(cases: PooledCases) -> Sequence[Predict]:
        centre = cases.features.mean(axis=0)

        def votes(features: np.ndarray, count: int) -> np.ndarray:
            near = solvers.neighbour_votes(cases.features - centre, cases.targets, features - centre, [count])
            return vote_logits(near[0], count)

        return [functools.partial(votes, count=count) for count in counts]

    return counts, fit


def _choose(
    settings: Sequence[float], fit: Fit, train: PooledCases, selection: PooledCases | None, score: Score
) -> tuple[int, dict[str, Any]]:
    """Returns which setting is best on the cases that may decide, and what the record holds of the choice."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []  # per part: (settings, N, K) logits and (N, K) targets
    for rows, held in _folds(train):
        heads, out = fit(train.some(rows)), train.some(held)
        parts.append((np.stack([head(out.features) for head in heads]), out.targets))
    patients = len(set(train.patients)) if parts else 0
    if selection is not None:
        heads = fit(train)
        parts.append((np.stack([head(selection.features) for head in heads]), selection.targets))
        patients += len(set(selection.patients))
    if not parts:
        raise TaskError("there is one training patient and no selection patient, so that nothing can be chosen by")
    logits, targets = np.concatenate([p[0] for p in parts], axis=1), np.concatenate([p[1] for p in parts])
    scores = [value for of in logits if (value := score(of, targets)) is not None]
    if len(scores) < len(logits):
        raise TaskError(
            f"the ranked metric is undefined on the {len(targets)} cases that decide: they need both answers of a label"
        )
    losses = [float(np.logaddexp(0, (1 - 2 * targets) * of).mean()) for of in logits]
    by_score, by_loss = numeric.levels(scores), numeric.levels(losses)
    best = max(range(len(settings)), key=lambda i: (by_score[i], -by_loss[i], i))
    table = [{"setting": s, "score": v, "loss": loss} for s, v, loss in zip(settings, scores, losses, strict=True)]
    chosen = {"setting": settings[best], "score": scores[best], "loss": losses[best]}
    return best, {**chosen, "patients": patients, "folds": len(_folds(train)), "candidates": table}


def _folds(cases: PooledCases) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (training, held out) rows: whole patients, dealt out so that each fold has its share of every answer.

    Empty where there is a single patient.
    """
    answers: dict[str, list[tuple[float, ...]]] = {}
    for patient, row in zip(cases.patients, cases.targets.tolist(), strict=True):
        answers.setdefault(patient, []).append(tuple(row))
    # In an order that depends on nothing but names and answers: the same for every encoder and machine.
    order = sorted(answers, key=lambda p: (sorted(answers[p]), hashlib.sha256(p.encode()).hexdigest()))
    number = min(FOLDS, len(order))
    if number < 2:
        return []
    fold = {patient: place % number for place, patient in enumerate(order)}
    of_row = np.array([fold[patient] for patient in cases.patients])
    return [(np.flatnonzero(of_row != k), np.flatnonzero(of_row == k)) for k in range(number)]


def _divided(cases: PooledCases, scale: ChannelScale | None) -> PooledCases:
    return cases if scale is None else replace(cases, features=cases.features / scale.divisor.numpy())


def _linear_head(solution: solvers.Linear, scale: ChannelScale | None) -> LinearHead:
    outputs, features = solution.weight.shape
    head, divisor = LinearHead(features, outputs), 1.0 if scale is None else scale.divisor.numpy()
    head.weight.copy_(torch.from_numpy(solution.weight / divisor))
    head.bias.copy_(torch.from_numpy(solution.bias))
    return head


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
