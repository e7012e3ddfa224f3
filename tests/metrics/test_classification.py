import decimal
import warnings

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score
from torchmetrics.classification import BinaryCalibrationError

from tapct.metrics import (
    BalancedAccuracy,
    CalibrationError,
    MacroAP,
    MacroAPSkill,
    MacroAUROC,
    MicroAP,
    MicroAUROC,
    RareLabels,
    UndefinedLabels,
    classification,
)
from tapct.metrics.classification import OVER_LABELS, sigmoid

MACRO = (*OVER_LABELS, "BalancedAccuracy")
METRICS = (MicroAUROC, MicroAP, MacroAUROC, MacroAP, MacroAPSkill, BalancedAccuracy, CalibrationError)
METRICS += (UndefinedLabels, RareLabels)


def predictions(cases: int = 300, labels: int = 4):
    """Logits that know a little, and targets of which each label has its own share."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(cases, labels, generator=generator) < torch.linspace(0.1, 0.7, labels)).float()
    return 2 * torch.randn(cases, labels, generator=generator) + targets, targets


def values(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Case by case through the collection that eva makes of the metrics, where equal states are shared."""
    collection = torchmetrics.MetricCollection([metric() for metric in METRICS])
    for one, target in zip(logits, targets, strict=True):
        collection.update(preds=one[None], target=target[None])
    return {name: float(value) for name, value in collection.compute().items()}


@pytest.mark.parametrize("scale", [1, 2000])  # of the logits: up to 7, and up to 1e4
def test_metrics_equal_scikit_learn_and_torchmetrics(scale):
    logits, targets = predictions()
    logits *= scale
    z, t = logits.double().numpy(), targets.double().numpy()
    assert values(logits, targets) == pytest.approx(
        {
            "MicroAUROC": roc_auc_score(t.ravel(), z.ravel()),
            "MicroAP": average_precision_score(t.ravel(), z.ravel()),
            "MacroAUROC": roc_auc_score(t, z, average="macro"),
            "MacroAP": average_precision_score(t, z, average="macro"),
            "MacroAPSkill": np.mean(
                [(average_precision_score(of, s) - of.mean()) / (1 - of.mean()) for of, s in zip(t.T, z.T, strict=True)]
            ),
            "BalancedAccuracy": np.mean([balanced_accuracy_score(t[:, k], z[:, k] > 0) for k in range(4)]),
            "CalibrationError": calibration(logits.double().sigmoid(), targets.long()),
            "UndefinedLabels": 0,
            "RareLabels": 0,
        },
        rel=1e-12,
    )


@pytest.mark.parametrize("name", classification.METRICS)
def test_in_resamples_metrics_are_those_of_the_repeated_cases(name):
    logits, targets = (of.double().numpy() for of in predictions())
    targets[::7, 1] = np.nan
    counts = np.random.default_rng(0).integers(0, 3, (300, 5))
    found = classification.METRICS[name](logits, targets, counts.astype(float))
    rows = [np.repeat(np.arange(300), times) for times in counts.T]
    assert found == pytest.approx([classification.value(name, logits[of], targets[of]) for of in rows], rel=1e-12)


def test_probabilities_are_of_float64_whatever_the_logits_are():
    for logits in ([-3, 0, 2], np.array([-3, 0, 2], dtype=np.float32)):
        assert sigmoid(logits) == pytest.approx([1 / (1 + np.exp(3)), 0.5, 1 / (1 + np.exp(-2))], rel=1e-15)


