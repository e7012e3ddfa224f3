"""The flags of predicted numbers on simulated records: noise is at chance at the nominal rate, planted skill is not."""

from collections import Counter

import numpy as np
import pytest

from tapct.flags import own_flags
from tapct.records import CaseResult, Record
from tests.leaderboard.test_inputs import record
from tests.leaderboard.test_regression import task


def predictions(skill: float, seed: int, patients: int = 60) -> Record:
    """Ages predicted by a model that knows this share of their deviation from the training mean of 60."""
    rng = np.random.default_rng(seed)
    ages = rng.normal(60, 15, patients)
    noise = 4 * rng.normal(size=patients)
    cases = [
        CaseResult(
            case=str(number),
            patient=str(number),
            loss=0.5,
            padding_voxels=(0, 0, 0),
            outcome={
                "predicted": {"age": float(60 + skill * (age - 60) + (noise[number] if skill < 1 else 0))},
                "observed": {"age": float(age)},
                "baseline": {"age": 60.0},
                "scale": {"age": 1.0},
            },
        )
        for number, age in enumerate(ages)
    ]
    return record("simulated", cases, task=task("age"), probe={})


def flags(one: Record) -> set[str]:
    return {flag.id for flag in own_flags(one)}


@pytest.fixture(scope="module", params=[25, pytest.param(100, marks=pytest.mark.thorough)])
def sets(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def found(sets):
    """How often each flag is raised, by skill."""
    each = {skill: [flags(predictions(skill, seed)) for seed in range(sets)] for skill in (0.0, 0.7)}
    return {skill: Counter(flag for one in of_skill for flag in one) for skill, of_skill in each.items()}


def test_noise_is_no_better_than_the_training_mean_at_the_nominal_rate(found, sets):
    told = found[0.0]["chance-level"] + found[0.0]["too-few-to-tell"]
    assert told >= 0.975 * sets - 3 * np.sqrt(0.975 * 0.025 * sets)
    assert found[0.0]["chance-level"] > found[0.0]["too-few-to-tell"]


def test_what_is_planted_is_better_than_the_training_mean(found):
    assert found[0.7]["chance-level"] == found[0.7]["too-few-to-tell"] == 0


def test_a_model_that_says_the_same_of_every_case_is_flagged():
    one = predictions(0.0, 0)
    cases = [
        case.model_copy(update={"outcome": {**case.outcome, "predicted": {"age": 60.0}}})
        for case in one.runs[0].cases["test"]
    ]
    assert {"constant-predictions", "chance-level"} <= flags(record("constant", cases, task=task("age"), probe={}))
    assert "constant-predictions" not in flags(one)
