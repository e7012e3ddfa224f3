"""Reads NIfTI through nibabel, which takes every affine; ITK refuses those that are not orthonormal."""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from tapct._utils.content import HEAD, what_it_is
from tapct.errors import VolumeError
from tapct.volumes.nifti_header import NiftiHeader, unreadable
from tapct.volumes.orient import FileContent, as_3d
from tapct.volumes.sizes import check_claim, check_memory, deflated

_GZIP = b"\x1f\x8b"
# What nibabel, gzip and zlib raise on a file that is cut short or damaged.
_DAMAGED = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError)


def load_nifti(path: Path) -> FileContent:
    """Reads the voxels, with the header's slope and intercept applied, and where they lie.

    Args:
        path: A `.nii` or `.nii.gz` file.

    Returns:
        The voxels, in whatever number type results; None in place of the affine where the header has neither
        an sform nor a qform.

    Raises:
        VolumeError: The file is damaged, not NIfTI, not 3-D, not real numbers, or not in mm; its header contradicts
            itself, or claims more than the file or memory can hold.
    """
    with _opened(path) as stream:
        header = NiftiHeader.read(path, stream)
        affine = header.affine()
        _check_size(header)
        stream.seek(0)
        image: Any = header.image.from_stream(stream)  # type: ignore[arg-type]
        array = np.asanyarray(image.dataobj)
        _check_end(header, stream)
    return FileContent(as_3d(array, str(path)), affine, step=header.step)


def nifti_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray | None]:
    """Reads only the header: the shape in the file's own axis order, and the affine as from `load_nifti`."""
    with _opened(path) as stream:
        header = NiftiHeader.read(path, stream)
    return header.shape, header.affine()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of the file, unpacked where its name says that they are packed.

    Raises:
        VolumeError: The name says the wrong thing, or the file turns out to be damaged.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        if packed != head.startswith(_GZIP):
            raise unreadable(path, _wrong_name(path, head))
        with cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb") as stream:
            yield stream
    except VolumeError:
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split())  # nibabel breaks lines inside a message
        raise unreadable(
            path,
            f"{type(error).__name__}: {reason}; it is {path.stat().st_size:,} bytes long. Most likely a download was "
            "interrupted: Download it again",
        ) from error


def _wrong_name(path: Path, head: bytes) -> str:
    if head.startswith(_GZIP):
        return f"it is gzip: rename it {path.name}.gz, or unpack it"
    if head[:4] in (struct.pack(f"{endian}i", size) for endian in "<>" for size in (348, 540)):
        return f"it is NIfTI that is not packed: rename it {path.name[:-3]}"
    return what_it_is(head) or "it is not gzip: Download it again"


def _check_size(header: NiftiHeader) -> None:
    size = header.path.stat().st_size
    held = deflated(size) if header.path.name.lower().endswith(".gz") else size
    check_claim(header.path, header.shape, header.dtype.itemsize, held - header.start)
    check_memory(header.path, header.shape, header.dtype.itemsize + 8 * (header.step > 0))  # scaled values are float64


def _check_end(header: NiftiHeader, stream: BinaryIO) -> None:
    """Reads to the end, where gzip compares its checksum; a slice or more that is left is part of the scan."""
    stream.seek(header.start + math.prod(header.shape) * header.dtype.itemsize)
    left = sum(len(piece) for piece in iter(lambda: stream.read(2**20), b""))
    if left >= math.prod(header.shape[:2]) * header.dtype.itemsize:
        raise unreadable(
            header.path,
            f"its header says {header.shape} voxels of {header.dtype}, and {left:,} bytes more follow: dim or datatype "
            "is wrong. Convert the scan again",
        )
