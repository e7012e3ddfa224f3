"""RIDER Lung CT: two scans of each patient within fifteen minutes, off the table in between (Zhao et al. 2009).

The collection is of TCIA: RIDER-1129164940/<study>/<series>/. Both scans are CT series of one study or of two
(09-20-2006-1-NA-96508/4.000000-NA-24533 and 8.000000-NA-08100 of the first patient). The collection has grown by 498
CT series of the same patients (other thicknesses and kernels, scouts, other days), and by structure sets and
segmentations of several groups. The two scans are told from them by their UIDs (`FIRST_UPLOAD`).
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TapctError, TaskError
from tapct.names import listed
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.reliability import ReliabilityDataset
from tapct.tasks.shortcuts import DICOM, positive_mm
from tapct.tasks.spec import TaskSpec
from tapct.tasks.tcia import Series, series_of
from tapct.volumes.dicom_files import read_dataset

COLLECTION = "RIDER Lung CT"

OCCASIONS = ("TEST", "RETEST")

FIRST_UPLOAD = "1.3.6.1.4.1.9328.50.1."
"""How SeriesInstanceUID of the two scans of a patient begin; those of all that was added begin otherwise."""

SPEC = TaskSpec(
    name="rider_lung_retest",
    display_name="RIDER Lung CT, test-retest",
    kind="reliability",
    adaptor="cosine",
    version=1,
    classes=("scan",),
    metric="MedianICC",
    shortcuts=DICOM,
    source_data=("rider[- _]?lung[- _]?ct",),
    licence="CC BY 4.0",
    source=f"TCIA collection {COLLECTION} (doi:10.7937/k9/tcia.2015.u1x8a5nr): of its CT series those 63 whose UID "
    f"begins with {FIRST_UPLOAD} (8 GB; all are 43 GB), as the NBIA Data Retriever writes them, "
    f"rider_lung_retest/{COLLECTION}/RIDER-1129164940/<study>/<series>/, or RIDER-1129164940/{OCCASIONS[0]}.nii.gz and "
    f"RIDER-1129164940/{OCCASIONS[1]}.nii.gz",
    citation="""@article{zhao2009rider,
  title={Evaluating variability in tumor measurements from same-day repeat CT scans of patients with non-small cell lung
    cancer},
  author={Zhao, Binsheng and James, Leonard P and Moskowitz, Chaya S and others},
  journal={Radiology},
  volume={252},
  number={1},
  pages={263--272},
  year={2009},
  doi={10.1148/radiol.2522081593}
}""",
)


@dataclass(frozen=True)
class Acquired:
    """A CT series, as the header of its first file has it.

    Attributes:
        series: The series.
        date: AcquisitionDate; empty where there is none.
        time: AcquisitionTime, likewise.
        number: SeriesNumber; None where there is none.
        thickness_mm: SliceThickness; None where it is not known.
        kernel: ConvolutionKernel; empty where there is none.
    """

    series: Series
    date: str
    time: str
    number: int | None
    thickness_mm: float | None
    kernel: str

    @classmethod
    def of(cls, series: Series) -> "Acquired":
        """Reads the header of a series.

        Raises:
            VolumeError: If it cannot be read.
        """
        tags = ["AcquisitionDate", "AcquisitionTime", "SeriesNumber", "SliceThickness", "ConvolutionKernel"]
        header = read_dataset(series.files[0], tags)
        date, time, number, thickness, kernel = ("" if (v := header.get(tag)) is None else str(v) for tag in tags)
        return cls(series, date, time, int(number) if number.isdecimal() else None, positive_mm(thickness), kernel)

    @property
    def place(self) -> tuple[str, str, int, str]:
        """In which order series were taken: by time, then by number; the UID decides where neither does."""
        return self.date, self.time, -1 if self.number is None else self.number, self.series.uid

    def __str__(self) -> str:
        thickness = "unknown thickness" if self.thickness_mm is None else f"{self.thickness_mm:g} mm"
        return f"{self.series.folder.name} ({thickness}, kernel {self.kernel or 'unknown'})"


@dataclass(frozen=True)
class RetestPair:
    """The two scans of a patient.

    Attributes:
        scans: The first and the second; None where there are not two.
        reason: Why there are not; None where the patient's folder is not there.
        is_odd: Whether that is for somebody to fix, and no lack of the download.
        passed_over: CT series that are passed over.
        doubts: What makes it doubtful that they are two scans within minutes.
    """

    scans: tuple[Path, Path] | None
    reason: str | None = None
    is_odd: bool = False
    passed_over: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def pair_of(patient: Path) -> RetestPair:
    """Returns the two scans of a patient's folder, which is named as the PatientID."""
    if not patient.is_dir():
        return RetestPair(None)
    files = [next((path for name in nifti(one) if (path := patient / name).exists()), None) for one in OCCASIONS]
    try:
        scans = [Acquired.of(series) for series in series_of(patient) if series.is_scan]
        if not any(files):
            return _pair(patient.name, scans)
        if scans:
            raise TaskError(f"is there as NIfTI and as DICOM ({listed(scans)}). Leave one of both")
    except TapctError as error:
        return RetestPair(None, str(error).replace(f"{patient}/", ""), is_odd=True)
    first, second = files
    if first is None or second is None:
        return RetestPair(
            None, f"has one scan alone, {OCCASIONS[0 if first else 1]}: there is nothing to compare it with"
        )
    return RetestPair((first, second))


