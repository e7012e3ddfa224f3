"""Collections of TCIA: below each patient a folder for each study, in it one for each series, told apart by headers.

So does the NBIA Data Retriever write them, and the client of the Imaging Data Commons, whatever they call the folders.
A patient has several series (phases, reconstructions, PET, a localizer), and none is taken by chance, by its name or by
its number of files: the scan is the series that a segmentation says it was drawn on.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tapct.errors import TaskError
from tapct.tasks.dataset import MIN_SLICES_OF_A_SCAN
from tapct.volumes.dicom_files import read_dataset, series_files
from tapct.volumes.dicom_masks import drawn_on


@dataclass(frozen=True)
class Series:
    """A folder that holds DICOM, as the header of its first file has it.

    Attributes:
        folder: The folder.
        files: Its files.
        modality: Such as CT or SEG.
        uid: SeriesInstanceUID.
        title: SeriesDescription; empty where there is none.
        patient: PatientID; empty where there is none.
    """

    folder: Path
    files: tuple[Path, ...]
    modality: str
    uid: str
    title: str
    patient: str

    @property
    def is_scan(self) -> bool:
        """Whether it is a CT of more slices than a localizer has."""
        return self.modality == "CT" and len(self.files) >= MIN_SLICES_OF_A_SCAN


@dataclass(frozen=True)
class DrawnScan:
    """What a patient is a case by.

    Attributes:
        scan: The folder of the CT.
        drawing: The file of what was drawn on it.
    """

    scan: Path
    drawing: Path


def series_of(patient: Path) -> list[Series]:
    """Returns the series of a patient's folder, ordered by their folders.

    Raises:
        VolumeError: If the first file of one cannot be read.
    """
    found = []
    for folder in sorted(path for path in patient.glob("*/*") if path.is_dir()):
        if files := series_files(folder):
            header = read_dataset(files[0], ["Modality", "SeriesInstanceUID", "SeriesDescription", "PatientID"])
            texts = (header.get(tag) for tag in ("Modality", "SeriesInstanceUID", "SeriesDescription", "PatientID"))
            found.append(Series(folder, tuple(files), *("" if text is None else str(text).strip() for text in texts)))
    return found


def drawn_scan(patient: Path, titles: str) -> DrawnScan | None:
    """Returns the scan of a patient that a segmentation (SEG) was drawn on; None where there is neither CT nor SEG.

    Args:
        patient: The folder of the patient, named as their PatientID.
        titles: What the SeriesDescription of the segmentation is, as a regular expression, whatever the case: others
            add segmentations of their own to a collection.

    Raises:
        TaskError: There is no such segmentation, or several; the series that it was drawn on is not there, or twice; or
            one of both is of another patient.
    """
    series = series_of(patient)
    scans = [one for one in series if one.is_scan]
    segmentations = [one for one in series if one.modality == "SEG"]
    drawings = [one for one in segmentations if re.fullmatch(titles, one.title, re.IGNORECASE)]
    if not scans and not segmentations:
        return None
    if not drawings:
        raise TaskError(
            f"{patient} has no segmentation '{titles}', which says which of its CT series is meant; its series: "
            f"{_listed(series)}. Fetch that of modality SEG as well"
        )
    if len(drawings) > 1 or len(drawings[0].files) > 1:
        raise TaskError(f"{patient} has several segmentations: {_listed(drawings)}. Leave the one to be used")
    drawing = drawings[0]
    named = drawn_on(drawing.files[0])
    found = [one for one in scans if one.uid in named]
    if len(found) != 1:
        raise TaskError(
            f"{drawing.files[0]} was drawn on the series {', '.join(sorted(named)) or '(it does not say which)'}, "
            f"which is there {len(found)} times. CT series of {patient}: {_listed(scans) or 'none'}. Fetch it once"
        )
    for one in (*found, drawing):
        if one.patient not in ("", patient.name):
            raise TaskError(f"{one.folder} is of the patient {one.patient}. Put it where it belongs")
    return DrawnScan(found[0].folder, drawing.files[0])


def _listed(series: Iterable[Series]) -> str:
    return ", ".join(f"{one.folder.name} ({one.modality} '{one.title}', {len(one.files)} files)" for one in series)
