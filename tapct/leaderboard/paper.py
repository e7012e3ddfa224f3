"""The paper's Tables 2 to 5, to stand beside our numbers: for reference, never ranked with them."""

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

PAPER = (
    "Veenboer et al., TAP-CT: 3D Task-Agnostic Pretraining of Computed Tomography Foundation Models, arXiv:2512.00872"
)

Note = Literal["dagger", "star", "oom", "not_reported", "ablation"]


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One number of the paper. Not a `Record`: its splits are unpublished, so nothing pairs it with our cases.

    Attributes:
        table: Number of the table.
        model: The model, as in Table 4.
        settings: Image size, window, patch or spacing, as far as the table says; None where it says nothing.
        task: Our name of the task; "average" for the paper's mean over tasks.
        metric: DSC, AUC or AP, as the paper calls it; DSC on the encoder's own grid.
        mean: Mean over three runs; None with a note `oom` or `not_reported`.
        std: Standard deviation over three runs; None without a mean, and for averages.
        notes: `dagger` (pretraining data included these public datasets), `star` (evaluated on (z, 224, 224)
            because 80 GB did not do for (z, 512, 512)), `oom` (out of memory), `not_reported`, `ablation`.
    """

    table: int
    model: str
    settings: str | None
    task: str
    metric: Literal["DSC", "AUC", "AP"]
    mean: float | None
    std: float | None
    notes: frozenset[Note]


def read_paper() -> tuple[PaperRow, ...]:
    """Returns the rows of Tables 2 to 5, in the paper's order."""
    text = (files("tapct.leaderboard") / "paper.csv").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return tuple(_row(row) for row in csv.DictReader(lines))


def _row(row: dict[str, str]) -> PaperRow:
    mean, std = (float(row[key]) if row[key] else None for key in ("mean", "std"))
    notes = frozenset(note for note in row["note"].split(";") if note)
    return PaperRow(
        table=int(row["table"]),
        model=row["model"],
        settings=row["settings"] or None,
        task=row["task"],
        metric=row["metric"],  # type: ignore[arg-type]
        mean=mean,
        std=std,
        notes=notes,  # type: ignore[arg-type]
    )
