"""What is in a store, known without listing all of it again at each write.

Entries lie in up to 256 folders, and a folder's modification time changes as an entry comes or goes, whichever process
did it: only folders that changed are listed again. A shared count of bytes would be quicker still, and wrong after the
first process that was killed between its write and the count.
"""

import contextlib
import heapq
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tapct._utils.content_hashes import SETTLED_S

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class EntryFile:
    """A file of the store: its key, bytes, and when it was last used (seconds since the epoch)."""

    path: Path
    key: str
    nbytes: int
    used_at_s: float


class Inventory:
    """The entries of a store, as of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        """Initializes the inventory of a folder; it knows of nothing yet."""
        self._folder = folder
        self._listed: dict[str, tuple[int | None, dict[str, EntryFile]]] = {}

    def refresh(self) -> None:
        """Lists the folders in which entries came or went since they were last listed."""
        listed = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as inside:
            for folder in inside:
                if len(folder.name) == 2 and folder.is_dir():
                    changed_ns = folder.stat().st_mtime_ns
                    known = self._listed.get(folder.name)
                    if known is None or known[0] != changed_ns:
                        known = self._list(folder.path, changed_ns)
                    listed[folder.name] = known
        self._listed = listed  # at once: another thread may be writing as well

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(file.nbytes for _, files in self._listed.values() for file in files.values())

    def files(self) -> list[EntryFile]:
        """Returns the entries, the least recently used first, as they were when their folder was listed."""
        found = (file for _, files in self._listed.values() for file in files.values())
        return sorted(found, key=lambda file: file.used_at_s)

    def oldest_first(self) -> Iterator[EntryFile]:
        """Yields the entries, the least recently used by any process first.

        A use changes no folder, so each entry is looked at before it is yielded; one that was used since its folder
        was listed goes back in line.
        """
        line = [(file.used_at_s, file.key, file) for file in self.files()]
        while line:
            used_at_s, _, file = heapq.heappop(line)
            try:
                now_s = file.path.stat().st_mtime
            except FileNotFoundError:  # removed by another process: its bytes are free
                now_s = used_at_s
            if now_s > used_at_s:
                heapq.heappush(line, (now_s, file.key, replace(file, used_at_s=now_s)))
            else:
                yield file

    @staticmethod
    def _list(folder: str, changed_ns: int) -> tuple[int | None, dict[str, EntryFile]]:
        """Returns what is in a folder, with its time; without it where that is now: the same tick may bring more."""
        settled = time.time_ns() - changed_ns > SETTLED_S * 1e9
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as inside:
            for file in inside:
                if not file.name.endswith(SUFFIX):
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed by another process meanwhile
                    stat, key = file.stat(), file.name.removesuffix(SUFFIX)
                    found[key] = EntryFile(Path(file.path), key, stat.st_size, stat.st_mtime)
        return changed_ns if settled else None, found
