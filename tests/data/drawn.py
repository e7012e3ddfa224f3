"""Writes RTSTRUCT and SEG files as TCIA has them: regions round a DICOM series, drawn in its own slices."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage, generate_uid

Contours = Sequence[np.ndarray]
"""(P, 3) corners of each in mm, LPS."""


def item(**values) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(
            dataset,
            name,
            Items(value) if isinstance(value, list) and value and isinstance(value[0], Dataset) else value,
        )
    return dataset


def _file(path: Path, modality: str, sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path.name), modality])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, meta.MediaStorageSOPInstanceUID, modality
    path.parent.mkdir(parents=True, exist_ok=True)
    return dataset


def write_rtstruct(path: Path, regions: Mapping[str, Contours], series: str) -> Path:
    """Writes the contours of regions that were drawn on a series."""
    dataset = _file(path, "RTSTRUCT", RTStructureSetStorage)
    of_series = item(RTReferencedSeriesSequence=[item(SeriesInstanceUID=series)])
    dataset.ReferencedFrameOfReferenceSequence = Items([item(RTReferencedStudySequence=[of_series])])
    dataset.StructureSetROISequence = Items(
        [item(ROINumber=number, ROIName=name) for number, name in enumerate(regions, start=1)]
    )
    dataset.ROIContourSequence = Items()
    for number, contours in enumerate(regions.values(), start=1):
        drawn = [
            item(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.4f}" for value in points.ravel()],
            )
            for points in contours
        ]
        region = item(ReferencedROINumber=number)
        if drawn:
            region.ContourSequence = Items(drawn)
        dataset.ROIContourSequence.append(region)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_seg(
    path: Path,
    segments: Mapping[str, np.ndarray],
    places: Sequence[Sequence[float]],
    series: str,
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    pixel_spacing: Sequence[float] = (0.8, 0.7),
    empty_frames: bool = True,
    edit: Callable[[FileDataset], None] | None = None,
) -> Path:
    """Writes (slice, row, column) booleans of each segment, one bit a pixel.

    Args:
        path: The file.
        segments: By name, which becomes the SegmentDescription, as in NSCLC-Radiomics; the label is of a code list.
        places: ImagePositionPatient of each slice.
        series: That they were drawn on.
        orientation: ImageOrientationPatient.
        pixel_spacing: Between rows, between columns in mm.
        empty_frames: Whether slices on which nothing is drawn have a frame.
        edit: Called with the dataset before it is written.
    """
    dataset = _file(path, "SEG", SegmentationStorage)
    dataset.ReferencedSeriesSequence = Items([item(SeriesInstanceUID=series)])
    dataset.SegmentationType = "BINARY"
    dataset.SegmentSequence = Items(
        [
            item(SegmentNumber=number, SegmentLabel="Neoplasm, Primary", SegmentDescription=name)
            for number, name in enumerate(segments, start=1)
        ]
    )
    frames, planes = Items(), []
    for number, drawn in enumerate(segments.values(), start=1):
        for place, plane in zip(places, drawn, strict=True):
            if plane.any() or empty_frames:
                position = item(ImagePositionPatient=[float(value) for value in place])
                segment = item(ReferencedSegmentNumber=number)
                frames.append(item(PlanePositionSequence=[position], SegmentIdentificationSequence=[segment]))
                planes.append(plane)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(orientation))],
        PixelMeasuresSequence=[item(PixelSpacing=list(pixel_spacing), SliceThickness=3.0)],
    )
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = Items([shared]), frames
    stored = np.stack(planes).astype(np.uint8)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelData = pack_bits(stored)
    if edit is not None:
        edit(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path


def share_the_segment(dataset: FileDataset) -> None:
    """An edit for `write_seg`: all frames share what they draw, as the first writer of 3D Slicer has it."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    dataset.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence = frames[0].SegmentIdentificationSequence
    for frame in frames:
        del frame.SegmentIdentificationSequence
