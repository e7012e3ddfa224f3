"""Classification: each label by itself, and whether what is predicted with a probability is so as often."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tapct import numeric
from tapct.kinds import Cases
from tapct.leaderboard.page.charts import reliability
from tapct.leaderboard.page.sections import Picture, Shown, Table
from tapct.metrics import classification, ranks

OfPairs = Callable[[np.ndarray, np.ndarray], float]
"""A metric of (N,) scores and 0/1 targets."""

BY_LABEL: dict[str, tuple[str, OfPairs, str]] = {
    "AUROC": ("logit", ranks.auroc, ""),
    "AP": ("logit", ranks.average_precision, "A score that knows nothing has the share of positives."),
    "AP skill": (
        "logit",
        classification.average_precision_skill,
        "(AP - share) / (1 - share), of the share of positives: 0 is chance and 1 perfect, whatever the share.",
    ),
    "calibration error": ("probability", classification.calibration_error, "Less is better."),
}
"""By title: the field that it is of, the metric of one label, how it is read."""


def pictures(shown: Shown) -> Iterator[Picture | Table]:
    """Yields the reliability diagrams, and a table a metric of each label by itself."""
    yield Picture(
        title="calibration",
        svg=reliability(shown.of, shown.drawn),
        note="Calibration: share of positives against the mean predicted probability, in fifteen bins, all seeds and "
        "(case, label) pairs together. On the line: well calibrated. Small dots: fewer than ten pairs."
        f"{shown.of_many}",
    )
    runs = {name: shown.cases(name) for name in shown.models}
    for title in BY_LABEL:
        yield _by_label(shown, runs, title)


def _by_label(shown: Shown, runs: Mapping[str, Sequence[Cases]], title: str) -> Table:
    """Returns a metric of each label, and its means over labels with enough positives and over the others."""
    field, metric, note = BY_LABEL[title]
    targets = next(iter(runs.values()))[0]["target"]
    positives, stated = (targets == 1).sum(axis=0), (~np.isnan(targets)).sum(axis=0)
    enough = positives >= classification.FEW_POSITIVES
    heads = [f"{n}, {p} of {s}" for n, p, s in zip(shown.classes, positives, stated, strict=True)]
    means = {
        f"mean of {of.sum()} with {words}": of
        for of, words in ((enough, f"{classification.FEW_POSITIVES} positives or more"), (~enough, "fewer"))
        if of.any()
    }
    rows = []
    for name, of_model in runs.items():
        values = np.array([_of_labels(metric, run[field], run["target"]) for run in of_model])
        of_label = [numeric.mean(_defined(column)) for column in values.T]
        of_means = [numeric.mean(_defined(np.array(of_label)[of])) for of in means.values()]
        rows.append([name, *map(_text, (*of_means, *of_label))])
    return Table(
        title=f"{title} of each label",
        corner="model",
        heads=[*means, *heads],
        rows=rows,
        note=f"Beside each label: positives, of the cases that state it. Mean over seeds. {note} Labels with "
        f"fewer than {classification.FEW_POSITIVES} positives are a mean apart: theirs hang on a few patients."
        f"{shown.of_many}",
    )


def _of_labels(metric: OfPairs, scores: np.ndarray, targets: np.ndarray) -> list[float]:
    return [metric(*ranks.stated(s, t)) for s, t in zip(scores.T, targets.T, strict=True)]


def _defined(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
