"""What each patient adds to the number of each model: what a difference between models is judged by."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tapct import numeric
from tapct.leaderboard.inputs import TaskInputs
from tapct.metrics import ranks

OfThresholds = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""What a positive and a negative at each threshold add, of the (thresholds,) numbers of both, highest first."""


class Part(NamedTuple):
    """A mean over cases that a metric is made of: of all cases; of AUROC and AP one of positives, one of negatives.

    Attributes:
        added: (M, n) what each of n patients adds to the number of each of M models, to first order; 0 in sum.
        share: (n,) what share of the cases of this mean is his; 1 in sum.
    """

    added: np.ndarray
    share: np.ndarray


def of_means(scores: np.ndarray, patients: np.ndarray, number: int) -> Part:
    """Returns the part of a mean over cases.

    Args:
        scores: (M, C) scores of cases, all defined.
        patients: (C,) index of each case's patient.
        number: Number of patients n, those without a case among them.
    """
    cases = len(patients)
    mean = numeric.exact_sums(scores, np.ones((cases, 1))) / cases
    belongs = np.zeros((cases, number))
    belongs[np.arange(cases), patients] = 1
    return Part(numeric.exact_sums(scores - mean, belongs) / cases, belongs.sum(axis=0) / cases)


def of_pairs(inputs: TaskInputs) -> tuple[Part, Part]:
    """Returns the parts of AUROC or average precision: positives and negatives.

    For AUROC these are the structural components of DeLong et al. 1988 (doi:10.2307/2531595), for average precision its
    derivatives by the weight of a pair, both less their mean over the class: what is asked about is other patients with
    as many positives and negatives. Contributions are averaged over seeds, as the metric is.
    """
    assert inputs.targets is not None
    of_thresholds = _auroc if inputs.metric == "MicroAUROC" else _average_precision
    scores = inputs.values.reshape(*inputs.values.shape[:2], -1)
    positive, patients = inputs.targets.ravel() == 1, np.repeat(inputs.patient_index, inputs.targets.shape[1])
    values = np.array([[_by_pair(of_thresholds, seed, positive) for seed in model] for model in scores])
    parts = []
    for of_class in (positive, ~positive):
        cases = np.bincount(patients[of_class], minlength=inputs.num_patients)
        added = np.zeros((*values.shape[:2], inputs.num_patients))
        for model, seed in np.ndindex(*values.shape[:2]):
            total = np.bincount(patients[of_class], values[model, seed, of_class], minlength=inputs.num_patients)
            added[model, seed] = (total - cases * (math.fsum(total) / cases.sum())) / cases.sum()
        parts.append(Part(added.mean(axis=1), cases / cases.sum()))
    return parts[0], parts[1]


def _by_pair(of_thresholds: OfThresholds, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Returns what each of (N,) pairs adds to the mean over its class."""
    place = ranks.thresholds(scores, positive)
    number = place.max() + 1
    counts = [np.bincount(place[of], minlength=number) for of in (positive, ~positive)]
    of_positives, of_negatives = of_thresholds(*counts)
    return np.where(positive, of_positives[place], of_negatives[place])


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of negatives below a positive, and of positives above a negative, ties half."""
    below, above = negatives.sum() - np.cumsum(negatives), np.cumsum(positives) - positives
    return (2 * below + negatives) / (2 * negatives.sum()), (2 * above + positives) / (2 * positives.sum())


def _average_precision(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a positive's own precision and what it adds to that of those below; what a negative takes from them."""
    true, false = np.cumsum(positives), np.cumsum(negatives)
    both = np.maximum(true + false, 1)
    gained, lost = (np.cumsum((positives * of / both / both)[::-1])[::-1] for of in (false, true))
    return true / both + gained, -lost * (negatives.sum() / positives.sum())
