"""What `eva_quickstart.yaml` takes: the quickstart's scans as eva gives its own, and an encoder with a memory."""

import hashlib
from typing import Any, ClassVar

import torch

from tapct.eva import DenseEncoder
from tapct.tasks.quickstart import Quickstart


class ChannelFirst(Quickstart):
    """Scan and mask as (1, slices, rows, columns), as after eva's `EnsureChannelFirst`."""

    def __getitem__(self, index: int) -> tuple[Any, Any, dict[str, Any]]:
        volume, mask, about = super().__getitem__(index)
        return volume.transpose(0, 1), mask.transpose(0, 1), {"case": about["case"]}


class Remembering(DenseEncoder):
    """Encodes each scan once, where a stock run does so in every step: the same maps, in a fraction of the time."""

    maps: ClassVar[dict[str, list[torch.Tensor]]] = {}

    def model_forward(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        content = tensor.as_subclass(torch.Tensor).contiguous().cpu().numpy()
        key = hashlib.sha256(content.tobytes()).hexdigest()
        if key not in self.maps:
            self.maps[key] = super().model_forward(tensor)
        return self.maps[key]
