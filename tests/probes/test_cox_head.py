"""Cox's model as a head: nested choice of its strength, planted signals found, noise at chance."""

import numpy as np
import pytest
import torch
from scipy import stats

from tapct.errors import TaskError
from tapct.metrics.survival import GRID_DAYS, Outcomes, harrell_c, uno_c
from tapct.probes import cox, cox_head, tables
from tapct.probes.cox_head import CoxHead, solve
from tapct.probes.solved import PooledCases, deal_folds, divided, scale_of


def cases(features: np.ndarray, outcomes: Outcomes, numbers: np.ndarray | None = None) -> PooledCases:
    names = [f"p{number}" for number in range(len(features))]
    table = np.zeros((len(features), 0)) if numbers is None else numbers
    targets = np.stack([outcomes.days, outcomes.event.astype(float)], axis=1)
    return PooledCases(names, names, np.concatenate([features, table], axis=1), targets, table.shape[1])


def simulated(patients: int, features: int, signal: float, seed: int = 0) -> PooledCases:
    """Features of all scales and origins, two of which count; deaths in steps of 30 days, a third lost before."""
    random = np.random.default_rng(seed)
    plain = random.normal(size=(patients, features))
    died = 700 * random.exponential(size=patients) * np.exp(-signal * (plain[:, 0] - plain[:, 1]))
    lost = random.uniform(100, 3000, patients)
    outcomes = Outcomes(np.ceil(np.minimum(died, lost) / 30) * 30, died <= lost)
    return cases(plain * random.uniform(0.1, 10, features) + random.normal(0, 5, features), outcomes)


def cross_validated(of: PooledCases, folds: int = 3) -> np.ndarray:
    """Out-of-fold (N, 1 + T) answers."""
    found = np.zeros((len(of.names), 1 + len(GRID_DAYS)))
    for rows, held in deal_folds(of, folds):
        head = tables.solved(lambda a, b: solve(a, b, scale=True), of.some(rows), None).head
        found[held] = [head(torch.from_numpy(of.features[row])).numpy() for row in held]
    return found


def test_a_head_says_what_the_model_says():
    of = simulated(80, 5, 0.8)
    head = solve(of, None, scale=True).head
    scaled = divided(of, scale_of(of))
    chosen = solve(of, None, scale=True).selection.setting
    (model,) = cox.cox(scaled.design, cox_head.outcomes_of(of), [chosen])
    expected = cox.survival(model.risk(scaled.features), model.baseline(GRID_DAYS))
    for row, risk, alive in zip(of.features, model.risk(scaled.features), expected, strict=True):
        said = head(torch.from_numpy(row)).numpy()
        assert said[0] == pytest.approx(risk, abs=1e-9)
        assert said[1:] == pytest.approx(alive, abs=1e-9)
    state = head.state_dict()
    again = CoxHead(5)
    again.load_state_dict(state)
    assert torch.equal(again(torch.ones(5)), head(torch.ones(5)))


def test_a_risk_beyond_all_bounds_is_certain_death_from_the_first_death_on():
    head = CoxHead(1)
    head.weight[:] = 1
    head.hazard[1:] = torch.linspace(0.1, 1, len(GRID_DAYS) - 1)  # nobody died in the first quarter of a year
    for risk, then in ((1e4, 0.0), (-1e4, 1.0)):
        assert head(torch.tensor([risk])).tolist() == [risk, 1.0, *[then] * (len(GRID_DAYS) - 1)]
        assert cox.survival(np.array([risk]), head.hazard.numpy()).tolist() == [[1.0, *[then] * (len(GRID_DAYS) - 1)]]


@pytest.mark.parametrize("features", [6, 200])
def test_a_planted_signal_is_found_out_of_fold(features):
    of = simulated(150, features, 1.0)
    answers = cross_validated(of)
    assert uno_c(cox_head.outcomes_of(of), answers[:, 0])[0] > (0.75 if features == 6 else 0.6)
    assert ((answers[:, 1:] >= 0) & (answers[:, 1:] <= 1)).all()
    assert (np.diff(answers[:, 1:], axis=1) <= 0).all()


def test_the_strength_follows_the_signal():
    strong, none = (solve(simulated(150, 40, signal), None, scale=True).selection for signal in (1.5, 0.0))
    assert strong.setting < none.setting
    assert strong.is_solved
    assert none.is_solved
    assert strong.folds == 5
    assert strong.patients == 150
    assert len(strong.candidates) == len(cox.STRENGTHS)


def test_no_answer_depends_on_the_scale_or_origin_of_features():
    of = simulated(60, 8, 1.0)
    moved = PooledCases(of.names, of.patients, of.features * 2.0**12 + 1000.0, of.targets)
    one, other = (solve(part, None, scale=True).head for part in (of, moved))
    for row in range(60):
        plain, far = (head(torch.from_numpy(part.features[row])) for head, part in ((one, of), (other, moved)))
        assert plain.numpy() == pytest.approx(far.numpy(), abs=1e-6)


@pytest.mark.parametrize("draws", [25, pytest.param(100, marks=pytest.mark.thorough)])
def test_noise_is_at_chance_at_the_nominal_rate(monkeypatch, draws):
    """Of data sets without a signal, out-of-fold concordance is on average at chance, and rarely far from it."""
    monkeypatch.setattr(cox, "STRENGTHS", (0.01, 1.0, 100.0))  # enough to choose from, and three times as fast
    found, far = [], 0
    for seed in range(draws):
        of = simulated(60, 6, 0.0, seed)
        outcomes, risk = cox_head.outcomes_of(of), cross_validated(of, 2)[:, 0]
        shuffled = np.random.default_rng(seed)
        dealt = [harrell_c(outcomes, shuffled.permutation(risk))[0] for _ in range(60)]
        found.append(harrell_c(outcomes, risk)[0])
        far += abs(found[-1] - 0.5) > 1.96 * np.std(dealt)
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)
    assert stats.binomtest(int(far), draws, 0.05).pvalue > 0.001


def test_useless_features_beside_a_table_leave_the_table():
    random = np.random.default_rng(4)
    age = random.normal(65, 9, 120)
    died = 800 * random.exponential(size=120) * np.exp(-(age - 65) / 9)
    outcomes = Outcomes(np.ceil(died), np.ones(120, dtype=bool))
    age[::12] = np.nan
    alone = cross_validated(cases(np.zeros((120, 0)), outcomes, age[:, None]))
    beside = cross_validated(cases(random.normal(size=(120, 100)), outcomes, age[:, None]))
    c_alone, c_beside = (harrell_c(outcomes, answers[:, 0])[0] for answers in (alone, beside))
    assert c_alone > 0.65
    assert c_beside == pytest.approx(c_alone, abs=0.02)


def test_training_cases_of_whom_nobody_died_are_refused():
    of = simulated(20, 3, 0.0)
    nobody = cases(of.features, Outcomes(of.targets[:, 0], np.zeros(20, dtype=bool)))
    with pytest.raises(TaskError, match="none of the 20 training cases ends with a death"):
        solve(nobody, None, scale=True)
