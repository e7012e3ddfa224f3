"""The regression probe: ridge on one vector a scan, or attention over its instances, in the unit of each target."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from eva.vision.models.networks import ABMIL
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.kinds.regression import squared_error
from tapct.probes import attention, ridge
from tapct.probes.heads import HeadState
from tapct.probes.ridge import BASELINE, RidgeHead
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.probes.target_scale import TargetScale
from tapct.records import CaseResult
from tapct.tasks.regression import RegressionDataset

LAST_LAYER = "classifier._network.0"
"""Of an attention head: it gives standardised targets while it trains, and those of the unit when that is folded in."""


class AttentionHead(ABMIL):
    """eva's gated attention, which knows the constant answer to compare it with."""

    baseline: torch.Tensor

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(input_size=features, output_size=outputs, projected_input_size=None, hidden_sizes_mlp=())
        self.register_buffer(BASELINE, torch.zeros(outputs, dtype=torch.float64))


class RegressionProbe(ScanProbe):
    """Trains and evaluates an adaptor in eva that predicts numbers; a case may lack any of them."""

    kind = "regression"

    _targets: TargetScale | None = None
    """Of the cases that train; None where a head is only reported."""

    def __init__(
        self,
        encoder: str | Encoder,
        weights: str | None = None,
        adaptor: str = "ridge",
        bag: Literal["auto", "cls", "patch"] = "auto",
        **settings: Any,
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: What stands on the features: "ridge", with ":cls", ":mean", ":max", ":mean+max" or, where the task
                has masks, ":mask" behind it to say how features are pooled, and columns of a table; or "attention",
                which is trained by steps. See `tapct.probes.adaptors`.
            bag: What attention looks at: the class tokens of a scan's windows ("cls"), its patch features ("patch"), or
                "auto", class tokens where the model has some, else patches. "attention:patch" says the same.
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TaskError: If there is no such adaptor or bag, or the encoder has no class tokens for it.
        """
        super().__init__(encoder, weights, adaptor, bag, criterion=nn.MSELoss(), **settings)

    # -- A head that is solved -------------------------------------------------------------------------

    @override
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        return ridge.solve(train, selection, self.classes, scale=self.settings.scale_features)

    @override
    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        return RidgeHead(*reversed(state["weight"].shape))

    # -- A head that is trained by steps ---------------------------------------------------------------

    @override
    def prepare(self) -> None:
        super().prepare()
        cases = self.source.training_cases(self.trainer)
        targets = np.stack([self._target(case) for case in cases])
        self._targets = TargetScale.of(targets, self.classes)

    @override
    def build_head(self, classes: list[str]) -> nn.Module:
        card = self.encoder.card
        head = AttentionHead(card.embedding_dim if self.bag == "cls" else card.feature_dim, len(classes))
        if self._targets is not None:
            head.baseline.copy_(torch.from_numpy(self._targets.mean))
        return head

    @override
    def losses(self, heads: Sequence[Any], cases: Sequence[EncodedCase]) -> torch.Tensor:
        assert self._targets is not None
        outputs = attention.logits(heads, [self.in_bag(case, self.session.scale) for case in cases])
        targets = np.stack([self._target(case) for case in cases])
        standard = torch.from_numpy((targets - self._targets.mean) / self._targets.deviation).to(outputs)
        there = ~standard.isnan()
        squares = torch.where(there, outputs - standard.nan_to_num(), 0.0) ** 2
        return squares.sum(dim=(1, 2)) / there.sum().clamp(min=1)

    @override
    def folded(self, state: HeadState) -> dict[str, torch.Tensor]:
        own, targets = super().folded(state), self._targets
        assert targets is not None
        weight, bias = (own[f"{LAST_LAYER}.{name}"] for name in ("weight", "bias"))
        mean, deviation = (torch.from_numpy(of).to(bias) for of in (targets.mean, targets.deviation))
        own[f"{LAST_LAYER}.weight"], own[f"{LAST_LAYER}.bias"] = weight * deviation[:, None], bias * deviation + mean
        return own

    # -- What comes out --------------------------------------------------------------------------------

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        predicted = self.outputs(head, case).double().tolist()
        observed = [None if np.isnan(value) else value for value in self._target(case).tolist()]
        baseline = next(buffer for name, buffer in head.named_buffers() if name.split(".")[-1] == BASELINE).tolist()
        values = {"predicted": predicted, "observed": observed, BASELINE: baseline, "scale": self._scale}
        outcome = {field: dict(zip(self.classes, of, strict=True)) for field, of in values.items()}
        loss = torch.tensor(squared_error(outcome) if np.isfinite(predicted).all() else np.nan)
        return {"loss": loss}, self.result(self._with_reasons(case), loss, outcome)

    def _target(self, case: EncodedCase) -> np.ndarray:
        """Returns the (K,) targets of a case, NaN where one is missing.

        Raises:
            TaskError: If it has not one for each class.
        """
        target = case.target.flatten().double().cpu().numpy()
        if len(target) != len(self.classes) or np.isinf(target).any():
            raise TaskError(f"{case.name}: its targets are {target.tolist()}, and must be {', '.join(self.classes)}")
        return target

    @cached_property
    def _scale(self) -> list[float]:
        """What errors are divided by: 1 of one target; of several the deviation of each over the training cases.

        Over all of the split, also where only some of them train: what is predicted from few is measured as from all.
        """
        if len(self.classes) == 1:
            return [1.0]
        part = getattr(self.trainer.datamodule.datasets, self.split)
        targets = np.stack([part.target(case).numpy() for case in part.table.cases["train"]])
        return TargetScale.of(targets, self.classes).deviation.tolist()

    def _with_reasons(self, case: EncodedCase) -> EncodedCase:
        """Returns a case with a note of each target that it lacks, where its dataset knows why."""
        part = getattr(self.trainer.datamodule.datasets, self.split)
        reasons = part.missing(case.name) if isinstance(part, RegressionDataset) else ()
        return replace(case, notes=(*case.notes, *reasons))
