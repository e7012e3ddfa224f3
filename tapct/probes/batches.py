"""What eva's dataloaders give where cases are encoded as they come: one scan a batch, its affine next to it."""

from dataclasses import dataclass
from typing import Any

import torch

from tapct.errors import TaskError
from tapct.volumes import Grid


@dataclass(frozen=True)
class ScanBatch:
    """One scan and its target.

    Attributes:
        name: The case.
        patient: Its patient.
        source: The file it was read from; several cases may be crops of one.
        hu: (D, H, W) float32.
        grid: Where its voxels lie.
        target: (D, H, W) labels on that grid, or what a classification task has.
        notes: What a user should know of how it was read.
    """

    name: str
    patient: str
    source: str
    hu: torch.Tensor
    grid: Grid
    target: torch.Tensor
    notes: tuple[str, ...] = ()


def scan_of(batch: Any) -> ScanBatch:
    """Returns the scan of a batch (data (1, D, 1, H, W), target, metadata), as eva collates it.

    Raises:
        TaskError: If the batch holds several cases, or no affine.
    """
    data, target, metadata = batch
    if data.shape[0] != 1 or data.ndim != 5 or data.shape[2] != 1:
        raise TaskError(f"a probe takes one scan a batch, (1, D, 1, H, W), but got {tuple(data.shape)}")
    if not metadata or "affine" not in metadata:
        raise TaskError(
            "the batch has no 'affine' in its metadata, so its voxels have no size. eva's collate drops the "
            "affine of a Volume: datasets must return it in their metadata, as those of tapct.tasks do"
        )
    hu = data[0, :, 0].as_subclass(torch.Tensor).float()
    grid = Grid.of(hu.shape, metadata["affine"][0].double().cpu().numpy())
    name, patient, source = (str(metadata[key][0]) for key in ("case", "patient", "source"))
    target = target.as_subclass(torch.Tensor)[0]
    target = target.squeeze(1) if target.ndim == 4 else target
    return ScanBatch(name, patient, source, hu, grid, target, tuple(str(metadata.get("notes", [""])[0]).splitlines()))
