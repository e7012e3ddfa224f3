"""Writing the files of stores and runs: whole or not there, and where it fails, what is in the way."""

import shutil
from pathlib import Path

from pretrain.errors import PretrainError
from tapct._utils.files import innermost_existing, write_atomically

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


class CannotWriteError(PretrainError):
    """A file cannot be written: the disk is full, or its rights are others."""


def write(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old content or the new.

    Raises:
        CannotWriteError: It cannot be written; the old file stays.
    """
    encoded = content.encode() if isinstance(content, str) else content
    try:
        write_atomically(path, encoded)
    except OSError as error:
        raise cannot_write(path, error, len(encoded)) from error


def cannot_write(path: Path, error: Exception, needed_bytes: int, hint: str = "Nothing is lost") -> CannotWriteError:
    """Returns the error that says which file could not be written, why, and how much room it needs.

    Args:
        path: The file.
        error: What the system, or torch, said.
        needed_bytes: What the file takes.
        hint: What is left, before how to fix it.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return CannotWriteError(
        f"{path} could not be written ({reason.splitlines()[0]}): it takes {in_bytes(needed_bytes)}, and "
        f"{in_bytes(free_bytes(path))} are free there. {hint}. Make room on the disk or fix the rights, then run the "
        "same command again."
    )


def free_bytes(path: Path) -> int:
    """Returns how much this user may still write where a file is to lie; a quota may allow less."""
    return shutil.disk_usage(innermost_existing(path.parent)).free


def in_bytes(number: int) -> str:
    """Returns a size in words: "1.2 GB"."""
    for name, size in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number} bytes"
