"""The survival probe: Cox's model on pooled features and tables, each patient predicted by a head of other patients."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from tapct.encoders import Encoder
from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.kinds.survival import case_loss
from tapct.probes import cox_head
from tapct.probes.cox_head import CoxHead
from tapct.probes.scan_probe import ScanProbe
from tapct.probes.solved import PooledCases, Solution
from tapct.records import CaseResult


class SurvivalProbe(ScanProbe):
    """Fits and evaluates Cox's model in eva: run k reports repeat k of the task's folds, all patients out of fold."""

    kind = "survival"

    def __init__(
        self, encoder: str | Encoder, weights: str | None = None, adaptor: str = "cox:mean", **settings: Any
    ) -> None:
        """Initializes the probe.

        Args:
            encoder: Name of an encoder (`tapct list encoders`), or an `Encoder` by class_path.
            weights: None for the published weights, the path of a file, or "random".
            adaptor: How features are pooled for Cox's model: "cox:cls", "cox:mean", "cox:max", "cox:mean+max" or, where
                the task has masks, "cox:mask"; with columns of the task's table behind them, "cox:mean&table=age+stage"
                or, without features, "cox:table=age+stage". "cox" pools class tokens where the model has some, else
                all patches.
            settings: As in `tapct.probes.settings.ProbeSettings`.

        Raises:
            TaskError: If there is no such adaptor, or it is of another kind of task.
        """
        super().__init__(encoder, weights, adaptor, "auto", criterion=nn.Identity(), **settings)

    @override
    def solve_head(self, train: PooledCases, selection: PooledCases | None) -> Solution:
        return cox_head.solve(train, selection, scale=self.settings.scale_features)

    @override
    def solved_head(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        return CoxHead(len(state["weight"]))

    @override
    def evaluate(self, head: nn.Module, case: EncodedCase, *, reported: bool) -> tuple[dict[str, Any], CaseResult]:
        target = case.target.flatten().tolist()
        if len(target) != 2:
            raise TaskError(f"{case.name}: its target is {target}, and must be two numbers: days, and 1 of death or 0")
        risk, *survival = self.outputs(head, case).tolist()
        days, event = target
        values = {"time_days": days, "event": event, "risk": risk, "survival": survival}
        loss = torch.tensor(case_loss(survival, days, event == 1))
        outcome = {field: dict.fromkeys(self.classes, value) for field, value in values.items()}
        return {"loss": loss}, self.result(case, loss, outcome)
