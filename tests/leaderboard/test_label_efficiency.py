import numpy as np
import pytest

from tapct.errors import RecordError
from tapct.statistics import label_efficiency, summarise_task
from tests.leaderboard.experiments import experiment
from tests.leaderboard.simulated import clusters, task, within
from tests.leaderboard.test_inputs import TASK, record, scan
from tests.records.made import card, changed


def few(model, values, fraction, subset=0, patient_of=None, **changes):
    number = {"patients": {"train": round(100 * fraction), "val": 5, "test": 60}}
    return experiment(model, values, patient_of, train_fraction=fraction, train_draw=subset, **number, **changes)


def numbers(models=2, subsets=3, seeds=2, cases=60, seed=0):
    return np.random.default_rng(seed).random((models, subsets, seeds, cases))


def records(values, fraction=0.1):
    return [few(m, v, fraction, subset) for m, of in zip("ab", values, strict=False) for subset, v in enumerate(of)]


def test_a_point_is_the_mean_over_draws_and_seeds_and_both_spreads():
    values, whole = numbers(), numbers(subsets=1, seed=1)
    found = label_efficiency([*records(values), *records(whole, 1.0)], "dice_native")
    assert list(found.curves) == ["a", "b"]
    assert (found.task, found.metric, found.num_patients, found.warnings) == ("made", "dice_native", 60, ())
    for model, (point, full) in enumerate(found.curves.values()):
        assert (point.fraction, point.patients, full.fraction, full.patients) == (0.1, 10, 1.0, 100)
        assert point.estimate.value == pytest.approx(values[model].mean())
        by_subset = values[model].mean(axis=(1, 2))
        assert point.subsets == pytest.approx(dict(enumerate(by_subset)))
        assert point.subset_spread == pytest.approx(by_subset.std(ddof=1))
        assert point.seed_spread == pytest.approx(np.sqrt(values[model].mean(axis=2).var(axis=1, ddof=1).mean()))
        assert full.subset_spread is None
        assert full.estimate.value == pytest.approx(whole[model].mean())


def test_the_interval_is_that_of_the_mean_over_draws_and_seeds_for_other_patients():
    """Draws count as seeds do: the same number from `summarise_task`, with all of them as seeds of one model."""
    values = numbers()
    found = label_efficiency(records(values), "dice_native")
    inputs = task(values.reshape(2, 6, 60), name="made")
    same = inputs.__class__(**{**vars(inputs), "version": f"1:{'0' * 64}:test"})
    order = np.argsort([f"c{i}" for i in range(60)])  # the cases of records come in the order of their names
    same = same.__class__(**{**vars(same), "values": inputs.values[:, :, order]})
    names = tuple(f"p{i}" for i in order)
    expected = summarise_task(same.__class__(**{**vars(same), "patients": names})).models
    for model, points in zip(expected, found.curves.values(), strict=True):
        (point,) = points
        assert (point.estimate.low, point.estimate.high) == pytest.approx((model.estimate.low, model.estimate.high))


@pytest.mark.parametrize("simulations", [20, pytest.param(150, marks=pytest.mark.thorough)])
def test_the_interval_holds_the_truth(simulations):
    """Patients of one to three cases; each subset of the training patients and each seed shifts all cases a little."""
    rng, held = np.random.default_rng(0), 0
    for index in range(simulations):
        patient = clusters(60, rng, 3)
        common = within(patient, rng)
        values = common + 0.3 * rng.normal(size=(2, 2, len(patient)))
        name = f"simulation {index}"  # seeds the resamples
        experiments = [few("a", v, 0.1, subset, patient, name=name) for subset, v in enumerate(values)]
        ((point,),) = label_efficiency(experiments, "dice_native", resamples=500).curves.values()
        held += point.estimate.low <= 0 <= point.estimate.high
    assert held / simulations >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / simulations)


