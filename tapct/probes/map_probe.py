"""What probes on feature maps share: one 1x1x1 convolution, which starts from a prior, and pictures of cases."""

from pathlib import Path
from typing import NamedTuple

import torch
from loguru import logger
from torch import nn
from typing_extensions import override

from tapct.features import EncodedCase
from tapct.names import file_in
from tapct.probes.frozen import FrozenEncoderProbe
from tapct.records.paths import base_name
from tapct.volumes import Volume


class PictureOf(NamedTuple):
    """What a picture of a case needs.

    Attributes:
        path: Where it belongs, in the folder of the run.
        scan: The scan, as encoders get it.
        title: The case, and what saw it.
    """

    path: Path
    scan: Volume
    title: str


class MapProbe(FrozenEncoderProbe):
    """A linear head on the feature map of a scan.

    Attributes:
        overlays: Reported cases to draw a picture of, in the first run.
    """

    seen = "map"
    feature_weights = ("weight",)
    overlays: int = 0

    prior: torch.Tensor | None = None
    """(K,) what a head's bias starts from, set in `prepare`; None for zeros."""

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        head = nn.Conv3d(self.encoder.card.feature_dim, len(classes), kernel_size=1)
        assert head.bias is not None
        with torch.no_grad():
            head.bias.copy_(torch.zeros(len(classes)) if self.prior is None else self.prior)
        return head

    def picture_of(self, case: EncodedCase) -> PictureOf | None:
        """Returns what a picture of a reported case needs; None where there is to be none."""
        if self.split != "test" or self.run != 0 or len(self.recorder.cases["test"]) >= self.overlays:
            return None
        if getattr(self.trainer.datamodule, "pack", None) is not None:
            logger.info(f"{case.name}: no overlay, for the features come from a pack and there is no scan")
            return None
        path = file_in(Path(str(self.trainer.log_dir)) / "overlays", case.name, ".png")
        title = f"{case.name}: {self.encoder.full_name} ({base_name(str(self.encoder.weights_source))})"
        return PictureOf(path, self.trainer.datamodule.scan(case.name), title)
