"""Regression: numbers of a scan, each in a unit, compared by how far they are off.

Several targets do not add up: ml of a liver and of a spleen, or g/l and a count, have no common size. Errors are
divided by `scale` before they are averaged over targets: 1 of a single target, which stays in its unit, and of several
the deviation of each over all training cases of the split, whoever of them trained. Their unit is then "SD".
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tapct.kinds.base import TARGET, Cases, Field, Kind, Mean, Metric, Statistic
from tapct.metrics import regression


def _scaled(cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (C, K) predictions, references and training means, divided by the scale of their target."""
    predicted, observed, baseline = (cases[name] / cases["scale"] for name in ("predicted", "observed", "baseline"))
    return predicted, observed, baseline


def _errors(cases: Cases) -> np.ndarray:
    predicted, observed, _ = _scaled(cases)
    return regression.absolute_errors(predicted, observed)


def _over_targets(metric: regression.RegressionMetric) -> Statistic:
    return Statistic(lambda cases, counts: regression.mean_over_targets(metric, *_scaled(cases), counts))


def squared_error(outcome: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the mean squared error over the targets that a case has; 0 of one that has none."""
    rows = zip(*(outcome[name].values() for name in ("predicted", "observed", "scale")), strict=True)
    squares = [((predicted - observed) / scale) ** 2 for predicted, observed, scale in rows if observed is not None]
    return math.fsum(squares) / len(squares) if squares else 0.0


def _fault(outcome: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns what is wrong with the scale of a single target, which is measured in its unit."""
    (first, *others) = outcome["scale"].values()
    return f"the scale of a single target is {first:g}, and must be 1" if not others and first != 1 else None


def _training_mean(cases: Cases) -> Cases:
    return replace(cases, values={**cases.values, "predicted": cases["baseline"]})


_EQUAL = "all predictions, or all references, are equal"

KIND = Kind(
    name="regression",
    title="Regression",
    target="one number, or several, each in a unit; any may be missing",
    metrics=(
        Metric(
            name="MAE",
            title="MAE",
            of=Mean(_errors),
            high=math.inf,
            lower_is_better=True,
            unit=TARGET,
            undefined="no case has a reference",
        ),
        Metric(
            name="RMSE",
            title="RMSE",
            of=_over_targets(regression.root_mean_squared_error),
            high=math.inf,
            lower_is_better=True,
            unit=TARGET,
            undefined="no case has a reference",
        ),
        Metric(
            name="R2",
            title="R2",
            column="R2, about the training mean",
            of=_over_targets(regression.r_squared),
            low=-math.inf,
            undefined="every reference is the training mean",
        ),
        Metric(
            name="Spearman",
            title="Spearman",
            of=_over_targets(regression.spearman),
            low=-1.0,
            undefined=_EQUAL,
        ),
        Metric(
            name="CalibrationSlope",
            title="calibration slope",
            column="calibration slope, 1 is right",
            of=_over_targets(regression.calibration_slope),
            low=-math.inf,
            high=math.inf,
            undefined="all predictions are equal",
        ),
    ),
    ranked=("MAE", "RMSE", "R2", "Spearman"),
    fields=(
        Field(name="predicted", title="prediction", answer=True),
        Field(name="observed", title="reference", given=True, missing=True),
        Field(name="baseline", title="mean of the cases that trained"),
        Field(name="scale", title="what errors are divided by", given=True, low=np.finfo(np.float64).tiny),
    ),
    probe="tapct.probes.regression:RegressionProbe",
    dataset="tapct.tasks.regression:RegressionDataset",
    page="tapct.leaderboard.page.kinds.regression",
    fault=_fault,
    loss=squared_error,
    heads=("ridge", "attention"),
    chance=_training_mean,
    rows_to_beat=("chance", "intensity", "body-size", "radiomics", "random-pyramid", "random weights"),
)
