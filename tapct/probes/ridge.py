"""Ridge regression on pooled features: each target by itself, on the cases that have it, with a penalty of its own.

The closed form is the same whatever unit a target is in, so that nothing needs to be standardised to be solved.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tapct.probes import solvers
from tapct.probes.solved import (
    LinearHead,
    Parts,
    PooledCases,
    Predict,
    Problem,
    Solution,
    choose,
    divided,
    joined,
    linear_head,
    scale_of,
)
from tapct.probes.target_scale import TargetScale
from tapct.records import SolvedSelection

STRENGTHS = tuple(10.0**power for power in range(-6, 7))
"""L2 penalties on the mean squared error that are chosen from, for features of unit deviation: from one that costs no
digit of a volume to one that leaves nothing but the mean, even where a thousand channels all say the same."""


BASELINE = "baseline"
"""Name of the buffer of a head that holds the mean of each target over the cases that trained it."""


class RidgeHead(LinearHead):
    """A linear head that knows the constant answer which it is compared with."""

    baseline: torch.Tensor

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(features, outputs)
        self.register_buffer(BASELINE, torch.zeros(outputs, dtype=torch.float64))


def solve(train: PooledCases, selection: PooledCases | None, names: Sequence[str], *, scale: bool) -> Solution:
    """Solves a head on training cases.

    Args:
        train: The training cases; a target that is NaN is missing, and leaves its case out of this target alone.
        selection: The selection cases, likewise.
        names: Of the targets.
        scale: Whether channels are divided by their deviation over the training cases.

    Raises:
        TaskError: If no training case has a target, or all have it alike.
    """
    targets = TargetScale.of(train.targets, names)
    divisor = scale_of(train) if scale else None
    parts = [None if part is None else divided(part, divisor) for part in (train, selection)]
    heads, chosen = [], dict[str, SolvedSelection]()
    for k, name in enumerate(names):
        own, deciding = (None if part is None else _with_target(part, k) for part in parts)
        assert own is not None  # TargetScale has seen to it
        head, chosen[name] = _solve(own, deciding, float(targets.deviation[k]))
        heads.append(head)
    weight, bias = np.concatenate([head.weight for head in heads]), np.concatenate([head.bias for head in heads])
    about = chosen[names[0]] if len(names) == 1 else SolvedSelection(targets=chosen)
    linear = linear_head(solvers.Linear(weight, bias), divisor)
    solved = RidgeHead(weight.shape[1], len(names))
    solved.load_state_dict({**linear.state_dict(), BASELINE: torch.from_numpy(targets.mean)})
    return Solution(solved, divisor, about)


def _with_target(cases: PooledCases, k: int) -> PooledCases | None:
    """Returns the cases that have a target, with it alone; None where there are none."""
    rows = np.flatnonzero(~np.isnan(cases.targets[:, k]))
    return cases.some(rows).of_targets([k]) if len(rows) else None


def _solve(
    train: PooledCases, selection: PooledCases | None, deviation: float
) -> tuple[solvers.Linear, SolvedSelection]:
    """Returns the head of one target, and what its penalty was chosen from."""
    settings = train.strengths(STRENGTHS)

    def fit(cases: PooledCases) -> list[Predict]:
        design = cases.design
        return [solvers.ridge(design, cases.targets, strength) for strength in settings]

    def errors(parts: Parts) -> np.ndarray:
        predicted, observed = joined(parts)
        return predicted - observed

    problem = Problem(
        settings=settings,
        fit=fit,
        score=lambda parts: float(np.abs(errors(parts)).mean()),
        loss=lambda parts: float((errors(parts) ** 2).mean()) / deviation**2,
        sign=-1,
    )
    chosen, about = choose(problem, train, selection) if len(settings) > 1 else (0, {})
    return solvers.ridge(train.design, train.targets, settings[chosen]), SolvedSelection(**about, is_solved=True)
