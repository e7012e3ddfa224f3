"""The kind survival: its numbers against scikit-survival, and what a record refuses."""

import math

import numpy as np
import pytest
from sksurv.metrics import concordance_index_ipcw
from sksurv.util import Surv

from tapct import kinds
from tapct.kinds.base import Cases
from tapct.kinds.survival import case_loss
from tapct.metrics.survival import GRID_DAYS

KIND = kinds.kind("survival")


def cases(patients: int = 80) -> Cases:
    random = np.random.default_rng(0)
    risk = random.normal(size=patients)
    survival = np.empty((patients, 1), dtype=object)
    for place, one in enumerate(risk):
        survival[place, 0] = np.exp(-np.array(GRID_DAYS) / 900 * np.exp(one))
    values = {
        "time_days": np.ceil(900 * random.exponential(size=patients) * np.exp(-risk))[:, None],
        "event": (random.random(patients) < 0.7).astype(float)[:, None],
        "risk": risk[:, None],
        "survival": survival,
    }
    names = tuple(map(str, range(patients)))
    return Cases(names, names, ("death",), values)


def test_numbers_of_a_run_are_those_of_scikit_survival():
    of = cases()
    found = KIND.numbers(of)
    assert list(found) == [metric.name for metric in KIND.metrics]
    assert found.keys() == {"UnoC", "HarrellC", "AUROC@365d", "AUROC@730d", "AUROC@1095d", "IBS"}
    y = Surv.from_arrays(of["event"][:, 0] == 1, of["time_days"][:, 0])
    assert found["UnoC"] == pytest.approx(concordance_index_ipcw(y, y, of["risk"][:, 0], tau=3 * 365.25)[0], abs=1e-12)
    assert KIND.metric("IBS").sign == -1


def outcome(**changed):
    given = {"time_days": 400.0, "event": 1.0, "risk": 0.3, "survival": [0.9 - 0.05 * n for n in range(12)]}
    return {name: {"death": value} for name, value in (given | changed).items()}


def test_a_patient_is_recorded_as_the_fields_say():
    assert KIND.outcome_fault(outcome(), ["death"]) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"event": 0.5}, "event of death is 0.5, and must be 0 or 1"),
        ({"time_days": 0.0}, "time_days of death is 0"),
        ({"time_days": None}, "time_days of death is missing"),
        ({"survival": [0.9] * 11}, "has 11 numbers, and must have 12"),
        ({"survival": [0.5, 0.6] + [0.4] * 10}, "rises with time"),
        ({"survival": [1.5] + [0.4] * 11}, "survival of death is 1.5"),
        ({"risk": math.inf}, "risk of death is inf"),
    ],
)
def test_a_patient_who_cannot_be_is_refused(changed, message):
    assert message in (KIND.outcome_fault(outcome(**changed), ["death"]) or "")


def test_the_loss_is_the_likelihood_of_the_quarter():
    survival = [0.9 - 0.05 * n for n in range(12)]
    assert case_loss(survival, 10.0, True) == pytest.approx(-math.log(1 - 0.9)), "in the first quarter"
    assert case_loss(survival, GRID_DAYS[0], True) == pytest.approx(-math.log(1 - 0.9)), "on its last day"
    assert case_loss(survival, GRID_DAYS[0] + 1, True) == pytest.approx(-math.log(0.05))
    assert case_loss(survival, GRID_DAYS[0] + 1, False) == pytest.approx(-math.log(0.9))
    assert case_loss(survival, 5000.0, True) == case_loss(survival, 5000.0, False) == pytest.approx(-math.log(0.35))
    assert KIND.loss is not None
    assert KIND.loss(outcome()) == case_loss(survival, 400.0, True)
    assert math.isfinite(case_loss([0.0] * 12, 5000.0, True))
