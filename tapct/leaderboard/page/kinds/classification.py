"""Classification: whether what is predicted with a probability is so as often."""

from collections.abc import Iterator

from tapct.leaderboard.page.charts import reliability
from tapct.leaderboard.page.sections import Picture, Shown


def pictures(shown: Shown) -> Iterator[Picture]:
    """Yields the reliability diagrams."""
    yield Picture(
        title="calibration",
        svg=reliability(shown.of, shown.drawn),
        note="Calibration: share of positives against the mean predicted probability, in fifteen bins, all seeds and "
        "(case, label) pairs together. On the line: well calibrated. Small dots: fewer than ten pairs."
        f"{shown.of_many}",
    )
