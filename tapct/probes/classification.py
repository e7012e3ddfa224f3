"""The classification probe: attention-based multiple-instance learning over a scan's windows (section 3.3.2)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules import head as eva_head
from eva.vision.models.networks import ABMIL
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn, optim
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from tapct.encoders import Encoder, Precision
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.metrics import (
    BalancedAccuracy,
    CalibrationError,
    MacroAP,
    MacroAUROC,
    MicroAP,
    MicroAUROC,
    UndefinedLabels,
)
from tapct.metrics.classification import auroc, average_precision
from tapct.probes.frozen import FrozenEncoderProbe, Mode
from tapct.probes.heads import finite_loss
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
        learning_rates: list[float] | None = None,
        select: Literal["best", "last"] = "best",
        seed: int = 0,
        runs_together: bool = True,
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
            fit_windows: Whether windows shrink to a scan that is smaller than they are: for crops of nodules.
            optimizer: Of the head.
            lr_scheduler: Of the head, stepped with the optimizer; None is a constant rate.
            learning_rates: Rates to choose from on the selection cases; None for the optimizer's own.
            select: Which head is reported: the "best" on the selection cases over rates and looks at them (every
                `val_check_interval` of the trainer), or the "last". Without selection cases it is the last.
            seed: Run k starts from seed + k.
            runs_together: Whether the runs of a session train side by side; the numbers are the same.
            features: What to do with stored features: "use", "refresh", "only-cached", "off".
            feature_folder: Where they are; by default the variable TAPCT_FEATURES, else in the cache folder.
            feature_dtype: What they are stored as.
            feature_budget_gb: What the folder may take, in GiB; older ones make room.
            feature_memory_gb: With "off": memory for the features of cases already encoded, in GiB.
        """
        super().__init__(head=nn.Identity(), criterion=nn.BCEWithLogitsLoss(), optimizer=optimizer)
        self._init_encoder(encoder, weights, precision, encoder_options)
        self._init_probe(
            window_overlap=window_overlap,
            fit_windows=fit_windows,
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
    def loss(self, head: nn.Module, cases: Sequence[EncodedCase]) -> torch.Tensor:
        # eva's ABMIL masks instances of minus infinity: bags of any length in one pass, as if each came alone.
        bags = pad_sequence([self._bag(case) for case in cases], batch_first=True, padding_value=-math.inf)
        return self.criterion(head(bags), torch.stack([self._target(case) for case in cases]))

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        logits, target, classes = self._logits(head, case), self._target(case), self.classes
        loss = self.criterion(logits, target)
        result = CaseResult(
            case=case.name,
            patient=case.patient,
            loss=finite_loss(loss, case.name),
            probabilities={n: float(p) for n, p in zip(classes, logits.sigmoid(), strict=True)},
            target={n: int(t) for n, t in zip(classes, target, strict=True)},
            padding_voxels=case.features.padding,
        )
        return {"loss": loss, "predictions": logits[None], "targets": target[None]}, result

    @override
    def head_input(self, case: EncodedCase) -> torch.Tensor:
        return self._bag(case).T

    @override
    def score(self, results: list[CaseResult]) -> float | None:
        rank = average_precision if self.ranked_metric == "MicroAP" else auroc
        pairs = [(p, (r.target or {})[n]) for r in results for n, p in (r.probabilities or {}).items()]
        probabilities, targets = (torch.tensor(values, dtype=torch.float64) for values in zip(*pairs, strict=True))
        value = rank(probabilities, targets.long())
        return None if math.isnan(value) else value

    @property
    def ranked_metric(self) -> str:
        """The metric that the task is ranked by; AUROC where the datamodule names none."""
        return self.trainer.datamodule.describe().get("metric", "MicroAUROC")

    def _logits(self, head: nn.Module, case: EncodedCase) -> torch.Tensor:
        return head(self._bag(case)[None])[0]

    def _bag(self, case: EncodedCase) -> torch.Tensor:
        features = case.features
        return features.embeddings if self.encoder.card.has_cls else features.map.flatten(1).T

    def _target(self, case: EncodedCase) -> torch.Tensor:
        target = case.target.flatten()
        if target.numel() != len(self.classes):
            raise TaskError(f"{case.name}: {target.numel()} targets for {len(self.classes)} classes")
        return target.float()
