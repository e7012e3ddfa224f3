"""Finds the scans in folders, and whose they are."""

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pretrain.data.patients import is_placeholder, patients_of
from pretrain.errors import PretrainError
from tapct.volumes import files_of
from tapct.volumes.dicom_files import dicom_patient, may_hold_series

_FILES = (".nii", ".nii.gz", ".mha", ".mhd")


@dataclass(frozen=True)
class Source:
    """A scan that was found.

    Attributes:
        path: The file, or the folder of a DICOM series.
        files: The files that are read for it.
        bytes: Its size, all files together.
        mtime_ns: When it last changed.
        patient: The patient as far as the paths tell; a DICOM series says more when it is read.
    """

    path: Path
    files: tuple[Path, ...]
    bytes: int
    mtime_ns: int
    patient: str

    def id_of(self, number: int = 0) -> str:
        """Returns a name for the volume in the store: its own, or the n-th other one where that is taken."""
        key = f"{self.path}\n{number}" if number else str(self.path)
        return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()


def find_scans(
    roots: Sequence[Path], include: Sequence[str], exclude: Sequence[str], patient: re.Pattern[str] | None = None
) -> list[Source]:
    """Searches files and folders for scans.

    Args:
        roots: Where to look.
        include: Patterns (as of `fnmatch`), of which a path has to match one.
        exclude: Patterns of which it may match none.
        patient: Its first group, found in the path, is the patient; None names them by their folders, see
            `pretrain.data.patients`.

    Returns:
        The scans, ordered by path.

    Raises:
        PretrainError: A root does not exist, nothing was found, or the patient is not in a path.
    """
    found: dict[Path, Source] = {}
    for root in roots:
        if not root.exists():
            raise PretrainError(f"{root} does not exist. Check the path, and that its disk is mounted.")
        for path in _candidates(root.resolve()):
            text = str(path)
            if any(fnmatch.fnmatch(text, p) for p in include) and not any(fnmatch.fnmatch(text, p) for p in exclude):
                files = tuple(files_of(path))
                stats = [file.stat() for file in files if file.exists()]
                found[path] = Source(
                    path,
                    files,
                    sum(stat.st_size for stat in stats),
                    max((stat.st_mtime_ns for stat in stats), default=0),
                    patient="",
                )
    if not found:
        raise PretrainError(
            f"no scan found in {', '.join(map(str, roots))}: NIfTI, MetaImage or folders of DICOM files are looked "
            f"for, with --include {' '.join(include)} --exclude {' '.join(exclude) or '(nothing)'}."
        )
    named = patients_of(found) if patient is None else {path: _patient_of(path, patient) for path in found}
    return [replace(found[path], patient=named[path]) for path in sorted(found)]


def patient_of_series(path: Path) -> str | None:
    """Returns the PatientID of a scan that could be read; None where it is not DICOM or names nobody."""
    if path.name.lower().endswith(_FILES):
        return None
    patient = dicom_patient(path if path.is_dir() else path.parent)
    return None if patient is None or is_placeholder(patient) else patient


def _candidates(root: Path) -> Iterator[Path]:
    """Yields what may be a scan: files, and folders of slices."""
    if root.is_file():
        yield root
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link back would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
        yield from (file for file in files if file.name.lower().endswith(_FILES))
        if may_hold_series(file for file in files if not file.name.lower().endswith(_FILES)):
            yield Path(folder)


def _patient_of(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(str(path))
    if match is None or not pattern.groups:
        raise PretrainError(f"--patient {pattern.pattern!r} finds no patient (a first group) in {path}.")
    return match.group(1)
