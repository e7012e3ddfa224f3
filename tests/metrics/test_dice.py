import math

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import f1_score

from tapct.metrics import NativeDice, NativeSurface, PaperDice, confusion_matrix, dice_per_class, summarise


def volume(seed: int, classes: int = 5, shape=(4, 6, 7)) -> torch.Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_counts_and_dice_equal_scikit_learn():
    prediction, reference = volume(0), volume(1)
    counts = confusion_matrix(prediction, reference, 5)
    flat = reference.flatten().numpy(), prediction.flatten().numpy()
    assert np.array_equal(counts.numpy(), sklearn_confusion(*flat, labels=range(5)))
    assert np.allclose(dice_per_class(counts.numpy()), f1_score(*flat, labels=range(5), average=None))


def test_more_voxels_than_labels_of_a_byte_can_count():
    labels = torch.zeros(300, dtype=torch.uint8)
    assert confusion_matrix(labels, labels, 2).tolist() == [[300, 0], [0, 0]]


def test_dice_of_several_scans_is_that_of_each():
    counts = torch.stack([confusion_matrix(volume(i), volume(i + 10), 5) for i in range(6)]).numpy()
    apart = np.stack([dice_per_class(c) for c in counts])
    assert np.array_equal(dice_per_class(counts), apart)
    assert np.array_equal(dice_per_class(counts.reshape(2, 3, 5, 5)), apart.reshape(2, 3, 5))


def test_a_scan_of_more_voxels_than_are_counted_at_a_time(monkeypatch):
    whole = confusion_matrix(volume(0), volume(1), 5)
    monkeypatch.setattr("tapct.metrics.dice.PART_VOXELS", 50)  # of 168, the last part being smaller
    assert torch.equal(confusion_matrix(volume(0), volume(1), 5), whole)
    test_counts_and_dice_equal_scikit_learn()


def test_a_batch_of_two_labels_is_never_mistaken_for_one_hot():
    """eva 0.4.5 takes any 4-dimensional label volume of zeros and ones for one-hot, channel = depth."""
    reference = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    reference[0, 0] = 1
    prediction = torch.zeros_like(reference)
    prediction[0, :, 0] = 1
    counts = confusion_matrix(prediction, reference, 2)
    assert counts.tolist() == [[2, 2], [2, 2]]
    assert dice_per_class(counts.numpy()).tolist() == [0.5, 0.5]


def test_absent_in_both_is_undefined_and_absent_but_predicted_is_zero():
    reference = torch.tensor([0, 0, 1, 1])
    prediction = torch.tensor([0, 3, 1, 0])
    dice = dice_per_class(confusion_matrix(prediction, reference, 4).numpy())
    assert dice[1] == pytest.approx(2 / 3)
    assert math.isnan(dice[2])
    assert dice[3] == 0


def test_the_two_orders_of_averaging_differ_and_both_are_given():
    nan = math.nan
    dice = np.array([[1.0, 0.2, 0.4, nan], [1.0, 0.8, nan, nan], [1.0, nan, nan, nan]])
    summary = summarise(dice)
    assert summary.headline == pytest.approx((0.3 + 0.8) / 2)  # the case without any class is left out
    assert summary.class_mean == pytest.approx((0.5 + 0.4) / 2)
    assert summary.per_class[:3] == pytest.approx([1.0, 0.5, 0.4])
    assert math.isnan(summary.per_class[3])
    assert (summary.undefined_entries, summary.entries) == (6, 9)


def test_nothing_defined_is_nan_and_not_zero(recwarn):
    summary = summarise(np.full((2, 3), math.nan))
    assert math.isnan(summary.headline)
    assert math.isnan(summary.class_mean)
    assert not recwarn.list


def test_means_are_of_float64_whatever_the_values_are():
    values = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    exact = [sum(map(float, column)) / len(values) for column in values.T]
    summary = summarise(values)
    assert summary.per_class == pytest.approx(exact, rel=1e-14)
    assert (summary.headline, summary.class_mean) == pytest.approx((sum(exact[1:]) / 3,) * 2, rel=1e-14)


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (torch.zeros(3), torch.zeros(4), "differ"),
        (torch.tensor([0, 5]), torch.tensor([0, 1]), r"\[0, 3\)"),
        (torch.tensor([0, 1]), torch.tensor([0, -1]), r"\[0, 3\)"),
        (torch.tensor([0, 3]), torch.tensor([0, 1]), r"\[0, 3\)"),  # one too many would count as the next class
        (torch.tensor([0, 1]), torch.tensor([0, 3]), r"\[0, 3\)"),
    ],
)
def test_bad_labels_are_refused(prediction, reference, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(prediction, reference, 3)


def test_the_torchmetrics_give_evas_names_and_the_same_numbers():
    native, paper = NativeDice(), PaperDice()
    counts = [confusion_matrix(volume(i), volume(i + 10), 5) for i in range(3)]
    for c in counts:
        native.update(confusion_native=c)
        paper.update(confusion_paper=c.T)
    expected = summarise(np.stack([dice_per_class(c.numpy()) for c in counts]))
    assert float(native.compute()["dice_native"]) == pytest.approx(expected.headline)
    assert float(native.compute()["dice_native_class_mean"]) == pytest.approx(expected.class_mean)
    assert float(paper.compute()["dice_paper"]) == pytest.approx(expected.headline)
    native.reset()
    native.update(confusion_native=counts[0])
    assert float(native.compute()["dice_native"]) == pytest.approx(np.nanmean(dice_per_class(counts[0].numpy())[1:]))


def test_metrics_of_one_collection_are_not_mixed_up_where_they_agree_on_the_first_case():
    """torchmetrics then merges metrics whose states have the same names, and from there on feeds only one."""
    collection = torchmetrics.MetricCollection([NativeDice(), PaperDice(), NativeSurface()])
    missed, found = torch.tensor([[5, 0], [1, 0]]), torch.tensor([[5, 0], [0, 1]])
    unmeasured = {"nsd_native": None, "hd95_mm_native": None}
    collection.update(confusion_native=missed, confusion_paper=missed, **unmeasured)
    collection.update(confusion_native=found, confusion_paper=missed, **unmeasured)
    means = collection.compute()
    assert (float(means["dice_native"]), float(means["dice_paper"])) == (0.5, 0)
    assert not [name for name in means if "nsd" in name or "hd95" in name]
