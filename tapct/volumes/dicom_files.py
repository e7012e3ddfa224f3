"""Tells the slices in a folder from what else lies there.

A scan that lost slices on its way looks like a shorter one. So among slices every file is either DICOM, or known to be
something else by its name (a README, a checksum, a picture), or refused: an empty file, a link to nowhere, a part of a
download. File systems and archives do not tell which slices there should be, and a file's name does not tell whether
it is one: they come with any suffix and with none.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from tapct._utils.content import HEAD, what_it_is
from tapct.errors import VolumeError

UNREADABLE = (
    *(InvalidDicomError, RuntimeError, ValueError, TypeError),
    *(KeyError, AttributeError, OSError, EOFError),
)
"""What pydicom and its decoders raise on a damaged, incomplete or undecodable file."""
SLICE_SUFFIXES = (".dcm", ".dicom", ".ima")

_UNFINISHED = (
    *(".part", ".partial", ".filepart", ".crdownload", ".opdownload", ".download", ".tmp", ".temp"),
    *(".aria2", ".incomplete", ".unfinished", ".gstmp"),
)
_DIRECTORIES = ("dicomdir", "dirfile")  # also where they are damaged; else they are known by their SOP class
_BYSTANDER = re.compile(
    # titles
    r"(read[ _-]?me|licen[cs]e|copying|copyright|notice|authors|contributors|citation|changelog|changes|version"
    r"|manifest|(md5|sha\d{1,3})(sums?)?|checksums?)(?![a-z0-9]).*"
    # documents, tables, settings
    r"|.*\.(txt|md|rst|rtf|pdf|docx?|odt|xlsx?|ods|pptx?|html?|css|js|xml|xslt?|jsonl?|ya?ml|toml|ini|inf|cfg|conf"
    r"|csv|tsv|log|nfo|url|lnk"
    # checksums
    r"|(md5|sha\d{1,3})(sums?)?|sfv|asc|sig"
    # pictures
    r"|jpe?g|png|gif|bmp|tiff?|svg|ico|webp|mp4|avi|mov"
    # what was converted or computed from the scan
    r"|nii|mha|mhd|zraw|nrrd|nhdr|np[yz]|mat|h5|hdf5|pkl|pt|parquet|sqlite|stl"
    # viewers, scripts, and what Windows leaves behind
    r"|exe|dll|bat|cmd|sh|py|ipynb|jar|app|db)(\.(gz|bz2|xz|zst|zip))?|.*:zone\.identifier"
)


def read_dataset(path: Path, tags: Sequence[str] | None = None) -> pydicom.Dataset:
    """Reads a DICOM file.

    Args:
        path: The file.
        tags: Keywords of the header to which the reading is limited; None for all, with the pixels.

    Raises:
        VolumeError: It cannot be read.
    """
    try:
        wanted: Any = None if tags is None else list(tags)
        return pydicom.dcmread(path, stop_before_pixels=tags is not None, specific_tags=wanted)
    except UNREADABLE as error:
        raise VolumeError(f"{path} cannot be read as DICOM ({error}). Fetch the file again.") from error


def ct_headers(folder: Path, tags: Sequence[str]) -> dict[Path, pydicom.Dataset]:
    """Reads the headers of the CT files in a folder, and insists that nothing there may be a lost slice.

    Args:
        folder: The folder; sub-folders are not searched.
        tags: Keywords that the headers are read for.

    Returns:
        At least one header, by file, ordered by name. Media storage directories (DICOMDIR, by any name) and what is
        known to be no slice by its name are passed over.

    Raises:
        VolumeError: There is no DICOM file, a modality other than CT, or a file that cannot be read and may be a slice.
    """
    headers: dict[Path, pydicom.Dataset] = {}
    flaws: dict[Path, str] = {}
    for path in series_files(folder):
        flaw = _flaw(path)
        if flaw is not None:
            flaws[path] = flaw
        elif not _is_directory_of_media(header := read_dataset(path, [*tags, "Modality", "SOPClassUID"])):
            headers[path] = header
    if not headers:
        raise VolumeError(_no_dicom(folder, flaws))
    _insist_on_ct(folder, headers)
    if flaws:
        path, flaw = next(iter(flaws.items()))
        others = f", nor can {len(flaws) - 1} more ({_listed(list(flaws)[1:])})" if len(flaws) > 1 else ""
        raise VolumeError(
            f"{path} lies among {len(headers)} slices and cannot be read as one{others}: {flaw}. If a download or a "
            "copy was interrupted, repeat it; if it is not a slice, move it away."
        )
    return headers


def series_files(folder: Path) -> list[Path]:
    """Returns what is read, or refused, as the series of a folder: the files that no name shows to be something else.

    Args:
        folder: The folder.

    Returns:
        The files, ordered by name.
    """
    return _candidates(sorted(folder.iterdir()))


def may_hold_series(files: Iterable[Path]) -> bool:
    """Whether files of one folder are worth reading as a series: one is DICOM, or looks as if it had been.

    Args:
        files: Files of a folder.
    """
    return any(_may_be_slice(path) for path in _candidates(list(files)))


def first_header(scan: Path, tags: Sequence[str]) -> pydicom.Dataset | None:
    """Returns the header of a slice, or of the first one of a folder by name; None of what is not DICOM by its mark.

    Raises:
        VolumeError: A file with the mark cannot be read.
    """
    paths = series_files(scan) if scan.is_dir() else [scan]
    headers = (read_dataset(path, [*tags, "SOPClassUID"]) for path in paths if _has_mark(path))
    return next((header for header in headers if not _is_directory_of_media(header)), None)


def dicom_patient(folder: Path) -> str | None:
    """Returns the PatientID of the series in a folder, which can be read; None where no slice has one.

    Args:
        folder: The folder.

    Raises:
        VolumeError: A slice cannot be read.
    """
    slices = (path for path in series_files(folder) if _has_mark(path))
    patients = (str(read_dataset(path, ["PatientID"]).get("PatientID") or "").strip() for path in slices)
    return next(filter(None, patients), None)


def _candidates(paths: Sequence[Path]) -> list[Path]:
    """The files that are slices unless shown otherwise."""
    names = {path.name for path in paths}
    return [path for path in paths if not _is_bystander(path, names)]


def _is_bystander(path: Path, names: set[str]) -> bool:
    if path.is_dir():
        return path.suffix.lower() not in _UNFINISHED  # Safari keeps a part of a download in a folder
    if path.name.startswith("."):
        # rsync hides a file under a name of its own until it is whole: .IM0013.xY3kQz
        whole = path.name.lstrip("._")
        return not _has_mark(path) or not names.isdisjoint({whole, whole.rpartition(".")[0]})
    name = path.name.lower()
    return name in _DIRECTORIES or (_BYSTANDER.fullmatch(name) is not None and not _has_mark(path))


def _head(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(HEAD)


def _has_mark(path: Path) -> bool:
    try:
        return path.is_file() and _head(path)[128:132] == b"DICM"
    except OSError:
        return False


def _flaw(path: Path) -> str | None:
    """Why a file cannot be read as DICOM; None where it has the mark of DICOM."""
    if path.is_symlink() and not path.exists():
        return f"it is a link to {path.readlink()}, which is not there"
    if path.suffix.lower() in _UNFINISHED or path.name.startswith("."):
        return "its name says that it was not yet whole"
    if not path.is_file():
        return "it is not a regular file"
    try:
        head = _head(path)
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"
    if head[128:132] == b"DICM":
        return None
    if head.startswith(b"\x1f\x8b"):
        return "it is gzip: unpack it"
    if _begins_without_mark(head):
        return (
            "it begins like DICOM and lacks the 128 bytes and the mark DICM in front, so its encoding is unknown "
            "(dcmconv of DCMTK adds them)"
        )
    return what_it_is(head) or f"it is {path.stat().st_size:,} bytes long and lacks the mark DICM"


def _begins_without_mark(head: bytes) -> bool:
    """Whether the first element is of group 0002 or 0008, as in data sets without preamble."""
    return len(head) >= 8 and head[:2] in (b"\x02\x00", b"\x08\x00") and head[3] == 0


def _may_be_slice(path: Path) -> bool:
    if not path.name.startswith(".") and any(suffix.lower() in SLICE_SUFFIXES for suffix in path.suffixes):
        return True
    try:
        if not path.is_file():
            return False
        head = _head(path)
    except OSError:
        return True  # the reader says why
    if head[128:132] != b"DICM":
        return _begins_without_mark(head)
    try:
        return not _is_directory_of_media(read_dataset(path, ["SOPClassUID"]))
    except VolumeError:
        return True


def _is_directory_of_media(header: pydicom.Dataset) -> bool:
    classes = header.get("SOPClassUID"), header.file_meta.get("MediaStorageSOPClassUID")
    return MediaStorageDirectoryStorage in classes


def _insist_on_ct(folder: Path, headers: dict[Path, pydicom.Dataset]) -> None:
    modalities = {path: str(header.get("Modality") or "unknown") for path, header in headers.items()}
    counts = Counter(modalities.values())
    if set(counts) == {"CT"}:
        return
    other = next(path.name for path, modality in modalities.items() if modality != "CT")
    found = ", ".join(f"{number} of modality {name}" for name, number in counts.items())
    raise VolumeError(
        f"{folder} holds DICOM files that are not CT ({found}; for example {other}). "
        "Keep only the slices of one CT series in the folder."
    )


def _no_dicom(folder: Path, flaws: dict[Path, str]) -> str:
    inside = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    lost = next((f" {path.name} is not a DICOM file: {flaw}." for path, flaw in flaws.items()), "")
    return (
        f"{folder} has no DICOM file directly in it; it has: {', '.join(inside[:5]) or 'nothing'}.{lost} "
        "Name the folder that holds the slices of one series, or a NIfTI or MetaImage file."
    )


def _listed(paths: Sequence[Path], most: int = 3) -> str:
    names = [path.name for path in paths[:most]]
    return ", ".join(names) + ", ..." * (len(paths) > most)
