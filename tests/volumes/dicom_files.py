"""Writes small DICOM series, right ones and broken ones, and compares how they are read with ITK."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tapct.volumes.read import read_ct

Edit = Callable[[FileDataset, int], None]


def phantom(slices: int = 5, rows: int = 6, columns: int = 7, bits: int = 12) -> np.ndarray:
    """Stored values (slice, row, column) without any symmetry, so that a flip or a swap of axes shows."""
    return np.random.default_rng(0).integers(0, 2**bits, size=(slices, rows, columns))


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    first: Sequence[float] = (-50.0, -60.0, -700.0),
    step: Sequence[float] = (0.0, 0.0, 2.5),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    pixel_spacing: Sequence[float] = (0.8, 0.7),
    bits_stored: int = 12,
    signed: bool = False,
    slope: float = 1.0,
    intercept: float = -1024.0,
    series: str = "1.2.3.4",
    names: Sequence[str] | None = None,
    edit: Edit | None = None,
) -> list[Path]:
    """Writes one CT slice a file, uncompressed, in 16 allocated bits.

    Args:
        folder: Where to; it is made.
        stored: (slice, row, column) whole numbers; only their lowest 16 bits are written, as they are.
        first: ImagePositionPatient of the first slice in mm, LPS.
        step: From one slice to the next in mm, LPS.
        orientation: ImageOrientationPatient.
        pixel_spacing: Between rows, between columns in mm.
        bits_stored: BitsStored.
        signed: PixelRepresentation 1 in place of 0.
        slope: RescaleSlope.
        intercept: RescaleIntercept.
        series: SeriesInstanceUID.
        names: File names; by default slice_0.dcm, ...
        edit: Called with each dataset and its number before it is written.

    Returns:
        The files in the order of `stored`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names or [f"slice_{i}.dcm" for i in range(len(stored))]]
    for number, (plane, path) in enumerate(zip(stored, paths, strict=True)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.SeriesInstanceUID = series
        dataset.StudyInstanceUID = "1.2.3"
        dataset.Modality = "CT"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = number + 1
        dataset.SliceThickness = 2.5
        dataset.ImagePositionPatient = [float(v) for v in np.add(first, np.multiply(number, step))]
        dataset.ImageOrientationPatient = list(orientation)
        dataset.PixelSpacing = list(pixel_spacing)
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = 16
        dataset.BitsStored = bits_stored
        dataset.HighBit = bits_stored - 1
        dataset.PixelRepresentation = int(signed)
        dataset.RescaleSlope = slope
        dataset.RescaleIntercept = intercept
        dataset.PixelData = (plane & 0xFFFF).astype("<u2").tobytes()
        if edit is not None:
            edit(dataset, number)
        dataset.save_as(path, enforce_file_format=True)
    return paths


def itk_series(files: list[Path]) -> sitk.Image:
    """ITK's reading of slices that are given in order, oriented to LPS."""
    return sitk.DICOMOrient(sitk.ReadImage([str(path) for path in files]), "LPS")


def assert_equals_itk(folder: Path, files: list[Path]) -> None:
    """Compares `read_ct` with ITK: values, spacing, and where the corners lie."""
    volume, expected = read_ct(folder), itk_series(files)
    np.testing.assert_allclose(volume.hu, sitk.GetArrayFromImage(expected), atol=1e-3)
    assert volume.spacing_mm == pytest.approx(expected.GetSpacing()[::-1], abs=1e-3)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.shape) - 1)
    for corner, world in zip(corners.tolist(), volume.index_to_world(corners), strict=True):
        x, y, z = expected.TransformIndexToPhysicalPoint(corner[::-1])
        np.testing.assert_allclose(world, [-x, -y, z], atol=1e-3)
