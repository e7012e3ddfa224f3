"""Whether a record is better than what knows nothing of the cases."""

from collections.abc import Iterator

import numpy as np

from tapct import numeric
from tapct.flags.messages import Found, reported
from tapct.leaderboard import TaskInputs
from tapct.leaderboard.inputs import Metric
from tapct.leaderboard.intervals import Estimate, estimate
from tapct.leaderboard.resampling import draw_patients, evaluate
from tapct.records import CaseResult, Record

SHUFFLES = 4
"""How often the predictions of each run are dealt out at random to see what chance gives."""

RESAMPLES = 500
"""Fewer than the leaderboard's: a flag needs to know on which side of 0 an interval ends, not where."""

METRICS_OF_PAIRS: dict[Metric, str] = {"MicroAUROC": "MacroAUROC", "MicroAP": "MacroAP"}


def chance(record: Record) -> Found:
    """Compares with what knows nothing of the cases.

    Of classification that is the same scores, dealt out to the cases at random: AUROC 0.5 for one label; more over all
    pairs, where some labels are more common than others; and an average precision above the share of positives, to
    which a random order comes down only with many cases. Of voxels it is the one class, given to all of them, that has
    the best mean Dice; it is taken from the reported references, which favours it.
    """
    runs = [reported(run) for run in record.runs]
    cases = {tuple((case.case, case.patient) for case in run) for run in runs}
    if not runs or not runs[0] or len(cases) > 1 or len({case.case for case in runs[0]}) < len(runs[0]):
        return
    at_chance = [f"{name} by {_in_words(gap)}" for name, gap in _gaps(record, runs) if _is_at_chance(gap)]
    if at_chance:
        yield "chance-level", "above chance: " + "; ".join(at_chance)


def _is_at_chance(gap: Estimate) -> bool:
    if gap.value is None:
        return False
    return bool(numeric.at_least(0, gap.value if gap.low is None else gap.low))


def _in_words(gap: Estimate) -> str:
    assert gap.value is not None
    interval = gap.reason if gap.low is None or gap.high is None else f"95 % interval {gap.low:.3f} to {gap.high:.3f}"
    return f"{gap.value:.3f} ({interval})"


def _gaps(record: Record, runs: list[list[CaseResult]]) -> Iterator[tuple[str, Estimate]]:
    """Yields metrics and how far the record is above chance."""
    if all(case.scores and case.target for run in runs for case in run):
        scores = np.array([[list((case.scores or {}).values()) for case in run] for run in runs])
        targets = np.array([list((case.target or {}).values()) for case in runs[0]])
        rng = np.random.default_rng(0)
        values = np.stack([scores, *(rng.permutation(scores, axis=1) for _ in range(SHUFFLES))])
        labels = [k for k in range(targets.shape[1]) if 0 < targets[:, k].sum() < len(targets)]
        for micro, macro in METRICS_OF_PAIRS.items():
            if labels:
                yield micro, _gap([_inputs(record, runs, micro, values, targets)])
            if labels and targets.shape[1] > 1:
                yield macro, _gap([_inputs(record, runs, micro, values[..., [k]], targets[:, [k]]) for k in labels])
    if all(case.dice and case.voxels and case.reference_voxels for run in runs for case in run):
        dice = np.array([[numeric.mean((case.by_class("dice_native") or {}).values()) for case in run] for run in runs])
        constant = np.broadcast_to(_constant_dice(runs[0]), dice.shape)
        yield "dice_native", _gap([_inputs(record, runs, "dice_native", np.stack([dice, constant]))])


def _constant_dice(cases: list[CaseResult]) -> np.ndarray:
    """Returns (cases,) mean Dice over the defined classes if all voxels are of one class, the best one for that."""
    references = [case.reference_voxels or {} for case in cases]
    by_class = []
    for name in references[0]:
        there = [reference[name] for reference in references]
        dice = [2 * n / (n + (case.voxels or 0)) for n, case in zip(there, cases, strict=True)]
        # The class itself is defined wherever it is predicted, so everywhere.
        defined = [sum(v > 0 for k, v in reference.items() if k != name) + 1 for reference in references]
        by_class.append(np.array(dice) / defined)
    return by_class[numeric.best_first([numeric.mean(of) for of in by_class])[0]]


def _inputs(
    record: Record, runs: list[list[CaseResult]], metric: Metric, values: np.ndarray, targets: np.ndarray | None = None
) -> TaskInputs:
    """Returns the record as the first model, and chance as the others."""
    return TaskInputs(
        task=record.task.name,
        version=f"{record.task.version}:{record.task.split_sha256}",
        metric=metric,
        models=("this", *(f"chance {k}" for k in range(1, len(values)))),
        cases=tuple(case.case for case in runs[0]),
        patients=tuple(case.patient for case in runs[0]),
        values=values,
        targets=targets,
    )


def _gap(of_labels: list[TaskInputs]) -> Estimate:
    """Returns the metric of the record minus the mean of chance, averaged over labels, with its interval."""
    first = of_labels[0]
    patients = first.num_patients
    drawn = draw_patients(patients, RESAMPLES, f"{first.task}:{first.version}")
    counts = np.concatenate([np.ones((patients, 1)), drawn, 1 - np.eye(patients)], axis=1)
    by_model = np.mean([evaluate(inputs, counts).mean(axis=1) for inputs in of_labels], axis=0)
    value, draws, jackknife = np.split(numeric.difference(by_model[0], by_model[1:].mean(axis=0)), [1, 1 + RESAMPLES])
    return estimate(float(value[0]), draws, jackknife, patients, "it is undefined")
