"""Reads MetaImage: `.mha`, and `.mhd` with the files of voxels that it names; with any direction matrix.

Not through ITK, which reads many a header that cannot be true without an error: compressed voxels that are damaged,
a list of too few files, a raw file of another size, a slope that it does not apply. Here these are refused.
"""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.metaimage_header import MetaImageHeader, unreadable
from tapct.volumes.orient import FileContent, as_3d, lps_to_ras
from tapct.volumes.sizes import check_claim, check_memory, deflated

TOLERANCE = 0.01
"""Share by which two lengths in a header may differ that should be equal: some writers print few digits."""

_PLACE = ("Offset", "Position", "Origin", "ImagePosition")
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")
_UNTURNED = ("", "???", "RAI", "LPS")
"""AnatomicalOrientation of axes along the world's: from Right, Anterior, Inferior as ITK writes it, or towards Left,
Posterior, Superior as MetaIO's manual has it. Next to a TransformMatrix it is passed over, as by every reader."""
_CHUNK = 2**20


def load_metaimage(path: Path) -> FileContent:
    """Reads the voxels and where they lie.

    Args:
        path: A `.mha` or `.mhd` file.

    Returns:
        The voxels in axis order (x, y, z), the file's own.

    Raises:
        VolumeError: The file is damaged or not MetaImage, contradicts itself, or claims more voxels than its files
            or memory can hold; a file that it names is missing; or it is not 3-D, not in mm, or of colours.
    """
    header = MetaImageHeader.read(path)
    return FileContent(as_3d(_voxels(header), str(path)), _affine(header))


