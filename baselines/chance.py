"""Chance: features that say nothing, so that a probe learns how often each answer is right and no more."""

import torch
from torch import nn

from baselines.intensity import baseline_card
from tapct.encoders import Encoder, Features


class Chance(Encoder):
    """One feature, zero everywhere: what is left of a head is its bias.

    A segmentation head then predicts one class in every voxel (the background, or, where the selection cases prefer
    it, the organ that fills most of a scan); a classification head gives each label one probability for all cases,
    an AUROC of 0.5. What an encoder does better than this, it does by looking at the scan.
    """

    card = baseline_card("chance", "Chance", 1)

    def build(self) -> nn.Module:
        """Returns a network that does nothing."""
        return nn.Identity()

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        stride = self.card.feature_stride
        patches = [size // step for size, step in zip(windows_hu.shape[2:], stride, strict=True)]
        return Features(
            windows_hu.new_zeros(len(windows_hu), 1, *patches), windows_hu.new_zeros(len(windows_hu), 1), None
        )
