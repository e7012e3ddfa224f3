"""RIDER Lung CT: two scans of each patient within fifteen minutes, off the table in between (Zhao et al. 2009).

The collection is of TCIA: RIDER-1129164940/<study>/<series>/. Both scans are CT series, mostly of one study
(09-20-2006-1-NA-96508/4.000000-NA-24533 and 8.000000-NA-08100 of the first patient), and nothing but time and number
says which came first. Others have added to it: structure sets and segmentations of the tumour (RIDER-LungCT-Seg, titled
TEST and RETEST), which are passed over, and reconstructions of other thickness and kernel.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TapctError, TaskError
from tapct.names import listed
from tapct.tasks.dataset import Finding, Index, nifti
from tapct.tasks.reliability import ReliabilityDataset
from tapct.tasks.shortcuts import DICOM, positive_mm
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable
from tapct.tasks.tcia import Series, series_of
from tapct.volumes.dicom_files import read_dataset

COLLECTION = "RIDER Lung CT"
PATIENTS = 32
"""In the collection, as its page has it."""

OCCASIONS = ("TEST", "RETEST")

FIRST_UPLOAD = "1.3.6.1.4.1.9328.50.1."
"""How SeriesInstanceUID of the two scans of a patient begin; those of what was added begin otherwise."""

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
    licence="CC BY 3.0 or 4.0, as the page says of what was fetched",
    source=f"TCIA collection {COLLECTION} (doi:10.7937/k9/tcia.2015.u1x8a5nr): its CT series as the NBIA Data "
    f"Retriever writes them, rider_lung_retest/{COLLECTION}/RIDER-1129164940/<study>/<series>/, or "
    f"RIDER-1129164940/{OCCASIONS[0]}.nii.gz and RIDER-1129164940/{OCCASIONS[1]}.nii.gz",
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

    def __str__(self) -> str:
        thickness = "unknown thickness" if self.thickness_mm is None else f"{self.thickness_mm:g} mm"
        return f"{self.series.folder.name} ({thickness}, kernel {self.kernel or 'unknown'})"


@dataclass(frozen=True)
class Pair:
    """The two scans of a patient.

    Attributes:
        scans: The first and the second; None where there are not two.
        reason: Why there are not.
        is_odd: Whether that is for somebody to mend, and no lack of the release or the download.
        beside: CT series that are passed over.
    """

    scans: tuple[Path, Path] | None
    reason: str = ""
    is_odd: bool = False
    beside: tuple[str, ...] = ()


def pair_of(patient: Path) -> Pair:
    """Returns the two scans of a patient's folder, which is named as the PatientID."""
    files = [next((path for name in nifti(one) if (path := patient / name).exists()), None) for one in OCCASIONS]
    try:
        scans = [Acquired.of(series) for series in series_of(patient) if series.is_scan]
        if any(files):
            if scans:
                raise TaskError(f"is there as NIfTI and as DICOM ({_listed(scans)}). Leave one of both")
            first, second = files
            if first is None or second is None:
                return Pair(
                    None, f"has one scan alone, {OCCASIONS[0 if first else 1]}: there is nothing to compare it with"
                )
            return Pair((first, second))
        return _pair(patient.name, scans)
    except TapctError as error:
        return Pair(None, str(error).replace(f"{patient}/", ""), is_odd=True)


def _pair(patient: str, scans: Sequence[Acquired]) -> Pair:
    """Returns the pair of a patient's CT series.

    Raises:
        TaskError: If it is not clear which two are meant, or which came first.
    """
    chosen, beside = list(scans), tuple[str, ...]()
    if len(scans) > 2:
        chosen = [one for one in scans if one.series.uid.startswith(FIRST_UPLOAD)]
        beside = tuple(one.series.folder.name for one in scans if one not in chosen)
    if len(scans) < 2:
        said = f"one CT series alone, {_listed(scans)}" if scans else "no CT series"
        return Pair(None, f"has {said}: there is nothing to compare")
    if len(chosen) != 2:
        raise TaskError(
            f"has {len(scans)} CT series, of which {len(chosen)} are of the first upload: {_listed(scans)}. Leave the "
            "two scans of one thickness and kernel"
        )
    for one in chosen:
        if one.series.patient not in ("", patient):
            raise TaskError(f"{one.series.folder.name} is of the patient {one.series.patient}. Put it where it belongs")
    first, second = _in_order(*chosen)
    if first.date and second.date and first.date != second.date:
        raise TaskError(
            f"{first} and {second} are of different days ({first.date}, {second.date}), and not of fifteen minutes. "
            "Leave the two scans of one day"
        )
    return Pair((first.series.folder, second.series.folder), beside=beside)


