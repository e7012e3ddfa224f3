"""LUNA16 in small: real CT under the names and headers of the release, with a bright cube at each nodule's place."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tapct.tasks.luna16 import COLUMNS, LIST
from tapct.tasks.nodules import Nodule, read_nodules
from tapct.volumes import read_ct
from tests.conftest import QUICKSTART

CUBE_HU = 3000
UNMEASURED_HU = -3024
FLIPPED = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
"""TransformMatrix of the scans whose rows and columns run backwards."""


@cache
def abdomen() -> np.ndarray:
    """The quickstart's abdomen, (112, 101, 122) int16 at 3 mm, z, y, x growing towards S, P, L: an ITK array."""
    return read_ct(QUICKSTART / "abdomen" / "ct.nii.gz").hu.astype(np.int16)


def scan(places: Sequence[Sequence[float]], flipped: bool = False, field_of_view_mm: float | None = None) -> sitk.Image:
    """Places real CT in the world so that all places (x, y, z in mm, LPS) lie in it, and marks each by a cube.

    ITK finds the voxels, not our own geometry.

    Args:
        places: Of nodules; an off-centre point between them becomes the middle of the scan.
        flipped: Whether rows and columns are stored backwards, as in some scans of LUNA16.
        field_of_view_mm: Radius round the first nodule beyond which the scanner writes -3024.
    """
    hu = abdomen()[:, ::-1, ::-1] if flipped else abdomen()
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((3.0, 3.0, 3.0))
    if flipped:
        image.SetDirection(FLIPPED)
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    image.SetOrigin((np.mean(places, axis=0) + np.array([7.3, -4.1, 5.2]) - middle).tolist())
    voxels = sitk.GetArrayFromImage(image)
    at = [image.TransformPhysicalPointToIndex([float(v) for v in place])[::-1] for place in places]
    if field_of_view_mm is not None:
        rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
        voxels[:, np.hypot(rows - at[0][1], columns - at[0][2]) * 3 > field_of_view_mm] = UNMEASURED_HU
    for z, y, x in at:
        voxels[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = CUBE_HU
    marked = sitk.GetImageFromArray(voxels)
    marked.CopyInformation(image)
    return marked


def lps(nodule: Nodule) -> tuple[float, float, float]:
    """The place of a nodule as the lists have it."""
    x, y, z = nodule.centre_mm
    return -x, -y, z


def write(root: Path, cases: Sequence[str], folder: str = "subset3", **scan_options) -> None:
    """Writes the scans of some of the shipped list's nodules, and a lung mask under the same name for each."""
    nodules = read_nodules(LIST, COLUMNS)
    series = defaultdict(list)
    for case in cases:
        series[nodules[case].series].append(lps(nodules[case]))
    for part in (folder, "seg-lungs-LUNA16"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for uid, places in series.items():
        image = scan(places, **scan_options)
        sitk.WriteImage(image, str(root / folder / f"{uid}.mhd"))
        lungs = sitk.Cast(image < -500, sitk.sitkUInt8) * 3
        sitk.WriteImage(lungs, str(root / "seg-lungs-LUNA16" / f"{uid}.mhd"), useCompression=True)
    (root / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n")


def write_split(path: Path, **cases: Sequence[str]) -> Path:
    """Writes a split file with the true patients."""
    nodules = read_nodules(LIST, COLUMNS)
    rows = [f"{case},{nodules[case].patient},{split}" for split, names in cases.items() for case in names]
    path.write_text("\n".join(["case,patient,split", *rows, ""]), encoding="utf-8")
    return path
