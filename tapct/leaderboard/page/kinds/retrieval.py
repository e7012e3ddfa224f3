"""Retrieval: how well each label is found."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tapct import numeric
from tapct.kinds import Cases
from tapct.kinds.retrieval import at_chance, by_class
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable

_Runs = Mapping[str, Sequence[Cases]]


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields the table of labels."""
    runs = {name: shown.cases(name) for name in shown.models}
    first = next(iter(runs.values()))[0]
    yield _by_label(shown, runs, first)


def _by_label(shown: DrawnTask, runs: _Runs, first: Cases) -> PageTable:
    """Returns the mean average precision of each label, next to that of chance."""
    found = {name: np.mean([_of_labels(run) for run in of], axis=0) for name, of in runs.items()}
    chance = _of_labels(at_chance(first))
    rows = []
    for row, name in enumerate(first.classes):
        relevant = first["relevant"][:, row]
        queries, undefined = int((relevant > 0).sum()), int((relevant == 0).sum())
        said = f"{queries}{f', {undefined} undefined' if undefined else ''}"
        rows.append([name, said, _text(chance[row]), *(_text(of[row]) for of in found.values())])
    return PageTable(
        title="mAP of each label",
        corner="label",
        heads=["queries", "chance", *runs],
        rows=rows,
        note="Mean over seeds. A query is undefined where no other patient has its label. mAP is their mean."
        f"{shown.of_many}",
        open=True,
    )


def _of_labels(run: Cases) -> np.ndarray:
    return by_class(run["average_precision"], np.ones((len(run), 1)))[:, 0]


def _text(value: float) -> str:
    return "" if math.isnan(value) else numeric.fixed(value, 2)
