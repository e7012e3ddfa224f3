"""Answers that take long to find, kept in the cache folder by everything that they depend on."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from tapct._utils.files import cache_folder, write_atomically


class Remembered:
    """A file of answers; who writes last is believed, since all of them can be found again."""

    def __init__(self, name: str, shipped: Path | None = None) -> None:
        """Initializes it; nothing is read yet.

        Args:
            name: Of the file, without suffix.
            shipped: A file of further answers, which is only read.
        """
        self._shipped = {} if shipped is None else _content(shipped)
        self._path = cache_folder() / "bill" / f"{name}.json"
        self._answers: dict[str, Any] | None = None
        self._new = False

    def get(self, key: str) -> Any:
        """Returns an answer; None where there is none."""
        return self._read().get(key, self._shipped.get(key))

    def put(self, key: str, answer: Any) -> None:
        """Takes an answer, as JSON has it."""
        self._read()[key] = answer
        self._new = True

    def keep(self) -> None:
        """Writes what is new; where nothing can be written, it is found again the next time."""
        if self._new:
            with contextlib.suppress(OSError):
                write_atomically(self._path, json.dumps(self._read()))
            self._new = False

    def _read(self) -> dict[str, Any]:
        if self._answers is None:
            self._answers = _content(self._path)
        return self._answers


def key_of(*parts: Any) -> str:
    """Returns the key of an answer that depends on these, as JSON has them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # none yet, or none that can be read: all are found again
    return content if isinstance(content, dict) else {}
