"""Mean and deviation of the targets of the training cases: the constant answer, and the unit of a stepped head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapct.errors import TaskError


@dataclass(frozen=True, eq=False)
class TargetScale:
    """Of the training cases alone.

    Attributes:
        mean: (K,) float64, in the unit of each target.
        deviation: (K,) float64, of the population; positive.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray, names: Sequence[str]) -> "TargetScale":
        """Returns the scale of training targets.

        Args:
            targets: (N, K) float64, NaN where one is missing.
            names: Of the K targets.

        Raises:
            TaskError: If no training case has a target, or all have it alike.
        """
        known = [of_target[~np.isnan(of_target)] for of_target in targets.T]
        for name, values in zip(names, known, strict=True):
            if not len(values):
                raise TaskError(f"none of {len(targets)} training cases has {name}: there is nothing to learn it from")
            if (values == values[0]).all():
                raise TaskError(
                    f"{name} is {values[0]:g} in all {len(values)} training cases that have it: a constant cannot be "
                    "learnt. Is it the right column, and are there enough training cases?"
                )
        mean, deviation = (np.array([f(values) for values in known]) for f in (np.mean, np.std))
        return cls(mean, deviation)
