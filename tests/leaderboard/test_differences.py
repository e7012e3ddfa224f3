"""Differences between models are what is written of them, in loops over patients and resamples."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from tapct.statistics import contributions
from tapct.statistics.differences import BLOCK, FEWEST_PATIENTS, as_of_few, measure, too_few
from tapct.statistics.resampling import draw_swaps
from tests.leaderboard.simulated import clusters, task, within

RESAMPLES = 40
CERTAIN = 1e6


def of_a_mean(scores, patients, number):
    """What each patient adds to a mean of cases, and which share of the cases is theirs."""
    added, share = np.zeros(number), np.zeros(number)
    for score, patient in zip(scores, patients, strict=True):
        added[patient] += (score - np.mean(scores)) / len(scores)
        share[patient] += 1 / len(scores)
    return added, share


def studentised_as_written(parts, signs):
    """A standard error of parts (added, share), and the sum in turned signs over its error anew."""

    def error(turned):
        total = 0.0
        for patient in range(len(signs)):
            of_patient = 0.0
            for (_, share), (added, sum_of_part) in zip(parts, turned, strict=True):
                of_patient += (added[patient] - share[patient] * sum_of_part) / np.sqrt(1 - share[patient])
            total += of_patient**2
        return np.sqrt(total)

    once = error([(added, 0.0) for added, _ in parts])
    chance = []
    for signs_of_one in signs.T:
        turned = [(signs_of_one * added, float((signs_of_one * added).sum())) for added, _ in parts]
        chance.append(sum(total for _, total in turned) / error(turned))
    return once, np.array(chance)


def student_as_written(chance, squares):
    """The quantile of Student's distribution by that of the normal one, to first order in 1 / degrees of freedom."""
    relative = (squares**2).sum() / squares.sum() ** 2 - 1 / len(squares)
    if relative <= 0:
        return chance
    degrees = 2 / relative
    return np.array([z + z * (min(z * z, 50) + 1) / (4 * degrees) for z in chance])


def rows_of(inputs):
    return np.arange(len(inputs.models))


