"""The metrics of the benchmark as torchmetrics, for eva's `results.json`."""

import numpy as np
import torch
import torchmetrics
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision
from typing_extensions import override

from tapct.metrics.dice import dice_per_class, summarise


class CaseDice(torchmetrics.Metric):
    """Mean Dice over cases from per-case confusion counts.

    eva's own metrics read index labels as one-hot when they happen to be four-dimensional, and the Dice of
    torchmetrics changed its meaning twice between 1.6 and 1.8. Counts leave nothing to interpret.
    """

    higher_is_better = True
    full_state_update = False
    dice: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("dice", default=[], dist_reduce_fx="cat")

    def _add(self, confusion: torch.Tensor) -> None:
        self.dice.append(torch.from_numpy(dice_per_class(confusion.cpu().numpy()))[None])

    def _summaries(self, name: str) -> dict[str, torch.Tensor]:
        summary = summarise(np.concatenate([d.cpu().numpy() for d in self.dice]))
        return {
            f"dice_{name}": torch.tensor(summary.headline),
            f"dice_{name}_class_mean": torch.tensor(summary.class_mean),
        }


class NativeDice(CaseDice):
    """Dice on the scan's own grid, against the untouched labels."""

    @override
    def update(self, confusion_native: torch.Tensor) -> None:
        """Adds the (K, K) confusion counts of one case."""
        self._add(confusion_native)

    @override
    def compute(self) -> dict[str, torch.Tensor]:
        """Returns the headline and the mean over classes."""
        return self._summaries("native")


class PaperDice(CaseDice):
    """Dice on the encoder's grid, against the resampled labels, as the paper reports."""

    @override
    def update(self, confusion_paper: torch.Tensor) -> None:
        """Adds the (K, K) confusion counts of one case."""
        self._add(confusion_paper)

    @override
    def compute(self) -> dict[str, torch.Tensor]:
        """Returns the headline and the mean over classes."""
        return self._summaries("paper")


class MicroAUROC(BinaryAUROC):
    """AUROC over all (case, label) pairs; of one label, the plain AUROC."""

    @override
    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Adds logits (B, labels) and 0/1 targets of any dtype (the loss wants floats, torchmetrics integers)."""
        super().update(preds.flatten().sigmoid(), target.flatten().long())


class MicroAP(BinaryAveragePrecision):
    """Average precision over all (case, label) pairs; of one label, the plain average precision."""

    @override
    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Adds logits (B, labels) and 0/1 targets of any dtype."""
        super().update(preds.flatten().sigmoid(), target.flatten().long())
