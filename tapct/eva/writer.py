"""Writing embeddings in `eva predict` and `predict_fit`, without what eva's own writers lose."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from eva.core.models.modules.typings import INPUT_BATCH
from lightning import pytorch as pl
from lightning.pytorch import callbacks
from torch import nn
from typing_extensions import override

from tapct.errors import FeatureError
from tapct.features.embed import SUFFIXES
from tapct.packs.eva_layout import MANIFEST, EvaLayout


class EmbeddingsWriter(callbacks.BasePredictionWriter):
    """Takes the place of eva's `ClassificationEmbeddingsWriter` and `SegmentationEmbeddingsWriter`.

    It writes in the process that encodes, so that what fails there ends the run; each file whole or not at all, and the
    manifest last: a folder with a manifest is complete. A tensor for each scan (an embedding or a bag) is written with
    a whole number as target, a list of maps with a mask. Other targets are refused before anything is encoded: eva's
    manifest holds none of them, and its writers leave an empty one.
    """

    def __init__(
        self,
        output_dir: str,
        backbone: nn.Module | None = None,
        dataloader_idx_map: dict[int, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Initializes the writer.

        Args:
            output_dir: Folder to write into.
            backbone: The encoder; None where the model has one itself.
            dataloader_idx_map: Name of the split of each data set under `predict`, by its place.
            overwrite: Whether embeddings that are there are replaced; else they end the run.
        """
        super().__init__(write_interval="batch")
        self.output_dir, self.overwrite = Path(output_dir), overwrite
        self.backbone = backbone
        self.splits = dataloader_idx_map or {}

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            raise FeatureError(f"embeddings are written by one process, but the trainer has {trainer.world_size}")
        datasets = [loader.dataset for loader in _listed(trainer.predict_dataloaders)]
        if len(datasets) > 1 and set(self.splits) != set(range(len(datasets))):
            raise FeatureError(f"dataloader_idx_map names {dict(self.splits)}, but there are {len(datasets)} data sets")
        if (self.output_dir / MANIFEST).exists() and not self.overwrite:
            raise FeatureError(
                f"{self.output_dir} holds embeddings already: use `eva fit` on them, another output_dir, or "
                "overwrite: true"
            )
        for dataset in datasets:
            if len(dataset) and hasattr(dataset, "load_target"):
                _check_target(torch.as_tensor(dataset.load_target(0)), type(dataset).__name__)
        self._names = [
            [f"{split}/{name}" if split else name for name in _names(dataset)]
            for split, dataset in ((self.splits.get(place), dataset) for place, dataset in enumerate(datasets))
        ]
        _require_distinct(self._names)
        self._layout = EvaLayout(self.output_dir, replace=True)
        self._layout.begin()
        if self.backbone is not None:
            self.backbone = self.backbone.to(pl_module.device).eval()

    @override
    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        targets = INPUT_BATCH(*batch).targets
        with torch.no_grad():
            found = prediction if self.backbone is None else self.backbone(prediction)
        if not isinstance(targets, torch.Tensor) or batch_indices is None:
            raise FeatureError(f"eva's readers need a target of each scan, but got {type(targets).__name__}")
        dataset = _listed(trainer.predict_dataloaders)[dataloader_idx].dataset
        split = self.splits.get(dataloader_idx)
        for place, index in enumerate(batch_indices):
            name = self._names[dataloader_idx][index]
            if isinstance(found, list):
                embeddings = self._layout.save(name, [level[place] for level in found])
                target: str | int = self._layout.save(f"{name}-mask", targets[place])
            else:
                target = _check_target(targets[place], name, of_scan=True)
                embeddings = self._layout.save(name, found[place])
            self._layout.add(Path(dataset.filename(index)).name, embeddings, target, split, name)

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._layout.finish()


def _listed(loaders: Any) -> list[Any]:
    return loaders if isinstance(loaders, list) else [loaders]


def _check_target(target: torch.Tensor, where: str, *, of_scan: bool = False) -> int:
    """Returns the class of a scan; of a mask, which is a target of dense maps, 0.

    Raises:
        FeatureError: If it is what eva's readers cannot have.
    """
    if target.ndim >= 3 and not of_scan:
        return 0
    if target.numel() != 1:
        raise FeatureError(
            f"{where}: a target of {target.numel()} numbers. eva's manifest holds one whole number a scan, and its "
            "own writer leaves an empty manifest for these. Give one label at a time (the data set's transforms), or "
            "use tapct.probes.ClassificationProbe, which takes several labels"
        )
    if target.is_floating_point() and not bool(target.isfinite().all() and target == target.round()):
        raise FeatureError(f"{where}: the target {target.item():g} is no class, and eva's readers cut it to an integer")
    return int(target.item())


def _names(dataset: Any) -> list[str]:
    """Returns the name of each item, for files: below the folder also where a data set gives absolute paths."""
    paths = [str(dataset.filename(index)) for index in range(len(dataset))]
    if any(Path(path).is_absolute() for path in paths):
        common = os.path.commonpath([Path(path).parent for path in paths])
        paths = [os.path.relpath(path, common) for path in paths]
    stems = [_stem(path) for path in paths]
    repeated = {stem for stem, times in Counter(stems).items() if times > 1}
    return [f"{stem}-{index}" if stem in repeated else stem for index, stem in enumerate(stems)]


def _require_distinct(names: list[list[str]]) -> None:
    """Refuses two items whose files would be one, as of two data sets with files alike in one split.

    Raises:
        FeatureError: If there are such.
    """
    repeated = sorted(name for name, times in Counter(name for of in names for name in of).items() if times > 1)
    if repeated:
        raise FeatureError(
            f"{len(repeated)} items would be written into the file of another, such as {repeated[0]}: give each data "
            "set a split of its own in dataloader_idx_map"
        )


def _stem(path: str) -> str:
    suffix = next((s for s in SUFFIXES if path.lower().endswith(s)), Path(path).suffix)
    return path[: len(path) - len(suffix)].replace(os.sep, "/")
