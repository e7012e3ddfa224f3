"""TAP-CT through the code that its authors publish, for whoever wants to compare with it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tapct.encoders.base import Encoder, Features
from tapct.encoders.tap_ct import CLIP_HU, MEAN_HU, STD_HU, TapB3D, TapS3D
from tapct.errors import EncoderError


class _RemoteTap(Encoder):
    """A published TAP-CT model run by its own remote code.

    It executes Python from the hub on this machine, so it is not in the registry: name it by class_path, and
    pin the commit that you have read. `TapB3D` and `TapS3D` load the same weights file without it.
    """

    def __init__(self, weights: str | Path | None = None, *, revision: str, **options: Any) -> None:
        """Builds the published network from its repository, code included.

        Args:
            weights: None for the card's repository, or the path of a local copy of it.
            revision: The commit of the repository whose code is run.
            options: As for every encoder.

        Raises:
            EncoderError: If the revision is a branch name, which could change under us.
        """
        if len(revision) != 40 or set(revision) - set("0123456789abcdef"):
            raise EncoderError(f"revision must be the full commit of code that you have read, not {revision!r}")
        repository = (type(self).card.weights.repository or "").removeprefix("huggingface.co/")
        self._from: str | Path = repository if weights is None else Path(weights)
        self._revision = revision
        super().__init__("random", **options)
        self.weights_source = f"{weights or repository}@{revision}, remote code"

    def build(self) -> nn.Module:
        """Returns the published model with its published weights."""
        from transformers import AutoModel

        return AutoModel.from_pretrained(str(self._from), revision=self._revision, trust_remote_code=True)

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        x = (windows_hu.clamp(*CLIP_HU) - MEAN_HU) / STD_HU
        output = self.network(x, reshape=True)
        return Features(output.last_hidden_state, output.pooler_output, output.pooler_output)


class RemoteTapS3D(_RemoteTap):
    """TAP-S-3D by its own code."""

    card = TapS3D.card


class RemoteTapB3D(_RemoteTap):
    """TAP-B-3D by its own code."""

    card = TapB3D.card
