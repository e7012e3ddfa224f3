"""The store: one compressed file a volume, and an index of them; written by `pretrain.prepare`, read in training.

    STORE/store.json          format, and the range to which HU are clipped
    STORE/index.jsonl         one `StoredVolume` a line, and index.offsets, see `pretrain.data.index`
    STORE/quarantine.jsonl    sources that were refused, and why
    STORE/fingerprint.json    statistics of the foreground
    STORE/digests.json        digests of the indexes that there were, see `pretrain.data.identity`
    STORE/volumes/ab/abcd....b2nd, or STORE/shards/*.shard, which hold many volumes each, see `pretrain.data.shards`

A slab costs its own bytes and not the volume's (`pretrain.data.encoding`). It is read with plain reads: a memory map of
a file that another process cuts short kills the reader without a message.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import blosc2
import numpy as np

from pretrain.data.encoding import GEOMETRY, HISTOGRAM
from pretrain.data.fingerprint import Histogram
from pretrain.data.index import StoredVolume, StoreIndex
from pretrain.data.shards import bytes_of
from pretrain.errors import PretrainError
from pretrain.files import write

FORMAT = 1
SETTINGS = "store.json"
_DECODE = blosc2.DParams(nthreads=1)
UNREADABLE = (RuntimeError, ValueError, TypeError, KeyError, OSError, EOFError)
"""What blosc2 raises on a file that is cut short, damaged, or none of its own."""


class Box(NamedTuple):
    """A block of a volume: first voxel and size, along (z, y, x)."""

    z: int
    y: int
    x: int
    depth: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The block as an index into the volume."""
        return (
            slice(self.z, self.z + self.depth),
            slice(self.y, self.y + self.height),
            slice(self.x, self.x + self.width),
        )


class Store:
    """A store that is read.

    Attributes:
        folder: Where its small files are: all but the volumes.
        location: Where it is, for messages.
        clip_hu: Range to which its values are clipped.
        index_sha256: Hash of its index file.
        digest: Of what of the index decides the samples, see `pretrain.data.identity`.
    """

    def __init__(self, folder: Path | str) -> None:
        """Opens a store.

        Raises:
            PretrainError: There is none, it is of another format, or its index is damaged or empty.
        """
        self.folder = Path(folder)
        self.location = str(folder)
        self.clip_hu = read_settings(self.folder)
        self._index = StoreIndex(self.folder)
        self.index_sha256, self.digest = self._index.sha256, self._index.digest
        if not self._index:
            raise PretrainError(f"{self.location} holds no volume. See its quarantine.jsonl, and prepare it again.")

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> StoredVolume:
        return self._index[number]

    def thinner_than(self, slices: int) -> list[int]:
        """Returns the numbers of the volumes with fewer slices."""
        found, first = list[int](), 0
        for shapes in self._index.shapes():
            found += (first + np.flatnonzero(shapes[:, 0] < slices)).tolist()
            first += len(shapes)
        return found

    def read(self, volume: StoredVolume, box: Box) -> np.ndarray:
        """Decodes a block of a volume.

        Args:
            volume: The volume.
            box: The block, inside it.

        Returns:
            (depth, height, width) int16 HU, clipped to `clip_hu`.

        Raises:
            PretrainError: The file is missing or damaged.
        """
        if (
            box.z < 0
            or box.y < 0
            or box.x < 0
            or any(s.stop > n for s, n in zip(box.slices, volume.shape, strict=True))
        ):
            raise PretrainError(f"{volume.id}: the block {tuple(box)} reaches outside the volume, {volume.shape}")
        array = self._open(volume, box)
        try:
            if (box.height, box.width) == volume.shape[1:]:
                return _whole_slices(array, box.z, box.depth)
            return np.asarray(array[box.slices])
        except UNREADABLE as error:
            raise self._broken(volume, error) from error

    def histogram(self, volume: StoredVolume) -> Histogram:
        """Returns the intensities of the volume's foreground, from before the clipping.

        Raises:
            PretrainError: The file is missing or damaged.
        """
        packed = self._metadata(volume, HISTOGRAM)
        try:
            return Histogram.unpack(packed)
        except UNREADABLE as error:
            raise self._broken(volume, error) from error

    def affine(self, volume: StoredVolume) -> np.ndarray:
        """Returns (4, 4) float64, homogeneous index (z, y, x, 1) to mm in RAS+.

        Raises:
            PretrainError: The file is missing or damaged.
        """
        return np.array(self._metadata(volume, GEOMETRY), dtype=np.float64)

    def histograms(self) -> Iterator[Histogram]:
        """Yields the intensities of the foreground of every volume, for `Fingerprint.of`."""
        return (self.histogram(self[number]) for number in range(len(self)))

    def verify(self, volume: StoredVolume) -> None:
        """Reads the whole file and compares it with its checksum.

        Raises:
            PretrainError: It is missing or differs.
        """
        try:
            content = self._content(volume)
        except OSError as error:
            raise self._broken(volume, error) from error
        if hashlib.sha256(content).hexdigest() != volume.sha256:
            raise self._broken(volume, ValueError("its checksum is not the index's"))

    def _open(self, volume: StoredVolume, box: Box | None = None) -> blosc2.NDArray:
        """Opens a volume of which a block will be read, or only what stands next to its voxels."""
        path = self.folder / volume.file
        try:
            array = blosc2.open(str(path), mode="r", offset=volume.offset, dparams=_DECODE)
        except UNREADABLE as error:
            raise self._broken(volume, error) from error
        return self._checked(volume, array)

    def _checked(self, volume: StoredVolume, array: blosc2.NDArray) -> blosc2.NDArray:
        if not isinstance(array, blosc2.NDArray) or array.shape != volume.shape or array.dtype != np.int16:
            raise self._broken(volume, ValueError("it holds another array than the index says"))
        return array

    def _metadata(self, volume: StoredVolume, name: str) -> Any:
        array = self._open(volume)  # held: its metadata dies with it
        try:
            return array.schunk.vlmeta[name]
        except UNREADABLE as error:
            raise self._broken(volume, error) from error

    def _content(self, volume: StoredVolume) -> bytes:
        return bytes_of(self.folder, volume)

    def _broken(self, volume: StoredVolume, error: Exception) -> PretrainError:
        path = self.folder / volume.file
        missing = f"{path} is missing" if not path.exists() else None
        where = "" if volume.shard is None else f" from byte {volume.offset} on"
        damaged = f"{path}{where} cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
        return PretrainError(
            f"{missing or damaged}; it was made from {volume.source}. Run `python -m pretrain.prepare {volume.source} "
            f"-o {self.folder} --verify`, which makes again what is missing or damaged."
        )


