"""Where patients are too few, or too unlike each other, for an interval to be believed: what can be seen of it."""

import math

import numpy as np

from tapct import numeric
from tapct.statistics.inputs import TaskInputs

FEW_PATIENTS = 50
"""Below this many, intervals of a mean are often too short (André et al., "Some hidden traps of confidence intervals in
medical image segmentation", BRIDGE workshop at MICCAI 2025; for other metrics it takes more: arXiv:2601.17103)."""
FEW_OF_A_CLASS = 30
"""Below this many patients with a positive, or with a negative, the same holds of AUROC and average precision. In
simulation (`benchmarks/leaderboard_simulations.py coverage`) an AUROC of 0.80 is held in 84 % of cases with about five
positives, in 92 % with ten, in 94 % with twenty."""
FEW_DECIDE = 4.0
"""Patients, or a sixth of them where that is fewer. Of normal scores every third patient or so decides the spread."""


def of_task(inputs: TaskInputs) -> tuple[str, ...]:
    """Returns what to know before reading any interval over a task's patients."""
    patients, found = inputs.num_patients, []
    if patients < FEW_PATIENTS:
        found.append(
            f"{patients} patient{'s' * (patients > 1)}: under {FEW_PATIENTS}, intervals are often too short, and what "
            f"fails in one patient of {max(patients // 3, 1)} may not be among them"
        )
    found += [
        f"{number} patient{'s' * (number != 1)} {what}: under {FEW_OF_A_CLASS} of a class, intervals are often too "
        "short, however many patients there are"
        for what, number in inputs.needed.items()
        if number < FEW_OF_A_CLASS
    ]
    return tuple(found)


def of_model(jackknife: np.ndarray) -> tuple[str, ...]:
    """Returns what to know before reading a model's interval: that a few patients decide how long it is.

    So it is where a few scans fail altogether, or few positives rank low: with one more or less of them the interval
    would be another, and a sample that has none by luck has one that is far too short.

    Args:
        jackknife: (n,) the number with one patient left out at a time, NaN where undefined.
    """
    if np.isnan(jackknife).any() or numeric.equal(jackknife, jackknife[0]).all():
        return ()
    square = ((jackknife - math.fsum(jackknife) / len(jackknife)) ** 2).tolist()
    decide = math.fsum(square) ** 2 / math.fsum(one * one for one in square)
    if decide >= min(FEW_DECIDE, len(jackknife) / 6):
        return ()
    about = numeric.fixed(max(decide, 1), 0)
    return (
        f"the interval is decided by about {about} of {len(jackknife)} patients, whose scores are far from the "
        "others': one such patient more or less would make another interval",
    )
