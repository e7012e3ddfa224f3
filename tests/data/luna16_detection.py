"""LUNA16's detection track in small: scans of the split under their names, nodules as bright cubes, the two tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import SimpleITK as sitk

from tapct.tasks.luna16_detection import COLUMNS, LUNA16Detection
from tests.data import luna16

Nodule = tuple[float, float, float, float]
"""x, y, z in mm, LPS, and diameter."""

NODULES: Sequence[Nodule] = ((60.0, -40.0, -210.0, 18.0), (-45.5, 30.0, -150.0, 14.5))
EXCLUDED: Sequence[Nodule] = ((10.0, -60.0, -180.0, -1.0),)


def moved(number: int) -> Sequence[Nodule]:
    """The nodules of another scan: elsewhere, and elsewhere from each other."""
    (x, y, z, diameter), other = NODULES
    return ((x + 4.5 * number, y - 3 * number, z + 7.5 * number, diameter), other)


def series(split: str) -> list[str]:
    """The scans of a side, in the order of the shipped split."""
    table = LUNA16Detection.shipped_split()
    assert table is not None
    return list(table.cases[split])


def write(root: Path, nodules: Mapping[str, Sequence[Nodule]], *, excluded: bool = True, flipped: bool = False) -> None:
    """Writes a tree of the release.

    Args:
        root: The task's folder.
        nodules: SeriesInstanceUID to its nodules; a scan without any has the others' places and no cubes.
        excluded: Whether `annotations_excluded.csv` is there, with `EXCLUDED` in each scan.
        flipped: Whether rows and columns of the scans are stored backwards.
    """
    for number, (uid, places) in enumerate(nodules.items()):
        folder = root / f"subset{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        image = luna16.scan([place[:3] for place in places or NODULES], flipped=flipped)
        if not places:
            plain = sitk.GetImageFromArray(luna16.abdomen()[:, ::-1, ::-1] if flipped else luna16.abdomen())
            plain.CopyInformation(image)
            image = plain
        sitk.WriteImage(image, str(folder / f"{uid}.mhd"))
    _table(root / "annotations.csv", nodules)
    if excluded:
        _table(root / "annotations_excluded.csv", dict.fromkeys(nodules, EXCLUDED))


def _table(path: Path, rows: Mapping[str, Sequence[Nodule]]) -> None:
    lines = [",".join([uid, *map(str, row)]) for uid, of in rows.items() for row in of]
    path.write_text("\n".join([",".join(COLUMNS), *lines, ""]), encoding="utf-8")
