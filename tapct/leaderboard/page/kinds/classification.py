"""Classification: each label by itself, and whether what is predicted with a probability is so as often."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tapct import numeric
from tapct.kinds import Cases
from tapct.leaderboard.page.charts import reliability
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.metrics import by_label, classification
from tapct.metrics.left_out import without_each
from tapct.statistics.intervals import estimate
from tapct.statistics.resampling import draw_patients

RESAMPLES = 500
"""Of patients, for the intervals of each label."""

TITLES: Mapping[str, tuple[str, str]] = {
    "auroc": ("AUROC", ""),
    "average_precision": ("AP", "A score that knows nothing has the share of positives."),
    "average_precision_skill": (
        "AP skill",
        "(AP - share) / (1 - share), of the share of positives: 0 is chance and 1 perfect, whatever the share.",
    ),
    "calibration_error": ("calibration error", "Less is better."),
}
"""By metric of one label, its title and how it is read; all but the last are of `by_label.RANKS`."""


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields the reliability diagrams, and a table a metric of each label by itself."""
    runs = {name: shown.cases(name) for name in shown.models}
    yield Figure(
        title="calibration",
        svg=reliability(shown.task, shown.title, shown.kind.name, runs),
        note="Calibration: share of positives against the mean predicted probability, in fifteen bins, all seeds and "
        "(case, label) pairs together. On the line: well calibrated. Small dots: fewer than ten pairs."
        f"{shown.of_many}",
    )
    yield from _by_label(shown, runs)


class _Numbers(NamedTuple):
    """Metrics of each label, and of means over them, the mean over seeds.

    Attributes:
        value: (4, rows) in the order of `TITLES`, NaN where undefined.
        bootstrap: (4, rows, R) in resamples of patients.
        jackknife: (4, rows, n) without each patient.
    """

    value: np.ndarray
    bootstrap: np.ndarray
    jackknife: np.ndarray


def _by_label(shown: DrawnTask, runs: Mapping[str, Sequence[Cases]]) -> Iterator[PageTable]:
    """Yields a table a metric: a line a label, and before them the means over those in means and over the others."""
    first = next(iter(runs.values()))[0]
    targets = first["target"]
    positives, negatives = by_label.strata(targets)
    in_means = by_label.is_in_means(targets)
    means = {
        f"mean of {of.sum()} with {words}": of
        for of, words in (
            (in_means, f"{by_label.FEW} or more of both"),
            (by_label.is_defined(targets) & ~in_means, "fewer positives or negatives"),
        )
        if of.any()
    }
    names, patients = np.unique(first.patients, return_inverse=True)
    drawn = draw_patients(len(names), RESAMPLES, f"{shown.task} by label")[patients]
    found = {name: _of_model(of, patients, drawn, [*means.values()]) for name, of in runs.items()}
    stated = (f"{p} of {p + n}" for p, n in zip(positives, negatives, strict=True))
    lines = [*((name, "") for name in means), *zip(first.classes, stated, strict=True)]
    for metric, (title, note) in enumerate(TITLES.values()):
        rows = [
            [*line, *(_text(of, metric, row, len(names)) for of in found.values())] for row, line in enumerate(lines)
        ]
        yield PageTable(
            title=f"{title} of each label",
            corner="label",
            heads=["positives", *runs],
            rows=rows,
            note=f"Mean over seeds, 95 % interval over patients where enough of them define it. Positives: of the "
            f"cases that state the label. {note} Labels with fewer than {by_label.FEW} positives or negatives are a "
            f"mean apart: theirs hang on a few patients.{shown.of_many}",
        )


def _of_model(runs: Sequence[Cases], patients: np.ndarray, drawn: np.ndarray, means: Sequence[np.ndarray]) -> _Numbers:
    """Returns the numbers of a model: first the means over these (K,) labels, then each label."""
    distinct = {(run["logit"].tobytes(), run["probability"].tobytes()): run for run in runs}  # a solved head, often
    weights = [sum(_same(run, one) for run in runs) for one in distinct.values()]
    each = [_of_run(run, patients, drawn, means) for run in distinct.values()]
    return _Numbers(*(np.average(of, axis=0, weights=weights) for of in zip(*each, strict=True)))


def _same(one: Cases, other: Cases) -> bool:
    return all(one[field].tobytes() == other[field].tobytes() for field in ("logit", "probability"))


def _of_run(run: Cases, patients: np.ndarray, drawn: np.ndarray, means: Sequence[np.ndarray]) -> _Numbers:
    pairs, probability = (run["logit"], run["target"]), run["probability"]
    predicted = [(probability[:, [k]], run["target"][:, [k]]) for k in range(len(run.classes))]
    once, ranks = np.ones((len(run), 1)), [*by_label.RANKS]

    def counted(counts: np.ndarray) -> np.ndarray:
        calibration = [classification.calibration_error(p, t, counts) for p, t in predicted]
        return np.concatenate([by_label.each_in_resamples(ranks, *pairs, counts), [calibration]])

    number = int(patients.max()) + 1
    left = [without_each(s, t, patients[cases], number) for cases, s, t in by_label.stated(*pairs)]
    without = [np.stack([by_label.RANKS[name].without(of) for of in left]) for name in ranks]
    of_bins = [classification.calibration_without_each(p, t, patients) for p, t in predicted]
    found = counted(once), counted(drawn), np.stack([*without, np.stack(of_bins)])
    value, bootstrap, jackknife = (np.concatenate([_means(of, means), of], axis=1) for of in found)
    return _Numbers(value[..., 0], bootstrap, jackknife)


def _means(found: np.ndarray, means: Sequence[np.ndarray]) -> np.ndarray:
    """Returns (4, means, R) the means over some labels of (4, K, R) numbers, without those that are undefined."""
    made = [[numeric.means(of_metric[of].T) for of in means] for of_metric in found]
    return np.array(made).reshape(len(found), len(means), found.shape[2])


def _text(found: _Numbers, metric: int, row: int, patients: int) -> str:
    value, bootstrap, jackknife = (of[metric, row] for of in found)
    if math.isnan(value):
        return ""
    of = estimate(float(value), bootstrap, jackknife, patients, "")
    ends = "" if of.low is None or of.high is None else f" ({of.low:.3f} to {of.high:.3f})"
    return f"{value:.3f}{ends}"
