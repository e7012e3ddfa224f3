"""Checkpoints: whole or not there, newest first, written while the training continues.

A checkpoint is one file, `step_00001000.pt`: everything that the next step depends on. It is written under another
name, read back, and renamed, so that whatever is called `step_*.pt` was once complete on the disk.
"""

import logging
import re
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.errors import PretrainError
from pretrain.files import cannot_write
from pretrain.state_files import FORMAT, PART, bytes_of, check_sums, load_checkpoint, write_whole

_NAME = re.compile(r"step_(\d{8,})\.pt")

log = logging.getLogger(__name__)


def checkpoints_in(folder: Path) -> list[Path]:
    """Returns the checkpoints of a folder, newest first."""
    found = {int(match[1]): path for path in folder.glob("step_*.pt") if (match := _NAME.fullmatch(path.name))}
    return [found[step] for step in sorted(found, reverse=True)]


def newest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest checkpoint that can be read, every byte of it, or None where there is none.

    A run resumes to the same bits from an older one. A damaged one is logged, and left where it is.

    Raises:
        PretrainError: If there are checkpoints, and none can be read.
    """
    paths = checkpoints_in(folder)
    for path in paths:
        try:
            load_checkpoint(path)
            check_sums(path)
            return path
        except PretrainError as error:
            log.error("%s; trying the one before it", error)
    if paths:
        raise PretrainError(
            f"none of the {len(paths)} checkpoints in {folder} can be read. Restore one, or start anew in another "
            "folder (--run.output=...)"
        )
    return None


class CheckpointWriter:
    """Writes checkpoints in the background and removes old ones.

    A process that is killed at any moment leaves the newest complete file and those before it; a file is removed
    only after `keep` newer ones are complete.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Makes the folder and clears what a killed writer left.

        Args:
            folder: Where the checkpoints are. Only one writer may be at work there.
            keep: How many to keep, at least 1.

        Raises:
            PretrainError: If the folder cannot be written.
        """
        if keep < 1:
            raise PretrainError(f"run.keep must be at least 1, not {keep}: the only checkpoint is never removed")
        self._folder, self._keep = folder, keep
        self._thread: threading.Thread | None = None
        self._failure: PretrainError | None = None
        self._buffers: list[Tensor] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left_over in folder.glob(f".*{PART}"):
                left_over.unlink()
        except OSError as error:
            raise PretrainError(
                f"{folder} cannot be written ({error.strerror}). Choose another --run.output"
            ) from error

    def save(self, state: dict[str, Any]) -> None:
        """Copies a state to the CPU, and starts writing it; the caller may change the state at once.

        Args:
            state: What is saved, with its number of steps done under "step". Tensors, numbers, text, lists and
                dictionaries only.

        Raises:
            PretrainError: If the checkpoint before it could not be written.
        """
        self.wait()  # its buffers are used again
        snapshot = _Snapshot(self._buffers).of(state) | {"format": FORMAT}
        path = self._folder / f"step_{state['step']:08d}.pt"
        self._thread = threading.Thread(target=self._write, args=(path, snapshot), name="checkpoint", daemon=False)
        self._thread.start()

    def check(self) -> None:
        """Says what went wrong in the background, if something did.

        Raises:
            PretrainError: If the last checkpoint could not be written.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk.

        Raises:
            PretrainError: If it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        try:
            write_whole(path, state)
            for old in checkpoints_in(self._folder)[self._keep :]:
                old.unlink()
        except (OSError, RuntimeError, PretrainError) as error:  # torch reports a full disk as a RuntimeError
            left = checkpoints_in(self._folder)
            newest = f"The newest good one is {left[0]}" if left else "There is no earlier one"
            self._failure = cannot_write(path, error, bytes_of(state), newest)
            self._failure.__cause__ = error


class _Snapshot:
    """Copies nested tensors to the CPU, from a GPU into the same pinned buffers each time."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self._buffers = buffers
        self._used = 0

    def of(self, state: dict[str, Any]) -> dict[str, Any]:
        copied = self._copy(state)
        if self._used:
            torch.cuda.synchronize()
        return copied

    def _copy(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._copy_tensor(value.detach())
        if isinstance(value, dict):
            return {key: self._copy(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copy(item) for item in value)
        return value

    def _copy_tensor(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == "cpu":
            return tensor.clone()
        if self._used == len(self._buffers):
            self._buffers.append(torch.empty_like(tensor, device="cpu", pin_memory=True))
        buffer = self._buffers[self._used]
        self._used += 1
        return buffer.copy_(tensor, non_blocking=True)
