"""Tensors on disk by content: one safetensors file an entry, written once, read by memory map.

The folder may be shared by many processes and machines. An entry appears whole or not at all (temporary file, then
rename); a lock per entry keeps two processes from computing the same one; a process that dies lets go of its lock.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from tapct._utils import locks
from tapct.encoders.weights import content_sha256
from tapct.errors import FeatureError
from tapct.features import leases
from tapct.features.inventory import SUFFIX, EntryFile, Inventory

FORMAT = 3
"""Goes up whenever what is stored changes: older entries are missed. (How it is computed is in the keys by itself.)"""


PACKED = "zstd"
"""Of a file's metadata: the tensors that are compressed, each a frame of zstd, with their own dtype and shape."""

_ZSTD_LEVEL = 3
"""Level 9 saves a fifth more of labels of 61 organs, and takes six times as long."""


_MOST_BYTES = 2**33
"""Of a compressed tensor once it is whole: 2,000 slices of 2,048 x 2,048 labels. Packs come from third parties."""


class CacheMode(StrEnum):
    """What to do with stored features.

    Attributes:
        USE: Read what is there, compute and store the rest.
        REFRESH: Compute everything again and store it.
        ONLY_CACHED: Read; what is missing is an error. Nothing is written, and the encoder is never built.
        OFF: Neither read nor write; features are computed anew, and kept in memory while they fit.
    """

    USE = "use"
    REFRESH = "refresh"
    ONLY_CACHED = "only-cached"
    OFF = "off"


@dataclass(frozen=True)
class StoredEntry:
    """A stored entry.

    Attributes:
        tensors: By name; memory-mapped, but for those that are compressed.
        about: What was stored with them.
        sha256: Checksum of both and of the key.
    """

    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]
    sha256: str


class TensorStore:
    """A folder of entries.

    Files are checked against their checksum when this process first reads them, then only mapped.
    """

    def __init__(self, folder: str | Path, budget_gb: float | None = None) -> None:
        """Initializes the store; nothing is written yet.

        Args:
            folder: Where the entries are; may be shared.
            budget_gb: What the entries may take together, in GiB; the least recently used ones that no running
                process needs make room. None is no limit.
        """
        self.folder = Path(folder).expanduser()
        self.budget_bytes = None if budget_gb is None else int(budget_gb * 2**30)
        self._checked: set[str] = set()
        self._needed: set[str] = set()
        self._inventory = Inventory(self.folder)

    def path(self, key: str) -> Path:
        """Returns the file of an entry, whether it is there or not."""
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def nbytes(self, key: str) -> int:
        """Returns the bytes of an entry on disk; 0 where it is not there."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return 0

    def load(self, key: str) -> StoredEntry | None:
        """Returns an entry, or None if it is not there.

        Raises:
            FeatureError: If it is truncated or was changed, or is the entry of another key.
        """
        path = self.path(key)
        try:
            entry = _read(path, key, check=key not in self._checked)
        except FileNotFoundError:  # perhaps removed by another process a moment ago
            return None
        if key not in self._checked:
            self._checked.add(key)
            with contextlib.suppress(OSError):  # a read-only store cannot note that an entry was used
                os.utime(path)
        self._needed.add(key)
        return entry

    def save(self, key: str, tensors: dict[str, torch.Tensor], about: dict[str, Any], compress: bool = False) -> None:
        """Stores an entry, replacing what is there.

        Args:
            key: The entry.
            tensors: By name.
            about: What goes with them.
            compress: Whether the tensors are compressed: then they are read whole, and not mapped.

        Raises:
            FeatureError: If it cannot be written, or takes more than the budget. Nothing is left behind.
        """
        path = self.path(key)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        written = json.dumps(about)
        metadata = {"about": written, "key": key, "sha256": _checksum(tensors, key, written), "format": str(FORMAT)}
        if compress:
            metadata[PACKED] = json.dumps({name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()})
            tensors = {name: _compressed(tensor) for name, tensor in tensors.items()}
        nbytes = sum(t.numel() * t.element_size() for t in tensors.values())
        self._needed.add(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(nbytes, key)
            # A folder, since safetensors has a temporary file of its own next to what it writes.
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{key}.") as folder:
                whole = Path(folder) / path.name
                safetensors.torch.save_file(tensors, whole, metadata)
                with whole.open("rb") as file:
                    os.fsync(file.fileno())
                whole.chmod(0o644)
                whole.replace(path)
        except (OSError, SafetensorError) as error:
            raise FeatureError(
                f"cannot store {nbytes / 2**20:.0f} MiB of features under {self.folder}: {error}. Free space there, "
                "name another folder (TAPCT_FEATURES), set a budget, or use the mode 'off'"
            ) from error

    @contextlib.contextmanager
    def lock(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Holds an entry against other processes while it is computed; yields whether it is held.

        Args:
            key: The entry.
            wait: Whether to wait for another process that holds it; else False is yielded.

        Raises:
            FeatureError: If the folder cannot be written, or its file system refuses locks.
        """
        path = self._lock_path(key)
        with contextlib.ExitStack() as held:
            try:
                file = held.enter_context(locks.hold(path, math.inf if wait else 0))
            except OSError as error:
                raise FeatureError(
                    f"cannot write under {self.folder}: {error}. Name another folder (TAPCT_FEATURES)"
                ) from error
            if file is not None:
                for left in path.parent.glob(f".{key}.*"):  # of a process that was killed in the middle of a write
                    shutil.rmtree(left)
            yield file is not None

    def files(self) -> list[EntryFile]:
        """Returns the entries that are there, the least recently used first."""
        whole = Inventory(self.folder)
        whole.refresh()
        return whole.files()

    def about(self, key: str) -> dict[str, Any]:
        """Returns what was stored with an entry, without its tensors.

        Raises:
            FeatureError: If it is not there, or cannot be read.
        """
        try:
            return _read(self.path(key), key, check=False).about
        except FileNotFoundError as error:
            raise FeatureError(f"{self.path(key)} is not there") from error

    def verify(self, key: str) -> str | None:
        """Reads an entry in full and returns what is wrong with it, or None. That does not count as a use."""
        try:
            _read(self.path(key), key, check=True)
        except FileNotFoundError:
            return f"{self.path(key)} is not there"
        except FeatureError as error:
            return str(error)
        return None

    def remove(self, key: str) -> None:
        """Removes an entry, and its lock unless it is held.

        Raises:
            FeatureError: If it cannot be removed.
        """
        path = self._lock_path(key)
        try:
            # The lock first: where locks are refused nothing is removed.
            with locks.hold(path, 0) if path.exists() else contextlib.nullcontext() as held:
                self.path(key).unlink(missing_ok=True)
                self._checked.discard(key)
                if held is not None:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise FeatureError(f"cannot remove {self.path(key)}: {error}. Is the folder yours?") from error

    def sweep(self) -> int:
        """Removes what killed processes left half written, and returns its bytes."""
        left = list(self.folder.glob("??/.*.*/*"))
        nbytes = {path: path.stat().st_size for path in left if path.exists()}
        for key in {path.parent.name.split(".")[1] for path in left}:
            with self.lock(key, wait=False):
                pass  # whoever gets the lock cleans up
        return sum(n for path, n in nbytes.items() if not path.exists())

    def _lock_path(self, key: str) -> Path:
        return self.path(key).with_suffix(".lock")

    def _make_room(self, nbytes: int, key: str) -> None:
        if self.budget_bytes is None:
            return
        self._inventory.refresh()
        with contextlib.suppress(FileNotFoundError):
            nbytes -= self.path(key).stat().st_size  # what is replaced takes no room
        excess = self._inventory.nbytes + nbytes - self.budget_bytes
        if excess > 0:
            with leases.needed(self.folder) as leased:
                self._evict(excess, leased | self._needed | {key})

    def _evict(self, excess: int, needed: Set[str]) -> None:
        """Removes the least recently used entries that nobody needs, until bytes in excess are gone."""
        for file in self._inventory.oldest_first():
            if excess <= 0:
                break
            if file.key not in needed:
                self.remove(file.key)
                excess -= file.nbytes
        if excess > 0:
            whose = "of this run alone" if needed <= self._needed else "that this run and others that run now need"
            raise FeatureError(
                f"the features {whose} take more than the budget of {(self.budget_bytes or 0) / 2**30:g} GiB under "
                f"{self.folder}. Raise it (feature_budget_gb), or use the mode 'off'"
            )


