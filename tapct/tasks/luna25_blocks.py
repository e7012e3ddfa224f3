"""Reads LUNA25's nodule blocks: the voxels as a NumPy file, and where they lie as a pickle that is never trusted."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from tapct.errors import VolumeError
from tapct.tasks.npy import open_npy
from tapct.volumes import Grid, Volume
from tapct.volumes.orient import lps_to_ras, spl_grid
from tapct.volumes.read import ct_volume

BLOCK_SHAPE = (64, 128, 128)
"""Voxels (z, y, x) of every block of the release."""

SPACING_TOLERANCE = 1e-3
"""Relative; the metadata went through a NIfTI header, which keeps spacing and direction in float32."""

LARGEST_METADATA = 2**16
"""Bytes; those of the release have less than a thousand."""

_KINDS = {"f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8"}
"""Number types that metadata may hold."""


def read_block(image: Path, metadata: Path) -> Volume:
    """Reads a block.

    Args:
        image: `image/<AnnotationID>.npy`, (64, 128, 128) HU in (z, y, x).
        metadata: `metadata/<AnnotationID>.npy`, a pickled dict of origin, spacing and transform.

    Returns:
        The block, as `read_ct` gives a scan.

    Raises:
        VolumeError: If a file is damaged or is not what it should be, or the values cannot be HU.
    """
    voxels = open_npy(image)
    if voxels.shape != BLOCK_SHAPE or voxels.dtype.kind not in "iuf":
        raise VolumeError(
            f"{image} holds {voxels.shape} of {voxels.dtype}; LUNA25's blocks are {BLOCK_SHAPE} numbers (z, y, x)"
        )
    return ct_volume(np.array(voxels), _affine(metadata), str(image))


def block_grid(image: Path, metadata: Path) -> Grid:
    """Returns the grid that `read_block` gives, from the metadata alone: every block is of one shape.

    Raises:
        VolumeError: If the block is not there, or its metadata is damaged.
    """
    if not image.is_file():
        raise VolumeError(f"{image} does not exist. Unpack the archive again")
    return spl_grid(BLOCK_SHAPE, _affine(metadata), str(image))


def _affine(path: Path) -> np.ndarray:
    """Returns the affine (4, 4), homogeneous index (z, y, x, 1) to mm in RAS+.

    Row i of `transform` is the step in the world (z, y, x; LPS) along array axis i, column by column divided by
    `spacing`: so the release's own script computes it (preprocessing/utils.py of luna25-baseline-public). For
    blocks along the axes, flipped or not, that is the direction matrix.
    """
    header = _read_metadata(path)
    try:
        origin, spacing = (np.asarray(header[key], dtype=np.float64).reshape(3) for key in ("origin", "spacing"))
        transform = np.asarray(header["transform"], dtype=np.float64).reshape(3, 3)
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(
            f"{path} needs origin and spacing of three numbers and transform of three by three, (z, y, x), but holds "
            f"{header!r}: {error}"
        ) from error
    steps = transform * spacing  # rows: array axes; columns: world z, y, x
    if not np.allclose(np.linalg.norm(steps, axis=1), spacing, rtol=SPACING_TOLERANCE) or not (spacing > 0).all():
        raise VolumeError(f"{path}: transform {transform.tolist()} and spacing {spacing.tolist()} do not fit together")
    affine = np.eye(4)
    affine[:3, :3] = steps.T[::-1]
    affine[:3, 3] = origin[::-1]
    return lps_to_ras(affine)


# -- A pickle without execution -------------------------------------------------------------------------
# `np.load(..., allow_pickle=True)` runs whatever a file says. Here nothing that a file names is imported: the four
# names that a pickled array of numbers needs stand for the harmless classes below, and any other is refused.


class _NumberType:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = "=" if state[1] == "|" else str(state[1])

    def decode(self, data: bytes) -> np.ndarray:
        if self.code not in _KINDS or self.order not in ("<", ">", "="):
            raise pickle.UnpicklingError(f"an array of {self.order}{self.code}")
        return np.frombuffer(data, dtype=self.order + self.code)


class _Array:
    """Stands for `numpy.ndarray`; `value` is the array, or the list of objects in an object array."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if isinstance(data, list):
            self.value = data
        else:
            self.value = kind.decode(data).reshape(shape, order="F" if fortran else "C")


def _scalar(kind: _NumberType, data: bytes) -> float:
    """Stands for NumPy's numbers."""
    return float(kind.decode(data)[0])


_HARMLESS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _NumberType,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


class _Unpickler(pickle._Unpickler):  # in Python: that in C allocates whatever place a file names for a memo
    @override
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array of numbers needs")
        return _HARMLESS[module, name]


def _read_metadata(path: Path) -> dict[str, Any]:
    """Returns the dict in a `.npy` file of one pickled object, its arrays as arrays; runs nothing of it."""
    try:
        if path.stat().st_size > LARGEST_METADATA:
            raise ValueError(f"it is {path.stat().st_size:,} bytes long")
        with io.BytesIO(path.read_bytes()) as file:
            if np.lib.format.read_magic(file) != (1, 0) or not np.lib.format.read_array_header_1_0(file)[2].hasobject:
                raise ValueError("it holds no pickled dict")
            content = _Unpickler(file).load()
        (header,) = content.value if isinstance(content, _Array) else [content]
        return {key: value.value if isinstance(value, _Array) else value for key, value in header.items()}
    except Exception as error:  # a damaged pickle can raise anything
        raise VolumeError(f"{path} is not the metadata of a LUNA25 block: {error}. Unpack the archive again") from error
