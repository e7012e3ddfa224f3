"""One factor a channel in front of every head, so that no score depends on the scale of an encoder's features.

A factor carries no information, but a stepped head that starts from small weights and moves by a learning rate sees
features of a thousand as another problem than the same features divided by a thousand. Each channel is divided by its
deviation over the training cases. It is not centred: scans differ in mean, and a head that was trained on centred
features does worse on them (docs/methodology.md has the measurements); a free bias takes the place of the centre.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tapct.encoders.weights import content_sha256
from tapct.errors import FeatureError
from tapct.features.channels import Channels

CONSTANT = 2.0**-9
"""A channel whose deviation is within this share of its magnitude is constant for a stepped head: bf16, in which
features are stored, rounds by as much, and divided by it the rounding would be all that is seen."""

_VALUES_AT_ONCE = 2**22
"""Values that are held in float64 at a time."""


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """What each channel is divided by.

    Attributes:
        divisor: (C,) float64, positive. Of a channel that varies, its deviation over the training values; of a constant
            one its magnitude, which leaves it constant; of one that is 0 throughout, 1.
        constant: How many channels are constant.
    """

    divisor: torch.Tensor
    constant: int

    def divided(self, features: torch.Tensor, dim: int) -> torch.Tensor:
        """Returns features with each channel divided; `dim` is the axis of the channels."""
        shape = [1] * features.ndim
        shape[dim] = -1
        return features * (1 / self.divisor).to(features).view(shape)

    def folded(self, state: Mapping[str, torch.Tensor], names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Returns the weights of a head for features that are not divided.

        Args:
            state: The weights of a head that was trained on divided features.
            names: The parameters that multiply features, with the channels along their second axis.
        """
        return {name: self.divided(tensor, 1) if name in names else tensor for name, tensor in state.items()}

    def describe(self) -> dict[str, Any]:
        """Returns what the record holds: the hash of the divisors, and how they are spread."""
        low, middle, high = torch.quantile(self.divisor, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist()
        return {
            "sha256": content_sha256({"divisor": self.divisor}),
            "channels": len(self.divisor),
            "constant_channels": self.constant,
            "min": low,
            "median": middle,
            "max": high,
        }


@dataclass(frozen=True, eq=False)
class Moments:
    """Of values that come case by case, float64.

    Attributes:
        values: () int64, how many a channel has.
        mean: (C,) their mean.
        squares: (C,) sum of their squared distances from it.
    """

    values: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def over(cls, cases: Iterable[torch.Tensor | Channels]) -> "Moments":
        """Returns the moments of all values of cases.

        Args:
            cases: (C, N) features of each case, read once, one after the other.

        Raises:
            FeatureError: If there is no case.
        """
        each = (cls._of(features) for features in cases)
        first = next(each, None)
        if first is None:
            raise FeatureError("there are no training cases to take the scale of the features from")
        return functools.reduce(cls._with, each, first)

    def scale(self, constant: float = CONSTANT) -> ChannelScale:
        """Returns what these channels are divided by.

        Args:
            constant: A channel is constant whose deviation is within this share of its magnitude.

        Raises:
            FeatureError: If a value was not finite.
        """
        deviation = (self.squares / self.values).sqrt()
        magnitude = (self.mean**2 + deviation**2).sqrt()
        if not torch.isfinite(magnitude).all():
            raise FeatureError("the training features have values that are not finite: check the encoder's precision")
        varies = deviation > constant * magnitude
        divisor = torch.where(varies, deviation, torch.where(magnitude > 0, magnitude, 1.0))
        return ChannelScale(divisor, int((~varies).sum()))

    @classmethod
    def _of(cls, features: torch.Tensor | Channels) -> "Moments":
        count = features.shape[1]
        rows = max(1, _VALUES_AT_ONCE // count)  # all of a case in float64 would take twice what the case does
        parts = [torch.var_mean(part.double(), dim=1, correction=0) for part in features.split(rows)]
        variance, mean = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
        return cls(torch.tensor(count), mean, variance * count)

    def _with(self, other: "Moments") -> "Moments":
        values = self.values + other.values
        apart, share = other.mean - self.mean, other.values.double() / values
        squares = self.squares + other.squares + apart**2 * (self.values * share)
        return Moments(values, self.mean + apart * share, squares)


def log_prior(counts: torch.Tensor) -> torch.Tensor:
    """Returns (K,) log shares of classes, each counted half a time more than it is there: none is minus infinity.

    Args:
        counts: (K,) how often each class occurs.
    """
    counts = counts.double() + 0.5
    return counts.log() - math.log(float(counts.sum()))
