"""The folder in which kaiko-eva's embedding data sets look: `manifest.csv`, and tensors that torch.save wrote.

torch (E,)          EmbeddingsClassificationDataset
torch (N, E)        MultiEmbeddingsClassificationDataset
list of (C, d, h, w)    EmbeddingsSegmentationDataset, with a mask (1, D, H, W) as target
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tapct._utils.files import write_atomically
from tapct.errors import FeatureError
from tapct.names import file_in, path_fault

MANIFEST = "manifest.csv"

COLUMNS = ("origin", "embeddings", "target", "split", "wsi_id")
"""eva's default names. `wsi_id` says what belongs to one bag; here that is always one file."""


class EvaLayout:
    """Writes such a folder: each file whole or not at all, the manifest last."""

    def __init__(self, folder: Path, *, replace: bool, more: Sequence[str] = ()) -> None:
        """Initializes the folder; nothing is written yet.

        Args:
            folder: The folder.
            replace: Whether a manifest that says something else may be replaced; else it is an error.
            more: Columns beyond eva's, which its readers pass over.
        """
        self.folder, self._replace = folder, replace
        self._columns = (*COLUMNS, *more)
        self._rows: list[tuple[str, ...]] = []
        self.written = 0

    def begin(self) -> None:
        """Removes a manifest whose files will be replaced: stopped half-way, they would be of two encoders.

        Raises:
            FeatureError: If it cannot be removed.
        """
        path = self.folder / MANIFEST
        try:
            if path.exists():
                path.unlink()
        except OSError as error:
            raise FeatureError(f"cannot remove {path}: {error.strerror or error}") from error

    def has(self, name: str) -> bool:
        """Returns whether there is a file of this name: never a part of one."""
        return file_in(self.folder, name, ".pt").exists()

    def save(self, name: str, content: torch.Tensor | list[torch.Tensor]) -> str:
        """Writes a tensor, or a list of them, and returns the file's path below the folder.

        Args:
            name: Of the file, without suffix; may be a path below the folder.
            content: On any device, of any subclass of a tensor.

        Raises:
            FeatureError: If it cannot be written.
        """
        if (wrong := path_fault(name)) is not None:
            raise FeatureError(f"no file can be called after {name!r}, which {wrong}")
        path = file_in(self.folder, name, ".pt")
        buffer = io.BytesIO()
        torch.save([_standalone(t) for t in content] if isinstance(content, list) else _standalone(content), buffer)
        self._write(path, buffer.getvalue())
        self.written += 1
        return path.relative_to(self.folder).as_posix()

    def add(self, origin: str, embeddings: str, target: str | int, split: str | None, bag: str, *more: Any) -> None:
        """Adds a row of the manifest; `finish` writes them."""
        self._rows.append((origin, embeddings, str(target), split or "", bag, *map(str, more)))

    def finish(self) -> None:
        """Writes the manifest.

        Raises:
            FeatureError: If there is another one that must stay, or it cannot be written.
        """
        self._write(self.folder / MANIFEST, self.require_free())

    def require_free(self) -> bytes:
        """Returns the manifest of the rows so far, which may take its place.

        Raises:
            FeatureError: If there is another one that must stay.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._columns)
        writer.writerows(self._rows)
        content, path = text.getvalue().encode(), self.folder / MANIFEST
        if path.exists() and not self._replace and path.read_bytes() != content:
            raise FeatureError(
                f"{path} is of other embeddings: another encoder, other weights, or another choice of cases. Write "
                "into another folder, or say that they may be replaced"
            )
        return content

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
        except OSError as error:
            raise FeatureError(f"cannot write {path}: {error.strerror or error}") from error


def _standalone(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor as torch.load takes it back: no subclass, no view of a larger one."""
    return tensor.detach().cpu().as_subclass(torch.Tensor).clone(memory_format=torch.contiguous_format)
