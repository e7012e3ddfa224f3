"""The red flag of survival that is no better than chance: on noise nearly always, on a signal never."""

import numpy as np
import pytest
from scipy import stats

from tapct import kinds
from tapct.flags.dealt import against_chance
from tapct.kinds.survival import case_loss
from tapct.metrics.survival import GRID_DAYS
from tapct.records.case import CaseResult


def run(signal: float, seed: int, patients: int = 50) -> list[CaseResult]:
    """Risks that know as much of who dies sooner as the signal says."""
    random = np.random.default_rng([seed, int(10 * signal)])
    truth = random.normal(size=patients)
    died, lost = 700 * random.exponential(size=patients) * np.exp(-truth), random.uniform(200, 4000, patients)
    found = []
    for place, risk in enumerate(signal * truth + random.normal(size=patients)):
        alive = np.exp(-np.array(GRID_DAYS) / 700 * np.exp(risk)).tolist()
        days, event = float(np.ceil(min(died[place], lost[place]))), float(died[place] <= lost[place])
        outcome = {"time_days": days, "event": event, "risk": float(risk), "survival": alive}
        found.append(
            CaseResult(
                case=str(place),
                patient=str(place),
                loss=case_loss(alive, days, event == 1),
                padding_voxels=(0, 0, 0),
                outcome={name: {"death": value} for name, value in outcome.items()},
            )
        )
    return found


@pytest.mark.parametrize("sets", [20, pytest.param(100, marks=pytest.mark.thorough)])
def test_noise_is_at_chance_at_the_nominal_rate(sets):
    flagged = sum(bool(list(against_chance(kinds.kind("survival"), "UnoC", [run(0.0, seed)]))) for seed in range(sets))
    assert stats.binomtest(sets - flagged, sets, 0.025).pvalue > 0.001


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (2, 3, 4))])
def test_a_signal_is_better_than_chance(seed):
    assert list(against_chance(kinds.kind("survival"), "UnoC", [run(2.0, seed)])) == []
