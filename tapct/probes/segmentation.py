"""The segmentation probe: one 1x1x1 convolution on the features of a frozen encoder (section 3.3.1)."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from eva.vision.models.modules import semantic_segmentation
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn, optim
from typing_extensions import override

from tapct.encoders import Encoder, Precision
from tapct.errors import TaskError
from tapct.features import CaseFeatures
from tapct.metrics import (
    NativeDice,
    NativeSurface,
    PaperDice,
    SurfaceMetrics,
    confusion_matrix,
    dice_per_class,
    surface_metrics,
)
from tapct.probes.dense import dice_ce_loss, predict_labels
from tapct.probes.frozen import Case, FrozenEncoderProbe
from tapct.records import CaseResult, Protocol
from tapct.viz import draw_overlay
from tapct.volumes import LinearMap, resample_labels


class DiceCE(nn.Module):
    """The loss, as the module that eva's base class wants to hold; see `dice_ce_loss`."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor, to_voxels: LinearMap) -> torch.Tensor:
        """Returns the loss of (K, d, h, w) logits against (D, H, W) labels."""
        return dice_ce_loss(logits, target, to_voxels)


class SegmentationProbe(FrozenEncoderProbe, semantic_segmentation.SemanticSegmentationModule):
    """Trains and evaluates a linear segmentation probe in eva.

    The loss is taken on the encoder's grid (labels resampled by nearest neighbour), as in the paper.
    Evaluation is on both grids: `paper`, and `native`, where logits are interpolated straight to the
    scan's own voxels and compared with the untouched labels.
    """

    head_name = "decoder"

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        precision: Precision = "auto",
        encoder_options: dict[str, Any] | None = None,
        window_overlap: float = 0.0,
        optimizer: OptimizerCallable = optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
        overlays: int = 0,
        nsd_tolerance_mm: float = 2.0,
        feature_memory_gb: float = 4.0,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            precision: Of the encoder: "auto" (bf16 on a GPU, else fp32), "fp32", "bf16".
            encoder_options: Settings of the card to change, such as {in_plane_size: 512}.
            window_overlap: Share of overlap between windows, in [0, 1).
            optimizer: Of the head.
            lr_scheduler: Of the head, stepped with the optimizer; None is a constant rate.
            seed: Run k starts from seed + k.
            overlays: Reported cases to draw a picture of, in the first run.
            nsd_tolerance_mm: Distance at which surfaces still agree (docs/methodology.md says why 2).
            feature_memory_gb: Memory for the features of cases already encoded, in GiB.

        Raises:
            TaskError: If the tolerance is no distance.
        """
        if not 0 <= nsd_tolerance_mm < math.inf:
            raise TaskError(f"nsd_tolerance_mm must be a distance in mm, not {nsd_tolerance_mm}")
        super().__init__(decoder=nn.Identity(), criterion=DiceCE(), optimizer=optimizer)
        self._init_encoder(encoder, weights, precision, encoder_options)
        self._init_probe(window_overlap, feature_memory_gb, seed, lr_scheduler)
        self.overlays = overlays
        self.nsd_tolerance_mm = nsd_tolerance_mm

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        evaluation = [NativeDice(), PaperDice(), NativeSurface()]
        return metrics_lib.MetricsSchema(common=[AverageLoss()], evaluation=evaluation)

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        return nn.Conv3d(self.encoder.card.feature_dim, len(classes), kernel_size=1)

    @override
    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        with self.full_precision():
            case = self.case_of(batch)
            features = self.features_of(case)
            labels = resample_labels(self._labels(case), features.native_grid, features.encoder_grid)
            return {"loss": self._loss(self.decoder(features.map), labels, features)}

    @override
    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor | None]:
        with self.full_precision():
            return self._evaluate(batch)

    @override
    def test_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor | None]:
        with self.full_precision():
            return self._evaluate(batch)

    @override
    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "nsd_tolerance_mm": self.nsd_tolerance_mm}

    def _evaluate(self, batch: Any) -> dict[str, torch.Tensor | None]:
        case = self.case_of(batch)
        features = self.features_of(case)
        native = self._labels(case)
        paper = resample_labels(native, features.native_grid, features.encoder_grid)
        logits = self.decoder(features.map)
        predicted = predict_labels(logits, LinearMap.between(features.feature_grid, features.native_grid))
        predicted_paper = predict_labels(logits, LinearMap.between(features.feature_grid, features.encoder_grid))
        confusions: dict[Protocol, torch.Tensor] = {
            "native": confusion_matrix(predicted, native, len(self.classes)),
            "paper": confusion_matrix(predicted_paper, paper, len(self.classes)),
        }
        loss = self._loss(logits, paper, features)
        surfaces = self._surfaces(predicted, native, features)
        self.keep(self._result(case, features, confusions, surfaces, float(loss)))
        if self._split == "test" and self.run == 0 and len(self._cases["test"]) <= self.overlays:
            self._draw(case, predicted)
        return {
            "loss": loss,
            **{f"confusion_{name}": c for name, c in confusions.items()},
            "nsd_native": None if surfaces is None else torch.from_numpy(surfaces.nsd),
            "hd95_mm_native": None if surfaces is None else torch.from_numpy(surfaces.hd95_mm),
        }

    def _surfaces(self, predicted: torch.Tensor, native: torch.Tensor, features: CaseFeatures) -> SurfaceMetrics | None:
        """Returns NSD and HD95; None in the validation loop of a fit, which they would slow down."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            return None
        start = time.perf_counter()
        affine = features.native_grid.affine
        metrics = surface_metrics(predicted, native, len(self.classes), affine, self.nsd_tolerance_mm)
        self._seconds["surfaces"] += time.perf_counter() - start
        return metrics

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, features: CaseFeatures) -> torch.Tensor:
        to_voxels = LinearMap.between(features.feature_grid, features.encoder_grid)
        return self.criterion(logits, labels, to_voxels)

    def _labels(self, case: Case) -> torch.Tensor:
        return case.target.squeeze(1)

    def _result(
        self,
        case: Case,
        features: CaseFeatures,
        confusions: dict[Protocol, torch.Tensor],
        surfaces: SurfaceMetrics | None,
        loss: float,
    ) -> CaseResult:
        def by_class(values: np.ndarray) -> dict[str, float | None]:
            return {n: None if math.isnan(v) else float(v) for n, v in zip(self.classes[1:], values[1:], strict=True)}

        return CaseResult(
            case=case.name,
            patient=case.patient,
            loss=loss,
            dice={name: by_class(dice_per_class(c.cpu().numpy())) for name, c in confusions.items()},
            nsd=None if surfaces is None else by_class(surfaces.nsd),
            hd95_mm=None if surfaces is None else by_class(surfaces.hd95_mm),
            padding_voxels=features.padding,
        )

    def _draw(self, case: Case, prediction: torch.Tensor) -> None:
        path = Path(str(self.trainer.log_dir)) / "overlays" / f"{case.name}.png"
        hu, truth, predicted = (np.asarray(t.cpu()) for t in (case.hu, self._labels(case), prediction))
        title = f"{case.name}: {self.encoder.card.display_name} ({self.encoder.weights_source})"
        draw_overlay(path, hu, truth, predicted, self.classes, case.grid.spacing_mm, title, self._notice)
