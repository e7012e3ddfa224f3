"""The segmentation probe: one 1x1x1 convolution on the features of a frozen encoder (section 3.3.1)."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from eva.vision.models.modules import semantic_segmentation
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn, optim
from typing_extensions import override

from tapct.encoders import Encoder, Precision
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.metrics import (
    NativeDice,
    NativeSurface,
    PaperDice,
    SurfaceMetrics,
    confusion_matrix,
    dice_per_class,
    summarise,
    surface_metrics,
)
from tapct.probes.dense import dice_ce_loss, predict_labels, require_fused
from tapct.probes.frozen import FrozenEncoderProbe, Mode
from tapct.probes.heads import finite_loss
from tapct.records import CaseResult, Protocol
from tapct.viz.overlay import draw_overlay
from tapct.volumes import LinearMap


class DiceCE(nn.Module):
    """The loss, as the module that eva's base class wants to hold; see `dice_ce_loss`."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, logits: torch.Tensor, target: torch.Tensor, to_voxels: LinearMap) -> torch.Tensor:
        """Returns the loss of (K, d, h, w) logits against (D, H, W) labels."""
        return dice_ce_loss(logits, target, to_voxels, fused=self.fused)


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
        learning_rates: list[float] | None = None,
        select: Literal["best", "last"] = "best",
        seed: int = 0,
        runs_together: bool = True,
        overlays: int = 0,
        nsd_tolerance_mm: float = 2.0,
        fused_loss: bool = False,
        features: Mode = "use",
        feature_folder: str | None = None,
        feature_dtype: Literal["bf16", "fp16", "fp32"] = "bf16",
        feature_budget_gb: float | None = None,
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
            learning_rates: Rates to choose from on the selection cases; None for the optimizer's own.
            select: Which head is reported: the "best" on the selection cases over rates and looks at them (every
                `val_check_interval` of the trainer), or the "last". Without selection cases it is the last.
            seed: Run k starts from seed + k.
            runs_together: Whether the runs of a session train side by side; the numbers are the same.
            overlays: Reported cases to draw a picture of, in the first run.
            nsd_tolerance_mm: Distance at which surfaces still agree (docs/methodology.md says why 2).
            fused_loss: Whether the loss is computed by Triton kernels, on a GPU; see `dice_ce_loss`.
            features: What to do with stored features: "use", "refresh", "only-cached", "off".
            feature_folder: Where they are; by default the variable TAPCT_FEATURES, else in the cache folder.
            feature_dtype: What they are stored as.
            feature_budget_gb: What the folder may take, in GiB; older ones make room.
            feature_memory_gb: With "off": memory for the features of cases already encoded, in GiB.

        Raises:
            TaskError: If the tolerance is no distance.
        """
        if not 0 <= nsd_tolerance_mm < math.inf:
            raise TaskError(f"nsd_tolerance_mm must be a distance in mm, not {nsd_tolerance_mm}")
        super().__init__(decoder=nn.Identity(), criterion=DiceCE(fused_loss), optimizer=optimizer)
        self._init_encoder(encoder, weights, precision, encoder_options)
        self._init_probe(
            window_overlap=window_overlap,
            fit_windows=False,
            learning_rates=learning_rates,
            select=select,
            lr_scheduler=lr_scheduler,
            seed=seed,
            runs_together=runs_together,
            features=features,
            feature_folder=feature_folder,
            feature_dtype=feature_dtype,
            feature_budget_gb=feature_budget_gb,
            feature_memory_gb=feature_memory_gb,
        )
        self.overlays = overlays
        self.nsd_tolerance_mm = nsd_tolerance_mm

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        evaluation = [NativeDice(), PaperDice(), NativeSurface()]
        return metrics_lib.MetricsSchema(common=[AverageLoss()], evaluation=evaluation)

    @override
    def setup(self, stage: str) -> None:
        if self.criterion.fused:
            require_fused(self.trainer.strategy.root_device)
        super().setup(stage)

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        return nn.Conv3d(self.encoder.card.feature_dim, len(classes), kernel_size=1)

    @override
    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "nsd_tolerance_mm": self.nsd_tolerance_mm, "fused_loss": self.criterion.fused}

    @override
    def loss(self, head: nn.Module, cases: Sequence[EncodedCase]) -> torch.Tensor:
        return torch.stack([self._loss(head(case.features.map), case) for case in cases]).mean()

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        features = case.features
        assert case.labels is not None
        logits = head(features.map)
        predicted = predict_labels(logits, LinearMap.between(features.feature_grid, features.native_grid))
        predicted_paper = predict_labels(logits, LinearMap.between(features.feature_grid, features.encoder_grid))
        confusions: dict[Protocol, torch.Tensor] = {
            "native": confusion_matrix(predicted, case.target, len(self.classes)),
            "paper": confusion_matrix(predicted_paper, case.labels, len(self.classes)),
        }
        loss = self._loss(logits, case)
        value = finite_loss(loss, case.name)
        # Surfaces would slow down the looks at the selection cases.
        surfaces = self._surfaces(predicted, case) if reported else None
        if reported and self._split == "test" and self.run == 0 and len(self.recorder.cases["test"]) < self.overlays:
            self._draw(case, predicted)
        outputs = {
            "loss": loss,
            **{f"confusion_{name}": c for name, c in confusions.items()},
            "nsd_native": None if surfaces is None else torch.from_numpy(surfaces.nsd),
            "hd95_mm_native": None if surfaces is None else torch.from_numpy(surfaces.hd95_mm),
        }
        return outputs, self._result(case, confusions, surfaces, value)

    @override
    def head_input(self, case: EncodedCase) -> torch.Tensor:
        return case.features.map.flatten(1)

    @override
    def score(self, results: list[CaseResult]) -> float | None:
        rows = [list((result.dice or {})["native"].values()) for result in results]
        dice = np.array([[math.nan, *(math.nan if v is None else v for v in row)] for row in rows])
        value = summarise(dice).headline
        return None if math.isnan(value) else value

    def _loss(self, logits: torch.Tensor, case: EncodedCase) -> torch.Tensor:
        to_voxels = LinearMap.between(case.features.feature_grid, case.features.encoder_grid)
        return self.criterion(logits, case.labels, to_voxels)

    def _surfaces(self, predicted: torch.Tensor, case: EncodedCase) -> SurfaceMetrics:
        start = time.perf_counter()
        affine = case.features.native_grid.affine
        metrics = surface_metrics(predicted, case.target, len(self.classes), affine, self.nsd_tolerance_mm)
        self.recorder.seconds["surfaces"] += time.perf_counter() - start
        return metrics

    def _result(
        self,
        case: EncodedCase,
        confusions: dict[Protocol, torch.Tensor],
        surfaces: SurfaceMetrics | None,
        loss: float,
    ) -> CaseResult:
        def by_class(values: np.ndarray) -> dict[str, float | None]:
            return {n: None if math.isnan(v) else float(v) for n, v in zip(self.classes[1:], values[1:], strict=True)}

        reference = confusions["native"].sum(dim=1).tolist()
        return CaseResult(
            case=case.name,
            patient=case.patient,
            loss=loss,
            dice={name: by_class(dice_per_class(c.cpu().numpy())) for name, c in confusions.items()},
            nsd=None if surfaces is None else by_class(surfaces.nsd),
            hd95_mm=None if surfaces is None else by_class(surfaces.hd95_mm),
            padding_voxels=case.features.padding,
            voxels=sum(reference),
            reference_voxels=dict(zip(self.classes[1:], reference[1:], strict=True)),
        )

    def _draw(self, case: EncodedCase, prediction: torch.Tensor) -> None:
        path = Path(str(self.trainer.log_dir)) / "overlays" / f"{case.name}.png"
        scan = self.trainer.datamodule.scan(case.name)
        truth, predicted = (np.asarray(t.cpu()) for t in (case.target, prediction))
        title = f"{case.name}: {self.encoder.card.display_name} ({self.encoder.weights_source})"
        columns = {"prediction": predicted}
        draw_overlay(path, scan.hu, scan.grid, truth, columns, self.classes, title, notice=self._notice)
