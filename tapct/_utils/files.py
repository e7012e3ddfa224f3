"""Writing files so that nothing is half written, knowing whether one changed, and where caches live."""

import os
import tempfile
from pathlib import Path

FileStamp = tuple[int, int, int, int]
"""What changes when a file does: size, modification and change time (ns), inode. A program may put the modification
time back, and copying tools do; the change time it cannot."""


def cache_folder() -> Path:
    """Returns where weights and checks are kept: the variable TAPCT_CACHE, else `~/.cache/tapct`.

    What the Hugging Face hub serves is kept in its own cache (HF_HOME), as everything else from there.
    """
    return Path(os.environ.get("TAPCT_CACHE", "~/.cache/tapct")).expanduser()


def features_folder() -> Path:
    """Returns where features are stored: the variable TAPCT_FEATURES, else `features/` of the cache folder."""
    return Path(os.environ.get("TAPCT_FEATURES") or cache_folder() / "features").expanduser()


def stamp_of(path: Path) -> FileStamp | None:
    """Returns the stamp of a file; None where it cannot be looked at, as one that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def write_atomically(path: Path, content: str | bytes, *, lasting: bool = True) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part.

    Args:
        path: The file.
        content: What it is to hold.
        lasting: Whether it must outlast a machine that goes down, for which the disk is waited for.

    Raises:
        OSError: If it cannot be written (a full disk, a read-only folder); the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def innermost_existing(folder: Path) -> Path:
    """Returns a folder, or where it is not there the innermost one above it that is."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
