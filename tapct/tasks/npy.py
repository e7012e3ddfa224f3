"""Reading the arrays that some releases keep as NumPy files, of which nothing is executed."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from tapct._utils.content import HEAD, what_it_is
from tapct.errors import VolumeError
from tapct.volumes.sizes import check_claim, check_memory, deflated, memory_errors


def open_npy(path: Path) -> np.ndarray:
    """Opens an array; nothing is read yet, whatever size its header claims, and no pickle is loaded.

    Raises:
        VolumeError: If it is no NumPy file, or holds objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, OverflowError) as error:
        with path.open("rb") as file:
            reason = what_it_is(file.read(HEAD)) or error
        raise VolumeError(f"{path} cannot be read as a NumPy array ({reason}). Unpack the archive again") from error


def npz_shape(path: Path, name: str) -> tuple[int, ...]:
    """Returns the shape of an array in a .npz file; its values are not read.

    Raises:
        VolumeError: As `read_npz`.
    """
    with _opened(path, name) as file:
        return _header(file)[0]


def read_npz(path: Path, name: str) -> np.ndarray:
    """Returns an array in a .npz file; no pickle is loaded.

    Args:
        path: The file.
        name: What it is saved as.

    Raises:
        VolumeError: If the file is missing, damaged or no .npz, has no such array or one of objects, or claims more
            than the file or memory can hold.
    """
    with memory_errors(path):
        with _opened(path, name) as file:
            shape, dtype = _header(file)
            check_claim(path, shape, dtype.itemsize, deflated(path.stat().st_size))
            check_memory(path, shape, dtype.itemsize)
        with _opened(path, name) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The bytes of an array in a .npz file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                there = ", ".join(sorted(archive.namelist())[:5]) or "nothing"
                raise VolumeError(f"{path} has no array '{name}', but {there}. Use the release's own file")
            with archive.open(f"{name}.npy") as file:
                yield file
    except (OSError, ValueError, EOFError, OverflowError, zipfile.BadZipFile, zlib.error) as error:
        raise VolumeError(f"{path} cannot be read as a .npz file ({error}). Fetch it again") from error
