"""Reading the arrays that some releases keep as NumPy files, of which nothing is executed."""

from pathlib import Path

import numpy as np

from tapct.content import HEAD, what_it_is
from tapct.errors import VolumeError


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
