"""CoralBay (kaiko.ai): the encoder of SwinUNETR, self-supervised on 11,000 CTs.

Facts: the model card of kaiko-ai/coralbay (spacing, HU range, crop) and eva 0.4.5's SwinUNETREncoder (network, which
maps make the embedding). The network is that of `baselines/voco.py` but for the patch merging.

* **Open: the orientation.** The card sets none, so that an array is as its file has it; a third party turns to RAS, the
  default here. `orientation="LPS"` is what files have that were written of DICOM in its own axes.
* **Open: the patch merging.** eva allows MONAI from 1.3.2 on and locks 1.3.2; since 1.5 MONAI has another one under the
  same names, and that is what users get today: the default. `merging="monai-1.4"` is the one before. The four readings
  give maps that differ by two thirds of their length.
* The names in the file are inferred, not read: `encoder.` before those of eva's class.
* A window needs two patches at least: the instance norm of a single voxel is undefined.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from baselines.voco import multiscale, swin_encoder
from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.encoders.patch_merging import MergingVersion
from tapct.errors import EncoderError

CLIP_HU = (-1000.0, 1000.0)  # to 0..1: the model card
ORIENTATIONS = ("RAS", "LPS")


class CoralBay(Encoder):
    """CoralBay's encoder."""

    axes = "RAS"
    least_patches = 2  # instance norm on the last map
    authors = "baselines.authors.coralbay:CoralBayAuthors"
    card = EncoderCard(
        name="coralbay",
        display_name="CoralBay",
        window_size=(192, 192, 192),  # the model card crops to it
        spacing_mm=(1.5, 1.5, 1.5),
        in_plane_size=None,
        in_plane_filter="linear",  # the card: bilinear, which in MONAI averages nothing
        pad_hu=CLIP_HU[0],
        feature_stride=(32, 32, 32),
        feature_dim=768,
        embedding_dim=1152,
        has_cls=False,
        num_params=53_164_146,
        weights=Weights(
            repository="huggingface.co/kaiko-ai/coralbay",  # its own snippet loads kaiko-ai-user/coralbay
            file="model.safetensors",
            licence="MIT (stated by a third party, not read on its page)",
        ),
        pretraining_data=("11,000 CTs (which is not established)",),
        reference="CoralBay, arXiv 2606.03888, 2026 "
        "(orientation RAS and the patch merging of MONAI 1.5: which ones it was trained with is open)",
    )

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        orientation: Literal["RAS", "LPS"] = "RAS",
        merging: MergingVersion = "monai-1.5",
        stride: Literal[32, 16] = 32,
        **options: Any,
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            orientation: How scans are turned, (x, y, z) towards these: see the module.
            merging: The patch merging, by the MONAI that has it: see the module.
            stride: Which map: 32, the deepest (768 channels), or 16, the transformer's last but one (384), which no
                convolution follows. The embedding is the same.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        for name, value, known in (
            ("orientation", orientation, ORIENTATIONS),
            ("merging", merging, get_args(MergingVersion)),
            ("stride", stride, (32, 16)),
        ):
            if value not in known:
                raise EncoderError(
                    f"{self.card.name}: {name} must be one of {', '.join(map(str, known))}, not {value!r}"
                )
        self.axes, self.merging, self.stride = orientation, merging, stride
        super().__init__(weights, **options)
        if stride == 16:
            self.card = dataclasses.replace(
                self.card, feature_stride=(16, 16, 16), feature_dim=self.card.feature_dim // 2
            )

    def build(self) -> nn.Module:
        """Returns the encoder.

        Raises:
            EncoderError: If this MONAI builds no patch merging.
        """
        return swin_encoder(self.card.name, self.merging)

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Takes multiples of 32, two patches of it at least, whichever map is asked for."""
        return all(n > 0 and n % 32 == 0 for n in size) and max(size) > 32

    def input_requirement(self) -> str:
        """Returns what `supports` asks of a window's size, for its error."""
        return "each size must be a multiple of 32, and one of them more than 32"

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        inferred = "third party: turns scans to RAS; the model's page names no orientation"
        return InputSheet(
            orientation=inferred if self.axes == "RAS" else "ours: the option orientation",
            grid="authors: the model's page",
            resizing=Declared("bilinear, in MONAI without averaging", "authors: the model's page"),
            hu_window=HuWindow(*CLIP_HU, "authors: the model's page"),
            normalisation=Declared("the HU window to 0 to 1, linear", "authors: the model's page"),
            padding="ours: the low end of the HU window",
            window="authors: the model's page, which crops to it",
            patches="authors: eva 0.4.5, SwinUNETREncoder",
            embedding=Declared("means of all five stages", "authors: eva 0.4.5, SwinUNETREncoder"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = CLIP_HU
        maps = self.network((windows_hu.clamp(low, high) - low) / (high - low))
        return Features(maps[-1 if self.stride == 32 else -2], multiscale(maps), None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {re.sub(r"^encoder\.", "", key): tensor for key, tensor in state_dict.items()}
