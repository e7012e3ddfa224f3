"""Rows of numbers by key, on disk: each is computed once, whichever process or run asks for it first.

Rows are written some at a time, each batch a file of its own, so that what is interrupted resumes and processes that
write at once do not wait for one another.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from loguru import logger

from tapct._utils import terminal
from tapct._utils.files import write_atomically

BATCH = 64
"""Rows of a file."""


class KeyedRows:
    """Rows of as many numbers each, float64, in a folder."""

    def __init__(self, folder: Path, width: int) -> None:
        """Initializes the rows; nothing is read yet.

        Args:
            folder: Where they are; it need not be there. Whatever decides a row next to its key is in its name.
            width: Numbers of a row.
        """
        self._folder, self._width = folder, width
        self._rows: dict[str, np.ndarray] = {}
        self._read: set[str] = set()

    def get(
        self, keys: Sequence[str], compute: Callable[[list[int]], np.ndarray], what: str, *, keep: bool = True
    ) -> np.ndarray:
        """Returns the rows of keys, computing those that are not there.

        Args:
            keys: N keys, 64 hexadecimal digits each; one may be there several times.
            compute: Gives the (n, width) rows of keys at these places, `BATCH` of them at most.
            what: What is computed, for the progress bar.
            keep: Whether what is computed is written.

        Returns:
            (N, width).
        """
        if any(key not in self._rows for key in keys):
            self._refresh()
        places = {key: place for place, key in reversed(list(enumerate(keys))) if key not in self._rows}
        todo = sorted(places.values())
        if todo:
            self._compute(keys, todo, compute, what, keep)
        return np.array([self._rows[key] for key in keys], dtype=np.float64).reshape(len(keys), self._width)

    def _compute(
        self,
        keys: Sequence[str],
        todo: Sequence[int],
        compute: Callable[[list[int]], np.ndarray],
        what: str,
        keep: bool,
    ) -> None:
        batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
        shown = terminal.track(batches, f"{what}, {BATCH} at a time", len(batches)) if len(batches) > 1 else batches
        for batch in shown:
            rows = np.asarray(compute(list(batch)), dtype=np.float64)
            found = dict(zip([keys[place] for place in batch], rows, strict=True))
            self._rows |= found
            if keep:
                self._write(found)

    def _write(self, rows: Mapping[str, np.ndarray]) -> None:
        content, joined = io.BytesIO(), "".join(rows)
        keys = np.frombuffer(bytes.fromhex(joined), np.uint8).reshape(-1, 32)
        np.savez(content, keys=keys, rows=np.stack(list(rows.values())))
        name = f"{hashlib.sha256(joined.encode()).hexdigest()}.npz"
        write_atomically(self._folder / name, content.getvalue())
        self._read.add(name)

    def _refresh(self) -> None:
        """Reads what was written since, by whomever; what is damaged is said, removed, and computed again."""
        for path in sorted(self._folder.glob("*.npz")):
            if path.name not in self._read:
                self._read.add(path.name)
                try:
                    self._rows |= _content(path, self._width)
                except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                    logger.warning(f"{path} is damaged ({error}): what it held is computed again")
                    path.unlink(missing_ok=True)


def _content(path: Path, width: int) -> dict[str, np.ndarray]:
    """Returns the rows of a file by key.

    Raises:
        ValueError: If it holds something else.
    """
    with np.load(path, allow_pickle=False) as content:
        keys, rows = content["keys"], content["rows"]
    if keys.dtype != np.uint8 or keys.shape != (len(keys), 32) or rows.shape != (len(keys), width):
        raise ValueError(f"it holds numbers {rows.shape} of {len(keys)} keys, and a row has {width}")
    return {key.tobytes().hex(): row for key, row in zip(keys, rows, strict=True)}