_FIX = "The mode 'use' computes it again, `tapct cache rm --broken` removes it"


def _checksum(tensors: dict[str, torch.Tensor], key: str, about: str) -> str:
    return hashlib.sha256(f"{content_sha256(tensors)} {key} {about}".encode()).hexdigest()


def _read(path: Path, key: str, *, check: bool) -> StoredEntry:
    """Maps an entry.

    Raises:
        FileNotFoundError: If it is not there.
        FeatureError: If it is of another format or key, damaged, or (where it is checked) not what was stored.
    """
    try:
        tensors, metadata = _map(path)
        tensors |= {name: _whole(tensors[name], *of) for name, of in json.loads(metadata.get(PACKED, "{}")).items()}
        if metadata.get("format") != str(FORMAT):
            raise FeatureError(f"{path} has the format {metadata.get('format')}, not {FORMAT}. {_FIX}")
        if metadata["key"] != key:
            raise FeatureError(
                f"{path} is the entry of another key, {metadata['key'][:12]}...: it was renamed, or copied from "
                f"another one. {_FIX}"
            )
        if check and _checksum(tensors, key, metadata["about"]) != metadata["sha256"]:
            raise FeatureError(f"{path} does not match its checksum. {_FIX}")
        return StoredEntry(tensors, json.loads(metadata["about"]), metadata["sha256"])
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise FeatureError(f"{path} is truncated or damaged ({error}). {_FIX}") from error


def _compressed(tensor: torch.Tensor) -> torch.Tensor:
    frame = pyarrow.Codec(PACKED, compression_level=_ZSTD_LEVEL).compress(_bytes_of(tensor), asbytes=True)
    return torch.frombuffer(bytearray(frame), dtype=torch.uint8)


def _whole(frame: torch.Tensor, dtype: str, shape: list[int]) -> torch.Tensor:
    """Returns the tensor of a frame of zstd, whose dtype is written as torch does: "torch.uint8".

    Raises:
        OSError: If it is no such frame, or of another size.
        ValueError: If it would be larger than any label map.
    """
    if math.prod(shape) > _MOST_BYTES:
        raise ValueError(f"a label map of {shape} voxels")
    tensor = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
    content = pyarrow.Codec(PACKED).decompress(frame.numpy(), tensor.numel() * tensor.element_size())
    _bytes_of(tensor)[:] = np.frombuffer(content, dtype=np.uint8)
    return tensor


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _map(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Maps a file: its tensors and metadata.

    safetensors opens a file twice, for the header and for the tensors. Were it replaced in between, the one would be
    read by the offsets of the other; so a file that changed meanwhile is mapped again.
    """
    while True:
        before = path.stat()
        try:
            with safe_open(path, framework="pt") as file:
                mapped = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError, RuntimeError):
            if _is_same(before, path.stat()):
                raise
        else:
            if _is_same(before, path.stat()):
                return mapped


def _is_same(before: os.stat_result, after: os.stat_result) -> bool:
    return os.path.samestat(before, after) and before.st_mtime_ns == after.st_mtime_ns