def metaimage_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Reads only the header: the shape in axis order (x, y, z), and the affine as from `load_metaimage`."""
    header = MetaImageHeader.read(path)
    return header.shape, _affine(header)


def data_files(path: Path) -> list[Path]:
    """Returns the files of voxels that a header names, in the order of the slices; they need not be there.

    Args:
        path: A `.mha` or `.mhd` file.

    Returns:
        None where the voxels follow the header (LOCAL); one; or one for each slice (LIST, or a pattern).

    Raises:
        VolumeError: The header cannot be read, or lists another number of files than it has slices.
    """
    return MetaImageHeader.read(path).files


def _affine(header: MetaImageHeader) -> np.ndarray:
    """Index (x, y, z) to mm in RAS+; a fourth axis of length one has no part in it."""
    axes = len(header.shape)
    unit = header.text("DistanceUnits")
    if unit.lower() not in ("", "?", "mm"):
        raise unreadable(header.path, f"DistanceUnits is {unit}; scale its spacing and place to mm")
    spacing = _spacing(header, axes)[:3]
    rows = _directions(header, axes)[:3, :3]
    lengths = np.linalg.norm(rows, axis=1)
    if abs(lengths - 1).max() > TOLERANCE:
        raise unreadable(
            header.path,
            f"ElementSpacing says that voxels are {spacing.tolist()} mm apart, but the rows of TransformMatrix have "
            f"lengths of {lengths.round(4).tolist()} instead of 1; divide each row by its length, or convert it again",
        )
    affine = np.eye(4)
    affine[:3, :3] = rows.T * spacing
    affine[:3, 3] = header.numbers(*_PLACE, count=axes, default=[0.0] * axes)[:3]
    return lps_to_ras(affine)


def _spacing(header: MetaImageHeader, axes: int) -> np.ndarray:
    key = "ElementSpacing" if header.text("ElementSpacing") else "ElementSize"
    if not header.text(key):
        raise unreadable(header.path, "it has no ElementSpacing, so the size of its voxels is unknown; write it")
    spacing = header.numbers(key, count=axes)
    if not (spacing[:3] > 0).all():
        raise unreadable(header.path, f"{key} is {header.text(key)}, and distances are above 0; correct it")
    size = header.numbers("ElementSize", count=axes, default=spacing.tolist())
    # A slice may be thicker than its distance to the next; along the other axes the two are one.
    if (abs(size - spacing) > TOLERANCE * spacing)[:3].sum() > 1:
        raise header.contradiction(f"ElementSpacing is {spacing.tolist()}", f"ElementSize is {size.tolist()}")
    return spacing


def _directions(header: MetaImageHeader, axes: int) -> np.ndarray:
    """The directions of the axes, one a row."""
    unturned = np.eye(axes)
    rows = header.numbers(*_DIRECTION, count=axes**2, default=unturned.ravel().tolist()).reshape(axes, axes)
    named = header.text("AnatomicalOrientation")
    if not header.text(*_DIRECTION) and named not in _UNTURNED:
        raise header.contradiction(
            f"AnatomicalOrientation is {named}", "there is no TransformMatrix that turns the axes"
        )
    centre = header.numbers("CenterOfRotation", count=axes, default=[0.0] * axes)
    if centre.any() and not np.allclose(rows, unturned, atol=1e-4):
        raise unreadable(
            header.path,
            f"its TransformMatrix turns the scan about Offset for some readers, about CenterOfRotation "
            f"{centre.tolist()} for others; make CenterOfRotation 0 0 0 where Offset is the place of the first voxel",
        )
    return rows


def _voxels(header: MetaImageHeader) -> np.ndarray:
    """The voxels, the fastest axis first."""
    _check_values(header)
    shape, dtype = header.shape, header.dtype
    files = header.files or [header.path]
    for file in files:
        if not file.is_file():
            raise VolumeError(
                f"{header.path} keeps its voxels in {file.name!r}, and there is no such file next to it. Put it into "
                f"{file.parent}, under exactly this name."
            )
    fill, most = _encoding(header)
    in_one = next(shape[:axes] for axes in range(len(shape), -1, -1) if math.prod(shape[axes:]) == len(files))
    starts = [_start(header, file, math.prod(in_one) * dtype.itemsize) for file in files]
    for file, start in zip(files, starts, strict=True):
        check_claim(header.path, in_one, dtype.itemsize, most(file.stat().st_size - start), file.name)
    check_memory(header.path, shape, dtype.itemsize)
    flat = np.empty(math.prod(shape), dtype=dtype)
    for file, start, part in zip(files, starts, np.split(flat, len(files)), strict=True):
        with file.open("rb") as stream:
            stream.seek(start)
            try:
                fill(stream, part)
            except (ValueError, EOFError, zlib.error) as error:
                raise unreadable(header.path, f"the voxels in {file.name}: {error}") from error
    return flat.reshape(shape[::-1]).T


def _check_values(header: MetaImageHeader) -> None:
    channels = header.text("ElementNumberOfChannels") or "1"
    if channels != "1":
        raise VolumeError(
            f"{header.path} holds {channels} numbers a voxel (colours or vectors), not one. Export the scan itself, "
            "not a rendering of it."
        )
    slope = header.numbers("ElementToIntensityFunctionSlope", count=1, default=[1.0])[0]
    offset = header.numbers("ElementToIntensityFunctionOffset", count=1, default=[0.0])[0]
    if (slope, offset) != (1, 0):
        raise unreadable(
            header.path,
            f"it has an ElementToIntensityFunction of slope {slope:g} and offset {offset:g}, which some readers apply "
            "and others, such as ITK, do not; store the values as they are meant, and drop both keys",
        )


def _encoding(header: MetaImageHeader) -> tuple[Callable[[BinaryIO, np.ndarray], None], Callable[[int], int]]:
    """How voxels are read from a stream, and the most bytes of voxels that some bytes of the file can hold."""
    if header.flag("CompressedData"):
        return _inflate, deflated
    if header.flag("BinaryData", default=True):
        return _copy, lambda size: size
    return _parse, lambda size: header.dtype.itemsize * ((size + 1) // 2)  # a digit and a space


def _start(header: MetaImageHeader, file: Path, size: int) -> int:
    """The first byte of the voxels in a file, of which they take `size` if they are not compressed."""
    skip = int(header.numbers("HeaderSize", count=1, default=[0.0])[0])
    if skip == -1:  # they are at the end of the file
        return max(0, file.stat().st_size - size)
    if skip < 0:
        raise unreadable(header.path, f"HeaderSize is {skip}, and must be -1 or the bytes before the voxels")
    return skip if skip > 0 else header.end if file == header.path else 0


def _copy(stream: BinaryIO, part: np.ndarray) -> None:
    if stream.readinto(part.view(np.uint8)) != part.nbytes:  # type: ignore[attr-defined]
        raise EOFError("the file ends too early; fetch it again")
    if stream.read(1):
        raise ValueError(
            f"the header claims {part.nbytes:,} bytes, and the file has more; DimSize, ElementType or HeaderSize is "
            "wrong, or the file is that of another scan"
        )


def _inflate(stream: BinaryIO, part: np.ndarray) -> None:
    """Unpacks zlib or gzip, whose checksum is compared at the end."""
    view = part.view(np.uint8).data
    unpack, filled = zlib.decompressobj(wbits=47), 0
    while not unpack.eof:
        packed = unpack.unconsumed_tail or stream.read(_CHUNK)
        piece = unpack.decompress(packed, _CHUNK)
        if not packed and not piece:
            raise EOFError("the file ends too early; if a download was interrupted, fetch it again")
        if filled + len(piece) > len(view):
            raise ValueError(f"they are more than the {len(view):,} bytes that DimSize and ElementType claim")
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    if filled != len(view):
        raise ValueError(f"they are {filled:,} bytes, and DimSize and ElementType claim {len(view):,}")


def _parse(stream: BinaryIO, part: np.ndarray) -> None:
    """Reads numbers that are written as text."""
    words = stream.read().split()
    if len(words) != len(part):
        raise ValueError(f"they are {len(words):,} numbers, and DimSize claims {len(part):,}")
    part[:] = np.array(words, dtype=np.float64 if part.dtype.kind == "f" else part.dtype)
