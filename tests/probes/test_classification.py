"""The classification probe through eva's trainer, on bags of windows of real CT."""

import json
from typing import ClassVar

import eva
import numpy as np
import pytest
import torch
from eva.core.data import dataloaders
from eva.core.data.datamodules import schemas
from eva.core.trainers.functional import run_evaluation_session
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from tapct.errors import TaskError
from tapct.probes import ClassificationProbe, Trainer
from tapct.records import read_record
from tests.small import Drifting, abdomen, small_encoder

LABELS = ["liver", "spinal cord", "colon"]


class Slabs(torch.utils.data.Dataset):
    """Slabs of the quickstart's abdomen; the target says which organs they show."""

    classes: ClassVar[list[str]] = LABELS

    def __init__(self, starts: list[int]) -> None:
        self.slabs = [abdomen((slice(s, s + 14), slice(None), slice(None))) for s in starts]
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index):
        ct, organs = self.slabs[index]
        target = torch.tensor([int((organs.labels == label).any()) for label in (2, 8, 4)])
        name = f"slab-{self.starts[index]}"
        metadata = {"case": name, "patient": name, "source": name, "affine": torch.from_numpy(ct.affine)}
        return torch.from_numpy(ct.hu)[:, None], target, metadata


class SlabData(eva.DataModule):
    notice = None

    def __init__(self, train: list[int], test: list[int], val: list[int] | None = None) -> None:
        loader = dataloaders.DataLoader(
            batch_size=1, num_workers=0, pin_memory=False, persistent_workers=False, prefetch_factor=None
        )
        super().__init__(
            datasets=schemas.DatasetsSchema(train=Slabs(train), val=Slabs(val) if val else None, test=Slabs(test)),
            dataloaders=schemas.DataloadersSchema(train=loader, val=loader, test=loader),
        )

    def describe(self):
        return {"name": "slabs", "version": 1}

    def val_dataloader(self):
        return [] if self.datasets.val is None else super().val_dataloader()


def run(tmp_path, encoder, val=None, probe=None, n_runs=2, **trainer):
    base = Trainer(default_root_dir=str(tmp_path), accelerator="cpu", n_runs=n_runs, logger=False, **trainer)
    model = ClassificationProbe(encoder, **(probe or {}))
    data = SlabData([0, 30, 60, 90], [10, 40, 70, 98], val)
    run_evaluation_session(base, model, data, n_runs=n_runs, verbose=False)
    (session,) = tmp_path.iterdir()
    return session, read_record(session / "record.json")


def test_metrics_are_those_of_scikit_learn_over_all_cases_and_labels(tmp_path):
    session, record = run(tmp_path, small_encoder(), max_steps=3, accumulate_grad_batches=2)
    assert record.complete
    for one in record.runs:
        cases = one.cases["test"]
        assert [c.case for c in cases] == ["slab-10", "slab-40", "slab-70", "slab-98"]
        truth = [t for c in cases for t in c.target.values()]
        predicted = [z for c in cases for z in c.logits.values()]
        assert [float(np.float32(z)) for z in predicted] == predicted, "float32, as the head gave them"
        assert [p for c in cases for p in c.probabilities.values()] == pytest.approx(expit(predicted), rel=1e-14)
        assert 0 < sum(truth) < len(truth)
        assert one.metrics["test"]["MicroAUROC"] == pytest.approx(roc_auc_score(truth, predicted), rel=1e-14)
        assert one.metrics["test"]["MicroAP"] == pytest.approx(average_precision_score(truth, predicted), rel=1e-12)
    assert record.runs[0].probe_sha256 != record.runs[1].probe_sha256
    results = json.loads((session / "results.json").read_text(encoding="utf-8"))["metrics"]["test"][0]
    assert len(results["test/MicroAUROC"]["values"]) == 2


def test_what_one_class_alone_does_not_define_is_not_reported(tmp_path, monkeypatch):
    """torchmetrics reports an AUROC of 0; a NaN would end eva's session of two runs with an error."""
    item = Slabs.__getitem__

    def healthy(self, index):
        data, target, metadata = item(self, index)
        return data, torch.zeros_like(target), metadata

    monkeypatch.setattr(Slabs, "__getitem__", healthy)
    _, record = run(tmp_path, small_encoder(), max_steps=1)
    metrics = record.runs[0].metrics["test"]
    assert metrics.keys() == {"AverageLoss", "CalibrationError", "UndefinedLabels", "RareLabels"}
    assert metrics["UndefinedLabels"] == 3
    assert metrics["CalibrationError"] > 0


def test_a_model_without_class_tokens_gives_its_patches(tmp_path):
    encoder = small_encoder(Drifting)
    assert not encoder.card.has_cls
    _, record = run(tmp_path, encoder, max_steps=1)
    assert record.complete
    assert "in_features=6" in record.probe.head


def test_a_target_of_another_length_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Slabs, "classes", ["liver"])
    with pytest.raises(TaskError, match="3 targets for 1 classes"):
        run(tmp_path, small_encoder(), max_steps=1)


def test_a_target_that_is_neither_0_nor_1_is_refused(tmp_path, monkeypatch):
    item = Slabs.__getitem__

    def unsure(self, index):
        data, target, metadata = item(self, index)
        return data, target * 0.5, metadata

    monkeypatch.setattr(Slabs, "__getitem__", unsure)
    with pytest.raises(TaskError, match=r"slab-0: targets must be 0 or 1, not \[0"):
        run(tmp_path, small_encoder(), max_steps=1)


