"""What features depend on, and the keys made of it."""

import contextlib
import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapct.errors import FeatureError
from tapct.features.store import FORMAT
from tapct.files import write_atomically


def key_of(parts: Mapping[str, Any]) -> str:
    """Returns the key of an entry: a hash of everything that it depends on, and of the store's format."""
    content = json.dumps({"format": FORMAT, **parts}, sort_keys=True, default=list)
    return hashlib.sha256(content.encode()).hexdigest()


class ContentHashes:
    """SHA-256 of files, remembered while their size and time stay the same.

    Hashing a task's scans costs as much as reading them; remembered, it costs a look at each. Each answer is a
    small file of its own, so that processes on a shared folder do not disturb each other.
    """

    def __init__(self, folder: Path) -> None:
        """Initializes the memory.

        Args:
            folder: Where the answers are kept; where nothing can be written, files are hashed each time.
        """
        self._folder = folder

    def of(self, paths: Sequence[Path]) -> str:
        """Returns a hash of the content of files and folders (of DICOM slices), in this order.

        Raises:
            FeatureError: If one cannot be read.
        """
        try:
            return hashlib.sha256("".join(self._one(path) for path in paths).encode()).hexdigest()
        except OSError as error:
            raise FeatureError(
                f"cannot read {error.filename} to see whether its features are stored: {error.strerror}. "
                "`tapct doctor --task TASK --root DIR` lists what is missing"
            ) from error

    def _one(self, path: Path) -> str:
        files = _files(path)
        stamp = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
        memory = self._folder / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()}.json"
        try:
            remembered = json.loads(memory.read_text(encoding="utf-8"))
            if remembered["stamp"] == stamp:
                return remembered["sha256"]
        except (OSError, ValueError, KeyError):
            pass  # nothing remembered: it is hashed
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as opened:
                digest.update(file.name.encode() if path.is_dir() else b"")
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        with contextlib.suppress(OSError):  # it is hashed again the next time
            write_atomically(memory, json.dumps({"stamp": stamp, "sha256": digest.hexdigest()}))
        return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """Returns the files that are read for a path: those of a folder of slices, a `.mhd` and its voxels, or one."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if path.suffix.lower() == ".mhd":
        return [path, *sorted(path.parent.glob(f"{glob.escape(path.stem)}.*raw"))]
    return [path]
