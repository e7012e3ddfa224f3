"""The metrics of the benchmark as torchmetrics, for eva's `results.json`.

eva hands each metric the outputs of a step whose names are arguments of its `update`. torchmetrics lets two
metrics of a collection share their states for good where these have the same names and, after the first
case, the same values: states that may come to differ have different names here.

A number that is undefined is left out, not logged as NaN: eva's recorder ends a session of several runs with
an AttributeError at the first NaN, and writes NaN, which is not JSON, into the results of a single one.
"""

import math

import numpy as np
import torch
import torchmetrics
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

from tapct.metrics import classification
from tapct.metrics.dice import Summary, dice_per_class, summarise


class CaseMean(torchmetrics.Metric):
    """Means over cases of numbers by class, in the orders of `summarise`.

    eva's own metrics read index labels as one-hot when they happen to be four-dimensional, and the Dice of
    torchmetrics changed its meaning twice between 1.6 and 1.8. Numbers by class leave nothing to interpret.
    """

    full_state_update = False

    def _add_states(self, *names: str) -> None:
        for name in names:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def _add(self, name: str, values: np.ndarray | torch.Tensor) -> None:
        getattr(self, name).append(torch.as_tensor(values)[None])

    def _summary(self, name: str) -> Summary | None:
        """Returns the summary of the cases; None where there was none to measure."""
        cases = getattr(self, name)
        return summarise(dim_zero_cat(cases).cpu().numpy()) if len(cases) else None

    def _means(self, name: str) -> dict[str, torch.Tensor]:
        """Returns the headline and the mean over classes; nothing where there was no case."""
        summary = self._summary(name)
        if summary is None:
            return {}
        return _defined(summary.means(name))


class NativeDice(CaseMean):
    """Dice on the scan's own grid, against the untouched labels."""

    def __init__(self) -> None:
        super().__init__()
        self._add_states("dice_native")

    @override
    def update(self, confusion_native: torch.Tensor) -> None:
        """Adds the (K, K) confusion counts of one case."""
        self._add("dice_native", dice_per_class(confusion_native.cpu().numpy()))

    @override
    def compute(self) -> dict[str, torch.Tensor]:
        """Returns the headline and the mean over classes."""
        return self._means("dice_native")


class PaperDice(CaseMean):
    """Dice on the encoder's grid, against the resampled labels, as the paper reports."""

    def __init__(self) -> None:
        super().__init__()
        self._add_states("dice_paper")

    @override
    def update(self, confusion_paper: torch.Tensor) -> None:
        """Adds the (K, K) confusion counts of one case."""
        self._add("dice_paper", dice_per_class(confusion_paper.cpu().numpy()))

    @override
    def compute(self) -> dict[str, torch.Tensor]:
        """Returns the headline and the mean over classes."""
        return self._means("dice_paper")


class NativeSurface(CaseMean):
    """NSD and HD95 on the scan's own grid, and how many HD95 there are not because a class was missed.

    A class in only one of prediction and reference has NSD 0 and no HD95: without the count, a probe that
    finds less would show the better HD95.
    """

    def __init__(self) -> None:
        super().__init__()
        self._add_states("nsd_native", "hd95_mm_native")

    @override
    def update(self, nsd_native: torch.Tensor | None, hd95_mm_native: torch.Tensor | None) -> None:
        """Adds the (K,) numbers of one case; None where they were not measured, to keep training fast."""
        if nsd_native is not None and hd95_mm_native is not None:
            self._add("nsd_native", nsd_native)
            self._add("hd95_mm_native", hd95_mm_native)

    @override
    def compute(self) -> dict[str, torch.Tensor]:
        """Returns the headlines, the means over classes and the count; nothing where nothing was measured."""
        nsd, hd95 = self._summary("nsd_native"), self._summary("hd95_mm_native")
        if nsd is None or hd95 is None:
            return {}
        one_sided = _defined({"hd95_mm_native_one_sided": float(hd95.undefined_entries - nsd.undefined_entries)})
        return {**self._means("nsd_native"), **self._means("hd95_mm_native"), **one_sided}


class LabelMetric(torchmetrics.Metric):
    """A metric of all (case, label) pairs. These share their states: what they add is the same."""

    full_state_update = False
    logits: list[torch.Tensor]
    targets: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    @override
    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Adds logits (B, labels) and 0/1 targets of any dtype (the loss wants floats), NaN where they are missing."""
        self.logits.append(preds.detach())
        self.targets.append(target)

    @override
    def compute(self) -> dict[str, torch.Tensor]:
        """Returns the metric by the name of its class; nothing where it is undefined."""
        logits, targets = (dim_zero_cat(of).double().cpu().numpy() for of in (self.logits, self.targets))
        name = type(self).__name__
        return _defined({name: classification.value(name, logits, targets)})


class MicroAUROC(LabelMetric):
    """AUROC over all (case, label) pairs; of one label, the plain AUROC."""


class MicroAP(LabelMetric):
    """Average precision over all (case, label) pairs; of one label, the plain average precision."""


class MacroAUROC(LabelMetric):
    """Mean over labels of the AUROC over cases; labels with few positives or negatives are none of them."""


class MacroAP(LabelMetric):
    """Mean over the same labels of the average precision over cases."""


class MacroAPSkill(LabelMetric):
    """Mean over the same labels of the average precision between that of chance, 0, and 1."""


class BalancedAccuracy(LabelMetric):
    """Mean over the same labels of the balanced accuracy at a logit of 0."""


class CalibrationError(LabelMetric):
    """Expected calibration error over all (case, label) pairs; less is better."""


class UndefinedLabels(LabelMetric):
    """Labels without both a positive and a negative case."""


class RareLabels(LabelMetric):
    """Labels with both, but with too few of one for the means over labels."""


def _defined(values: dict[str, float]) -> dict[str, torch.Tensor]:
    # In float64: what is logged is what is recorded, and a score of selection is compared with.
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items() if not math.isnan(value)}
