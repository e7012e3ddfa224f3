"""Segmentation: every patient as a dot, and Dice and surface distances by class."""

from collections.abc import Iterator
from statistics import fmean

from tapct import numeric
from tapct.leaderboard.page.charts import patient_strips
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.statistics.reported import reported

BY_CLASS = (("dice_native", "Dice", 2), ("nsd_native", "NSD", 2), ("hd95_mm_native", "HD95, mm", 0))
"""Field, title, decimals."""

_OPEN = 16
"""Up to so many models, the first table is open from the start."""


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields the patients, and a table by class of each metric that the records have."""
    if shown.of.summaries["native"].num_patients > 1:
        yield Figure(
            title="every patient",
            svg=patient_strips(shown.of, shown.drawn),
            note="Every patient a dot, at the same height in all rows; black: the mean over cases with its 95 % "
            f"interval. Native grid, mean over seeds.{shown.of_many}",
        )
    for field, title, digits in BY_CLASS:
        rows = _rows(shown, field)
        if rows:
            mind = ". Entries without a surface in prediction or reference have none: read it with NSD"
            yield PageTable(
                title=f"{title} by class",
                heads=list(shown.models),
                rows=[[name, *("–" if v is None else numeric.fixed(v, digits) for v in row)] for name, row in rows],
                note=f"{title}, mean over cases that define it, then over seeds; native grid"
                f"{mind if field == 'hd95_mm_native' else ''}.{shown.of_many}",
                open=field == "dice_native" and len(shown.drawn) + shown.left_out <= _OPEN,
            )


def _rows(shown: DrawnTask, field: str) -> list[tuple[str, list[float | None]]]:
    """Returns per class the mean over runs of each model's mean over cases; None where a run does not define it."""
    tables = [reported(record, shown.split).by_class(field) for record in shown.models.values()]
    return [
        (
            name,
            [fmean(v for v in t[name] if v is not None) if None not in t.get(name, [None]) else None for t in tables],
        )
        for name in (tables[0] if tables else {})
    ]