def _pair(patient: str, scans: Sequence[Acquired]) -> RetestPair:
    """Returns the pair of a patient's CT series.

    Raises:
        TaskError: If there are more than two of the first upload, or one is of another patient.
    """
    meant = sorted((one for one in scans if one.series.uid.startswith(FIRST_UPLOAD)), key=lambda one: one.place)
    passed_over = tuple(one.series.folder.name for one in scans if one not in meant)
    for one in meant:
        if one.series.patient not in ("", patient):
            raise TaskError(f"{one.series.folder.name} is of the patient {one.series.patient}. Put it where it belongs")
    if len(meant) < 2:
        here = f"one CT series of the first upload, {meant[0]}" if meant else "no CT series of the first upload"
        others = f" (others: {listed(passed_over)})" if passed_over else ""
        return RetestPair(
            None,
            f"has {here}{others}, and two are compared, whose UIDs begin with {FIRST_UPLOAD}",
            passed_over=passed_over,
        )
    if len(meant) > 2:
        raise TaskError(
            f"has {len(meant)} CT series of the first upload: {listed(meant)}. Leave the two of the release"
        )
    first, second = meant
    return RetestPair(
        (first.series.folder, second.series.folder), passed_over=passed_over, doubts=tuple(_doubts(first, second))
    )


def _doubts(first: Acquired, second: Acquired) -> Iterator[str]:
    if first.date and second.date and first.date != second.date:
        yield f"its scans are of {first.date} and {second.date} by their headers"
    if first.time and (first.date, first.time) == (second.date, second.time):
        yield "both series have one time of acquisition, as two reconstructions of one scan do"
    if first.kernel and second.kernel and first.kernel != second.kernel:
        yield f"its scans have the kernels {first.kernel} and {second.kernel}"
    if first.thickness_mm and second.thickness_mm and first.thickness_mm != second.thickness_mm:
        yield f"its slices are {first.thickness_mm:g} and {second.thickness_mm:g} mm thick"


class RIDERLungRetest(ReliabilityDataset):
    """31 patients with two scans; a case is a scan, such as RIDER-1129164940_RETEST.

    Which of the two is the retest decides next to nothing: the intraclass correlation is of absolute agreement, and all
    other numbers are of both.
    """

    spec = SPEC
    window = "lung"
    scan_patterns = tuple(f"{top}RIDER-*" for top in ("", f"{COLLECTION}/", f"*/{COLLECTION}/"))

    @cached_property
    def _folders(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("RIDER-*",), ("", f"{COLLECTION}/", f"*/{COLLECTION}/"))

    @cached_property
    def _pairs(self) -> dict[str, RetestPair]:
        return {}

    def pair(self, patient: str) -> RetestPair:
        """Returns the two scans of a patient.

        Raises:
            TaskError: If the patient has two folders.
        """
        if patient not in self._pairs:
            self._pairs[patient] = _remembered(*_state(self._folders.find(patient)))
        return self._pairs[patient]

    @override
    def ct_path(self, case: str) -> Path:
        patient, occasion = self._parsed(case)
        pair = self.pair(patient)
        if pair.is_odd:
            raise TaskError(f"{patient} {pair.reason}")
        if pair.scans is not None:
            return pair.scans[occasion - 1]
        return self._folders.find(patient) / "<study>" / f"<series of the {OCCASIONS[occasion - 1]}>"

    @override
    def occasion(self, case: str) -> int:
        return self._parsed(case)[1]

    @staticmethod
    def _parsed(case: str) -> tuple[str, int]:
        """Returns the patient of a case and its occasion.

        Raises:
            TaskError: If its name is none of a case.
        """
        patient, _, occasion = case.rpartition("_")
        if occasion not in OCCASIONS:
            raise TaskError(f"'{case}' is no case of {SPEC.name}, such as RIDER-1129164940_{OCCASIONS[0]}")
        return patient, OCCASIONS.index(occasion) + 1

    @override
    def slice_mm(self, case: str) -> float | None:
        value = self.read_value(case, "slice_thickness")
        return None if value is None else float(value)

    @override
    def release_findings(self) -> Iterator[DoctorFinding]:
        passed_over = 0
        for patient in self.patients:
            pair = self.pair(patient)
            passed_over += len(pair.passed_over)
            if pair.reason is not None:
                yield "fail", f"{patient} {pair.reason}", "fetch both, or leave the patient out with a split_file"
            for doubt in pair.doubts:
                yield "warn", f"{patient}: {doubt}", "a run takes both; leave the patient out with a split_file if not"
        if passed_over:
            yield "ok", f"{passed_over} CT series that are not of the first upload are passed over", ""
        yield from self.pair_findings()


def _state(folder: Path) -> tuple[Path, tuple[tuple[str, int], ...]]:
    """Returns a folder with what tells whether something of it has changed since it was looked at."""
    inside = sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return folder, tuple((str(path), path.stat().st_mtime_ns) for path in inside)


@functools.lru_cache(maxsize=128)
def _remembered(folder: Path, state: tuple[tuple[str, int], ...]) -> RetestPair:
    """Returns the pair of a folder in this state, whose headers are read once for all datasets of a process."""
    return pair_of(folder)
