"""LUNA25 in small: its list, scans and nodule blocks, as its organisers' own scripts make blocks of scans.

A block is 64 x 128 x 128 voxels round the voxel of the nodule; a scan in which that does not fit is padded with -1024
first (preprocessing/extract_nodules.py of luna25-baseline-public, convert2nodule_block.py writes the NumPy files).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tests.data.luna16 import scan

LIST = "LUNA25_Public_Training_Development_Data.csv"
HEADER = (
    "PatientID,SeriesInstanceUID,StudyDate,CoordX,CoordY,CoordZ,LesionID,AnnotationID,NoduleID,label,"
    "Age_at_StudyDate,Gender"
)
EXTENT = (64, 64, 32)  # half a block, (x, y, z)


@dataclass(frozen=True)
class Annotation:
    """A row of the list: one nodule on one date."""

    patient: int
    label: int
    place: tuple[float, float, float] = (61.14, -163.28, -177.75)
    lesion: int = 1
    date: int = 19990102

    @property
    def case(self) -> str:
        return f"{self.patient}_{self.lesion}_{self.date}"

    @property
    def series(self) -> str:
        return f"1.2.840.113654.2.55.{self.patient}{self.date}"

    @property
    def row(self) -> str:
        place = ",".join(f"{v:.2f}" for v in self.place)
        nodule = f"{self.patient}_{self.lesion}"
        return (
            f"{self.patient},{self.series},{self.date},{place},{self.lesion},{self.case},{nodule},{self.label},63,Male"
        )


def metadata(image: sitk.Image) -> dict[str, np.ndarray]:
    """Origin, spacing and transform of an image in the order (z, y, x), with the rounding of a NIfTI header."""

    def world(index):
        return np.array(image.TransformContinuousIndexToPhysicalPoint(index[::-1])[::-1])

    origin, spacing = world([0.0, 0.0, 0.0]), np.array(image.GetSpacing()[::-1])
    steps = np.stack([world(one) - origin for one in np.eye(3).tolist()])
    rounded = {"origin": origin, "spacing": spacing, "transform": steps @ np.diag(1 / spacing)}
    return {name: value.astype(np.float32).astype(np.float64) for name, value in rounded.items()}


def block(image: sitk.Image, place: Sequence[float]) -> sitk.Image:
    """The block of a nodule at a place (x, y, z) in mm, LPS."""
    padded = sitk.ConstantPad(image, EXTENT, EXTENT, constant=-1024.0)
    at = padded.TransformPhysicalPointToIndex(place)
    return padded[tuple(slice(a - e, a + e) for a, e in zip(at, EXTENT, strict=True))]


def write_block(root: Path, case: str, cut: sitk.Image) -> None:
    """Writes a block under its AnnotationID."""
    blocks = root / "luna25_nodule_blocks"
    for part in ("image", "metadata"):
        (blocks / part).mkdir(parents=True, exist_ok=True)
    np.save(blocks / "image" / f"{case}.npy", sitk.GetArrayFromImage(cut))
    np.save(blocks / "metadata" / f"{case}.npy", metadata(cut))


def write(root: Path, annotations: Sequence[Annotation], flipped: bool = False) -> None:
    """Writes the list, and the scan and the block of each annotation; a series has the places of all its rows."""
    (root / "luna25_images").mkdir(parents=True, exist_ok=True)
    for series in dict.fromkeys(a.series for a in annotations):
        rows = [a for a in annotations if a.series == series]
        image = scan([a.place for a in rows], flipped)
        sitk.WriteImage(image, str(root / "luna25_images" / f"{series}.mha"), useCompression=True)
        for row in rows:
            write_block(root, row.case, block(image, row.place))
    (root / LIST).write_text("\n".join([HEADER, *(a.row for a in annotations), ""]))


def write_split(path: Path, **annotations: Sequence[Annotation]) -> Path:
    """Writes a split file."""
    rows = [f"{a.case},{a.patient},{split}" for split, part in annotations.items() for a in part]
    path.write_text("\n".join(["case,patient,split", *rows, ""]), encoding="utf-8")
    return path
