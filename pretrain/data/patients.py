"""Whose a scan is, by the folders that people keep scans in.

    p01/CT.nii.gz                   p01      CT says what it is, not whose
    p01/CT/scan.nii.gz              p01
    p01/study/series/ct.nii.gz      p01      folders with nothing next to them, dates, UIDs, numbers of series
    images/p01_0000.nii.gz          p01_0000
    train_1/train_1_a/1.nii.gz      train_1  a name that continues from its folder's
    p01/early.nii.gz, p02/early...  p01      the same names in many folders

From the file upwards, the first name that can be a patient's is taken. It is a guess: two visits in folders of names of
their own count as two patients. `prepare --patient` says it exactly, and the PatientID of a DICOM series goes first.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

_SUFFIXES = re.compile(r"(\.nii|\.mha|\.mhd)?(\.gz)?$", re.IGNORECASE)
_COUNTED = r"(series|stud(y|ies)|sessions?|ses|visits?|exams?|acquisitions?|accessions?|timepoint|tp|phases?)"
_WORD = (
    r"(ct|cta|cect|ncct|ldct|hrct|pet|pt|suv|mr|mri|dicoms?|dcm|niftis?|nii|mha|images?|imgs?|scans?|volumes?|vols?|data"
    r"|datasets?|baseline|bl|follow|up|followup|fu|pre|post|arterial|art|portal|venous|ven|pv|delayed|native|plain"
    r"|contrast|enhanced|axial|ax|res(ampled)?|raw|orig(inal)?|hu|anat|tr|ts|va|train(ing)?|val(id(ation)?)?|test(ing)?"
    r"|cropped)"
)
_ROLE = re.compile(
    # CT, ct_dicom, imagesTr, series-3; but volume-3 and img0003 are names in a list of patients
    rf"({_WORD}|{_COUNTED}([-_ .]?\d{{1,3}}(?!\d))?)([-_ .]?({_WORD}|{_COUNTED}([-_ .]?\d{{1,3}}(?!\d))?))*"
    r"|\d+(\.\d+){4,}"  # a UID
    r"|(19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d([-_ t]?\d{4,6})?|\d\d[-_.]\d\d[-_.](19|20)\d\d.*",  # a date; TCIA's studies
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"(anon(ymous|ymi[sz]ed|ymity)?|de-?identified|unknown|none|null|n/?a|patient(id)?|subject|test|[0x*#._ -]*)[ _-]*",
    re.IGNORECASE,
)


def is_placeholder(patient_id: str) -> bool:
    """Whether a PatientID stands for nobody, as programs that remove names leave it."""
    return _PLACEHOLDER.fullmatch(patient_id.strip()) is not None


def patients_of(paths: Iterable[Path]) -> dict[Path, str]:
    """Names the patient of each scan, as far as the paths of all of them tell.

    Args:
        paths: Absolute paths of scans: files, or folders of DICOM slices.
    """
    found = list(paths)
    if not found:
        return {}
    tree = _Tree(found)
    chosen = {path: tree.patient_of(path) for path in found}
    owners: defaultdict[str, set[Path]] = defaultdict(set)
    for place in chosen.values():
        owners[_stem(place)].add(place)
    # The same name in two datasets is two patients.
    return {
        path: _stem(place) if len(owners[_stem(place)]) == 1 else f"{place.parent.name}/{_stem(place)}"
        for path, place in chosen.items()
    }


class _Tree:
    """The folders above scans, as far as they tell names of patients from other names."""

    def __init__(self, scans: list[Path]) -> None:
        self._top = Path(os.path.commonpath([str(scan.parent) for scan in scans]))
        self._inside: defaultdict[Path, set[str]] = defaultdict(set)
        """Names of what lies in a folder and is a scan or leads to one."""
        for scan in scans:
            for place in (scan, *scan.parents):
                self._inside[place.parent].add(place.name)
                if place == self._top:
                    break
        self._repeated = _repeated(self._inside)

    def patient_of(self, scan: Path) -> Path:
        """Returns the file or folder whose name is the patient's."""
        place = scan
        while self._leads_on(place):
            place = place.parent
            if place == place.parent:  # nothing up to the root of the disk names anybody
                return scan
        return place

    def _leads_on(self, place: Path) -> bool:
        """Whether it is not a place itself, but its folder, or one above that, that is named as the patient."""
        name, folder = _stem(place), place.parent
        if not place.is_relative_to(self._top) or place == self._top:
            return _is_role(name)
        siblings = self._inside[folder]
        alone = len(siblings) == 1 and folder != self._top
        goes_on = name.lower().startswith(folder.name.lower()) and name[len(folder.name) :][:1] in ("_", "-", ".", " ")
        return _is_role(name) or name in self._repeated or alone or goes_on


def _repeated(inside: Mapping[Path, set[str]]) -> set[str]:
    """Names that come in more folders than such folders hold names: arterial and venous, of fifty patients.

    Fifty names in two folders are patients of two datasets.
    """
    folders: defaultdict[str, list[int]] = defaultdict(list)
    for entries in inside.values():
        for entry in entries:
            folders[_SUFFIXES.sub("", entry)].append(len(entries))
    return {name for name, sizes in folders.items() if len(sizes) > max(1, sum(sizes) / len(sizes))}


def _is_role(name: str) -> bool:
    return _ROLE.fullmatch(name) is not None


def _stem(place: Path) -> str:
    return _SUFFIXES.sub("", place.name)
