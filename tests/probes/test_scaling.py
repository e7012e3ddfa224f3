"""Features are scaled before any head: the divisors, and that no score depends on the scale of features."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tapct.errors import FeatureError
from tapct.probes import ClassificationProbe, SegmentationProbe
from tapct.probes.scaling import Moments, log_prior
from tests.probes.test_classification import run as classify
from tests.probes.test_segmentation import run as segment
from tests.small import Rescaled

CASES = [torch.randn(5, n, generator=torch.Generator().manual_seed(n)) for n in (1, 7, 400)]


def with_odd_channels(cases: list[torch.Tensor]) -> list[torch.Tensor]:
    """Shifts channel 1 far from 0, makes channel 2 constant and channel 3 zero."""
    factors, shifts = torch.tensor([1.0, 0.5, 0, 0, 50])[:, None], torch.tensor([0.0, 9, -4, 0, 0])[:, None]
    return [case * factors + shifts for case in cases]


def test_divisors_are_the_deviations_over_all_values_of_all_cases():
    cases = with_odd_channels(CASES)
    scale = Moments.over(cases).scale()
    values = torch.cat(cases, dim=1).double().numpy()
    expected = np.where([True, True, False, False, True], values.std(axis=1), [0, 0, 4, 1, 0])
    assert scale.divisor.numpy() == pytest.approx(expected, rel=1e-12)
    about = scale.describe()
    assert (about["channels"], about["constant_channels"]) == (5, 2)
    spread = [about[name] for name in ("min", "median", "max")]
    assert spread == pytest.approx([expected.min(), np.median(expected), expected.max()])


def test_a_channel_that_varies_by_no_more_than_bf16_rounds_is_constant():
    least = 2.0**-9
    cases = [torch.tensor([[1 - of * least, 1 + of * least]], dtype=torch.float64) for of in (0.9, 1.1)]
    assert [Moments.over([case]).scale().constant for case in cases] == [1, 0]


def test_a_head_folded_for_plain_features_gives_what_it_gave_for_scaled_ones():
    scale, head = Moments.over(with_odd_channels(CASES)).scale(), nn.Conv3d(5, 3, 1)
    features = with_odd_channels([torch.randn(5, 24)])[0].view(5, 2, 3, 4)
    plain = nn.Conv3d(5, 3, 1)
    plain.load_state_dict(scale.folded(head.state_dict(), ["weight"]))
    assert torch.allclose(plain(features), head(scale.divided(features, 0)), atol=1e-5)


@pytest.mark.parametrize("broken", [[], [torch.tensor([[1.0, np.nan]])]])
def test_a_scale_of_nothing_or_of_nan_is_refused(broken):
    with pytest.raises(FeatureError, match=r"no training cases|not finite"):
        Moments.over(broken).scale()


def test_a_prior_is_the_share_of_each_class_also_of_one_that_is_nowhere():
    prior = log_prior(torch.tensor([9_000_000, 1_000_000, 0])).exp()
    assert prior.numpy() == pytest.approx([0.9, 0.1, 5e-8], rel=1e-6)
    assert float(prior.sum()) == pytest.approx(1)


def numbers(record) -> list[dict]:
    rows = [json.loads(case.model_dump_json()) for one in record.runs for case in one.cases["test"]]
    keep = ("case", "loss", "dice", "nsd", "probabilities")
    return [{key: row[key] for key in keep if row.get(key) is not None} for row in rows]


def flat(rows: list[dict]) -> np.ndarray:
    def of(value):
        if isinstance(value, dict):
            return [number for inner in value.values() for number in of(inner)]
        return [] if value is None or isinstance(value, str) else [value]

    return np.array([number for row in rows for number in of(row)])


TASKS = {
    "segmentation": partial(segment, max_steps=20, learning_rates=[0.03], select="last", start_bias="prior"),
    "classification": lambda path, encoder: classify(
        path,
        encoder,
        [20, 95],
        {"learning_rates": [0.0001, 0.0003]},
        max_steps=12,
        accumulate_grad_batches=2,
        val_check_interval=4,
    ),
}


@pytest.fixture(scope="module", params=TASKS)
def task(request, tmp_path_factory):
    """How a task is run, and what it gives with features as they are."""
    go = TASKS[request.param]
    _, plain = go(tmp_path_factory.mktemp("plain"), encoder=Rescaled())
    return go, plain


@pytest.mark.parametrize(
    "settings",
    [
        {"factor": 2.0**10},
        pytest.param({"factor": 2.0**-10}, marks=pytest.mark.thorough),
        pytest.param({"factor": 1e3}, marks=pytest.mark.thorough),
        {"factor": 1e-3},
        {"by_channel": True},
    ],
    ids=str,
)
def test_no_number_depends_on_the_scale_of_features(tmp_path, task, settings):
    go, plain = task
    _, record = go(tmp_path, encoder=Rescaled(**settings))
    exact = settings.get("factor") in (2.0**10, 2.0**-10)
    found, expected = flat(numbers(record)), flat(numbers(plain))
    assert len(expected) > 8
    assert found == pytest.approx(expected, abs=1e-6 if exact else 2e-3)
    assert record.probe.feature_scale.sha256 != plain.probe.feature_scale.sha256


def test_the_plain_protocol_is_another_one(tmp_path):
    _, record = segment(tmp_path, scale_features=False, start_bias="zero")
    assert record.probe.feature_scale is None
    assert (record.probe.scale_features, record.probe.start_bias) == (False, "zero")


@pytest.mark.parametrize("probe", [SegmentationProbe, ClassificationProbe])
def test_every_parameter_that_multiplies_features_is_folded(probe):
    """A weight that is added to a head and forgotten here would see features a thousand times too large."""
    model = probe(Rescaled())
    channels = model.encoder.card.feature_dim
    head = model.build_head(["background", "liver", "kidney"])
    names = {name for name, p in head.named_parameters() if p.ndim > 1 and p.shape[1] == channels}
    assert names == set(model.feature_weights)
