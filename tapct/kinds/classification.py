"""Classification: independent 0/1 labels of a scan, compared by how well their logits order the cases.

Any label of a case may be missing. Its pair of case and label then counts in nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tapct.kinds.base import Cases, Field, Kind, Metric, Number, PairRank
from tapct.metrics import classification, ranks

_ONE_CLASS = "the references have only one class"


def _of_labels(name: str) -> Number:
    """Returns a metric of `tapct.metrics.classification`."""
    of = classification.METRICS[name]

    def number(cases: Cases) -> float:
        return of(cases["logit"], cases["target"])

    return Number(number)


def _both(cases: Cases) -> dict[str, np.ndarray]:
    """Returns which cases have a positive, and which a negative."""
    answers = {"with a positive": 1, "with a negative": 0}
    return {what: (cases["target"] == answer).any(axis=1) for what, answer in answers.items()}


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
        Metric(name="MacroAUROC", title="AUROC, by label", of=_of_labels("MacroAUROC")),
        Metric(name="MacroAP", title="AP, by label", of=_of_labels("MacroAP")),
        Metric(name="BalancedAccuracy", title="balanced accuracy", of=_of_labels("BalancedAccuracy")),
        Metric(
            name="CalibrationError", title="calibration error", of=_of_labels("CalibrationError"), lower_is_better=True
        ),
        Metric(
            name="UndefinedLabels",
            title="undefined labels",
            of=_of_labels("UndefinedLabels"),
            high=np.inf,
            lower_is_better=True,
            digits=0,
            shown=False,
        ),
    ),
    ranked=("MicroAUROC", "MicroAP"),
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
    beside=("chance", "intensity", "radiomics", "random-pyramid", "random weights"),
)
