"""What selects a head: the rules of choosing, and the validation evaluations of heads while they train."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
from torch import nn

from tapct.errors import TaskError
from tapct.features import EncodedCase
from tapct.probes.folds import folds_of
from tapct.probes.heads import CandidateHeads, DivergedError
from tapct.probes.settings import ProbeSettings
from tapct.records import CaseResult

Evaluation = tuple[dict[str, Any], CaseResult]
"""What eva's metrics take, and the result of a head on a case."""


def has_selection(trainer: pl.Trainer, settings: ProbeSettings) -> bool:
    """Returns whether heads are chosen by their scores on selection cases; else the last ones are reported."""
    return settings.select == "best" and trainer.datamodule.datasets.val is not None  # type: ignore[attr-defined]


def selection_patients(trainer: pl.Trainer) -> int:
    """Returns how many selection patients there are."""
    part = trainer.datamodule.datasets.val  # type: ignore[attr-defined]
    return 0 if part is None else len(getattr(part, "patients", range(len(part))))


def require_selectable(trainer: pl.Trainer, settings: ProbeSettings) -> None:
    """Refuses settings by which heads that are trained by steps would be chosen on reported cases, or as one.

    Raises:
        TaskError: If so.
    """
    if folds_of(trainer.datamodule) is not None:  # type: ignore[attr-defined]
        raise TaskError(
            "a cross-validated task takes heads that are solved, and this one is trained by steps: name another "
            "adaptor, or give a split_file without folds"
        )
    if len(settings.learning_rates or []) > 1 and not has_selection(trainer, settings):
        raise TaskError(
            "several learning_rates need selection cases to choose by (a task with a `val` split, and select: "
            "best); nothing may be chosen on the reported cases"
        )
    if trainer.gradient_clip_val is not None and settings.runs_together:
        raise TaskError(
            "gradient_clip_val clips the heads that train side by side as one; set runs_together: false and give "
            "at most one learning rate"
        )


class ValidationEvaluations:
    """The evaluations of all candidates on the selection cases, while they train.

    A head that has diverged must not end the others: it has no score, and is never chosen.
    """

    def __init__(
        self,
        candidates: CandidateHeads,
        evaluate: Callable[[nn.Module, EncodedCase], Evaluation],
        score: Callable[[list[CaseResult]], float | None],
    ) -> None:
        """Initializes the evaluations.

        Args:
            candidates: The heads, which are told what came out.
            evaluate: Evaluates a head on a case; raises a `DivergedError` if it has diverged.
            score: Gives the ranked metric of a head over cases; None where it is undefined.
        """
        self._candidates, self._evaluate, self._score = candidates, evaluate, score
        self._heads: Sequence[nn.Module] = ()
        self._results: list[list[CaseResult | None]] = []

    def begin(self, heads: Sequence[nn.Module]) -> None:
        """Begins an evaluation, of one head for each candidate as it would be reported now."""
        self._heads, self._results = heads, [[] for _ in heads]

    def evaluate(self, case: EncodedCase, step: int) -> dict[str, Any]:
        """Evaluates all heads on a case, and returns what eva logs: what came out for the first that has not diverged.

        Raises:
            DivergedError: If all of them have.
        """
        found = [self._of(head, case) for head in self._heads]
        for results, evaluation in zip(self._results, found, strict=True):
            results.append(None if evaluation is None else evaluation[1])
        for evaluation in found:
            if evaluation is not None:
                return evaluation[0]
        raise DivergedError(f"every head has diverged at step {step}; lower the learning rates")

    def end(self, step: int) -> None:
        """Ends the evaluation: the candidates are told their scores and losses at this step."""
        scores: list[float | None] = []
        losses: list[float] = []
        for results in self._results:
            finite = [result for result in results if result is not None]
            is_whole = len(finite) == len(results)
            scores.append(self._score(finite) if is_whole else None)
            losses.append(statistics.fmean(one.loss for one in finite) if finite and is_whole else math.nan)
        self._candidates.observe(scores, losses, step)

    def _of(self, head: nn.Module, case: EncodedCase) -> Evaluation | None:
        try:
            return self._evaluate(head, case)
        except DivergedError:
            return None
