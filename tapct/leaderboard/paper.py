"""The paper's Tables 2 to 5, to stand next to our numbers: for reference, never ranked with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

from tapct.tasks.tables import read_table

PAPER = (
    "Veenboer et al., TAP-CT: 3D Task-Agnostic Pretraining of Computed Tomography Foundation Models, arXiv:2512.00872"
)

Note = Literal["dagger", "star", "oom", "not_reported", "ablation"]


AVERAGE = "average"
"""Stands for the task in the paper's means over tasks."""


@dataclass(frozen=True)
class Setup:
    """What the paper says of how an encoder was run (its Table 1).

    Attributes:
        encoder: Our name of it.
        window_size: Voxels (z, y, x).
        spacing_mm: Spacing (z, y, x) that scans are resampled to; None keeps the scan's own.
        in_plane_size: Pixels (square) that slices are resized to; None keeps the scan's own.
    """

    encoder: str
    window_size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None = None
    in_plane_size: int | None = None


_WINDOWS = {"2D": (1, 224, 224), "2.5D": (6, 224, 224), "3D": (12, 224, 224)}
SETUPS: Mapping[str, Setup] = {
    "Curia": Setup("curia", (1, 512, 512), in_plane_size=512),
    "SuPReM": Setup("suprem", (96, 96, 96), (1.5, 1.5, 1.5)),
    "CT-FM": Setup("ct-fm", (24, 128, 128), (3.0, 1.0, 1.0)),
    "VISTA3D": Setup("vista3d", (128, 128, 128), (1.5, 1.5, 1.5)),
    "VoCo": Setup("voco-b", (96, 96, 96), (1.5, 1.5, 1.5)),
    "FMCiB": Setup("fmcib", (64, 64, 64), (1.0, 1.0, 1.0)),
    **{
        f"TAP-{size}-{kind}": Setup(f"tap-{size}-{kind}".lower(), window, in_plane_size=224)
        for kind, window in _WINDOWS.items()
        for size in "SB"
    },
}
"""By the paper's name of a model. Where a table does not say it, TAP-CT is taken to be at the 224 pixels of its
pretraining: for the classification tasks the paper names no size."""


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

    @property
    def setup(self) -> Setup:
        """How the encoder was run: as the table says, else as Table 1 does."""
        own = SETUPS[self.model.removesuffix(" (Patch Feat.)")]
        if (size := re.search(r"\(z, (\d+), \1\)", self.settings or "")) is None:
            return own
        in_plane = int(size[1])
        # No window of the paper is larger than the slices that it is taken from.
        z, y, x = own.window_size
        return replace(own, window_size=(z, min(y, in_plane), min(x, in_plane)), in_plane_size=in_plane)

    @property
    def adaptor(self) -> str | None:
        """What stood on the features, by our name; None of segmentation."""
        if self.metric == "DSC":
            return None
        return "abmil:patch" if "ablation" in self.notes else "abmil"

    @property
    def suite(self) -> str:
        """The suite that has its cell."""
        return "paper-empty" if self.mean is None else f"paper-table-{self.table}"


def read_paper() -> tuple[PaperRow, ...]:
    """Returns the rows of Tables 2 to 5, in the paper's order."""
    path = Path(str(files("tapct.leaderboard"))) / "paper.csv"
    columns = ("table", "model", "settings", "task", "metric", "mean", "std", "note")
    return tuple(_row(row) for row in read_table(path, columns, what="list of the paper's rows", comments=True))


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
