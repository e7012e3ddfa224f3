"""How a volume lies in its file: a Blosc2 array (D, H, W) of int16 HU in chunks of a few slices.

Chunks are cut into blocks that decode one by one. What is in this module is part of what `pretrain.prepare --verify`
compares: change it, and all volumes count as made by other code.
"""

import blosc2
import numpy as np

from pretrain.data.fingerprint import Histogram

HISTOGRAM, GEOMETRY = "foreground_histogram", "geometry"
"""Names of a volume's metadata."""
CHUNK_SLICES = 8
BLOCK = (1, 64, 512)
"""Slices, rows and columns of what is decoded at a time: no slice too many, few rows, and 64 KiB fit a core's cache."""
# HC: packed once, ten times as slowly (a second a volume), and read thousands of times, faster and from fewer bytes.
_CODEC = blosc2.CParams(codec=blosc2.Codec.LZ4HC, clevel=5, filters=[blosc2.Filter.SHUFFLE], nthreads=1)


def encode(hu: np.ndarray, clip_hu: tuple[float, float], affine: np.ndarray, histogram: Histogram) -> bytes:
    """Compresses a volume.

    Args:
        hu: (D, H, W) Hounsfield units; rounded to whole ones.
        clip_hu: Range to which they are clipped.
        affine: (4, 4), homogeneous index to mm in RAS+.
        histogram: Of the foreground.

    Returns:
        The content of the file.
    """
    whole = np.rint(hu.clip(*clip_hu)).astype(np.int16)
    chunks = (min(CHUNK_SLICES, hu.shape[0]), *hu.shape[1:])
    blocks = tuple(min(block, size) for block, size in zip(BLOCK, chunks, strict=True))
    array = blosc2.asarray(whole, chunks=chunks, blocks=blocks, cparams=_CODEC)
    array.schunk.vlmeta[HISTOGRAM] = histogram.pack()
    array.schunk.vlmeta[GEOMETRY] = affine.tolist()
    return bytes(array.to_cframe())
