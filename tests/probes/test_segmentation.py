"""The segmentation probe through eva's trainer: where it measures surfaces, and what of them is kept."""

import json
from typing import ClassVar

import eva
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eva.core.data import dataloaders
from eva.core.data.datamodules import schemas
from eva.core.trainers.functional import run_evaluation_session
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

import tapct.probes.segmentation
from tapct.errors import TaskError
from tapct.probes import SegmentationProbe, Trainer
from tapct.probes.source import CaseSource
from tapct.records import read_record
from tests.small import abdomen, small_encoder

SURFACE_METRICS = {
    "nsd_native",
    "nsd_native_class_mean",
    "hd95_mm_native",
    "hd95_mm_native_class_mean",
    "hd95_mm_native_one_sided",
}


class Slabs(torch.utils.data.Dataset):
    """Slabs of the quickstart's abdomen: liver, spinal cord, and a class that is nowhere."""

    classes: ClassVar[list[str]] = ["background", "liver", "spinal cord", "horn"]

    def __init__(self, starts: list[int]) -> None:
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index):
        start = self.starts[index]
        ct, organs = abdomen((slice(start, start + 8), slice(None), slice(None)))
        labels = np.select([organs.labels == 2, organs.labels == 8], [1, 2]).astype(np.uint8)
        name = f"slab-{start}"
        metadata = {"case": name, "patient": name, "source": name, "affine": torch.from_numpy(ct.affine)}
        return torch.from_numpy(ct.hu)[:, None], torch.from_numpy(labels)[:, None], metadata


class SlabData(eva.DataModule):
    notice = None

    def __init__(self) -> None:
        loader = dataloaders.DataLoader(
            batch_size=1, num_workers=0, pin_memory=False, persistent_workers=False, prefetch_factor=None
        )
        super().__init__(
            datasets=schemas.DatasetsSchema(train=Slabs([60]), val=Slabs([70]), test=Slabs([80, 90])),
            dataloaders=schemas.DataloadersSchema(train=loader, val=loader, test=loader),
        )

    def describe(self):
        return {"name": "slabs", "version": 1}


def run(tmp_path, encoder=None, max_steps=2, **probe):
    probe = {"start_bias": "zero", **probe}  # two steps from the prior find nothing but background
    trainer = Trainer(default_root_dir=str(tmp_path), accelerator="cpu", n_runs=1, logger=False, max_steps=max_steps)
    model = SegmentationProbe(encoder or small_encoder(), **probe)
    run_evaluation_session(trainer, model, SlabData(), n_runs=1, verbose=False)
    (session,) = tmp_path.iterdir()
    return session, read_record(session / "record.json")


def test_surfaces_are_measured_on_what_is_reported_and_not_while_training(tmp_path, monkeypatch):
    logged = []
    end = SegmentationProbe.on_validation_end

    def watched(self):
        names = {name.split("/")[1] for name in self.trainer.callback_metrics if name.startswith("val/")}
        logged.append((self.trainer.state.fn, names))
        end(self)

    monkeypatch.setattr(SegmentationProbe, "on_validation_end", watched)
    session, record = run(tmp_path)
    (fit, while_training), *_, (validate, at_the_end) = logged
    assert (fit, validate) == ("fit", "validate")
    assert at_the_end - while_training == SURFACE_METRICS
    assert while_training > {"dice_native", "dice_paper"}
    metrics = record.runs[0].metrics
    assert metrics["val"].keys() == metrics["test"].keys() > SURFACE_METRICS
    results = json.loads((session / "results.json").read_text(encoding="utf-8"))["metrics"]["test"][0]
    for name in SURFACE_METRICS:
        assert results[f"test/{name}"]["values"] == pytest.approx([metrics["test"][name]])
    assert record.execution.seconds["surfaces"] > 0


def test_surfaces_in_the_record_are_those_of_monai_at_its_tolerance(tmp_path, monkeypatch):
    pairs, predict = [], tapct.probes.segmentation.predict_labels

    def kept(*args):
        pairs.append(predict(*args))
        return pairs[-1]

    monkeypatch.setattr(tapct.probes.segmentation, "predict_labels", kept)
    _, record = run(tmp_path, nsd_tolerance_mm=4.0)
    assert record.probe.nsd_tolerance_mm == 4.0
    cases = record.runs[0].cases["test"]
    predictions = [p for p in pairs[-4:] if p.shape[1:] == (101, 122)]  # the native ones of native and encoder grid
    expected = []
    for case, prediction, (_, labels, _) in zip(cases, predictions, Slabs([80, 90]), strict=True):
        one_hot = [F.one_hot(t.long(), 4).movedim(-1, 0)[None] for t in (prediction, labels[:, 0])]
        nsd = compute_surface_dice(*one_hot, [4.0] * 3, spacing=(3.0, 3.0, 3.0))[0].tolist()
        hd95_mm = compute_hausdorff_distance(*one_hot, percentile=95, spacing=(3.0, 3.0, 3.0))[0].tolist()
        assert [case.nsd["liver"], case.nsd["spinal cord"]] == pytest.approx(nsd[:2])
        both = [name for k, name in enumerate(("liver", "spinal cord")) if np.isfinite(hd95_mm[k])]
        assert both
        assert [case.hd95_mm[name] for name in both] == pytest.approx([d for d in hd95_mm[:2] if np.isfinite(d)])
        expected.append(np.mean([v for v in case.nsd.values() if v is not None]))
    assert record.runs[0].metrics["test"]["nsd_native"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_distance_is_refused_before_any_work(tolerance):
    with pytest.raises(TaskError, match="a distance in mm"):
        SegmentationProbe(small_encoder(), nsd_tolerance_mm=tolerance)


def test_a_fused_loss_is_refused_on_a_cpu_before_any_case_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(CaseSource, "case_of", lambda *_: pytest.fail("a case was encoded"))
    with pytest.raises(TaskError, match="fused loss"):
        run(tmp_path, fused_loss=True)


def test_a_fused_loss_is_asked_for_in_every_step_and_in_the_record(tmp_path, monkeypatch):
    asked, plain = [], tapct.probes.segmentation.dice_ce_loss

    def watched(*args, fused):
        asked.append(fused)
        return plain(*args)

    monkeypatch.setattr(tapct.probes.segmentation, "require_fused", lambda device: None)
    monkeypatch.setattr(tapct.probes.segmentation, "dice_ce_loss", watched)
    _, record = run(tmp_path, fused_loss=True)
    assert record.probe.fused_loss is True
    assert len(asked) >= 4  # two steps and the two cases of the test split
    assert all(asked)


def test_the_record_holds_the_size_of_feature_patches_and_what_perfect_ones_would_reach(tmp_path, capsys):
    _, record = run(tmp_path)
    patches = record.cell_size
    assert patches.cases == 2
    assert list(patches.by_class) == ["liver", "spinal cord", "horn"]
    assert patches.by_class["horn"] is None
    assert patches.by_class["spinal cord"] < patches.by_class["liver"] < 1
    assert patches.dice == pytest.approx((patches.by_class["spinal cord"] + patches.by_class["liver"]) / 2)
    assert patches.size_mm == pytest.approx(
        (12.0, 101 * 3 / 8, 122 * 3 / 8)
    )  # resized to 64 x 64, a stride of (4, 8, 8)
    assert "with perfect patches of this size Dice is" in capsys.readouterr().out
