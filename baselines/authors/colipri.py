"""COLIPRI by its authors' package."""

from pathlib import Path
from typing import Any

import nibabel
import torch
from torch import nn

from baselines import colipri
from tapct.encoders import Authors, Encoder, Features

PRIMUS = ("dynamic-network-architectures==0.4.4", "timm>=1.0.16,<1.0.23")
"""The class of the network, and the timm on which it builds."""


class ColipriAuthors(Authors):
    """The package's model and processor, on a smaller canvas: that changes no weight."""

    source = "colipri 0.1.3"
    requires = ("colipri==0.1.3", *PRIMUS)
    canvas = 24

    def __init__(self, encoder: Encoder, code: Path | None = None) -> None:
        super().__init__(encoder, code)
        self.axes = encoder.options.get("orientation", "RAS")

    def window_for(self, encoder: Encoder) -> tuple[int, int, int]:
        """Returns a cube: the package has one number for all axes."""
        return self.canvas, self.canvas, self.canvas

    def build(self) -> nn.Module:
        """Returns the package's model without its encoder of reports."""
        from colipri import get_model  # type: ignore[import-not-found]
        from colipri.checkpoint import load_model_config  # type: ignore[import-not-found]

        config = load_model_config(overrides=[f"input_size={self.canvas}"])
        config.image_encoder.backbone.eva_depth = colipri.DEPTH
        return get_model(config=config, pretrained=False, image_only=True)

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the image encoder out of their file."""
        super().load(network, {k: v for k, v in published.items() if not k.startswith("text_encoder.")})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan by the package's processor."""
        from colipri import get_processor

        canvas = max(nibabel.Nifti1Image.from_filename(scan).shape)
        processor = get_processor(image_only=True, input_size=canvas, orientation=self.axes)
        return processor.to_images_batch(processor.process_images(scan))

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns the map that the adapter's options name, and the pooled embedding, as `encode_image` gives them."""
        options = self.encoder.options
        of = {"normalize": options.get("normalise", False)}
        mapped = network.encode_image(x, project=options.get("features") == "aligned", **of)  # type: ignore[operator]
        return Features(mapped, network.encode_image(x, pool=True, project=True, **of), None)  # type: ignore[operator]
