"""The dataset fingerprint: the intensities of the foreground, from which clipping and normalisation follow.

The TAP-CT paper (section 3.2) takes mean, standard deviation, 0.5 and 99.5 percentiles "of the foreground voxels,
following nnUNetv2". nnU-Net draws the same number of voxels from every case, so every case weighs the same, and its
foreground is what is labelled. Here nothing is labelled, so the foreground is the **body**: see `body_mask`. In place
of nnU-Net's draw, the histograms of all cases are averaged with equal weight, which is what the draw estimates.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pretrain.errors import PretrainError
from tapct.volumes.body import body_mask

LATTICE_VOXELS = 128
"""A slice is looked at on every n-th row and column, so that about this many are left along each axis."""
_LOWEST_HU = -32768
_NUM_BINS = 65536


@dataclass(frozen=True)
class Foreground:
    """The body in one scan.

    Attributes:
        slices: First slice that shows body, and the one after the last.
        histogram: Of its voxels.
    """

    slices: tuple[int, int]
    histogram: "Histogram"


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often each whole HU occurs.

    Attributes:
        lowest_hu: HU of the first bin.
        counts: (N,) int64, one bin a HU.
    """

    lowest_hu: int
    counts: np.ndarray

    @classmethod
    def of(cls, values_hu: np.ndarray) -> "Histogram":
        """Counts values, rounded to whole HU."""
        whole = np.rint(values_hu).astype(np.int64).ravel()
        lowest = int(whole.min())
        return cls(lowest, np.bincount(whole - lowest))

    def pack(self) -> bytes:
        """Returns it in a few kilobytes."""
        head = np.array([self.lowest_hu], dtype="<i8").tobytes()
        return zlib.compress(head + self.counts.astype("<i8").tobytes())

    @classmethod
    def unpack(cls, packed: bytes) -> "Histogram":
        """Reverses `pack`.

        Raises:
            ValueError: It was not written by `pack`.
        """
        try:
            numbers = np.frombuffer(zlib.decompress(packed), dtype="<i8")
        except zlib.error as error:
            raise ValueError(f"the histogram is damaged ({error})") from error
        return cls(int(numbers[0]), numbers[1:])


@dataclass(frozen=True)
class Fingerprint:
    """Statistics of the foreground of a dataset, every volume with the same weight.

    Attributes:
        mean_hu: Mean.
        std_hu: Standard deviation (of the population, as NumPy's).
        percentile_00_5_hu: 0.5 percentile, in whole HU.
        percentile_99_5_hu: 99.5 percentile, in whole HU.
        volumes: Number of volumes.
        voxels: Number of voxels that were counted.
    """

    mean_hu: float
    std_hu: float
    percentile_00_5_hu: int
    percentile_99_5_hu: int
    volumes: int
    voxels: int

    @classmethod
    def of(cls, histograms: Iterable[Histogram]) -> "Fingerprint":
        """Merges the volumes one after the other; memory does not grow with their number.

        Raises:
            PretrainError: There is no volume.
        """
        weights = np.zeros(_NUM_BINS)
        volumes = voxels = 0
        for histogram in histograms:
            total = int(histogram.counts.sum())
            first = histogram.lowest_hu - _LOWEST_HU
            weights[first : first + len(histogram.counts)] += histogram.counts / total
            volumes, voxels = volumes + 1, voxels + total
        if not volumes:
            raise PretrainError("a fingerprint needs at least one volume, and there is none")
        weights /= volumes
        hu = np.arange(_NUM_BINS) + _LOWEST_HU
        mean = float(weights @ hu)
        low, high = np.searchsorted(weights.cumsum(), [0.005, 0.995]) + _LOWEST_HU
        return cls(mean, float(np.sqrt(weights @ (hu - mean) ** 2)), int(low), int(high), volumes, voxels)


def foreground(hu: np.ndarray) -> Foreground | None:
    """Finds the body in a scan, and counts its intensities on a lattice of its own voxels.

    Every slice counts, but only every n-th row and column (`LATTICE_VOXELS`): voxels are left out and never averaged,
    so the intensities are those of the scan, noise included.

    Args:
        hu: (D, H, W) Hounsfield units.

    Returns:
        The body, or None where there is none (an empty scan).
    """
    step_y, step_x = (max(1, round(size / LATTICE_VOXELS)) for size in hu.shape[1:])
    lattice = hu[:, ::step_y, ::step_x]
    body = body_mask(lattice)
    slices = np.flatnonzero(body.any(axis=(1, 2)))
    if not len(slices):
        return None
    return Foreground((int(slices[0]), int(slices[-1]) + 1), Histogram.of(lattice[body]))