def test_logits_beyond_where_sigmoids_are_1_are_ranked_in_selection_and_report(tmp_path):
    settings = {"max_steps": 6, "accumulate_grad_batches": 2, "val_check_interval": 4}
    _, record = run(tmp_path, small_encoder(), [20, 66, 95], {"learning_rates": [30.0]}, **settings)
    for one in record.runs:
        for split, cases in one.cases.items():
            truth = [t for c in cases for t in c.target.values()]
            logits = [z for c in cases for z in c.logits.values()]
            assert len({float(expit(np.float32(z))) for z in logits}) < len(set(logits)), "a sigmoid would make ties"
            assert one.metrics[split]["MicroAUROC"] == pytest.approx(roc_auc_score(truth, logits), rel=1e-14)
        assert one.selection.score == one.metrics["val"]["MicroAUROC"], "one number, to the bit"


def test_metadata_without_an_affine_is_refused(tmp_path, monkeypatch):
    item = Slabs.__getitem__

    def without(self, index):
        data, target, metadata = item(self, index)
        return data, target, {k: v for k, v in metadata.items() if k != "affine"}

    monkeypatch.setattr(Slabs, "__getitem__", without)
    with pytest.raises(TaskError, match="no 'affine' in its metadata"):
        run(tmp_path, small_encoder(), max_steps=1)


def test_the_record_keeps_the_metrics_of_both_splits_and_is_printed_once(tmp_path, capsys):
    """The test stage comes after Lightning has let go of what the validation stage logged."""
    _, record = run(tmp_path, small_encoder(), val=[20, 95], max_steps=1)
    for one in record.runs:
        assert [c.case for c in one.cases["val"]] == ["slab-20", "slab-95"]
        for split, cases in one.cases.items():
            truth = [t for c in cases for t in c.target.values()]
            predicted = [z for c in cases for z in c.logits.values()]
            assert one.metrics[split]["MicroAUROC"] == pytest.approx(roc_auc_score(truth, predicted), rel=1e-14)
    assert capsys.readouterr().out.count("record:") == 1


def test_two_cases_of_one_scan_have_their_own_features(tmp_path, monkeypatch):
    """Nodules: several crops, as cases of their own, come from one file."""
    _, apart = run(tmp_path / "apart", small_encoder(), n_runs=1, max_steps=1)
    item = Slabs.__getitem__

    def of_one_file(self, index):
        data, target, metadata = item(self, index)
        return data, target, metadata | {"source": "one-file"}

    monkeypatch.setattr(Slabs, "__getitem__", of_one_file)
    _, together = run(tmp_path / "together", small_encoder(), n_runs=1, max_steps=1)
    assert together.runs[0].cases == apart.runs[0].cases


def test_each_run_reports_the_rate_and_step_that_do_best_on_the_selection_cases(tmp_path):
    rates = [1e-6, 0.05]
    settings = {"max_steps": 6, "accumulate_grad_batches": 2, "val_check_interval": 4}
    _, record = run(tmp_path, small_encoder(Drifting), [20, 66, 92], {"learning_rates": rates}, **settings)
    assert list(record.probe.learning_rates) == rates
    for one in record.runs:
        looks = {look.learning_rate: look.scores for look in one.selection.candidates}
        assert [step for step, _ in looks[0.05]] == [2, 4, 6]
        best = max(score for scores in looks.values() for _, score in scores)
        assert one.selection.score == best == one.metrics["val"]["MicroAUROC"]
        assert (one.selection.step, best) in looks[one.selection.learning_rate]
    assert len({one.probe_sha256 for one in record.runs}) == 2


def test_the_last_head_is_reported_where_that_is_asked_for(tmp_path):
    settings = {"max_steps": 4, "val_check_interval": 1}
    _, record = run(tmp_path, small_encoder(Drifting), [20, 66], {"select": "last"}, n_runs=1, **settings)
    assert record.runs[0].selection.step == record.probe.steps == 4
    assert record.runs[0].selection.score is None


def test_a_metric_that_is_undefined_on_the_selection_cases_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ClassificationProbe, "score", lambda self, results: None)
    with pytest.raises(TaskError, match=r"no head has a score on the selection cases.*select: last"):
        run(tmp_path, small_encoder(Drifting), [20], max_steps=1)


def test_a_learning_rate_that_diverges_does_not_end_the_others(tmp_path):
    settings = {"learning_rates": [1e30, 1e-3], "optimizer": torch.optim.SGD, "scale_features": False}
    _, record = run(
        tmp_path,
        small_encoder(Drifting),
        [20, 95],
        settings,
        max_steps=6,
        accumulate_grad_batches=1,
        val_check_interval=2,
    )
    for one in record.runs:
        assert one.selection.learning_rate == 1e-3
        diverged, trained = one.selection.candidates
        assert diverged.scores[-1][1] is None
        assert None not in [score for _, score in trained.scores]


def test_heads_that_all_diverge_end_the_session_with_the_reason(tmp_path):
    settings = {"learning_rates": [1e30], "optimizer": torch.optim.SGD, "scale_features": False}
    options = {"max_steps": 6, "accumulate_grad_batches": 1}
    with pytest.raises(TaskError, match="every head has diverged"):
        run(tmp_path, small_encoder(Drifting), [20, 95], settings, val_check_interval=2, **options)
    with pytest.raises(TaskError, match="the head has diverged"):
        run(tmp_path, small_encoder(Drifting), None, settings, **options)
