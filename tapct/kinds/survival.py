"""Survival: who dies sooner, and the probability to be alive at a time, of patients whom some heads never saw.

What a record holds of a patient is predicted by a head that other patients trained: of each repeat of the folds, all
patients once.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tapct.kinds.base import Cases, Field, Kind, Metric, Statistic
from tapct.metrics import survival
from tapct.metrics.survival import GRID_DAYS, HORIZONS_DAYS, Outcomes

LEAST = 1e-12
"""A probability below it counts as this in the loss of a case, which must be finite."""

_NOBODY = "nobody who can be compared died before the last horizon"


def outcomes_of(cases: Cases) -> Outcomes:
    """Returns what became of the patients of a run."""
    return Outcomes(cases["time_days"][:, 0], cases["event"][:, 0] == 1)


def survival_of(cases: Cases) -> np.ndarray:
    """Returns their predicted probabilities to outlive the times of the grid, (C, T)."""
    return np.stack(list(cases["survival"][:, 0]))


def _uno(cases: Cases, counts: np.ndarray) -> np.ndarray:
    return survival.uno_c(outcomes_of(cases), cases["risk"][:, 0], counts)


def _harrell(cases: Cases, counts: np.ndarray) -> np.ndarray:
    return survival.harrell_c(outcomes_of(cases), cases["risk"][:, 0], counts)


def _auroc(cases: Cases, counts: np.ndarray, days: float) -> np.ndarray:
    return survival.auroc(outcomes_of(cases), cases["risk"][:, 0], days, counts)


def _brier(cases: Cases, counts: np.ndarray) -> np.ndarray:
    return survival.integrated_brier(outcomes_of(cases), survival_of(cases), GRID_DAYS, counts)


def _needs(cases: Cases) -> dict[str, np.ndarray]:
    of = outcomes_of(cases)
    last = HORIZONS_DAYS[-1]
    return {
        "who die before the last horizon": of.event & (of.days < last),
        "who outlive others": of.days > of.days.min(),
    }


def _fault(outcome: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns what is wrong with a patient beyond ranges."""
    for name, predicted in outcome["survival"].items():
        if outcome["event"][name] not in (0, 1):
            return f"event of {name} is {outcome['event'][name]:g}, and must be 0 or 1"
        if len(predicted) != len(GRID_DAYS):
            return f"survival of {name} has {len(predicted)} numbers, and must have {len(GRID_DAYS)}: one a quarter"
        if any(later > earlier for earlier, later in itertools.pairwise(predicted)):
            return f"survival of {name} rises with time"
    return None


def loss(outcome: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the negative logarithm of how likely what came true was, by the predicted survival.

    Of a death, the probability to die in that quarter of a year; of a patient lost in one, or seen alive after the
    last, the probability to outlive the quarters before.
    """
    (predicted,), (days,), (event,) = (tuple(outcome[name].values()) for name in ("survival", "time_days", "event"))
    return case_loss(predicted, days, event == 1)


def case_loss(predicted: Sequence[float], days: float, event: bool) -> float:
    """Returns it of the (T,) survival of a patient, and what became of the patient."""
    alive = [1.0, *predicted]
    passed = sum(days > time for time in GRID_DAYS)
    died = event and passed < len(GRID_DAYS)
    return -math.log(max(LEAST, alive[passed] - alive[passed + 1] if died else alive[passed]))


KIND = Kind(
    name="survival",
    title="Survival",
    target="days until death, or until the patient was last seen alive",
    metrics=(
        Metric(name="UnoC", title="Uno's C", of=Statistic(_uno), undefined=_NOBODY, needs=_needs),
        Metric(
            name="HarrellC", title="Harrell's C", of=Statistic(_harrell), undefined="no two patients are comparable"
        ),
        *(
            Metric(
                name=survival.auroc_name(days),
                title=f"AUROC, {years} year{'s' if years > 1 else ''}",
                of=Statistic(functools.partial(_auroc, days=days)),
                undefined="nobody died by then, or nobody outlived it",
            )
            for years, days in enumerate(HORIZONS_DAYS, start=1)
        ),
        Metric(
            name="IBS",
            title="integrated Brier score",
            of=Statistic(_brier),
            high=math.inf,  # few who are left under observation may weigh more than all who were
            lower_is_better=True,
            undefined="nobody is under observation at the last horizon",
        ),
    ),
    ranked=("UnoC", "HarrellC"),
    fields=(
        Field(name="time_days", title="days until death, or until last seen", given=True, low=LEAST),
        Field(name="event", title="1 of death, 0 of the last time seen", given=True, low=0, high=1),
        Field(name="risk", title="logarithm of the hazard ratio to the mean training patient"),
        Field(
            name="survival",
            title="probability to outlive each quarter of a year up to the last horizon",
            many=True,
            low=0,
            high=1,
        ),
    ),
    probe="tapct.probes.survival:SurvivalProbe",
    dataset="tapct.tasks.survival:SurvivalDataset",
    page="tapct.leaderboard.page.kinds.survival",
    fault=_fault,
    loss=loss,
    heads=("cox",),
    deals=True,
    rows_to_beat=("chance", "intensity", "body-size", "radiomics", "random-pyramid", "random weights"),
)
