"""A store on the network: as one in a folder, but for where the bytes come from.

A slab costs the chunks that hold its slices, each one range of its file; blosc2 knows where they lie
(`blosc2.ByteRangeNDSource`) and asks for each range by itself. The ranges are kept in the node's cache under the
checksum of the volume that the index gives, so those of two volumes, or of two versions of one, are never mixed.

A shard never changes, for its name follows from what it holds. A volume with a file of its own may be replaced: the
version of that file is part of the key too, and is asked for after every visit that fetched something. Where it is not
what it was when the first range was kept, the volume is read as a whole and compared with its checksum.
"""

import hashlib
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2

from pretrain.data.index import StoredVolume
from pretrain.data.remote.cache import Cache
from pretrain.data.remote.files import MissingError, RemoteFiles
from pretrain.data.remote.mirror import mirror
from pretrain.data.store import UNREADABLE, Box, Store
from pretrain.errors import PretrainError, StoreError

THREADS = 8
"""Ranges that a process reads at a time: most of what a range of object storage takes is waiting."""
_DAMAGED = (*UNREADABLE, struct.error, IndexError)
_VERSION_BYTES = 32


class RemoteStore(Store):
    """A store that is read from a URL."""

    def __init__(self, url: str, cache: Path, cache_bytes: int) -> None:
        """Opens a store.

        Args:
            url: Where it is.
            cache: Folder on this node's own disk.
            cache_bytes: What that holds at most.

        Raises:
            PretrainError: There is none, it is damaged, or the cache cannot be written.
            StoreError: There is no answer, or a refusal.
        """
        self._files, self._cache = RemoteFiles(url), Cache(cache, cache_bytes)
        folder = mirror(self._files, self._cache)
        try:
            super().__init__(folder)
        except PretrainError as error:
            raise PretrainError(f"{url}, of which {folder} is a copy: {error}") from error
        self.location = url

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    def _open(self, volume: StoredVolume, box: Box | None = None) -> blosc2.NDArray:
        """Returns the volume with the chunks that hold a block; the others are not set."""

        def filled(frame: _Frame) -> blosc2.NDArray:
            array = blosc2.uninit(
                frame.shape, dtype=frame.dtype, chunks=frame.chunks, blocks=frame.blocks, dparams={"nthreads": 1}
            )
            self._checked(volume, array)
            if box is not None:
                size = frame.chunks[0]
                numbers = range(box.z // size, (box.z + box.depth - 1) // size + 1)
                for number, chunk in zip(numbers, self._threads.map(frame.get_chunk, numbers), strict=True):
                    array.schunk.update_chunk(number, chunk)
            return array

        return self._read(volume, filled)

    def _metadata(self, volume: StoredVolume, name: str) -> Any:
        return self._read(volume, lambda frame: frame.vlmeta[name])

    def _content(self, volume: StoredVolume) -> bytes:
        return self._files.read(volume.file, volume.offset, volume.size_bytes)

    def _read(self, volume: StoredVolume, work: Callable[["_Frame"], Any]) -> Any:
        """Reads something of a volume, all of it of one version of its file."""
        for _ in range(2):
            ranges = _Ranges(volume, self._version(volume), self._files, self._cache)
            try:
                found = work(_Frame(f"{self.location}/{volume.file}", ranges.read))
            except MissingError as error:
                raise self._broken(volume, error) from error
            except PretrainError:
                raise
            except _DAMAGED as error:
                raise self._broken(volume, error) from error
            if not ranges.fetched or volume.shard is not None or self._version_now(volume) == ranges.version:
                ranges.keep()
                return found
            self._replaced(volume)
        raise self._changed(volume)

    def _version(self, volume: StoredVolume) -> str:
        """Returns the version of the file of which ranges are kept, or are to be."""
        if volume.shard is not None:
            return ""
        kept = self._cache.get(_version_key(volume), _VERSION_BYTES)
        if kept is not None:
            return kept.decode()
        version = self._version_now(volume)
        self._cache.put(_version_key(volume), version.encode())
        return version

    def _version_now(self, volume: StoredVolume) -> str:
        try:
            found = self._files.look(volume.file)
        except MissingError as error:
            raise self._broken(volume, error) from error
        if found.size != volume.size_bytes:
            raise self._changed(volume)
        return found.version

    def _replaced(self, volume: StoredVolume) -> None:
        """Begins anew with a file that was replaced, if it is what the index says."""
        version = self._version_now(volume)
        if hashlib.sha256(self._content(volume)).hexdigest() != volume.sha256 or version != self._version_now(volume):
            raise self._changed(volume)
        self._cache.put(_version_key(volume), version.encode())

    def _changed(self, volume: StoredVolume) -> StoreError:
        return StoreError(
            f"{self.location}/{volume.file} is not what the index says: the store was changed after it was opened, or "
            "is not copied wholly. Start the same command again when it is; with --run.adopt_store=true if its volumes "
            "are others now"
        )

    def _broken(self, volume: StoredVolume, error: Exception) -> PretrainError:
        self._cache.forget(volume.sha256)  # lest a damage that is fixed there stays here
        reason = "is missing" if isinstance(error, MissingError) else f"cannot be read ({' '.join(str(error).split())})"
        where = "" if volume.shard is None else f" from byte {volume.offset} on"
        return PretrainError(
            f"{self.location}/{volume.file}{where} {reason}; it was made from {volume.source}. Run `python -m "
            "pretrain.prepare` with --verify on the folder that the store was copied from, and copy it again."
        )


class _Frame(blosc2.ByteRangeNDSource):
    """The file of a volume, as blosc2 reads it range by range."""

    def __init__(self, name: str, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        super().__init__(name, max_concurrency=1)

    def read_range(self, offset: int, size: int) -> bytes:
        return self._read(offset, size)


class _Ranges:
    """Ranges of a volume's file, from the cache or the network.

    Attributes:
        version: Of the file.
        fetched: Those that came from the network, by their names in the cache.
    """

    def __init__(self, volume: StoredVolume, version: str, files: RemoteFiles, cache: Cache) -> None:
        self._volume, self.version, self._files, self._cache = volume, version, files, cache
        self.fetched: dict[str, bytes] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Returns a range, as far as the file goes."""
        volume = self._volume
        size = min(size, volume.size_bytes - offset)
        key = f"{volume.sha256}{self.version}-{offset}-{size}"
        content = self._cache.get(key, size)
        if content is None:
            content = self.fetched[key] = self._files.read(volume.file, volume.offset + offset, size)
        return content

    def keep(self) -> None:
        """Puts what was fetched into the cache: it is known now to be of the version."""
        for key, content in self.fetched.items():
            self._cache.put(key, content)


def _version_key(volume: StoredVolume) -> str:
    return f"{volume.sha256}-version"
