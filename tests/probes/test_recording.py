"""What a session's record holds of how it came about, through eva's trainer on real CT."""

import math

import numpy as np
import pytest
import torch
from torch import optim

from tapct.encoders import Features
from tapct.probes.heads import LossCurve
from tapct.records import read_cases
from tests.probes import test_segmentation
from tests.probes.test_classification import LABELS, run
from tests.small import Drifting, small_encoder


class Blind(Drifting):
    """An encoder that does not look."""

    def _encode(self, windows_hu):
        features = super()._encode(windows_hu)
        return Features(torch.ones_like(features.map), torch.ones_like(features.embedding), None)


def sgd(rate):
    return {"optimizer": lambda parameters: optim.SGD(parameters, lr=rate)}


def test_stages_of_every_run_are_timed_and_the_features_are_those_that_the_head_saw(tmp_path):
    encoder = small_encoder(Drifting)
    session, record = run(tmp_path, encoder, [20, 95], max_steps=12, accumulate_grad_batches=1)
    first, second = record.execution.runs
    assert first.seconds.keys() == {"extract", "fit", "val", "test"}
    assert "fit" not in second.seconds, "the first run trained the heads of both"
    for stage, seconds in record.execution.seconds.items():
        assert seconds == pytest.approx(sum(one.seconds.get(stage, 0) for one in (first, second)), abs=0.011)
    assert record.execution.peak_memory_bytes["host"] > 1e8
    assert record.encoder.precision_used == "fp32"
    for one, made in zip(record.execution.runs, record.runs, strict=True):
        losses = one.training.loss
        assert len(losses) == 12
        assert all(math.isfinite(loss) for loss in losses)
        assert one.training.start_sha256 != made.probe_sha256
        assert not one.training.is_zero
    features = record.execution.features
    assert (features.cases, features.channels) == (4, 6)
    assert features.non_finite == features.repeated_cases == features.constant_channels == 0
    assert read_cases(record, session).num_rows == 2 * (2 + 4) * len(LABELS)


def test_an_encoder_that_does_not_look_is_flagged(tmp_path):
    session, record = run(tmp_path, small_encoder(Blind), max_steps=12, accumulate_grad_batches=1)
    names = [flag.id for flag in record.flags]
    assert {"constant-features", "repeated-features", "chance-level"} <= set(names)
    assert read_cases(record, session).schema.metadata[b"tapct.fingerprint"].decode() == record.fingerprint


def test_a_head_that_does_not_train_is_flagged_on_the_screen_too(tmp_path, capsys):
    _, record = run(tmp_path, small_encoder(Drifting), None, sgd(0.0), max_steps=12, accumulate_grad_batches=1)
    assert "head-unchanged" in [flag.id for flag in record.flags]
    assert "red flag head-unchanged: runs 0, 1" in capsys.readouterr().out


def test_the_volumes_of_the_references_are_in_the_record_of_a_segmentation(tmp_path):
    _, record = test_segmentation.run(tmp_path)
    for case, (hu, labels, _) in zip(record.runs[0].cases["test"], test_segmentation.Slabs([80, 90]), strict=True):
        counts = np.bincount(labels.flatten(), minlength=4).tolist()
        assert case.reference_voxels == dict(zip(["liver", "spinal cord", "horn"], counts[1:], strict=True))
        assert case.voxels == hu.numel()


@pytest.mark.parametrize("batches", [1, 9, 20, 21, 40, 41, 397])
def test_the_loss_curve_is_the_mean_of_stretches_of_equal_length(batches):
    curve, losses = LossCurve(), torch.rand(batches, 3)
    for batch in losses:
        curve.add(batch)
    length = next(2**k for k in range(20) if batches <= 2 * LossCurve.BINS * 2**k)
    for head in range(3):
        means = curve.means(head)
        assert min(batches, LossCurve.BINS) <= len(means) <= 2 * LossCurve.BINS
        expected = [losses[i * length : (i + 1) * length, head].mean() for i in range(batches // length)]
        np.testing.assert_allclose(means, expected, rtol=1e-5)


def test_a_fresh_curve_has_no_stretch():
    assert LossCurve().means(0) == []
