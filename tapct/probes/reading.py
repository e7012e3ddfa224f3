"""How well something can be read from features: the linear probe, of levels or labels, with intervals over patients."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tapct.errors import TaskError
from tapct.metrics import ranks
from tapct.metrics.by_label import is_defined, mean_in_resamples, stated
from tapct.metrics.left_out import without_each
from tapct.metrics.resampled import in_resamples
from tapct.probes import label_heads
from tapct.probes.audited import Audited, AuditedHead, Targets, patients_with
from tapct.probes.solved import LinearHead
from tapct.records.shortcuts import Estimated, LevelRead, Read
from tapct.statistics.intervals import Estimate, estimate

LEAST_PATIENTS = 5
"""That have a level, and that have it not, among those who train a head, and among the reported ones."""

STRENGTHS = (1e-4, 1e-2, 1.0, 1e2)
"""L2 penalties that are chosen from: of those of the probe `linear` every second one, without the weakest, which take
longest. There are many heads."""


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
    values, bootstrap, jackknife = _resampled(of, logits, reported[:, kept])
    levels = {
        names[place]: LevelRead(
            train_patients=int(trained[place]),
            patients=patients[place],
            auroc=_estimated(values[k], bootstrap[k], jackknife[k], of),
        )
        for k, place in enumerate(kept)
    }
    mean = _estimated(float(values.mean()), _means(bootstrap), _means(jackknife), of)
    return {"read": Read(auroc=mean, levels=levels), "left_out": left_out}


def _few(parts: Sequence[AuditedHead], reported: np.ndarray, of: Audited, place: int) -> str | None:
    """Returns why a level cannot be read: too few patients have it, or too few have it not; None if it can."""
    sides = [("training", part.train.targets[:, place], part.train.patients) for part in parts]
    for side, targets, patients in (*sides, ("reported", reported, of.reported.patients)):
        for answer, has in ((1, "have it"), (0, "have it not")):
            (number,) = patients_with(targets[:, None], patients, answer)
            if number < LEAST_PATIENTS:
                return f"{number} {side} patients {has}; {LEAST_PATIENTS} are needed"
    return None


def _logits(of: Audited, parts: Sequence[AuditedHead]) -> np.ndarray:
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
    once = np.ones((len(targets), 1))
    value = float(mean_in_resamples("auroc", scores, targets, once, among=is_defined(targets))[0])
    return None if math.isnan(value) else value


def _resampled(of: Audited, logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the AUROC of K levels: (K,), (K, R) in each resample, (K, patients) without each patient."""
    values, bootstrap, jackknife = [], [], []
    for cases, scores, answers in stated(logits, targets):
        patients = of.patients[cases]
        values.append(ranks.auroc(scores, answers))
        bootstrap.append(in_resamples([ranks.auroc_of_counts], scores, answers, patients, of.drawn)[0])
        jackknife.append(without_each(scores, answers, patients, of.drawn.shape[0]).auroc)
    return np.array(values), np.array(bootstrap), np.array(jackknife)


def _means(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the levels that are defined, column by column; NaN where none is."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.divide(total, defined.sum(axis=0), out=np.full(values.shape[1], np.nan), where=defined.any(axis=0))


def _estimated(value: float, bootstrap: np.ndarray, jackknife: np.ndarray, of: Audited) -> Estimated:
    return as_recorded(estimate(value, bootstrap, jackknife, of.drawn.shape[0], "no reported patient defines it"))


def as_recorded(one: Estimate) -> Estimated:
    """Returns an estimate as records hold it, whose value is defined."""
    assert one.value is not None
    interval = {"reason": one.reason} if one.low is None else {"low": one.low, "high": one.high}
    return Estimated(value=one.value, **interval)