def _in_order(one: Acquired, other: Acquired) -> tuple[Acquired, Acquired]:
    """Returns two series by the time of acquisition, or where that is not known by their numbers.

    Raises:
        TaskError: If neither tells them apart.
    """
    for key in ((one.date, one.time), (other.date, other.time)), ((one.number,), (other.number,)):
        if all(all(part not in ("", None) for part in of) for of in key) and key[0] != key[1]:
            return (one, other) if key[0] < key[1] else (other, one)  # type: ignore[operator]
    raise TaskError(
        f"neither time of acquisition nor number says which of {one} and {other} came first. Write them as "
        f"{OCCASIONS[0]}.nii.gz and {OCCASIONS[1]}.nii.gz"
    )


def _listed(scans: Sequence[Acquired]) -> str:
    return listed(scans)


class RIDERLungRetest(ReliabilityDataset):
    """A case is a scan, such as RIDER-1129164940_RETEST; all patients with two scans are reported.

    Which of the two is the retest decides next to nothing: the intraclass correlation is of absolute agreement, and all
    other numbers are of both.
    """

    spec = SPEC
    window = "lung"
    split_rule = "all patients with two scans are reported"
    scan_patterns = tuple(f"{top}RIDER-*" for top in ("", f"{COLLECTION}/", f"*/{COLLECTION}/"))

    @cached_property
    def _folders(self) -> Index:
        return Index(self.root, ("RIDER-*",), ("", f"{COLLECTION}/", f"*/{COLLECTION}/"))

    @cached_property
    def patients_there(self) -> tuple[str, ...]:
        """The patients who have a folder, in alphabetical order."""
        return tuple(sorted({p.name for pattern in self.scan_patterns for p in self.root.glob(pattern) if p.is_dir()}))

    @cached_property
    def pairs(self) -> Mapping[str, Pair]:
        """The two scans of each patient who has a folder.

        Raises:
            TaskError: If a patient has two folders.
        """
        return {patient: _remembered(*_state(self._folders.find(patient))) for patient in self.patients_there}

    @override
    def derive_split(self) -> SplitTable:
        if not any(pair.scans for pair in self.pairs.values()):
            said = [f"{patient} {pair.reason}" for patient, pair in self.pairs.items()]
            why = f": {listed(said, '; ')}" if said else ", nor a folder of one (RIDER-...)"
            raise TaskError(f"there is no patient with two scans under {self.root}{why}. {SPEC.source}")
        rows = [(f"{patient}_{one}", patient, "test") for patient in self.patients_there for one in OCCASIONS]
        return SplitTable.of(rows, self.split_rule, where=str(self.root))

    @override
    def left_out(self) -> dict[str, str]:
        lacking = {patient: pair.reason for patient, pair in self.pairs.items() if pair.scans is None}
        return {f"{patient}_{one}": f"{patient} {why}" for patient, why in lacking.items() for one in OCCASIONS}

    @override
    def ct_path(self, case: str) -> Path:
        patient, occasion = self._parsed(case)
        pair = self.pairs.get(patient)
        if pair is not None and pair.scans is not None:
            return pair.scans[occasion - 1]
        folder = self._folders.find(patient)
        return folder if pair is not None else folder / "<study>" / f"<series of the {OCCASIONS[occasion - 1]}>"

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
    def release_findings(self) -> Iterator[Finding]:
        there = len(self.patients_there)
        if there == PATIENTS:
            yield "ok", f"{there} patients", ""
        else:
            yield "warn", f"{there} patients, and the collection has {PATIENTS}", "fetch the others"
        for patient, pair in self.pairs.items():
            if pair.scans is None and pair.is_odd:
                yield "fail", f"{patient} {pair.reason}", "a run leaves the patient out"
            elif pair.beside:
                yield "ok", f"{patient}: {len(pair.beside)} other CT series are passed over: {listed(pair.beside)}", ""
        yield from self.pair_findings()


def _state(folder: Path) -> tuple[Path, tuple[tuple[str, int], ...]]:
    """Returns a folder with what tells whether something of it has changed since it was looked at."""
    inside = sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return folder, tuple((str(path), path.stat().st_mtime_ns) for path in inside)


@functools.lru_cache(maxsize=4 * PATIENTS)
def _remembered(folder: Path, state: tuple[tuple[str, int], ...]) -> Pair:
    """Returns the pair of a folder in this state, whose headers are read once for all datasets of a process."""
    return pair_of(folder)
