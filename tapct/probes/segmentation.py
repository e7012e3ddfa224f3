"""The segmentation probe: one 1x1x1 convolution on the features of a frozen encoder (section 3.3.1)."""

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from eva.vision.models.modules import semantic_segmentation
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
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
from tapct.probes.heads import finite_loss
from tapct.probes.map_probe import MapProbe, PictureOf
from tapct.probes.of_training import class_voxels
from tapct.probes.scaling import log_prior
from tapct.records import CaseResult, PatchSize, Protocol
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


class SegmentationProbe(MapProbe, semantic_segmentation.SemanticSegmentationModule):
    """Trains and evaluates a linear segmentation probe in eva.

    The loss is taken on the encoder's grid (labels resampled by nearest neighbour), as in the paper.
    Evaluation is on both grids: `paper`, and `native`, where logits are interpolated straight to the
    scan's own voxels and compared with the untouched labels.
    """

    kind = "segmentation"
    head_name = "decoder"

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        overlays: int = 0,
        nsd_tolerance_mm: float = 2.0,
        fused_loss: bool = False,
        start_bias: Literal["prior", "zero"] = "prior",
        **settings: Any,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            overlays: Reported cases to draw a picture of, in the first run.
            nsd_tolerance_mm: Distance at which surfaces still agree (docs/methodology.md says why 2).
            fused_loss: Whether the loss is computed by Triton kernels, on a GPU; see `dice_ce_loss`.
            start_bias: What the head's bias starts from: "prior", the log share of each class among the training
                voxels, free of weight decay, so that no step is spent on learning how large the background is; or
                "zero", the paper's plain protocol.
            settings: As in `tapct.probes.settings.ProbeSettings`; whole scans are never smaller than they should be, so
                without `fit_windows`.

        Raises:
            TaskError: If the tolerance is not a distance.
        """
        if not 0 <= nsd_tolerance_mm < math.inf:
            raise TaskError(f"nsd_tolerance_mm must be a distance in mm, not {nsd_tolerance_mm}")
        of_eva = {"decoder": nn.Identity(), "criterion": DiceCE(fused_loss)}
        super().__init__(encoder, weights, of_eva=of_eva, fit_windows=False, **settings)
        self.overlays = overlays
        self.nsd_tolerance_mm = nsd_tolerance_mm
        self.start_bias = start_bias
        self.undecayed = ("bias",) if start_bias == "prior" else ()

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
    def prepare(self) -> None:
        super().prepare()
        if self.start_bias == "prior":
            self.prior = log_prior(class_voxels(self.source, self.trainer, len(self.classes)))

    @override
    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "fused_loss": self.criterion.fused,
            "start_bias": self.start_bias,
        }

    @override
    def losses(self, heads: Sequence[Any], cases: Sequence[EncodedCase]) -> torch.Tensor:
        maps, scale = [case.features.map for case in cases], self.session.scale
        maps = maps if scale is None else [scale.divided(one, 0) for one in maps]
        each = [[self._loss(head(one), case) for one, case in zip(maps, cases, strict=True)] for head in heads]
        return torch.stack([torch.stack(of_head).mean() for of_head in each])

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
        if reported and case.name not in self.session.patches:
            confusion = self.source.derived.patch_size_confusion(case, len(self.classes))
            self.session.patches.add(case.name, features.feature_grid.spacing_mm, confusion)
        # Surfaces would slow down the looks at the selection cases.
        surfaces = self._surfaces(predicted, case) if reported else None
        if reported and (picture := self.picture_of(case)) is not None:
            self._draw(picture, case, predicted)
        outputs = {
            "loss": loss,
            **{f"confusion_{name}": c for name, c in confusions.items()},
            "nsd_native": None if surfaces is None else torch.from_numpy(surfaces.nsd),
            "hd95_mm_native": None if surfaces is None else torch.from_numpy(surfaces.hd95_mm),
        }
        return outputs, self._result(case, confusions, surfaces, value)

    @override
    def cell_size(self) -> PatchSize | None:
        return self.session.patches.summary([case.case for case in self.recorder.cases[self.split]], self.classes)

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
            notes=case.notes,
            voxels=sum(reference),
            reference_voxels=dict(zip(self.classes[1:], reference[1:], strict=True)),
        )

    def _draw(self, picture: PictureOf, case: EncodedCase, prediction: torch.Tensor) -> None:
        path, scan, title = picture
        truth, predicted = (np.asarray(t.cpu()) for t in (case.target, prediction))
        columns = {"prediction": predicted}
        draw_overlay(path, scan.hu, scan.grid, truth, columns, self.classes, title, notice=self.notice)
