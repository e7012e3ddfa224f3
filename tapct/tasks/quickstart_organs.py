"""Which organ lies at a point: blocks of the quickstart's two scans, to see a classification. Not a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from typing_extensions import override

from tapct.tasks import quickstart
from tapct.tasks.crops import CroppedDataset
from tapct.tasks.quickstart import ORGANS, Quickstart
from tapct.tasks.spec import TaskSpec
from tapct.tasks.tables import read_table
from tapct.volumes import Grid, Mask

SPHERE_MM = 30.0
"""Diameter of the sphere that `HEAD:mask` and hand-made features are taken from: what a click says, not an outline."""

SPEC = TaskSpec(
    name="quickstart_organs",
    display_name="Quickstart: organs",
    kind="classification",
    adaptor="prototype",
    version=1,
    classes=tuple(ORGANS),
    metric="MicroAUROC",
    mask=f"a sphere of {SPHERE_MM:g} mm round the point",
    licence="Apache-2.0",
    source="it ships with the project; leave DATA_ROOT unset to use it",
    notice="A demonstration on two patients (one trains the probe, one is reported), not a benchmark score.",
    release=quickstart.SPEC.name,
)

LIST = Path(str(files("tapct.tasks"))) / "labels" / "quickstart_organs.csv"


@dataclass(frozen=True)
class Point:
    """A point in an organ.

    Attributes:
        scan: The scan that it lies in, a case of the quickstart.
        centre_mm: Its place (x, y, z) in mm, RAS+.
        organ: The organ, one of `SPEC.classes`.
    """

    scan: str
    centre_mm: tuple[float, float, float]
    organ: str


class QuickstartOrgans(CroppedDataset):
    """Points deep in eleven organs of two patients, by the masks of the quickstart. A case is a point.

    The points ship (`labels/quickstart_organs.csv`; `tools/splits/quickstart_organs.py` says how they are chosen). A
    block is wide enough to show what lies round an organ, and flat, since the chest has 40 mm in all.
    """

    spec = SPEC
    shipped_root = Quickstart.shipped_root
    size_mm = (24.0, 192.0, 192.0)

    @cached_property
    def _scans(self) -> Quickstart:
        return Quickstart(self.root, self.split)

    @cached_property
    def points(self) -> dict[str, Point]:
        """Case to point."""
        found: dict[str, Point] = {}
        columns = ("case", "scan", "x_mm", "y_mm", "z_mm", "organ")
        for row in read_table(LIST, columns, what="list of points", comments=True):
            x, y, z = (float(row[name]) for name in ("x_mm", "y_mm", "z_mm"))
            found[row["case"]] = Point(row["scan"], (x, y, z), row["organ"])
        return found

    @override
    def ct_path(self, case: str) -> Path:
        return self._scans.ct_path(self.points[case].scan)

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [LIST]

    @override
    def targets(self, case: str) -> Sequence[int]:
        return [int(self.points[case].organ == organ) for organ in SPEC.classes]

    @override
    def point_mm(self, case: str) -> tuple[float, float, float]:
        return self.points[case].centre_mm

    @override
    def read_mask(self, case: str, scan: Grid) -> Mask:
        return Mask.sphere(self.points[case].centre_mm, SPHERE_MM, scan)

    @override
    def mask_cache_key(self, case: str) -> list[object]:
        return [*super().mask_cache_key(case), self.points[case].centre_mm, SPHERE_MM]
