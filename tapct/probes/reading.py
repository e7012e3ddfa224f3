"""How well something can be read from features: the linear probe, of levels or labels, with intervals over patients."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tapct.errors import TaskError
from tapct.leaderboard.intervals import Estimate, estimate
from tapct.leaderboard.resampling import auroc
from tapct.metrics import ranks
from tapct.metrics.classification import mean_over_labels
from tapct.probes import label_heads
from tapct.probes.audited import Audited, Part, Targets, patients_with
from tapct.probes.solved import LinearHead
from tapct.records.shortcuts import Estimated, LevelRead, Read

LEAST_PATIENTS = 5
"""That have a level, and that have it not, among those who train a head, and among the reported ones."""

STRENGTHS = (1e-4, 1e-2, 1.0, 1e2)
"""L2 penalties that are chosen from: of those of the probe `linear` every second one, without the weakest, which take
longest. There are many heads."""

BLOCK = 512
"""Patients that are left out in turn, at a time."""


def read(of: Audited, names: Sequence[str], targets: Targets) -> dict[str, Any]:
    """Returns how well levels or labels can be read: the fields `read`, `not_read`, `left_out` of `ShortcutRecord`.

    Args:
        of: The cases.
        names: Of the K levels or labels.
        targets: Gives membership in them.
    """
    parts, reported = of.parts(targets), targets(of.reported)
    why = {name: _few(parts, reported[:, place], of, place) for place, name in enumerate(names)}
    left_out = {name: reason for name, reason in why.items() if reason is not None}
    kept = [place for place, name in enumerate(names) if name not in left_out]
    if not kept:
        return {"not_read": "no level is of enough patients", "left_out": left_out}
    try:
        logits = _logits(of, [part.of_targets(kept) for part in parts])
    except TaskError as error:  # the choice of the penalty is undefined
        return {"not_read": str(error), "left_out": left_out}
    patients = patients_with(reported, of.patients)
    trained = np.min([patients_with(part.train.targets, part.train.patients) for part in parts], axis=0)
    values, draws, jackknife = _resampled(of, logits, reported[:, kept])
    levels = {
        names[place]: LevelRead(
            train_patients=int(trained[place]),
            patients=patients[place],
            auroc=_estimated(values[k], draws[k], jackknife[k], of),
        )
        for k, place in enumerate(kept)
    }
    mean = _estimated(float(values.mean()), _means(draws), _means(jackknife), of)
    return {"read": Read(auroc=mean, levels=levels), "left_out": left_out}


def _few(parts: Sequence[Part], reported: np.ndarray, of: Audited, place: int) -> str | None:
    """Returns why a level cannot be read: too few patients have it, or too few have it not; None if it can."""
    sides = [("training", part.train.targets[:, place], part.train.patients) for part in parts]
    for side, targets, patients in (*sides, ("reported", reported, of.reported.patients)):
        for answer, has in ((1, "have it"), (0, "have it not")):
            (number,) = patients_with(targets[:, None], patients, answer)
            if number < LEAST_PATIENTS:
                return f"{number} {side} patients {has}; {LEAST_PATIENTS} are needed"
    return None


def _logits(of: Audited, parts: Sequence[Part]) -> np.ndarray:
    """Returns (N, K) logits of the reported cases, each by the head that reads it, less its mean over who trained it.

    Heads of several folds have slightly different rates behind them, and those must rank nobody: where features say
    nothing, that alone would put who is held out below the others.

    Raises:
        TaskError: If the metric is undefined on the cases that decide.
    """
    found = np.full((len(of.reported.names), parts[0].train.targets.shape[1]), np.nan)
    for part in parts:
        train, selection = part.train, part.selection
        solution = label_heads.solve("linear", train, selection, _mean_auroc, scale=of.scale, strengths=STRENGTHS)
        head = solution.head
        assert isinstance(head, LinearHead)
        centred = of.reported.features[part.rows] - train.features.mean(axis=0)
        found[part.rows] = centred @ head.weight.numpy().T
    return found


def _mean_auroc(scores: np.ndarray, targets: np.ndarray) -> float | None:
    value = mean_over_labels(ranks.auroc, scores, targets)
    return None if math.isnan(value) else value


def _resampled(of: Audited, logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the AUROC of K levels: (K,), (K, R) in each resample, (K, patients) without each patient."""
    number = of.drawn.shape[0]
    found: tuple[list[float], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    for scores, answers in zip(logits.T, targets.T, strict=True):
        known = ~np.isnan(answers)
        of_level = scores[known], answers[known], of.patients[known]
        found[0].append(ranks.auroc(*of_level[:2]))
        found[1].append(auroc(*of_level, of.drawn))
        without = [1.0 - np.eye(number)[:, start : start + BLOCK] for start in range(0, number, BLOCK)]
        found[2].append(np.concatenate([auroc(*of_level, counts) for counts in without]))
    return np.array(found[0]), np.array(found[1]), np.array(found[2])


def _means(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the levels that are defined, column by column; NaN where none is."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.divide(total, defined.sum(axis=0), out=np.full(values.shape[1], np.nan), where=defined.any(axis=0))


def _estimated(value: float, draws: np.ndarray, jackknife: np.ndarray, of: Audited) -> Estimated:
    return as_recorded(estimate(value, draws, jackknife, of.drawn.shape[0], "no reported patient defines it"))


def as_recorded(one: Estimate) -> Estimated:
    """Returns an estimate as records hold it, whose value is defined."""
    assert one.value is not None
    interval = {"reason": one.reason} if one.low is None else {"low": one.low, "high": one.high}
    return Estimated(value=one.value, **interval)