def _whole_slices(array: blosc2.NDArray, start: int, number: int) -> np.ndarray:
    """Decodes whole slices, and whole chunks of them straight into the result."""
    size = array.chunks[0]
    first, last = -(-start // size), (start + number) // size
    # In the order of their voxels, without a gap, lie only blocks that are as wide as a slice and fill the chunk.
    in_order = array.blocks[0] == 1 and array.blocks[2] == array.shape[2] and array.ext_chunks == array.chunks
    if first >= last or not in_order:
        return np.asarray(array[start : start + number])
    slices = np.empty((number, *array.shape[1:]), array.dtype)
    slices[: first * size - start] = array[start : first * size]
    for chunk in range(first, last):
        array.schunk.decompress_chunk(chunk, slices[chunk * size - start : (chunk + 1) * size - start])
    slices[last * size - start :] = array[last * size : start + number]
    return slices


def read_settings(folder: Path) -> tuple[float, float]:
    """Returns the range to which the HU of a store are clipped.

    Raises:
        PretrainError: The folder is not a store, or one of another format.
    """
    path = folder / SETTINGS
    try:
        settings: dict[str, Any] = json.loads(_read(path))
        if settings["format"] != FORMAT:
            raise PretrainError(f"{path} is of format {settings['format']}, and this version reads {FORMAT}.")
        low, high = settings["clip_hu"]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, PretrainError):
            raise
        raise PretrainError(f"{path} is damaged ({error}). Prepare the store anew.") from error
    return float(low), float(high)


def write_settings(folder: Path, clip_hu: tuple[float, float]) -> None:
    """Begins a store."""
    write(folder / SETTINGS, json.dumps({"format": FORMAT, "clip_hu": clip_hu}) + "\n")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PretrainError(
            f"{path} cannot be read ({error.strerror}). Is this the folder of a store, and its disk mounted? "
            "`python -m pretrain.prepare SRC -o STORE` makes one."
        ) from error
