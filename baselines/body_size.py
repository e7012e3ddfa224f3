"""Body size: how much of a person is in the scan, and nothing else of it.

The bar for predicted numbers. Ages, organ volumes and lung functions go with how large somebody is and how much of them
was scanned; a number that a model predicts no better than this is no evidence that it has looked at anything.
"""

import math

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.volumes.body import BODY_ABOVE_HU, body_mask

SPACING_MM = 4.0
"""Of the grid on which the body is measured: a voxel is 0.064 ml, and an opening drops what is under 12 mm thick."""

VOXEL_LITRES = SPACING_MM**3 / 1e6


class BodySize(Encoder):
    """One feature: the volume in litres of the body mask of the whole scan, the same in every patch and window.

    The mask is the one of `tapct.volumes.body`, which pretraining has as well: with the air inside the body, without
    table and clothes.
    """

    card = EncoderCard(
        name="body-size",
        display_name="Body size",
        window_size=(64, 64, 64),
        spacing_mm=(SPACING_MM, SPACING_MM, SPACING_MM),
        in_plane_size=None,
        pad_hu=-1024.0,
        feature_stride=(8, 8, 8),
        feature_dim=1,
        embedding_dim=1,
        has_cls=False,
        num_params=0,
        weights=Weights(needed=False),
        reference="a baseline of TAP-CT Bench",
    )

    def build(self) -> nn.Module:
        """Returns a network that does nothing."""
        return nn.Identity()

    def scan_statistics(self, scan_hu: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the volume of the body in each scan, in litres."""
        voxels = [int(body_mask(scan.cpu().numpy()).sum()) for scan in scan_hu[:, 0]]
        return {"body_litres": torch.tensor(voxels, device=scan_hu.device).double().mul(VOXEL_LITRES).float()}

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="ours: as the harness has it",
            grid="ours: coarse, as a volume needs no more",
            hu_window=HuWindow(-math.inf, math.inf, "ours: a threshold, see below"),
            normalisation=Declared(
                f"above {BODY_ABOVE_HU} HU, opened, largest parts, holes filled: the body", "ours: tapct.volumes.body"
            ),
            padding="ours: air",
            window="ours: any, as all say the same",
            patches="ours: any, as all say the same",
            embedding=Declared("the volume of the body in the whole scan, in litres", "ours: a baseline"),
        )

    def _encode(self, windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor]) -> Features:
        patches = [size // step for size, step in zip(windows_hu.shape[2:], self.card.feature_stride, strict=True)]
        litres = statistics["body_litres"]
        return Features(litres.expand(-1, 1, *patches), litres.flatten(1), None)
