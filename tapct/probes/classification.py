"""The classification probe: attention over a scan's windows (section 3.3.2), or a head that is solved."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from eva.core.models.modules import head as eva_head
from eva.vision.models.networks import ABMIL
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase, Seen
from tapct.features.channels import Channels
from tapct.metrics import (
    BalancedAccuracy,
    CalibrationError,
    MacroAP,
    MacroAUROC,
    MicroAP,
    MicroAUROC,
    UndefinedLabels,
)
from tapct.metrics.classification import sigmoid
from tapct.metrics.ranks import auroc, average_precision
from tapct.probes import attention, tables
from tapct.probes.adaptors import Adaptor, instances
from tapct.probes.frozen import FrozenEncoderProbe
from tapct.probes.heads import State, finite_loss
from tapct.probes.label_heads import NeighbourHead, solve
from tapct.probes.scaling import ChannelScale
from tapct.probes.solved import LinearHead, PooledCases, Solution
from tapct.probes.source import needed_parts
from tapct.records import CaseResult


class ClassificationProbe(FrozenEncoderProbe, eva_head.HeadModule):
    """Trains and evaluates an adaptor in eva, one independent 0/1 output per class of the dataset.

    For attention the bag of a scan is the class tokens of its windows, or, where a model has none or that is asked for,
    its patch features (section 4.5 says why class tokens are preferred). Other adaptors see one vector a scan.
    """

    head_name = "head"
    feature_weights = (
        *("gated_attention.attention_a.0.weight", "gated_attention.attention_b.0.weight"),
        "classifier._network.0.weight",
    )

    seen_dtype = None

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        adaptor: str = "abmil",
        bag: Literal["auto", "cls", "patch"] = "auto",
        **settings: Any,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: What stands on the features: "abmil" (the paper's), "linear", "knn" or "prototype", the last three
                with ":cls", ":mean", ":max", ":mean+max" or, where the task has masks, ":mask" behind them to say how
                features are pooled, and columns of a table; see `tapct.probes.adaptors`. All but abmil are solved,
                without steps or rates.
            bag: What abmil looks at: the class tokens of a scan's windows ("cls"), its patch features ("patch"), or
                "auto", class tokens where the model has some, else patches. "abmil:patch" says the same.
            settings: As in `tapct.probes.base.Probe`.

        Raises:
            TaskError: If there is no such adaptor or bag, or the encoder has no class tokens for it.
        """
        of_eva = {"head": nn.Identity(), "criterion": nn.BCEWithLogitsLoss()}
        super().__init__(encoder, weights, of_eva=of_eva, **settings)
        card = self.encoder.card
        self.adaptor = Adaptor.parse(adaptor).with_bag(bag).on(card)
        self.pooling = self.adaptor.pooling_of(card) if self.adaptor.is_solved else None
        self.source.table = self.adaptor.table
        self.bag = self.adaptor.bag_of(card)

    @property
    @override
    def seen(self) -> Seen:  # type: ignore[override]
        """Where the bag, or what is pooled, is from."""
        return "embeddings" if "cls" in (self.bag, self.pooling) else "map"

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        micro, macro = [MicroAUROC(), MicroAP()], [MacroAUROC(), MacroAP(), BalancedAccuracy(), UndefinedLabels()]
        return metrics_lib.MetricsSchema(common=[AverageLoss()], evaluation=[*micro, *macro, CalibrationError()])

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        # One linear layer on the attention-pooled bag: eva's default MLP would probe more than the features.
        card = self.encoder.card
        size = card.embedding_dim if self.bag == "cls" else card.feature_dim
        return ABMIL(input_size=size, output_size=len(classes), projected_input_size=None, hidden_sizes_mlp=())

    @property
    @override
    def is_solved(self) -> bool:  # type: ignore[override]
        """Whether the adaptor's head is solved."""
        return self.adaptor.is_solved

    @override
    def require_data(self) -> None:
        if self.pooling != "mask":
            return
        for part in needed_parts(self.trainer):
            require = getattr(part, "require_masks", None)
            if require is None:
                raise TaskError(
                    f"{self.adaptor.name} pools over masks, and {type(part).__name__} has none: they come from a "
                    "`tapct.tasks.ClassificationDataset` whose spec names them"
                )
            require()

    @override
    def solve(self) -> Solution:
        assert self.pooling is not None
        train, selection = (self.source.pooled_cases(self.trainer, s, self.pooling) for s in ("train", "val"))
        assert train is not None
        for part in filter(None, (train, selection)):
            for name, target in zip(part.names, part.targets, strict=True):
                self._checked(name, torch.from_numpy(target))
        for name, vector in zip(train.names, train.features, strict=True):
            if self.session.features.wants(name):
                self.session.features.add(name, torch.from_numpy(vector[:, None]))

        def head(train: PooledCases, selection: PooledCases | None) -> Solution:
            return solve(self.adaptor.head, train, selection, self._rank, scale=self.scale_features)

        return tables.solved(head, train, selection)

    @override
    def head_of(self, state: State) -> nn.Module:
        return tables.head_of(_solved_head, state) if self.is_solved else super().head_of(state)

    @override
    def seen_by_heads(self) -> dict[str, Any]:
        return {**super().seen_by_heads(), "adaptor": self.adaptor.name, "pooling": self.pooling, "bag": self.bag}

    @override
    def head_input(self, case: EncodedCase) -> Channels:
        assert self.bag is not None
        return instances(case.features, self.bag)

    @override
    def describe(self) -> dict[str, Any]:
        if self.pooling != "mask":
            return super().describe()
        return {**super().describe(), "mask": self.trainer.datamodule.spec.mask}

    @override
    def losses(self, heads: Sequence[Any], cases: Sequence[EncodedCase]) -> torch.Tensor:
        targets = torch.stack([self._target(case) for case in cases])
        logits = attention.logits(heads, [self._bag(case, self.session.scale) for case in cases])
        return torch.stack([self.criterion(of_head, targets) for of_head in logits])

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        logits, target, classes = self._logits(head, case), self._target(case), self.classes
        loss, values = self.criterion(logits, target), logits.tolist()
        result = CaseResult(
            case=case.name,
            patient=case.patient,
            loss=finite_loss(loss, case.name),
            logits=dict(zip(classes, values, strict=True)),
            probabilities=dict(zip(classes, sigmoid(values).tolist(), strict=True)),
            target={n: int(t) for n, t in zip(classes, target, strict=True)},
            padding_voxels=case.features.padding,
            notes=case.notes,
        )
        return {"loss": loss, "predictions": logits[None], "targets": target[None]}, result

    @override
    def score(self, results: list[CaseResult]) -> float | None:
        rows = [[(score, (r.target or {})[n]) for n, score in (r.scores or {}).items()] for r in results]
        pairs = np.array(rows, dtype=np.float64)
        return self._rank(pairs[..., 0], pairs[..., 1])

    def _rank(self, scores: np.ndarray, targets: np.ndarray) -> float | None:
        """Returns the ranked metric of (N, K) scores, over all pairs of case and label; None where it is undefined."""
        rank = average_precision if self.ranked_metric == "MicroAP" else auroc
        value = rank(scores.ravel(), targets.ravel())
        return None if math.isnan(value) else value

    @property
    def ranked_metric(self) -> str:
        """The metric that the task is ranked by; AUROC where the datamodule names none."""
        return self.trainer.datamodule.describe().get("metric", "MicroAUROC")

    def _logits(self, head: nn.Module, case: EncodedCase) -> torch.Tensor:
        if self.pooling is not None:
            part = getattr(self.trainer.datamodule.datasets, self._split)
            return head(self.source.vector(part, case, self.pooling).to(self.device)).float()
        return self.attended(head, case)

    def attended(self, head: nn.Module, case: EncodedCase) -> torch.Tensor:
        """Returns the (K,) logits of a head of attention on a case."""
        return attention.logits([head], [self._bag(case)])[0, 0]

    def _bag(self, case: EncodedCase, scale: ChannelScale | None = None) -> attention.Bag:
        assert self.bag is not None
        return attention.Bag(instances(case.features, self.bag), scale)

    def _target(self, case: EncodedCase) -> torch.Tensor:
        return self._checked(case.name, case.target.flatten()).float()

    def _checked(self, case: str, target: torch.Tensor) -> torch.Tensor:
        """Returns the target of a case.

        Raises:
            TaskError: If it has not one number a class, or one is neither 0 nor 1.
        """
        if target.numel() != len(self.classes):
            raise TaskError(f"{case}: {target.numel()} targets for {len(self.classes)} classes")
        if not ((target == 0) | (target == 1)).all():
            raise TaskError(f"{case}: targets must be 0 or 1, not {target.tolist()}")
        return target


def _solved_head(state: State) -> nn.Module:
    """Returns a solved head that these weights fit into."""
    if "cases" in state:
        cases, features = state["cases"].shape
        return NeighbourHead(features, state["targets"].shape[1], cases)
    return LinearHead(*reversed(state["weight"].shape))
