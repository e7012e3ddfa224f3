"""Files of `torch.save`, for checkpoints and dumped batches: whole or not there, read without running code."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.errors import PretrainError

FORMAT = 1
"""Version of the layout; a checkpoint of another one is refused."""

PART = ".part"
"""How the names of files end that are being written."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads one checkpoint onto the CPU, without running any code of it.

    Raises:
        PretrainError: If it cannot be read, is damaged, or is of another layout.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PretrainError(f"the checkpoint {path} cannot be read ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise PretrainError(
            f"{path} is not a checkpoint of layout {FORMAT}; this version of pretrain cannot resume from it"
        )
    return state


def bytes_of(state: Any) -> int:
    """Returns what the tensors of a nested state take."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(bytes_of(value) for value in state.values())
    return sum(bytes_of(value) for value in state) if isinstance(state, list | tuple) else 0


def write_whole(path: Path, state: dict[str, Any]) -> None:
    """Writes a file of `torch.save` so that its name stands for a complete one, even after a power cut.

    Raises:
        OSError, RuntimeError, PretrainError: If it cannot be written, or reads back otherwise; nothing is left.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        check_sums(part)
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def check_sums(path: Path) -> None:
    """Reads a whole file against the checksums that torch stored with its tensors.

    Raises:
        PretrainError: If one differs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise PretrainError(f"the checkpoint {path} cannot be read ({error})") from error
    if damaged is not None:
        raise PretrainError(f"the checkpoint {path} cannot be read ({damaged} has another checksum)")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
