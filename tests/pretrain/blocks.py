"""Blocks of a store on the network, compared with the folder that it was copied from; also by other processes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pretrain.data.index import StoredVolume
from pretrain.data.store import Box, Store


def boxes_of(volume: StoredVolume, number: int, seed: int) -> Iterator[Box]:
    """Yields random blocks, and as many of whole slices."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        first = [int(rng.integers(n)) for n in volume.shape]
        yield Box(*first, *(int(rng.integers(1, n - f + 1)) for n, f in zip(volume.shape, first, strict=True)))
        z = int(rng.integers(volume.shape[0]))
        yield Box(z, 0, 0, int(rng.integers(1, volume.shape[0] - z + 1)), *volume.shape[1:])


def assert_same_blocks(remote: Store, local: Store, number: int = 6, seed: int = 0) -> None:
    for place in range(len(local)):
        for box in boxes_of(local[place], number, seed):
            assert np.array_equal(remote.read(remote[place], box), local.read(local[place], box))


def read_for_ever(url: str, folder: Path, cache: Path, limit_bytes: int, seed: int) -> None:
    """Reads until it is killed, and notes next to the cache that it has begun."""
    from pretrain.data.remote.store import RemoteStore

    remote, local = RemoteStore(url, cache, limit_bytes), Store(folder)
    cache.with_name(f"began-{seed}").touch()
    while True:
        assert_same_blocks(remote, local, 1, seed)
        seed += 1


def note_network_modules(folder: Path, report: Path) -> None:
    """Opens and reads a store, and writes which modules that speak to a network this process has."""
    assert_same_blocks(Store(folder), Store(folder), 1)
    found = [name for name in ("aiohttp", "tenacity", "pretrain.data.remote") if name in sys.modules]
    report.write_text(f"opened, with {found}", encoding="utf-8")
