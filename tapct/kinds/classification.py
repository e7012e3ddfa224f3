"""Classification: independent 0/1 labels of a scan, compared by how well their logits order the cases.

Any label of a case may be missing. Its pair of case and label then counts in nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tapct.kinds.base import Cases, Field, Kind, Metric, Number, PairRank, Statistic
from tapct.metrics import by_label, classification, ranks

_ONE_CLASS = "the references have only one class"

_NO_LABEL = f"no label has {by_label.FEW} positives and {by_label.FEW} negatives"

_ANSWERS = {"with a positive": 1, "with a negative": 0}

_PAIRS = ("logit", "target")
"""Fields that records of an older protocol may lack."""


def _over_labels(name: str, title: str, **about: Any) -> Metric:
    """Returns the mean over labels of a rank metric of each (`tapct.metrics.by_label`)."""
    rank = classification.OVER_LABELS[name]
    return Metric(
        name=name,
        title=title,
        of=Statistic(
            _of(name),
            without=lambda cases, patients: by_label.mean_without_each(rank, *_pairs(cases), patients),
            lost=lambda cases, patients: by_label.lost_by_mean(rank, *_pairs(cases), patients),
        ),
        undefined=_NO_LABEL,
        fields=_PAIRS,
        needs=_of_the_rarest,
        **about,
    )


def _pairs(cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    return cases["logit"], cases["target"]


def _of(name: str) -> Callable[[Cases, np.ndarray], np.ndarray]:
    """Returns a metric of `tapct.metrics.classification`."""
    return lambda cases, counts: classification.METRICS[name](*_pairs(cases), counts)


def _number(name: str, title: str) -> Metric:
    """Returns a number of labels."""
    return Metric(
        name=name,
        title=title,
        of=Number(lambda cases: classification.NUMBERS[name](*_pairs(cases))),
        fields=_PAIRS,
        high=np.inf,
        lower_is_better=True,
        digits=0,
        shown=False,
    )


def _predicted(cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    return cases["probability"], cases["target"]


def _of_the_rarest(cases: Cases) -> dict[str, np.ndarray]:
    """Returns which cases have a positive, and which a negative, of the label of the mean whose fewest patients have.

    A mean over labels hangs on each of them: one that five patients have decides as much as one that a thousand have.
    """
    targets, patients = cases["target"], np.unique(cases.patients, return_inverse=True)[1]
    labels, found = np.flatnonzero(by_label.is_in_means(targets)), {}
    for what, answer in _ANSWERS.items():
        numbers = [len(np.unique(patients[targets[:, label] == answer])) for label in labels]
        if numbers:
            rarest = labels[int(np.argmin(numbers))]
            found[f"{what} of {cases.classes[rarest]}" if cases.classes else what] = targets[:, rarest] == answer
    return found


def _both(cases: Cases) -> dict[str, np.ndarray]:
    """Returns which cases have a positive, and which a negative."""
    return {what: (cases["target"] == answer).any(axis=1) for what, answer in _ANSWERS.items()}


def _doubts(case: Any, classes: Sequence[str]) -> Iterator[str]:
    """Yields what cannot be of the logits and targets of a case."""
    if case.logits is None or case.target is None:
        yield "it has no logits or targets"
    elif not list(case.logits) == list(case.target) == list(classes):
        yield "its logits or targets are not of the task's classes"


def _cross_entropy(fields: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the mean binary cross-entropy of a case's logits over the labels that are stated; 0 of none."""
    z, t = ranks.stated(*(np.array(list(fields[name].values()), dtype=np.float64) for name in ("logit", "target")))
    if not len(t):
        return 0.0
    return float(np.mean(np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))))


KIND = Kind(
    name="classification",
    title="Classification",
    target="0 or 1 for each label; any may be missing",
    metrics=(
        Metric(name="MicroAUROC", title="AUROC", of=PairRank("auroc"), undefined=_ONE_CLASS, needs=_both),
        Metric(name="MicroAP", title="AP", of=PairRank("average_precision"), undefined=_ONE_CLASS, needs=_both),
        _over_labels("MacroAUROC", "AUROC, by label"),
        _over_labels("MacroAP", "AP, by label"),
        _over_labels("MacroAPSkill", "AP skill, by label", low=-np.inf),
        Metric(
            name="BalancedAccuracy",
            title="balanced accuracy",
            of=Statistic(_of("BalancedAccuracy")),
            undefined=_NO_LABEL,
            fields=_PAIRS,
        ),
        Metric(
            name="CalibrationError",
            title="calibration error",
            of=Statistic(
                lambda cases, counts: classification.calibration_error(*_predicted(cases), counts),
                without=lambda cases, patients: classification.calibration_without_each(*_predicted(cases), patients),
            ),
            undefined="no case states a label",
            fields=("probability", "target"),
            lower_is_better=True,
        ),
        _number("UndefinedLabels", "undefined labels"),
        _number("RareLabels", "labels with few positives or negatives"),
    ),
    ranked=("MicroAUROC", "MicroAP", "MacroAUROC", "MacroAP", "MacroAPSkill"),
    fields=(
        Field(name="logit", title="logit", missing=True),
        Field(name="probability", title="probability", low=0, high=1),
        Field(name="target", title="reference, 0 or 1", given=True, low=0, high=1, missing=True),
    ),
    probe="tapct.probes.classification:ClassificationProbe",
    dataset="tapct.tasks.classification:ClassificationDataset",
    page="tapct.leaderboard.page.kinds.classification",
    outcome=False,
    doubts=_doubts,
    loss=_cross_entropy,
    labels=True,
    heads=("abmil", "linear", "knn", "prototype"),
    usual_head="abmil",
    rows_to_beat=("chance", "intensity", "radiomics", "random-pyramid", "random weights"),
)
