"""SPECTRE-Large (Claessens et al., CVPR 2026): a 3D vision transformer, DINO and report alignment on open CT.

Facts from the authors' package spectre-fm 0.2.1: presets.py and models/vision_transformer.py (network), models/layers/
(attention, rotary positions), windowing.py and io.py (orientation, HU range, crops), LICENSE_MODELS; from their
repository at 9260676: src/spectre/ssl/transforms/ (spacing), src/spectre/configs/ (data).

* The norms have an epsilon of 1e-5: the presets pass torch's LayerNorm, not the class's own default of 1e-6.
* Queries have a matrix of their own in the file, keys and values share one; they are joined here.
* The network takes windows of its own size alone, 128 x 128 x 64 (x, y, z), as the authors' does.
* Spacing: the published file's last stage (report alignment) was trained at 0.75 x 0.75 x 1.5 mm (x, y, z), which is
  taken here; the stage before it at 0.5 x 0.5 x 1 mm; the authors' command `spectre embed` keeps the scan's own
  (`spacing_mm=null` here). They clip before they resample, the harness after: at borders beyond 1000 HU the two differ.
* A second network, the combiner (another file), makes one embedding of the crops of a whole scan. It is not built: an
  embedding here is of a window. What the combiner is given of each crop is the option `embedding=cls_and_mean`.
"""

from typing import Any

import torch
from torch import nn

from baselines.rotary_vit import RotaryViT, RotaryViTEncoder
from tapct.encoders import Declared, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.encoders.weights import joined

HU_RANGE = (-1000.0, 1000.0)  # to 0..1: windowing.py, DEFAULT_HU_RANGE
DIM, DEPTH, HEADS = 1080, 24, 12
PATCH = (16, 16, 8)  # x, y, z
WINDOW = (64, 128, 128)  # z, y, x: windowing.py, DEFAULT_CROP_SIZE
ROPE_BASE = 1000.0  # presets.py, BACKBONE_KWARGS

# dino_default.yaml; of these CT-RATE, INSPECT and Merlin also with reports (siglip_default.yaml).
PRETRAINING_DATA = ("AbdomenAtlas", "AbdomenCT-1K", "AMOS22", "CT-RATE", "INSPECT", "Merlin", "NLST", "PANORAMA")


class Spectre(RotaryViTEncoder):
    """SPECTRE-Large's backbone (ViT-Local, the file after report alignment)."""

    axes = "RAS"  # io.py: as_closest_canonical
    authors = "baselines.authors.spectre:SpectreAuthors"
    card = EncoderCard(
        name="spectre",
        display_name="SPECTRE-Large",
        window_size=WINDOW,
        spacing_mm=(1.5, 0.75, 0.75),
        in_plane_size=None,
        in_plane_filter="linear",  # io.py and siglip_transform.py: MONAI's bilinear, which averages nothing
        pad_hu=HU_RANGE[0],  # windowing.py pads with 0 after scaling
        feature_stride=(8, 16, 16),
        feature_dim=DIM,
        embedding_dim=DIM,
        has_cls=True,
        num_params=338_528_160,
        weights=Weights(
            repository="huggingface.co/cclaess/SPECTRE",
            file="spectre_backbone_vit_large_patch16_128.pt",
            licence="CC BY-NC-SA 4.0 (LICENSE_MODELS); the code is MIT",
        ),
        pretraining_data=PRETRAINING_DATA,
        reference="Claessens et al., Scaling Self-Supervised and Cross-Modal Pretraining for Volumetric CT "
        "Transformers, CVPR 2026 (arXiv 2511.17209)",
    )

    def build(self) -> nn.Module:
        """Returns the vision transformer."""
        return RotaryViT(
            dim=DIM,
            depth=DEPTH,
            heads=HEADS,
            patch=PATCH,
            periods=_periods(),
            qkv_bias=True,
            norm_eps=1e-5,
            layer_scale=1.0,
        )

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Takes its own window alone: patch_embed.py refuses any other."""
        return size == WINDOW

    def input_requirement(self) -> str:
        """Returns what `supports` asks of a window's size, for its error."""
        return f"its authors' network takes {WINDOW} alone"

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: io.py, as_closest_canonical",
            grid="authors: report alignment in src/spectre/ssl/transforms",
            resizing=Declared(
                "bilinear, in MONAI without averaging, after clipping", "authors: src/spectre/ssl/transforms"
            ),
            hu_window=HuWindow(*HU_RANGE, "authors: windowing.py, DEFAULT_HU_RANGE"),
            normalisation=Declared("the HU window to 0 to 1, linear", "authors: windowing.py"),
            padding="authors: windowing.py, 0 after scaling",
            window="authors: windowing.py, DEFAULT_CROP_SIZE",
            patches="authors: presets.py, patches",
            embedding=Declared(self.embedding_text(), "authors: models/vision_transformer.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = HU_RANGE
        return self._features(((windows_hu - low) / (high - low)).clamp(0.0, 1.0))

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Joins the matrices of queries and of keys and values; nothing is dropped."""
        self._check_periods(state_dict, "rope.periods", _periods())
        ours = dict(state_dict)
        for query in [key for key in state_dict if ".attn.q." in key]:
            rest = query.replace(".attn.q.", ".attn.kv.")
            if rest in ours:
                ours[query.replace(".attn.q.", ".attn.qkv.")] = joined(ours, query, rest)
                del ours[query], ours[rest]
        return ours


def _periods() -> torch.Tensor:
    turning = DIM // HEADS // 6  # pairs of channels that an axis turns
    return ROPE_BASE ** (2 * torch.arange(turning) / (2 * turning))
