"""Reading findings from the text of a report: what a reader is, and texts that are read once."""

import abc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapct._utils.files import cache_folder
from tapct.report_texts.rows import KeyedRows


class Reader(abc.ABC):
    """Reads findings from texts.

    Attributes:
        findings: The names of K findings, in the order of what it gives.
        threshold: The least probability at which a finding is there.
    """

    findings: tuple[str, ...]
    threshold: float = 0.5

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns what decides what it reads, for the record: the fields of `tapct.records.probe.ReaderRecord`."""

    @abc.abstractmethod
    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Returns (N, K) how probably each finding is in each of N texts, float64."""


class ReadTexts:
    """Texts as a reader reads them, each once: its probabilities stay on disk, by the hash of text and reader."""

    def __init__(self, reader: Reader, folder: Path | None = None) -> None:
        """Initializes the texts; nothing is read yet.

        Args:
            reader: The reader.
            folder: Where what was read is kept; None for `reports/` of the cache folder.
        """
        self.reader = reader
        own = hashlib.sha256(json.dumps(reader.describe(), sort_keys=True).encode()).hexdigest()
        folder = cache_folder() / "reports" if folder is None else folder
        self._rows = KeyedRows(folder / f"findings-{own[:16]}", len(reader.findings))

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReadTexts":
        """Returns itself: the runs of a session share what was read."""
        return self

    def probabilities(self, texts: Sequence[str], *, keep: bool = True) -> np.ndarray:
        """Returns (N, K) the probabilities of N texts, float64.

        Args:
            texts: The texts.
            keep: Whether they are written; else this process alone remembers them.
        """

        def read(places: list[int]) -> np.ndarray:
            return self.reader.probabilities([texts[place] for place in places])

        return self._rows.get([text_sha256(text) for text in texts], read, "reports read", keep=keep)

    def findings(self, texts: Sequence[str], *, keep: bool = True) -> np.ndarray:
        """Returns (N, K) which findings N texts have: 1 or 0, float64; `keep` as of `probabilities`."""
        return (self.probabilities(texts, keep=keep) >= self.reader.threshold).astype(np.float64)


def text_sha256(text: str) -> str:
    """Returns the hash of a text, by which records name it."""
    return hashlib.sha256(text.encode()).hexdigest()
