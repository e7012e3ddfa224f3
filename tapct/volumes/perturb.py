"""What may happen to a scan between two hospitals: more noise, another scale, thicker slices, a cut field of view.

The levels are ours. They are plain changes of voxel values, not simulated acquisitions: the noise is white, for
instance, which that of a reconstruction never is.
"""

import abc
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from typing_extensions import override

from tapct.errors import TaskError, nearest
from tapct.source_code import code_of
from tapct.volumes.geometry import Grid
from tapct.volumes.plausibility import LEAST_HU
from tapct.volumes.resample import LinearMap
from tapct.volumes.volume import Volume


@dataclass(frozen=True)
class Perturbation(abc.ABC):
    """A change of the values of a scan, whose grid stays: results are on the same voxels as without it."""

    kind: ClassVar[str]
    changes_labels: ClassVar[bool] = False

    def __call__(self, ct: Volume, key: str) -> Volume:
        """Returns the scan as it would have been.

        Args:
            ct: The scan.
            key: Names it; decides what is drawn at random.
        """
        return replace(ct, hu=self._change(ct.hu, key))

    @abc.abstractmethod
    def _change(self, hu: np.ndarray, key: str) -> np.ndarray:
        """Returns the changed values, (D, H, W) float32 HU as given."""

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Returns the labels (D, H, W) that the changed scan is measured against."""
        return labels

    def describe(self) -> dict[str, Any]:
        """Returns its kind and parameters."""
        return {"kind": self.kind, **asdict(self)}

    def identity(self) -> dict[str, Any]:
        """Returns everything that the changed scan depends on next to the scan: parameters, and its code.

        Raises:
            TaskError: If its class is in no file, so that a change of it could not be told.
        """
        try:
            return {**self.describe(), "code": code_of(type(self).__module__).sha256}
        except LookupError as error:
            raise TaskError(
                f"{type(self).__qualname__} is defined in no file: put it into a module ({error})"
            ) from error


@dataclass(frozen=True)
class Noise(Perturbation):
    """White Gaussian noise in every voxel, always the same for a scan; levels differ in its size alone."""

    kind = "noise"
    std_hu: float

    @override
    def _change(self, hu: np.ndarray, key: str) -> np.ndarray:
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
        noise = random.standard_normal(hu.shape, dtype=np.float32)
        return _where_measured(hu, lambda measured: measured + np.float32(self.std_hu) * noise)


@dataclass(frozen=True)
class Shift(Perturbation):
    """A scanner whose zero is off."""

    kind = "hu_shift"
    by_hu: float

    @override
    def _change(self, hu: np.ndarray, key: str) -> np.ndarray:
        return _where_measured(hu, lambda measured: measured + np.float32(self.by_hu))


@dataclass(frozen=True)
class Contrast(Perturbation):
    """Stronger or weaker contrast of what attenuates more than unenhanced soft tissue: iodine and bone.

    Values over `pivot_hu` move away from it by the factor `gain`, as they do at another tube voltage or with another
    dose of contrast agent; those under it stay. Air and water keep their values on every scanner, by the definition of
    the unit: a gain below the pivot would push lung out of the scale, which happens to nobody.
    """

    kind = "contrast"
    gain: float
    pivot_hu: float = 40.0

    @override
    def _change(self, hu: np.ndarray, key: str) -> np.ndarray:
        over = np.maximum(hu - np.float32(self.pivot_hu), 0)
        return _where_measured(hu, lambda measured: measured + np.float32(self.gain - 1) * over)


@dataclass(frozen=True)
class ThickSlices(Perturbation):
    """Slices `factor` times as thick and as far apart.

    They are averaged with the triangle filter of all resampling here, and interpolated back to the scan's own slices:
    what is lost along z is lost, and the grid, the labels on it and all metrics stay.
    """

    kind = "slice_thickness"
    factor: float

    @override
    def _change(self, hu: np.ndarray, key: str) -> np.ndarray:
        fine = Grid.of(hu.shape, np.eye(4))
        thick = fine.resized((max(1, round(hu.shape[0] / self.factor)), *hu.shape[1:]))
        along_z = LinearMap.between(thick, fine).z @ LinearMap.between(fine, thick, antialias=True).z

        def average(measured: np.ndarray) -> np.ndarray:
            slices = torch.from_numpy(measured).flatten(1)
            return (along_z.to(slices.dtype) @ slices).reshape(hu.shape).numpy()

        return _where_measured(hu, average)


@dataclass(frozen=True)
class FieldOfView(Perturbation):
    """Only a central box of the scan is there; what lies outside is air.

    Labels outside become background: nobody can find what is not in the picture, and a perfect model loses nothing.
    What a model still finds out there is wrong, and counts.
    """

    kind = "field_of_view"
    changes_labels = True
    kept: tuple[float, float, float]
    """Share of the voxels along (z, y, x) that is kept, in the middle."""

    @override
    def _change(self, hu: np.ndarray, key: str) -> np.ndarray:
        return self._cut(hu, LEAST_HU)

    @override
    def labels(self, labels: np.ndarray) -> np.ndarray:
        return self._cut(labels, 0)

    def _cut(self, array: np.ndarray, outside: float) -> np.ndarray:
        sizes = [max(1, round(share * size)) for share, size in zip(self.kept, array.shape, strict=True)]
        starts = [(size - kept) // 2 for size, kept in zip(array.shape, sizes, strict=True)]
        inside = tuple(slice(start, start + kept) for start, kept in zip(starts, sizes, strict=True))
        cut = np.full_like(array, outside)
        cut[inside] = array[inside]
        return cut


PERTURBATIONS: dict[str, Perturbation] = {
    "noise-30hu": Noise(30.0),
    "noise-100hu": Noise(100.0),
    "shift-minus-50hu": Shift(-50.0),
    "shift-plus-50hu": Shift(50.0),
    "contrast-0.7": Contrast(0.7),
    "contrast-1.4": Contrast(1.4),
    "slices-x2": ThickSlices(2.0),
    "slices-x4": ThickSlices(4.0),
    "fov-plane-0.7": FieldOfView((1.0, 0.7, 0.7)),
    "fov-z-0.5": FieldOfView((0.5, 1.0, 1.0)),
}
"""The suite. A changed level is another name, so that results under a name stay comparable."""


def perturbation(name: str) -> Perturbation:
    """Returns a perturbation of the suite.

    Raises:
        TaskError: If there is none of that name.
    """
    if name not in PERTURBATIONS:
        raise TaskError(f"there is no perturbation '{name}'. {nearest(name, PERTURBATIONS)}")
    return PERTURBATIONS[name]


def _where_measured(hu: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns `hu` with a change of what was measured, which stays on the scanner's scale."""
    changed = np.maximum(change(np.maximum(hu, LEAST_HU)), LEAST_HU)
    return np.where(hu < LEAST_HU, hu, changed).astype(np.float32)