def calibration(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """That of torchmetrics, which has a bin of its own for exactly 1, and rounds to float32 if it is let."""
    just_below = probabilities.clamp(max=1 - 1e-15)
    return float(BinaryCalibrationError(n_bins=15, norm="l1").set_dtype(torch.float64)(just_below, targets))


def test_logits_whose_float32_sigmoids_are_all_1_keep_their_order():
    """torchmetrics#2819: there, AUROC and average precision of these become 0.5 and 0.93."""
    above = [98.0950, 98.4612, 98.1145, 98.1506, 97.6037, 98.9425, 99.2644, 99.5014]
    above += [99.7280, 99.6595, 99.6931, 99.4667, 99.9623, 99.8949, 99.8768]
    logits, targets = torch.tensor(above)[:, None] - 78, torch.tensor([[0.0]] + [[1.0]] * 14)
    assert (logits.sigmoid() == 1).all()
    found = values(logits, targets)
    assert found["MicroAUROC"] == 13 / 14
    assert found["MicroAP"] == pytest.approx(0.995238095238, rel=1e-12)
    assert values(torch.tensor([[40.0], [20.0]]), torch.tensor([[0.0], [1.0]]))["MicroAUROC"] == 0
    assert values(torch.tensor([[1e4], [-1e4]]), torch.tensor([[1.0], [0.0]]))["MicroAP"] == 1


def test_a_decision_is_at_a_logit_of_0():
    logits, targets = torch.tensor([[1e-30], [0.0], [-0.0], [-1e-30]]), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    assert values(logits.tile(20, 1), targets.tile(20, 1))["BalancedAccuracy"] == 0.75


@pytest.mark.parametrize("logit", [0.0, 1.0, -5.5, 36.0, -700.0, 1e4, -1e4])
def test_probabilities_are_float64_sigmoids_without_overflow(logit, recwarn):
    decimal.getcontext().prec = 60
    expected = 1 / (1 + (-decimal.Decimal(logit)).exp())
    assert float(sigmoid(logit)) == pytest.approx(float(expected), rel=1e-14, abs=0)
    assert sigmoid([logit]).dtype == np.float64
    assert not recwarn.list


def test_labels_without_both_classes_are_left_out_and_counted():
    logits, targets = predictions()
    rest = values(logits[:, 2:], targets[:, 2:])
    targets[:, 0], targets[:, 1] = 0, 1
    found = values(logits, targets)
    assert found["UndefinedLabels"] == 2
    for name in MACRO:
        assert found[name] == pytest.approx(rest[name])


def test_labels_with_few_positives_or_few_negatives_are_no_part_of_means_and_counted():
    logits, targets = predictions()
    rest = values(logits[:, 2:], targets[:, 2:])
    targets[:, 0], targets[:, 1] = 0, 1
    targets[:19, 0], targets[:19, 1] = 1, 0
    found = values(logits, targets)
    assert (found["RareLabels"], found["UndefinedLabels"]) == (2, 0)
    assert all(found[name] == pytest.approx(rest[name]) for name in MACRO)
    targets[19, 0] = 1
    found = values(logits, targets)
    assert found["RareLabels"] == 1
    assert found["MacroAUROC"] == pytest.approx(roc_auc_score(targets[:, [0, 2, 3]], logits[:, [0, 2, 3]]))
    few = values(logits[:30], targets[:30])
    assert not set(MACRO) & few.keys()
    assert few["MicroAUROC"] > 0


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_one_class_alone_is_undefined_and_not_zero(only):
    """torchmetrics gives an AUROC of 0 and warns."""
    logits, targets = predictions()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = values(logits, torch.full_like(targets, only))
    for name in ("MicroAUROC", "MicroAP", *MACRO):
        assert name not in found
    assert found["UndefinedLabels"] == 4
    expected = (logits.double().sigmoid() - only).abs().mean()  # all to one side: no bin hides another
    assert found["CalibrationError"] == pytest.approx(float(expected), rel=1e-12)


def calibration_error(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    once = np.ones((len(targets), 1))
    return float(classification.calibration_error(probabilities.numpy()[:, None], targets.numpy()[:, None], once)[0])


def test_calibration_is_of_the_probability_of_a_positive_and_not_of_the_confidence():
    """Both answers at a confidence of 0.9, right in 8 of 10 and in 10 of 10: on average as right as confident."""
    p = torch.tensor([0.9] * 10 + [0.1] * 10)
    t = torch.tensor([1] * 8 + [0] * 2 + [0] * 10)
    assert calibration_error(p, t) == pytest.approx(0.1)


def test_certainty_belongs_to_the_last_bin():
    """In torchmetrics a probability of exactly 1 has a sixteenth bin of its own."""
    assert calibration_error(torch.tensor([1.0, 0.96]), torch.tensor([0, 1])) == pytest.approx((1.96 - 1) / 2)
    assert calibration_error(torch.tensor([1.0, 0.9]), torch.tensor([0, 1])) == pytest.approx((1.0 + 0.1) / 2)
    assert calibration_error(torch.tensor([0.0, 0.05]), torch.tensor([0, 0])) == pytest.approx(0.025)


def test_pairs_that_are_not_stated_count_in_nothing():
    """Two labels of four cases, by hand: of the first, case 3 is not stated; of the second, cases 0 and 1 are not.

    Each is there twenty times, which changes no share: fewer are no part of means over labels.
    """
    nan = float("nan")
    logits = torch.tensor([[2.0, 9.0], [1.0, -9.0], [-1.0, 0.5], [5.0, -0.5]])
    targets = torch.tensor([[1.0, nan], [0.0, nan], [1.0, 1.0], [nan, 0.0]])
    # Stated, highest first: 2.0 (1), 1.0 (0), 0.5 (1), -0.5 (0), -1.0 (1). Of 3 x 2 pairs 2 + 1 + 0 are in order.
    probabilities = 1 / (1 + np.exp(-np.array([2.0, 1.0, 0.5, -0.5, -1.0])))
    assert len(set((probabilities * 15).astype(int))) == 5, "each in a bin of its own"
    assert values(logits.tile(20, 1), targets.tile(20, 1)) == pytest.approx(
        {
            "MicroAUROC": 3 / 6,
            "MicroAP": (1 / 1 + 2 / 3 + 3 / 5) / 3,
            "MacroAUROC": (1 / 2 + 1) / 2,  # of the first label: (2.0, 1.0) is in order, (-1.0, 1.0) is not
            "MacroAP": ((1 / 1 + 2 / 3) / 2 + 1) / 2,
            "MacroAPSkill": (((1 / 1 + 2 / 3) / 2 - 2 / 3) / (1 / 3) + 1) / 2,
            "BalancedAccuracy": (1 / 4 + 1) / 2,  # of the first: one of two positives, no negative is right
            "CalibrationError": np.abs(probabilities - [1, 0, 1, 0, 1]).mean(),
            "UndefinedLabels": 0,
            "RareLabels": 0,
        },
        rel=1e-12,
    )
    assert values(logits, targets[:, 1:].expand(4, 2).masked_fill(targets == 0, nan))["UndefinedLabels"] == 1


def test_a_label_that_nobody_states_is_undefined():
    logits, targets = predictions()
    found = values(logits, targets.masked_fill(torch.tensor([True, False, False, False]), float("nan")))
    rest = values(logits[:, 1:], targets[:, 1:])
    assert found == pytest.approx({**rest, "UndefinedLabels": 1}, rel=1e-14)
    nothing = values(logits, torch.full_like(targets, float("nan")))
    assert nothing == {"UndefinedLabels": 4, "RareLabels": 0}