def of_all(pairs):
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_means_of_patients_with_several_cases_and_seeds(rng):
    patients = clusters(15, rng)
    values = within(patients, rng, (4, 3)) + within(patients, rng)
    inputs = task(values, patients)
    swaps, value = draw_swaps(15, RESAMPLES, inputs.key), np.array([0.3, 0.1, 0.4, 0.1])
    found = measure(inputs, rows_of(inputs), value, swaps)
    assert of_all(found) == list(combinations(range(4), 2))
    assert set(found.cases) == {len(patients)}
    assert found.gap.tolist() == [value[one] - value[other] for one, other in of_all(found)]
    for place, (one, other) in enumerate(of_all(found)):
        added, share = of_a_mean((values[one] - values[other]).mean(axis=0), inputs.patient_index, 15)
        error, chance = studentised_as_written([(added, share)], swaps)
        assert found.error[place] == pytest.approx(error, rel=1e-9)
        assert found.evidence[place] == pytest.approx(abs(found.gap[place]) / error, rel=1e-9)
        np.testing.assert_allclose(found.chance[place], chance, rtol=1e-7, atol=1e-12)
    smaller = measure(task(1e-5 * values, patients), rows_of(inputs), 1e-5 * value, swaps)
    np.testing.assert_allclose(smaller.chance, found.chance, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(smaller.evidence, found.evidence, rtol=1e-7)


def test_pairs_are_of_the_cases_that_both_are_defined_on_in_every_seed(rng):
    values = rng.normal(size=(5, 2, 20))
    values[1, 0, :4] = np.nan  # in one seed
    values[2, :, 2:9] = np.nan
    values[3, :, : 20 - FEWEST_PATIENTS] = np.nan
    values[4, :, : 20 - FEWEST_PATIENTS + 1] = np.nan  # too few of whomever it is compared with
    inputs = task(values)
    swaps = draw_swaps(20, RESAMPLES, inputs.key)
    found = measure(inputs, rows_of(inputs), np.nanmean(values, axis=(1, 2)), swaps)
    assert of_all(found) == list(combinations(range(4), 2))
    for place, (one, other) in enumerate(of_all(found)):
        both = ~np.isnan(values[[one, other]]).any(axis=(0, 1))
        difference = (values[one] - values[other]).mean(axis=0)[both]
        added, share = of_a_mean(difference, inputs.patient_index[both], 20)
        error, chance = studentised_as_written([(added, share)], swaps)
        assert found.cases[place] == both.sum()
        assert found.gap[place] == pytest.approx(difference.mean(), rel=1e-9)
        assert found.error[place] == pytest.approx(error, rel=1e-9)
        np.testing.assert_allclose(found.chance[place], chance, rtol=1e-7, atol=1e-12)
    none = measure(inputs, np.array([0, 4]), np.nanmean(values, axis=(1, 2)), swaps)
    assert none.chance.shape == (0, RESAMPLES)
    assert {len(of) for of in (none.first, none.second, none.gap, none.error, none.cases, none.evidence)} == {0}


@pytest.mark.parametrize("metric", ["MicroAUROC", "MicroAP"])
@pytest.mark.parametrize("labels", [1, 3])
def test_ranks_are_of_positives_and_negatives(rng, metric, labels):
    targets = rng.integers(2, size=(24, labels))
    scores = rng.normal(size=(3, 2, 24, labels)) + targets
    inputs = task(scores, targets=targets, metric=metric)
    swaps, value = draw_swaps(24, RESAMPLES, inputs.key), rng.random(3)
    found = measure(inputs, rows_of(inputs), value, swaps)
    parts = contributions.of_pairs(inputs)
    assert of_all(found) == list(combinations(range(3), 2))
    assert set(found.cases) == {24}
    for place, (one, other) in enumerate(of_all(found)):
        of_pair = [(part.added[one] - part.added[other], part.share) for part in parts]
        error, chance = studentised_as_written(of_pair, swaps)
        if metric == "MicroAP" and labels > 1:
            squares = sum(added / np.sqrt(1 - share) for added, share in of_pair) ** 2
            few = student_as_written(chance, squares)
            assert (np.abs(few) > np.abs(chance)).all()
            chance = few
        assert found.gap[place] == pytest.approx(value[one] - value[other], rel=1e-9)
        assert found.error[place] == pytest.approx(error, rel=1e-9)
        np.testing.assert_allclose(found.chance[place], chance, rtol=1e-7, atol=1e-12)


def test_few_patients_who_decide_make_chance_larger_as_students_distribution_does(rng):
    share = np.full(12, 1 / 12)
    parts = [contributions.Contribution(rng.normal(size=(3, 12)), share), contributions.Contribution(
        np.zeros((3, 12)), share)]  # fmt: skip
    chance = np.array([[-0.5, 2.0, 7.0, 8.0, 300.0, CERTAIN, -CERTAIN]] * 2)
    found = as_of_few(parts, np.array([0, 1]), np.array([2, 2]), chance)
    for place, (one, other) in enumerate([(0, 2), (1, 2)]):
        squares = (parts[0].added[one] - parts[0].added[other]) ** 2 / (1 - share)
        expected = student_as_written(chance[place], squares).clip(-CERTAIN, CERTAIN)
        np.testing.assert_allclose(found[place], expected, rtol=1e-9)


def test_turned_signs_that_leave_no_error_are_as_certain_as_a_difference_without_one():
    values = np.stack([np.tile([1.0, -1.0], 4), np.zeros(8)])
    alike = np.tile([1, -1], 4)  # turns all that is added to one side
    swaps = np.stack([alike, -alike, np.repeat([1, -1], 4)], axis=1)
    found = measure(task(values), np.arange(2), values.mean(axis=1), swaps)
    assert found.chance[0].tolist() == [CERTAIN, -CERTAIN, 0]


def test_a_change_is_what_patients_add_now_less_what_they_added_before(rng):
    targets = (np.arange(24) % 3 == 0).astype(int)[:, None]
    now, before = (task(rng.normal(size=(2, 1, 24, 1)) + targets, targets=targets) for _ in range(2))
    swaps, change = draw_swaps(24, RESAMPLES, now.key), rng.normal(size=2)
    found = measure(now, rows_of(now), change, swaps, before)
    parts = zip(contributions.of_pairs(now), contributions.of_pairs(before), strict=True)
    of_pair = [(np.subtract(*new.added) - np.subtract(*old.added), new.share) for new, old in parts]
    error, chance = studentised_as_written(of_pair, swaps)
    assert found.gap[0] == pytest.approx(change[0] - change[1], rel=1e-9)
    assert found.error[0] == pytest.approx(error, rel=1e-9)
    np.testing.assert_allclose(found.chance[0], chance, rtol=1e-7, atol=1e-12)
    means, earlier = (task(rng.normal(size=(2, 24))) for _ in range(2))
    same = measure(means, rows_of(means), change, swaps, earlier)
    difference = task(means.values[:, 0] - earlier.values[:, 0])
    np.testing.assert_array_equal(same.chance, measure(difference, rows_of(means), change, swaps).chance)
    for other in (replace(before, models=("a", "c")), replace(before, cases=tuple("abcdefghijklmnopqrstuvwx"))):
        with pytest.raises(ValueError, match="the same models and cases"):
            measure(now, rows_of(now), change, swaps, other)


def test_more_pairs_than_are_measured_at_a_time_and_models_chosen_among_others(rng):
    values = rng.normal(size=(19, 30))
    inputs = task(values)
    swaps, value = draw_swaps(30, RESAMPLES, inputs.key), values.mean(axis=1)
    found = measure(inputs, rows_of(inputs), value, swaps)
    assert len(found.gap) == 19 * 18 / 2 > BLOCK
    chosen = np.array([3, 11, 17])
    some = measure(inputs, chosen, value, swaps)
    places = [of_all(found).index(pair) for pair in combinations(chosen.tolist(), 2)]
    assert of_all(some) == list(combinations(chosen.tolist(), 2))
    for name in ("gap", "error", "chance"):
        np.testing.assert_array_equal(getattr(some, name), getattr(found, name)[places])


@pytest.mark.parametrize("with_targets", [False, True])
def test_one_model_twice_has_no_difference_of_no_size_and_chance_makes_none(rng, with_targets):
    targets = (np.arange(30) % 3 == 0).astype(int)[:, None] if with_targets else None
    one = rng.random((2, 30, 1) if with_targets else (2, 30))
    inputs = task(np.stack([one, one * (1 + 1e-15)]), targets=targets)
    found = measure(inputs, rows_of(inputs), np.array([0.7, 0.7 + 1e-14]), draw_swaps(30, RESAMPLES, inputs.key))
    for of in (found.gap, found.error, found.chance, found.evidence):
        assert (of == 0).all()


def test_a_difference_without_an_error_or_nearly_so_is_certain_in_its_direction(rng):
    one, noise = rng.random(30), rng.normal(size=30)
    values = np.stack([one, one + 0.01, one - 0.01, one + 0.5 + 1e-9 * noise])
    inputs = task(values)
    found = measure(inputs, rows_of(inputs), values.mean(axis=1), draw_swaps(30, RESAMPLES, inputs.key))
    assert found.evidence.tolist() == [CERTAIN] * 6
    assert np.sign(found.gap).tolist() == [-1, 1, -1, 1, -1, -1]
    assert np.abs(found.chance).max() <= CERTAIN


def test_too_few_patients_are_named():
    enough, few, one = (task(np.zeros((2, n))) for n in (6, 5, 1))
    assert too_few(enough) is None
    assert too_few(few) == "5 patients are too few to compare models: 6 are needed"
    assert too_few(one) == "1 patient is too few to compare models: 6 are needed"

    def of_class(positives):
        targets = (np.arange(20) < positives).astype(int)[:, None]
        return too_few(task(np.zeros((2, 1, 20, 1)), targets=targets))

    assert of_class(5) is None
    assert of_class(15) is None
    assert of_class(4) == (
        "4 patients with a positive and 16 with a negative are too few to compare models: 5 of each are needed"
    )
    assert "16 patients with a positive and 4 with a negative" in of_class(16)
