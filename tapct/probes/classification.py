"""The classification probe: attention over a scan's windows (section 3.3.2), or a head that is solved."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from eva.core.metrics import AverageLoss
from eva.core.metrics import structs as metrics_lib
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.metrics import (
    BalancedAccuracy,
    CalibrationError,
    MacroAP,
    MacroAPSkill,
    MacroAUROC,
    MicroAP,
    MicroAUROC,
    RareLabels,
    UndefinedLabels,
)
from tapct.metrics.by_label import is_defined
from tapct.metrics.classification import METRICS, OVER_LABELS, sigmoid
from tapct.probes import attention
from tapct.probes.heads import finite_loss
from tapct.probes.label_heads import NeighbourHead, solve
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.records import CaseResult


class ClassificationProbe(ScanProbe):
    """Trains and evaluates an adaptor in eva, one independent 0/1 output per class of the dataset.

    Where a case does not state a label, the loss and every metric leave the pair out.
    """

    kind = "classification"

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
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TaskError: If there is no such adaptor or bag, or the encoder has no class tokens for it.
        """
        super().__init__(encoder, weights, adaptor, bag, criterion=nn.BCEWithLogitsLoss(), **settings)

    @property
    @override
    def default_metrics(self) -> metrics_lib.MetricsSchema:
        macro = [MacroAUROC(), MacroAP(), MacroAPSkill(), BalancedAccuracy(), UndefinedLabels(), RareLabels()]
        evaluation = [MicroAUROC(), MicroAP(), *macro, CalibrationError()]
        return metrics_lib.MetricsSchema(common=[AverageLoss()], evaluation=evaluation)

    @override
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        for part in filter(None, (train, selection)):
            for name, target in zip(part.names, part.targets, strict=True):
                self._checked(name, torch.from_numpy(target))
        return solve(self.adaptor.head, train, selection, self._rank, scale=self.settings.scale_features)

    @override
    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        if "cases" in state:
            cases, features = state["cases"].shape
            return NeighbourHead(features, state["targets"].shape[1], cases)
        return super().solved_head(state)

    @override
    def losses(self, heads: Sequence[Any], cases: Sequence[EncodedCase]) -> torch.Tensor:
        targets = torch.stack([self._target(case) for case in cases])
        logits = attention.logits(heads, [self.in_bag(case, self.session.scale) for case in cases])
        return torch.stack([self._loss(of_head, targets) for of_head in logits])

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean loss of logits over the pairs that are stated; 0, without a gradient, where none is."""
        known = ~targets.isnan()
        if known.all():
            return self.criterion(logits, targets)
        return self.criterion(logits[known], targets[known]) if known.any() else 0 * logits.sum()

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        logits, target, classes = self.outputs(head, case).float(), self._target(case), self.classes
        loss, values = self._loss(logits, target), logits.tolist()
        result = CaseResult(
            case=case.name,
            patient=case.patient,
            loss=finite_loss(loss, case.name),
            logits=dict(zip(classes, values, strict=True)),
            probabilities=dict(zip(classes, sigmoid(values).tolist(), strict=True)),
            target={n: None if t.isnan() else int(t) for n, t in zip(classes, target, strict=True)},
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
        """Returns the ranked metric of (N, K) scores of selection cases; None where it is undefined.

        These are fewer than the reported ones: a mean over labels is of all that are defined there, rare ones too.
        """
        name, once = self.ranked.name, np.ones((len(targets), 1))
        own = {"among": is_defined(targets)} if name in OVER_LABELS else {}
        value = float(METRICS[name](scores, targets, once, **own)[0])
        return None if math.isnan(value) else value

    def _target(self, case: EncodedCase) -> torch.Tensor:
        return self._checked(case.name, case.target.flatten()).float()

    def _checked(self, case: str, target: torch.Tensor) -> torch.Tensor:
        """Returns the target of a case, NaN where a label is missing.

        Raises:
            TaskError: If it has not one number a class, or one is neither 0 nor 1 nor missing.
        """
        if target.numel() != len(self.classes):
            raise TaskError(f"{case}: {target.numel()} targets for {len(self.classes)} classes")
        if not ((target == 0) | (target == 1) | target.isnan()).all():
            raise TaskError(f"{case}: targets must be 0 or 1, not {target.tolist()}; NaN where missing")
        return target
