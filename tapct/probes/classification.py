"""The classification probe: attention-based multiple-instance learning over a scan's windows (section 3.3.2)."""

from typing import Any

import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules import head as eva_head
from eva.vision.models.networks import ABMIL
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn, optim
from typing_extensions import override

from tapct.encoders import Encoder, Precision
from tapct.errors import TaskError
from tapct.features import CaseFeatures
from tapct.metrics import (
    BalancedAccuracy,
    CalibrationError,
    MacroAP,
    MacroAUROC,
    MicroAP,
    MicroAUROC,
    UndefinedLabels,
)
from tapct.probes.frozen import FrozenEncoderProbe
from tapct.records import CaseResult


class ClassificationProbe(FrozenEncoderProbe, eva_head.HeadModule):
    """Trains and evaluates an ABMIL head in eva, one independent 0/1 output per class of the dataset.

    The bag of a scan is the class tokens of its windows, or, where a model has none, its patch features
    (section 4.5 says why class tokens are preferred).
    """

    head_name = "head"

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        precision: Precision = "auto",
        encoder_options: dict[str, Any] | None = None,
        window_overlap: float = 0.0,
        fit_windows: bool = False,
        optimizer: OptimizerCallable = optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
        feature_memory_gb: float = 4.0,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            precision: Of the encoder: "auto" (bf16 on a GPU, else fp32), "fp32", "bf16".
            encoder_options: Settings of the card to change, such as {in_plane_size: 512}.
            window_overlap: Share of overlap between windows, in [0, 1).
            fit_windows: Whether windows shrink to a scan that is smaller than they are: for crops of nodules.
            optimizer: Of the head.
            lr_scheduler: Of the head, stepped with the optimizer; None is a constant rate.
            seed: Run k starts from seed + k.
            feature_memory_gb: Memory for the features of cases already encoded, in GiB.
        """
        super().__init__(head=nn.Identity(), criterion=nn.BCEWithLogitsLoss(), optimizer=optimizer)
        self._init_encoder(encoder, weights, precision, encoder_options)
        self._init_probe(window_overlap, feature_memory_gb, seed, lr_scheduler, fit_windows)

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        micro, macro = [MicroAUROC(), MicroAP()], [MacroAUROC(), MacroAP(), BalancedAccuracy(), UndefinedLabels()]
        return metrics_lib.MetricsSchema(common=[AverageLoss()], evaluation=[*micro, *macro, CalibrationError()])

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        # One linear layer on the attention-pooled bag: eva's default MLP would probe more than the features.
        card = self.encoder.card
        size = card.embedding_dim if card.has_cls else card.feature_dim
        return ABMIL(input_size=size, output_size=len(classes), projected_input_size=None, hidden_sizes_mlp=())

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # eva's own restores only a module named `backbone`.
        checkpoint["state_dict"].update({f"encoder.{k}": v for k, v in self.encoder.state_dict().items()})

    @override
    def _batch_step(self, batch: Any) -> dict[str, Any]:
        with self.full_precision():
            return self._step(batch)

    def _step(self, batch: Any) -> dict[str, Any]:
        case = self.case_of(batch)
        target = case.target.flatten()
        if target.numel() != len(self.classes):
            raise TaskError(f"{case.name}: {target.numel()} targets for {len(self.classes)} classes")
        logits = self.head(self._bag(self.features_of(case))[None])
        loss = self.criterion(logits[0], target.to(logits))
        if not self.trainer.training:
            padding = self.features_of(case).padding
            probabilities, classes = logits[0].sigmoid(), self.classes
            self.keep(
                CaseResult(
                    case=case.name,
                    patient=case.patient,
                    loss=float(loss),
                    probabilities={n: float(p) for n, p in zip(classes, probabilities, strict=True)},
                    target={n: int(t) for n, t in zip(classes, target, strict=True)},
                    padding_voxels=padding,
                )
            )
        return {"loss": loss, "predictions": logits, "targets": target[None]}

    def _bag(self, features: CaseFeatures) -> torch.Tensor:
        return features.embeddings if self.encoder.card.has_cls else features.map.flatten(1).T
