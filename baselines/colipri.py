"""COLIPRI-CRM (Microsoft): a Primus ViT of 3D patches, trained on chest CT with its reports.

Facts: the authors' package colipri 0.1.3: configs/config.yaml and configs/processor (orientation, spacing, HU range,
window, padding), model/image.py and pooling.py (what is projected and pooled).

* **Open: the orientation.** Releases 0.1.0 and 0.1.1 turn scans to SAR, as the README still says; 0.1.2 and 0.1.3, with
  the same weights, to RAS. One of the two is not what the network was trained on, and their maps differ by half of
  their length. The newest is the default, `orientation="SAR"` the other.
* The map is the backbone's, which the package gives by default (864 channels; the README's 768 are an older version's).
  `features="aligned"` is the map in the space of the reports: the pooler's value and output projections at every patch.
* The embedding is what the authors compare with reports, but for its length: they divide by it, `normalise=True` too.
* Positions count from the corner of each window, so that any canvas can be given; the authors' is the window here.
* The padding is the smallest value of the clipped scan, as in the package: air, unless a scan has none.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import linear, normalize

from baselines.primus import PATCH, Primus
from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.errors import EncoderError

CLIP_HU = (-1000.0, 1000.0)  # to -1..1
DIM, DEPTH, HEADS = 864, 16, 12
PROJECTED, POOLING_HEADS = 768, 12

PREFIX = "image_encoder."
# Dropped on purpose: the encoder of reports, their temperature, and the token of masked pretraining.
DROPPED = ("text_encoder.", "softmax_temperature", "image_encoder.backbone.mask_token")


class Colipri(Encoder):
    """COLIPRI's image encoder."""

    axes = "RAS"
    authors = "baselines.authors.colipri:ColipriAuthors"
    card = EncoderCard(
        name="colipri",
        display_name="COLIPRI-CRM",
        window_size=(192, 192, 192),
        spacing_mm=(2.0, 2.0, 2.0),
        in_plane_size=None,
        in_plane_filter="linear",  # configs/processor: antialias is false
        pad_hu=CLIP_HU[0],  # or the scan's smallest value: see `scan_statistics`
        feature_stride=(PATCH, PATCH, PATCH),
        feature_dim=DIM,
        embedding_dim=PROJECTED,
        has_cls=False,
        num_params=147_112_224,
        weights=Weights(repository="huggingface.co/microsoft/colipri", file="model.safetensors", licence="MIT"),
        pretraining_data=("CT-RATE", "NLST"),
        reference="Wald et al., Comprehensive language-image pre-training for 3D medical image understanding, "
        "arXiv 2510.15042, 2026 "
        "(orientation: RAS as in release 0.1.3, SAR as in 0.1.0, with the same weights; not settled by the authors)",
    )

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        orientation: Literal["RAS", "SAR"] = "RAS",
        features: Literal["tokens", "aligned"] = "tokens",
        normalise: bool = False,
        **options: Any,
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            orientation: How scans are turned: see the module.
            features: What the map is: "tokens", the backbone's last layer (864 channels), or "aligned", in the space of
                reports (768).
            normalise: Whether the features of each patch, and each embedding, are divided by their length.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        for name, value, known in (
            ("orientation", orientation, ("RAS", "SAR")),
            ("features", features, ("tokens", "aligned")),
        ):
            if value not in known:
                raise EncoderError(f"{self.card.name}: {name} must be one of {', '.join(known)}, not {value!r}")
        self.axes, self.features, self.normalise = orientation, features, normalise
        super().__init__(weights, **options)
        if features == "aligned":
            self.card = dataclasses.replace(self.card, feature_dim=PROJECTED)

    def build(self) -> nn.Module:
        """Returns backbone, projector and pooler."""
        return ImageEncoder(Primus(DIM, DEPTH, HEADS))

    def scan_statistics(self, scan_hu: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the smallest value of the clipped scan, which is what padding is raised to."""
        return {"least_hu": scan_hu.flatten(1).amin(1).clamp(*CLIP_HU)}

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        in_release = "authors: release 0.1.3" if self.axes == "RAS" else "authors: release 0.1.0"
        return InputSheet(
            orientation=in_release,
            grid="authors: configs/config.yaml",
            resizing=Declared("linear (TorchIO), without averaging", "authors: configs/processor"),
            hu_window=HuWindow(*CLIP_HU, "authors: configs/processor"),
            normalisation=Declared("the HU window to -1 to 1, linear", "authors: configs/processor"),
            padding="authors: configs/processor, the clipped scan's smallest value",
            window="authors: configs/processor",
            patches="authors: model/image.py, patches",
            embedding=Declared("attention from the mean of the projected patches", "authors: model/pooling.py"),
        )

    def _encode(self, windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor]) -> Features:
        x = windows_hu.clamp(*CLIP_HU).maximum(statistics["least_hu"])
        found, embedding = self.network(x / CLIP_HU[1], aligned=self.features == "aligned")
        if self.normalise:
            found, embedding = normalize(found.float()), normalize(embedding.float())
        return Features(found, embedding, None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {key.removeprefix(PREFIX): value for key, value in state_dict.items() if not key.startswith(DROPPED)}


class ImageEncoder(nn.Module):
    """Backbone, projector and pooler under the names of the published file."""

    def __init__(self, backbone: Primus, dim: int = DIM) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = nn.Conv3d(dim, PROJECTED, kernel_size=1)
        self.pooler = _Pooler()

    def forward(self, x: torch.Tensor, *, aligned: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the map (B, 864 or, aligned, 768, d, h, w), and the embedding (B, 768)."""
        tokens = self.backbone(x)
        projected = self.projector(tokens)
        return self.pooler.aligned(projected) if aligned else tokens, self.pooler(projected)


class _Pooler(nn.Module):
    """Attends to the patches of a map from their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(PROJECTED, POOLING_HEADS, batch_first=True)

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        """Returns an embedding (B, 768) of each map."""
        tokens = projected.flatten(2).transpose(1, 2)
        pooled, _ = self.attn(tokens.mean(1, keepdim=True), tokens, tokens, need_weights=False)
        return pooled.squeeze(1)

    def aligned(self, projected: torch.Tensor) -> torch.Tensor:
        """Returns what each patch would add to the embedding if it alone were attended to, (B, 768, d, h, w)."""
        value, bias = (whole[2 * PROJECTED :] for whole in (self.attn.in_proj_weight, self.attn.in_proj_bias))
        return self.attn.out_proj(linear(projected.movedim(1, -1), value, bias)).movedim(-1, 1)
