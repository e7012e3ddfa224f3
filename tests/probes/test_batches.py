"""Several cases in one training step: as if each had come alone, and accumulated."""

import numpy as np
import pytest
import torch
from eva.core.trainers.functional import run_evaluation_session
from torch import optim

from tapct.errors import TaskError
from tapct.features import CaseFeatures, EncodedCase
from tapct.probes import ClassificationProbe, SegmentationProbe, Trainer
from tapct.records import read_record
from tapct.tasks import TaskData
from tapct.volumes import Grid, Size
from tests.data import luna25
from tests.data.luna25 import Annotation
from tests.small import Drifting, small_encoder


def bag(length: int, positive: int) -> EncodedCase:
    grid = Grid.of((1, 1, 1), np.eye(4))
    generator = torch.Generator().manual_seed(length)
    features = CaseFeatures(
        map=torch.randn(6, length, 1, 1, generator=generator),
        embeddings=torch.randn(length, 6, generator=generator),
        native_grid=grid,
        encoder_grid=grid,
        feature_grid=grid,
        padding=Size(0, 0, 0),
    )
    return EncodedCase(f"bag-{length}", "p", features, torch.tensor([positive, 1 - positive, 1]), None)


def test_bags_of_any_length_share_a_step_as_if_each_came_alone(monkeypatch):
    monkeypatch.setattr(ClassificationProbe, "classes", ["a", "b", "c"])
    probe = ClassificationProbe(small_encoder(Drifting))
    head, cases = probe.build_head(["a", "b", "c"]).double(), [bag(n, n % 2) for n in (1, 7, 40, 3)]
    cases = [case.to(torch.device("cpu")) for case in cases]
    for case in cases:
        object.__setattr__(case.features, "map", case.features.map.double())
    monkeypatch.setattr(ClassificationProbe, "_target", lambda self, case: case.target.double())
    gradients = []
    for losses in ([probe.losses([head], cases)], [probe.losses([head], [case]) / len(cases) for case in cases]):
        head.zero_grad()
        torch.stack(losses).sum().backward()
        gradients.append([p.grad.clone() for p in head.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def fitted(tmp_path, name, probe, data, **trainer):
    base = Trainer(default_root_dir=str(tmp_path / name), accelerator="cpu", n_runs=1, logger=False, **trainer)
    run_evaluation_session(base, probe, data, n_runs=1, verbose=False)
    (path,) = (tmp_path / name).glob("*/record.json")
    return read_record(path).runs[0]


def test_a_batch_of_nodules_trains_as_accumulated_nodules(tmp_path):
    parts = {
        split: [Annotation(first + i, i % 2, (10.0 * i, 20, -30)) for i in range(count)]
        for split, (first, count) in {"train": (100000, 4), "val": (200000, 2), "test": (300000, 2)}.items()
    }
    luna25.write(tmp_path / "luna25", [a for part in parts.values() for a in part])
    split = luna25.write_split(tmp_path / "split.csv", **parts)
    runs = []
    for batch, accumulate in ((4, 1), (1, 4)):
        data = TaskData("luna25", str(tmp_path), split_file=str(split), batch_size=batch)
        probe = ClassificationProbe(
            small_encoder(Drifting), fit_windows=True, optimizer=lambda p: optim.SGD(p, lr=0.5), select="last"
        )
        runs.append(fitted(tmp_path, str(batch), probe, data, max_steps=3, accumulate_grad_batches=accumulate))
    probabilities = [[c.probabilities["malignant"] for c in run.cases["test"]] for run in runs]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)
    assert abs(probabilities[0][0] - 0.5) > 1e-3, "it has learned something"


def test_a_batch_needs_stored_features(tmp_path):
    data = TaskData("quickstart", batch_size=2)
    with pytest.raises(TaskError, match="batch_size 2 needs stored features"):
        fitted(tmp_path, "x", SegmentationProbe(small_encoder(), features="off"), data, max_steps=1)
