"""Heads that are solved, not stepped: fitted on pooled features, their strength chosen by cross-validation."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tapct import numeric
from tapct.errors import FeatureError, TaskError
from tapct.metrics.retrieval import unit
from tapct.probes import solvers
from tapct.probes.scaling import ChannelScale, Moments
from tapct.records import SolvedSelection

FOLDS = 5
CONSTANT = 1e-9
"""As in `tapct.probes.scaling`; of features that were averaged in float64, with a free intercept."""


@dataclass(frozen=True, eq=False)
class PooledCases:
    """Cases as one vector each.

    Attributes:
        names: (N,) their names.
        patients: (N,) the patient of each.
        features: (N, P) float64.
        targets: (N, T) float64, what the target of a case is, flattened; NaN where it is missing.
        table: How many of the columns of `features`, the last ones, are of a table.
        coded: Which of these hold codes of levels, by their places among them (`tapct.tasks.columns`).
    """

    names: Sequence[str]
    patients: Sequence[str]
    features: np.ndarray
    targets: np.ndarray
    table: int = 0
    coded: tuple[int, ...] = ()

    @property
    def encoded(self) -> np.ndarray:
        """The features without the columns of a table."""
        return self.features[:, : self.features.shape[1] - self.table]

    @property
    def design(self) -> solvers.Design:
        """The features as solvers take them."""
        return solvers.Design(self.features, self.table)

    def strengths(self, of: Sequence[float]) -> Sequence[float]:
        """Returns the penalties to choose from: one alone where a table stands alone, whose penalty is its own."""
        return of if self.features.shape[1] > self.table else of[:1]

    def unit_vectors(self) -> np.ndarray:
        """Returns the (N, P) features divided by their length, whose products are cosines.

        Raises:
            FeatureError: If one is not finite.
        """
        odd = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
        if len(odd):
            raise FeatureError(f"{self.names[odd[0]]}: its features are not finite, and have no cosine")
        return unit(self.features)

    def some(self, rows: np.ndarray) -> "PooledCases":
        """Returns the cases at these places."""
        names, patients = ([of[i] for i in rows] for of in (self.names, self.patients))
        return replace(self, names=names, patients=patients, features=self.features[rows], targets=self.targets[rows])

    def of_targets(self, columns: Sequence[int]) -> "PooledCases":
        """Returns the cases with these columns of their targets alone."""
        return replace(self, targets=self.targets[:, columns])


class LinearHead(nn.Module):
    """A linear head in float64 on pooled features as they are."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, features, dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float64), requires_grad=False)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Returns the (K,) logits of (P,) features."""
        return self.weight @ pooled.double() + self.bias


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


Predict = Callable[[np.ndarray], np.ndarray]
"""From (N, P) features to (N, K) outputs."""

Fit = Callable[[PooledCases], Sequence[Predict]]
"""One head a setting, fitted on cases."""

Parts = Sequence[tuple[np.ndarray, PooledCases]]
"""(N, K) outputs of a head on cases that it was not fitted on: one part a fold, and one of the selection cases."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be chosen: a penalty, a number of neighbours.

    Attributes:
        settings: To choose from; the one that ties prefer comes last.
        fit: Fits a head with each.
        score: The ranked metric of the parts; None where it is undefined.
        loss: Decides between equal scores; lower is better.
        sign: -1 where a lower score is better.
        needs: What the cases that decide must have for the metric to be defined, in words.
    """

    settings: Sequence[float]
    fit: Fit
    score: Callable[[Parts], float | None]
    loss: Callable[[Parts], float]
    sign: int = 1
    needs: str = "references that differ"


def choose(problem: Problem, train: PooledCases, selection: PooledCases | None) -> tuple[int, dict[str, Any]]:
    """Returns which setting is best, and what the record holds of the choice (fields of `SolvedSelection`).

    It is chosen on all patients that may decide: training patients as cross-validation predicts them, whole patients
    at a time, and the selection patients as a head of all training patients does. A handful of selection patients alone
    would choose by luck. Of equal scores the lower loss decides, of equal losses the later setting.

    Raises:
        TaskError: If nobody may decide, or the metric is undefined on the cases that do.
    """
    folds = deal_folds(train)
    splits = [(train.some(rows), train.some(held)) for rows, held in folds]
    patients = len(set(train.patients)) if folds else 0
    if selection is not None:
        splits.append((train, selection))
        patients += len(set(selection.patients))
    if not splits:
        raise TaskError("there is one training patient and no selection patient, so that nothing can be chosen by")
    by_split = [[(head(out.features), out) for head in problem.fit(fitted)] for fitted, out in splits]
    parts = list(zip(*by_split, strict=True))  # by setting
    scores = [value for of in parts if (value := problem.score(of)) is not None]
    if len(scores) < len(parts):
        cases = sum(len(out.names) for _, out in splits)
        raise TaskError(f"the ranked metric is undefined on the {cases} cases that decide: they need {problem.needs}")
    losses = [problem.loss(of) for of in parts]
    by_score, by_loss = problem.sign * numeric.levels(scores), numeric.levels(losses)
    settings = problem.settings
    best = max(range(len(settings)), key=lambda i: (by_score[i], -by_loss[i], i))
    table = [{"setting": s, "score": v, "loss": loss} for s, v, loss in zip(settings, scores, losses, strict=True)]
    return best, {**table[best], "patients": patients, "folds": len(folds), "candidates": table}


def joined(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N, K) outputs and (N, T) targets of the cases of all parts."""
    return np.concatenate([outputs for outputs, _ in parts]), np.concatenate([cases.targets for _, cases in parts])


def deal_folds(cases: PooledCases, number: int = FOLDS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (training, held out) rows: whole patients, in the order of their targets dealt out in turn.

    Each fold has its share of every answer, or of small and large numbers. Empty where there is a single patient.
    """
    answers: dict[str, list[tuple[float, ...]]] = {}
    ordered = np.where(np.isnan(cases.targets), -np.inf, cases.targets)  # NaN has no place in an order
    for patient, row in zip(cases.patients, ordered.tolist(), strict=True):
        answers.setdefault(patient, []).append(tuple(row))
    # In an order that depends on nothing but names and answers: the same for every encoder and machine.
    order = sorted(answers, key=lambda p: (sorted(answers[p]), hashlib.sha256(p.encode()).hexdigest()))
    number = min(number, len(order))
    if number < 2:
        return []
    fold = {patient: place % number for place, patient in enumerate(order)}
    of_row = np.array([fold[patient] for patient in cases.patients])
    return [(np.flatnonzero(of_row != k), np.flatnonzero(of_row == k)) for k in range(number)]


def scale_of(train: PooledCases) -> ChannelScale:
    """Returns what the features are divided by: their deviations over the training cases."""
    return Moments.over([torch.from_numpy(train.features.T)]).scale(CONSTANT)


def divided(cases: PooledCases, scale: ChannelScale | None) -> PooledCases:
    """Returns the cases with their features divided."""
    return cases if scale is None else replace(cases, features=cases.features / scale.divisor.numpy())


def linear_head(solution: solvers.Linear, scale: ChannelScale | None) -> LinearHead:
    """Returns a solution on divided features as a head on features as they are."""
    outputs, features = solution.weight.shape
    head, divisor = LinearHead(features, outputs), 1.0 if scale is None else scale.divisor.numpy()
    head.weight.copy_(torch.from_numpy(solution.weight / divisor))
    head.bias.copy_(torch.from_numpy(solution.bias))
    return head
