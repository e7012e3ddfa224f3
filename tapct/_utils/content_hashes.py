"""What is in files, by hash: hashed once, and remembered while nothing about them changed."""

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from tapct._utils.files import FileStamp, cache_folder, stamp_of, write_atomically

SETTLED_S = 2.0
"""A file that changed less than this ago may change again without another stamp: file systems keep time in ticks, the
coarsest of two seconds."""


class ContentHashes:
    """SHA-256 of files, remembered while their stamps stay the same.

    Hashing a task's scans costs as much as reading them; remembered, it costs a look at each. Each answer is a
    small file of its own, so that processes on a shared folder do not disturb each other.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Initializes the memory.

        Args:
            folder: Where the answers are kept, by default in the cache folder; where nothing can be written, files are
                hashed each time.
        """
        self._folder = folder or cache_folder() / "hashes"

    def of_files(self, files: Sequence[Path], root: Path | None = None) -> str:
        """Returns a hash of the content of files: of one that of its bytes, of several their names as well.

        Args:
            files: The files.
            root: Folder that the names start from; None for bare names.

        Raises:
            OSError: If one cannot be read.
        """
        memory, stamps = self._memory(files), [stamp_of(file) for file in files]
        if (known := _recalled(memory, stamps)) is not None:
            return known
        now_ns = time.time_ns()
        found = _sha256(files, root)
        changed_ns = max((max(stamp[1:3]) for stamp in stamps if stamp), default=0)
        answer = {"stamps": stamps, "sha256": found, "settled": now_ns - changed_ns > SETTLED_S * 1e9}
        with contextlib.suppress(OSError):  # they are hashed again the next time
            write_atomically(memory, json.dumps(answer))
        return found

    def remembered(self, files: Sequence[Path]) -> str | None:
        """Returns what `of_files` remembers of files; None where it would read them."""
        return _recalled(self._memory(files), [stamp_of(file) for file in files])

    def _memory(self, files: Sequence[Path]) -> Path:
        paths = "\0".join(str(file.absolute()) for file in files)
        return self._folder / f"{hashlib.sha256(paths.encode()).hexdigest()}.json"

    def of_folder(self, folder: Path) -> str:
        """Returns a hash of everything in a folder: the names below it and what is in the files.

        Raises:
            OSError: If something cannot be read.
        """
        return self.of_files(sorted(path for path in folder.rglob("*") if not path.is_dir()), folder)


def _recalled(memory: Path, stamps: Sequence[FileStamp | None]) -> str | None:
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8"))
        if remembered["settled"] and remembered["stamps"] == [stamp and list(stamp) for stamp in stamps]:
            return remembered["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing that can be read
    return None


def _sha256(files: Sequence[Path], root: Path | None) -> str:
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    if len(files) == 1 and root is None:
        return digests[0]
    names = [file.name if root is None else file.relative_to(root).as_posix() for file in files]
    return hashlib.sha256(json.dumps(list(zip(names, digests, strict=True))).encode()).hexdigest()
