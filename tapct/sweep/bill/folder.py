"""What would be stored in a folder of features, and how much of it at once."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from tapct.sweep.bill.stored import FolderEntries


class MissingEntry(NamedTuple):
    """An entry that is not there.

    Attributes:
        nbytes: What it takes.
        stays: What of it stays once no experiment needs it any more.
        group: Names the experiments that need it.
        first: Number of the first of them.
    """

    nbytes: int
    stays: int
    group: Hashable
    first: int


@dataclass
class Folder:
    """What would be stored in a folder.

    Attributes:
        path: The folder.
        stored: What is there.
        budget_gb: The least of the limits that experiments set, in GiB; None is none.
        entries: What is not there, by what makes it one entry.
        last: Number of the last experiment of a group.
        exact: Whether all of it is known from headers.
        largest: What the entries of one experiment take, stored or not.
    """

    path: Path
    stored: FolderEntries
    budget_gb: float | None = None
    entries: dict[Hashable, MissingEntry] = field(default_factory=dict)
    last: dict[Hashable, int] = field(default_factory=dict)
    exact: bool = True
    largest: int = 0

    @property
    def missing_bytes(self) -> int:
        """What all that is not there takes."""
        return sum(entry.nbytes for entry in self.entries.values())

    def peak_bytes(self, jobs: int) -> int:
        """Returns what of that is there at once, if experiments run in their order and features go as they may.

        Args:
            jobs: Experiments that run at once.
        """
        experiments = max(self.last.values(), default=0) + 1
        changes = [0] * (experiments + jobs + 1)
        for entry in self.entries.values():
            changes[entry.first] += entry.nbytes
            changes[self.last[entry.group] + jobs] -= entry.nbytes - entry.stays
        return max(accumulate(changes))
