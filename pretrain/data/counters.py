"""Random numbers from counters: what is drawn depends on which draw it is, never on who draws it or when.

A generator is made anew for every purpose from `(seed, step, micro-batch, stream, item)`, so one process or eight,
no workers or sixteen, a fresh run or a resumed one all draw the same numbers.
"""

import hashlib
import struct
from enum import IntEnum

import torch


class Stream(IntEnum):
    """What random numbers are for; numbers of different streams are independent."""

    INITIALISATION = 0
    """The weights of a new network."""

    SAMPLES = 1
    """The order of the volumes of an epoch."""

    CROPS = 2
    """Where the crops of a sample lie."""

    AUGMENT = 3
    """Gamma and blur of the crops of a micro-batch."""

    MASKS = 4
    """The masked patches of a micro-batch."""

    DROP_PATH = 5
    """Which samples skip a block."""

    DROP_PATCHES = 6
    """Which patches of the global crops the student does not compute."""


def generator(seed: int, step: int, micro_batch: int, stream: Stream, item: int = 0) -> torch.Generator:
    """Returns a generator that is fresh for this purpose.

    Its seed is the first 8 bytes of a BLAKE2b digest of the counters, so neighbours share nothing. (Seeding with
    `seed + step` makes runs of neighbouring seeds repeat each other's batches, one step apart.)

    Args:
        seed: Of the run.
        step: Optimizer step, from 0.
        micro_batch: Number within the step.
        stream: The purpose.
        item: Number within the micro-batch, such as of a sample.

    Returns:
        A generator on the CPU. Draw on the CPU and move the result: a GPU's generator gives other numbers.
    """
    key = struct.pack("<5q", seed, step, micro_batch, int(stream), item)
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