def test_the_auroc_of_each_draw_is_averaged_and_not_their_probabilities():
    rng = np.random.default_rng(0)
    subsets = []
    for _ in range(2):
        run = [scan(f"{chr(97 + i % 26)}{i}", float(rng.random()), int(i % 3 == 0)) for i in range(60)]
        subsets.append([c.model_copy(update={"patient": c.case}) for c in run])
    task = {**TASK, "kind": "classification", "classes": ["x", "y"], "train_fraction": 0.1}
    experiments = [record("a", d, task={**task, "train_draw": i}) for i, d in enumerate(subsets)]
    ((point,),) = label_efficiency(experiments, "MicroAUROC").curves.values()
    alone = [label_efficiency([one], "MicroAUROC").curves["a"][0].estimate.value for one in experiments]
    assert point.estimate.value == pytest.approx(np.mean(alone))
    assert point.subsets == pytest.approx(dict(enumerate(alone)))


def test_a_model_without_all_draws_or_a_fraction_has_no_mean():
    values = numbers()
    experiments = [r for r in records(values) if not (r.encoder.card.name == "b" and r.task.train_draw == 1)]
    found = label_efficiency([*experiments, few("b", values[1, 0], 0.01)], "dice_native")
    assert [point.fraction for point in found.curves["a"]] == [0.01, 0.1]
    absent, whole = found.curves["a"]
    assert absent.estimate.value is None
    assert absent.estimate.reason == "not run"
    assert absent.subsets == {}
    assert whole.estimate.value is not None
    partly = found.curves["b"][1]
    assert partly.estimate.value is None
    assert partly.estimate.reason == "draw 1 of the fraction 0.1 is missing"
    assert list(partly.subsets) == [0, 2]


def test_an_undefined_draw_leaves_the_point_undefined():
    values = numbers(models=1)
    values[0, 1] = np.nan
    ((point,),) = label_efficiency(records(values), "dice_native").curves.values()
    assert (point.estimate.value, point.estimate.reason) == (None, "no case of a seed defines it")
    assert point.subsets[1] is None
    assert point.subset_spread is None


def test_few_reported_patients_are_warned_of():
    (warning,) = label_efficiency(records(numbers(cases=20)), "dice_native").warnings
    assert "20 patients" in warning


def test_what_does_not_compare_is_refused():
    one, two = few("a", numbers()[0, 0], 0.1), few("a", numbers()[0, 1], 0.1)
    with pytest.raises(RecordError, match=r"two records are of a with the fraction 0.1, subset 0"):
        label_efficiency([one, two], "dice_native")
    noisy = few("a", numbers()[0, 1], 0.1, 1, perturbation="noise-30hu")
    with pytest.raises(RecordError, match="do not compare: perturbation"):
        label_efficiency([one, noisy], "dice_native")
    other = few("a", numbers()[0, 1], 0.1, 1)
    other = changed(other, encoder={"weights_sha256": "f" * 64})
    with pytest.raises(RecordError, match="do not compare: weights_sha256"):
        label_efficiency([one, other], "dice_native")


def test_draws_of_two_settings_of_one_encoder_are_never_pooled():
    """As `TAP-B-3D` and `TAP-B-3D, 512 px`: each has the numbers that it has alone."""
    plain, larger = ([few("a", one, 0.1, subset) for subset, one in enumerate(of)] for of in numbers())
    plain = [changed(one, encoder={"options": {}}) for one in plain]
    with_option = {"card": card("a", in_plane_size=1024), "options": {"in_plane_size": 1024}}
    larger = [changed(one, encoder=with_option) for one in larger]
    found = label_efficiency([*plain, *larger], "dice_native").curves
    assert list(found) == ["a", "a+in_plane_size=1024"]
    for records_, points in zip((plain, larger), found.values(), strict=True):
        (alone,) = label_efficiency(records_, "dice_native").curves.values()
        assert alone == points
    older = [changed(one, encoder={"card": card("a", in_plane_size=1024)}) for one in records(numbers(seed=3)[1:])]
    assert list(label_efficiency([*records(numbers()[:1]), *older], "dice_native").curves) == [
        "a, in_plane_size 512",
        "a, in_plane_size 1024",
    ], "older records do not say what was set, but what they were"
