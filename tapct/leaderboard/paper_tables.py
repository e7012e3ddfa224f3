"""The paper's tables with ours, as plain values: for the page, Markdown and LaTeX."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tapct import numeric
from tapct.leaderboard.paper import AVERAGE, PaperRow
from tapct.leaderboard.reproduction import PaperCell, Reproduction

TITLES = {
    2: "Table 2: segmentation, TAP-B-3D and published encoders",
    3: "Table 3: segmentation, the TAP-CT models at 224 and 512 pixels",
    4: "Table 4: classification, TAP-B-3D and published encoders",
    5: "Table 5: classification, the TAP-CT models",
}
NOTES = {
    "dagger": ("†", "by the paper, pretraining data included these public datasets"),
    "star": ("*", "on slices of 224 pixels, where 80 GB did not do for 512"),
    "oom": ("OOM", "out of memory on 80 GB"),
    "not_reported": ("empty", "the paper has no number"),
}
"""Notes of the paper's tables: a sign, and what it says."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a table of the paper.

    Attributes:
        model: The model.
        size: Its size of slices, in words, where the table has several; else empty.
        cells: Its cells, of the same tasks in every row.
    """

    model: str
    size: str
    cells: list[PaperCell]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper, with ours.

    Attributes:
        number: Its number.
        title: What it is of.
        rows: Its rows.
        run: Cells with a number of ours.
        of: Cells of tasks.
        gaps: Differences to the paper's means, one a cell: of the record whose protocol is closest to the shipped one.
            Without averages.
        to_do: The suites that have its other cells.
    """

    number: int
    title: str
    rows: list[Line]
    run: int
    of: int
    gaps: list[float]
    to_do: list[str]

    @property
    def median(self) -> float:
        """Median of the differences."""
        return median(self.gaps)


def tables(found: Reproduction) -> list[PaperTable]:
    """Returns the paper's tables."""
    return [_table(number, found.of_table(number)) for number in TITLES]


def _table(number: int, cells: Sequence[PaperCell]) -> PaperTable:
    rows: dict[tuple[str, str], list[PaperCell]] = defaultdict(list)
    for cell in cells:
        size = f"{cell.row.setup.in_plane_size} pixels" if number == 3 else ""
        rows[cell.row.model, size].append(cell)
    of_tasks = [cell for cell in cells if cell.row.task != AVERAGE]
    differences = [one.difference for cell in of_tasks for one in cell.ours[:1]]
    return PaperTable(
        number=number,
        title=TITLES[number],
        rows=[Line(model=model, size=size, cells=own) for (model, size), own in rows.items()],
        run=sum(bool(cell.ours) for cell in of_tasks),
        of=len(of_tasks),
        gaps=[gap.value for gap in differences if gap is not None and gap.value is not None],
        to_do=list(dict.fromkeys(cell.row.suite for cell in of_tasks if not cell.ours)),
    )


def signed(value: float) -> str:
    """Returns a difference, to three decimals."""
    text = numeric.fixed(abs(value), 3)
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def signs(row: PaperRow) -> list[tuple[str, str]]:
    """Returns the notes of a number of the paper: a sign and what it says."""
    return [NOTES[note] for note in sorted(row.notes) if note in NOTES]


def protocols(reproduction: Reproduction) -> list[tuple[str, list[str]]]:
    """Returns how protocols differ, each with the models that it is of."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for cell in reproduction.cells:
        for one in cell.ours if cell.row.task != AVERAGE else ():
            for word in one.said:
                found[word][one.model] = None
    return [(word, list(models)) for word, models in found.items()]
