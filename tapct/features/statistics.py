"""What features look like, taken where they pass, to notice an encoder that says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tapct.features.channels import Channels

CASES = 16
"""Cases that are looked at; each costs three passes over its features."""

_VALUES_AT_ONCE = 2**22
"""Values that are held in float32 at a time."""

CONSTANT = 1e-6
"""A channel is constant if its values lie within this share of the largest."""


@dataclass(frozen=True)
class _Case:
    """One case: per channel (C,), float64, of its N values."""

    values: int
    mean: torch.Tensor
    variance: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    non_finite: int

    def is_like(self, other: "_Case") -> bool:
        """Returns whether both are the same to the bit, as far as these numbers tell."""
        pairs = ((self.mean, other.mean), (self.variance, other.variance), (self.low, other.low))
        return self.values == other.values and all(torch.equal(a, b) for a, b in pairs)


class FeatureStatistics:
    """Statistics of what a head sees of the first training cases."""

    def __init__(self) -> None:
        self._cases: dict[str, _Case] = {}

    def needs(self, case: str) -> bool:
        """Returns whether a case is still to be looked at."""
        return case not in self._cases and len(self._cases) < CASES

    def add(self, case: str, features: torch.Tensor | Channels) -> None:
        """Looks at a case.

        Args:
            case: Its name.
            features: (C, N) channels and values.
        """
        rows = max(1, _VALUES_AT_ONCE // features.shape[1])  # a whole bag in float32 would be twice what is stored
        dtype = torch.promote_types(features.dtype, torch.float32)
        parts = [_of_channels(part.to(dtype)) for part in features.split(rows)]
        mean, variance, low, high = (torch.cat(each) for each in zip(*(part[:4] for part in parts), strict=True))
        non_finite = sum(part[4] for part in parts)
        self._cases[case] = _Case(features.shape[1], mean, variance, low, high, non_finite)

    def state(self) -> dict[str, dict[str, Any]]:
        """Returns what is known of the cases so far, as a checkpoint holds it."""
        return {name: dict(vars(case)) for name, case in self._cases.items()}

    def load(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes the place of the statistics that `state` was called on."""
        self._cases = {name: _Case(**case) for name, case in state.items()}

    def describe(self) -> dict[str, Any] | None:
        """Returns the statistics of the cases so far, as JSON has them; None where there was no case.

        `min`, `max`, `mean` and `std` are over all values (`std` within channels); they and `constant_channels` are
        None where a value is not finite. `repeated_cases` have the features of a case before them, to the bit.
        """
        cases = list(self._cases.values())
        if not cases:
            return None
        repeated = sum(any(case.is_like(before) for before in cases[:i]) for i, case in enumerate(cases))
        found = {
            "cases": len(cases),
            "channels": len(cases[0].mean),
            "values_per_channel": sum(case.values for case in cases),
            "non_finite": sum(case.non_finite for case in cases),
            "repeated_cases": repeated,
        }
        return found | _distribution(cases, is_finite=found["non_finite"] == 0)


def _of_channels(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Returns mean, variance, lowest and highest value of (C, N) features, and how many of them are not finite."""
    variance, mean = torch.var_mean(features, dim=1, correction=0)
    low, high = torch.aminmax(features, dim=1)
    finite = bool(torch.isfinite(variance).all())
    non_finite = 0 if finite else int((~torch.isfinite(features)).sum())
    mean, variance, low, high = (each.double().cpu() for each in (mean, variance, low, high))
    return mean, variance, low, high, non_finite


def _distribution(cases: list[_Case], *, is_finite: bool) -> dict[str, float | int | None]:
    if not is_finite:
        return dict.fromkeys(("constant_channels", "min", "max", "mean", "std"))
    share = torch.tensor([case.values for case in cases], dtype=torch.float64)
    share = (share / share.sum())[:, None]
    low = torch.stack([case.low for case in cases]).amin(dim=0)
    high = torch.stack([case.high for case in cases]).amax(dim=0)
    means, variances = (torch.stack(each) for each in ([c.mean for c in cases], [c.variance for c in cases]))
    mean = (share * means).sum(dim=0)
    variance = (share * (variances + (means - mean) ** 2)).sum(dim=0)
    return {
        "constant_channels": int((high - low <= CONSTANT * torch.maximum(low.abs(), high.abs())).sum()),
        "min": float(low.min()),
        "max": float(high.max()),
        "mean": float(mean.mean()),
        "std": float(variance.mean().sqrt()),
    }
