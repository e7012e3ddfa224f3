"""The flag of chance on simulated detectors: what is planted is found, noise is at chance at the nominal rate."""

from collections import Counter

import numpy as np
import pytest

from tapct.flags import own_flags
from tapct.kinds.localisation import CANDIDATE, POINT
from tapct.records import CaseResult, Record
from tests.leaderboard.test_inputs import record
from tests.leaderboard.test_localisation import TASK


def detector(skill: float, seed: int, patients: int = 40) -> Record:
    """A detector that lies on most findings, and on much else, and whose scores know of it what `skill` says."""
    rng, cases = np.random.default_rng(seed), []
    for number in range(patients):
        points = rng.uniform(-80, 80, (rng.integers(0, 4), 3))
        hits = points[rng.random(len(points)) < 0.7] + rng.normal(0, 2, 3)
        candidates = np.concatenate([hits, rng.uniform(-80, 80, (60, 3))])
        scores = rng.normal(size=len(candidates)) + skill * (np.arange(len(candidates)) < len(hits))
        columns = {
            **dict(zip(POINT, points.T, strict=True)),
            "diameter_mm": rng.uniform(6, 30, len(points)),
            "excluded": np.zeros(len(points)),
            **dict(zip(CANDIDATE, candidates.T, strict=True)),
            "score": scores,
        }
        outcome = {field: {"nodule": values.tolist()} for field, values in columns.items()}
        about = {"case": str(number), "patient": str(number), "padding_voxels": (0, 0, 0)}
        cases.append(CaseResult(loss=0.5, outcome=outcome, **about))
    return record("simulated", cases, task=TASK, probe={})


@pytest.fixture(scope="module", params=[12, pytest.param(100, marks=pytest.mark.thorough)])
def sets(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def found(sets):
    """How often each flag is raised, by skill."""
    return {
        skill: Counter(flag.id for seed in range(sets) for flag in own_flags(detector(skill, seed)))
        for skill in (0.0, 2.0)
    }


def test_noise_is_at_chance_at_the_nominal_rate(found, sets):
    told = found[0.0]["chance-level"] + found[0.0]["too-few-to-tell"]
    assert told >= 0.975 * sets - 3 * np.sqrt(0.975 * 0.025 * sets)
    assert found[0.0]["chance-level"] > found[0.0]["too-few-to-tell"]


def test_what_is_planted_is_found(found):
    assert found[2.0]["chance-level"] == found[2.0]["too-few-to-tell"] == 0
