"""Curia (Raidium): a 2D DINOv2 ViT-B with SwiGLU, trained on the CT and MR slices of one hospital.

Facts: raidium-med/curia: save_model.py (configuration, names in the file), extract_feat_LP.py (LPS array, raw HU,
512 pixels, CLS), and the published curia_image_processor.py (z-score of each slice with `std` unbiased).

* The file holds the names of transformers 4. transformers 5 renamed the network, and renames a file only inside
  `from_pretrained`, which loads without strictness; so the names are mapped here and loading stays strict. The
  MLP variant of the network is 0.01 % smaller: only its names tell it apart, and strict loading refuses it.
* Each slice is normalised by itself: the first published processor used one z-score for a whole volume when it
  was given one, and slices one at a time are what both versions agree on.
* HU are not clipped: the processor has `clip_below_air` (at -1000), but off unless the training configuration, which
  is not public, set it. The published setting of the successor is on (`baselines/curia_2.py`); `clip_below_air=True`
  clips here as well. Scans that are padded with -2000 or -3024 HU differ a lot.
* The processor resizes with an antialiased bicubic; here the harness resizes (a slice of 512 pixels needs neither).
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights

PATCH = 16  # save_model.py; extract_feat_LP.py: 512 pixels are 32 x 32 tokens
AIR_HU = -1000.0  # curia_image_processor.py: where clip_below_air clips
MIN_STD = 1e-6  # curia_image_processor.py: a slice of less spread is centred only

# Names in the file (transformers 4) -> names in the network (transformers 5).
RENAMED = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
    ".mlp.weights_out.": ".mlp.down_proj.",
}
FUSED = ".mlp.weights_in."  # gate and up projection in one matrix, the gate (under the SiLU) first


class Curia(Encoder):
    """Curia-B."""

    authors = "baselines.authors.curia:CuriaAuthors"
    card: EncoderCard = EncoderCard(
        name="curia",
        display_name="Curia",
        window_size=(1, 512, 512),
        spacing_mm=None,
        in_plane_size=512,
        pad_hu=AIR_HU,  # its own pipeline resizes and never pads
        feature_stride=(1, PATCH, PATCH),
        feature_dim=768,
        embedding_dim=768,
        has_cls=True,
        num_params=86_072_832,
        weights=Weights(
            repository="huggingface.co/raidium/curia",
            file="model.safetensors",
            licence="research-only RAIL-M",
            gated=True,
        ),
        pretraining_data=("in-house CT and MR of one hospital, 150,000 exams",),
        reference="Dancette et al., Curia: A Multi-Modal Foundation Model for Radiology, arXiv 2509.06830, 2025 "
        "(whether its training clipped below air is not known: off here, on in the published setting of its successor)",
    )

    def __init__(self, weights: str | Path | None = None, *, clip_below_air: bool = False, **options: Any) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            clip_below_air: Whether HU below -1000 are raised to it, before the slice's mean and deviation are taken.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        self.clip_below_air = clip_below_air
        super().__init__(weights, **options)

    def build(self) -> nn.Module:
        """Returns the vision transformer: ViT-B/16 at 512 pixels, one channel, no registers."""
        from transformers import Dinov2Config, Dinov2Model

        return Dinov2Model(
            Dinov2Config(image_size=512, patch_size=PATCH, num_channels=1, use_swiglu_ffn=True, use_mask_token=True)
        )

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        clip = "on" if self.clip_below_air else "off"
        return InputSheet(
            orientation="authors: extract_feat_LP.py, slices of (y, x) arrays",
            grid="authors: extract_feat_LP.py, 512 pixels",
            resizing=Declared("antialiased bicubic", "authors: curia_image_processor.py"),
            hu_window=HuWindow(
                AIR_HU if self.clip_below_air else -math.inf,
                math.inf,
                f"authors: curia_image_processor.py, clip_below_air (here {clip})",
            ),
            normalisation=Declared("z-score of each slice, unbiased deviation", "authors: curia_image_processor.py"),
            padding="ours: air; their pipeline resizes and never pads",
            window="authors: extract_feat_LP.py",
            patches="authors: save_model.py, patches",
            embedding=Declared("after the final norm", "authors: extract_feat_LP.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        x = windows_hu.squeeze(2)
        x = x.clamp(min=AIR_HU) if self.clip_below_air else x
        # In one pass (Welford) a constant slice has a deviation of exactly 0. That of `x.std()` next to `x.mean()` is
        # rounding, which can be more than MIN_STD and would be blown up to unit variance.
        std, mean = torch.std_mean(x, dim=(-2, -1), keepdim=True)
        x = (x - mean) / torch.where(std < MIN_STD, 1.0, std)
        tokens = self.network(pixel_values=x).last_hidden_state  # CLS first, after the final norm
        grid = (1, x.shape[-2] // PATCH, x.shape[-1] // PATCH)
        return Features(tokens[:, 1:].transpose(1, 2).unflatten(2, grid), tokens[:, 0], tokens[:, 0])

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        renamed: dict[str, torch.Tensor] = {}
        for key, value in state_dict.items():
            for old, new in RENAMED.items():
                key = key.replace(old, new)
            if FUSED in key:
                gate, up = value.chunk(2)
                renamed |= {key.replace(FUSED, ".mlp.gate_proj."): gate, key.replace(FUSED, ".mlp.up_proj."): up}
            else:
                renamed[key] = value
        return renamed
