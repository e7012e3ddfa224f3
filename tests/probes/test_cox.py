"""Cox's model against scikit-survival and lifelines, and by hand."""

import math

import numpy as np
import pytest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from tapct.metrics.survival import Outcomes, harrell_c
from tapct.probes.cox import STRENGTHS, RiskSets, cox, survival
from tapct.probes.solvers import TABLE_STRENGTH, Design

LIFELINES = {
    "weight": [0.7745307478, -0.5152144726, 0.134304081],
    "log_likelihood": -172.414759165,
    "concordance": 0.6834924965893588,
}
"""Of lifelines 0.30.3 and `planted(80, 3)`: `CoxPHFitter().fit`, Efron ties, and the index of the first feature alone.

It needs pandas below 3, so that it cannot be installed next to us; the numbers are of a virtual environment of its own.
"""


def planted(patients: int, features: int, seed: int = 0) -> tuple[np.ndarray, Outcomes]:
    """Features of which two count, and times in steps of 100 days: most deaths are tied."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(patients, features)) + 5
    truth = (values[:, :2] - 5) @ [0.8, -0.5]
    died, lost = 600 * random.exponential(size=patients) * np.exp(-truth), random.uniform(100, 2500, patients)
    return values, Outcomes(np.ceil(np.minimum(died, lost) / 100) * 100, died <= lost)


@pytest.mark.parametrize(("patients", "features"), [(150, 6), (40, 90)])
def test_the_model_is_that_of_scikit_survival(patients, features):
    values, outcomes = planted(patients, features)
    y = Surv.from_arrays(outcomes.event, outcomes.days)
    for strength, model in zip((1e-2, 1.0, 100.0), cox(Design(values), outcomes, (1e-2, 1.0, 100.0)), strict=True):
        assert model.is_solved
        alpha = strength * outcomes.event.sum()
        theirs = CoxPHSurvivalAnalysis(alpha=alpha, ties="efron", n_iter=200, tol=1e-14).fit(values, y)
        assert model.weight == pytest.approx(theirs.coef_, abs=1e-6)
        assert harrell_c(outcomes, model.risk(values)) == pytest.approx(harrell_c(outcomes, values @ theirs.coef_))


def test_without_a_penalty_it_is_that_of_lifelines():
    values, outcomes = planted(80, 3)
    (model,) = cox(Design(values), outcomes, (1e-12,))
    assert model.weight == pytest.approx(LIFELINES["weight"], abs=1e-7)
    assert -RiskSets(outcomes).loss(model.risk(values)) == pytest.approx(LIFELINES["log_likelihood"], abs=1e-7)
    assert harrell_c(outcomes, values[:, 0])[0] == pytest.approx(LIFELINES["concordance"], abs=1e-12)


def test_efrons_ties_by_hand():
    """Two deaths on day 1, with x = 1 and x = 0, and one patient with x = 0 who lives.

    With t = exp(weight), the likelihood is t / (t + 2) for the first death and 1 / (t / 2 + 1 / 2 + 1) for the second:
    half of each of the two is still in the risk set. Its logarithm is highest where (t + 2) (t + 3) = t (2 t + 5), at
    t = sqrt(6).
    """
    x, outcomes = np.array([[1.0], [0.0], [0.0]]), Outcomes(np.array([1.0, 1.0, 2.0]), np.array([True, True, False]))
    (model,) = cox(Design(x), outcomes, (1e-14,))
    t = math.sqrt(6)
    assert model.weight[0] == pytest.approx(math.log(t), abs=1e-9)
    assert RiskSets(outcomes).loss(x[:, 0] * math.log(t)) == pytest.approx(
        -math.log(t) + math.log(t + 2) + math.log(t / 2 + 1.5), abs=1e-12
    )
    hazard = 1 / (t + 2) + 1 / (t / 2 + 1.5)  # of a patient with x = 0, up to day 1
    alive = survival(model.risk(x), model.baseline([0.5, 1.0, 3.0]))
    assert alive[:, 0] == pytest.approx(1.0)
    assert alive[:, 1] == pytest.approx([math.exp(-hazard * t), math.exp(-hazard), math.exp(-hazard)], abs=1e-8)
    assert np.array_equal(alive[:, 1], alive[:, 2])


def test_the_order_of_patients_decides_nothing():
    values, outcomes = planted(60, 20)
    shuffled = np.random.default_rng(1).permutation(60)
    (one,), (other,) = (cox(Design(values[rows]), outcomes[rows], (0.1,)) for rows in (np.arange(60), shuffled))
    assert one.weight == pytest.approx(other.weight, abs=1e-9)


def test_survival_of_the_training_patients_is_calibrated_without_ties():
    values, outcomes = planted(200, 4)
    outcomes = Outcomes(outcomes.days + np.random.default_rng(2).random(200), outcomes.event)
    (model,) = cox(Design(values), outcomes, (1e-12,))
    y = Surv.from_arrays(outcomes.event, outcomes.days)
    theirs = CoxPHSurvivalAnalysis(alpha=1e-10, ties="efron", n_iter=200, tol=1e-14).fit(values, y)
    days = [300.0, 400.0, 800.0]
    expected = [[step(day) for day in days] for step in theirs.predict_survival_function(values)]
    assert survival(model.risk(values), model.baseline(days)) == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("features", [0, 1, 2000])
def test_any_number_of_features_is_solved(features):
    values, outcomes = planted(50, max(features, 2))
    for strength, model in zip(STRENGTHS, cox(Design(values[:, :features]), outcomes), strict=True):
        assert model.is_solved, strength
        assert np.isfinite(model.risk(values[:, :features])).all()


def test_constant_features_give_every_patient_the_same_survival():
    _, outcomes = planted(50, 2)
    constant = np.full((50, 3), 7.0)
    model = cox(Design(constant), outcomes)[0]
    assert not model.risk(constant).any()
    assert len(np.unique(survival(model.risk(constant), model.baseline([500.0])))) == 1


def test_a_table_keeps_its_own_penalty_whatever_that_of_the_features():
    values, outcomes = planted(80, 60)
    table = values[:, :2]
    both = np.concatenate([values[:, 2:], table], axis=1)
    (alone,) = cox(Design(table, table=2), outcomes, (1.0,))
    (beside,) = cox(Design(both, table=2), outcomes, (1e9,))
    assert beside.weight[-2:] == pytest.approx(alone.weight, abs=1e-6)
    (plain,) = cox(Design(table), outcomes, (TABLE_STRENGTH,))
    assert alone.weight == pytest.approx(plain.weight, abs=1e-9)


def test_without_a_death_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="nobody died"):
        cox(Design(np.ones((3, 1))), Outcomes(np.ones(3), np.zeros(3, dtype=bool)))
