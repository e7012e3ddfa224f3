"""Reports that a frozen language model writes, through eva's trainer, of scans whose findings were planted."""

import dataclasses

import pytest
import safetensors.torch
import torch
from eva.core.trainers.functional import run_evaluation_session

from baselines.intensity import Intensity
from tapct.errors import RecordError, TaskError
from tapct.kinds import kind
from tapct.kinds.report import COMMON, RANDOM, knowing_nothing
from tapct.language_models.decoding import Decoding
from tapct.language_models.files import find
from tapct.language_models.model import Lora
from tapct.probes import ReportProbe, Trainer
from tapct.probes.checkpoints import FOLDER
from tapct.probes.generated import Generator, ScanPatches, Writer
from tapct.records import read_record
from tapct.records.case import as_cases
from tapct.report.page import write_report
from tapct.statistics.inputs import from_records
from tests.data import written_reports

SMALL = {"tokens": 2, "width": 32, "layers": 1, "heads": 4, "batch": 8, "decoding": Decoding(most_tokens=24)}
LORA = Lora(rank=2, alpha=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    written_reports.write(root / "scans")
    written_reports.language_model(root / "model")
    return root


@pytest.fixture(autouse=True)
def _reader(monkeypatch):
    monkeypatch.setattr("tapct.report_texts.radbert.RadBERT", written_reports.Words)


def fit(files, out, max_steps=4, adaptor="generated", generator=None, **probe):
    settings = {"learning_rates": [0.003], "feature_folder": str(files / "features"), "feature_dtype": "fp32", **probe}
    of = {"language_model": str(files / "model"), **SMALL, **(generator or {})}
    encoder = Intensity(window_size=(8, 32, 32), in_plane_size=32)
    made = ReportProbe(encoder, adaptor=adaptor, generator=Generator(**of), shortcuts=False, **settings)
    options = {"accumulate_grad_batches": 1, "val_check_interval": 0.5, "logger": False}
    session = Trainer(default_root_dir=str(out), accelerator="cpu", n_runs=1, max_steps=max_steps, **options)
    size = 1 if settings.get("features") == "off" else 8
    data = written_reports.WrittenData("written", str(files / "scans"), batch_size=size)
    run_evaluation_session(session, made, data, n_runs=1, verbose=False)
    return next(iter(sorted(out.glob("*/record.json"))))


@pytest.fixture(scope="module")
def path(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tapct.report_texts.radbert.RadBERT", written_reports.Words)
        patch.setenv("TAPCT_CACHE", str(out / "cache"))
        return fit(files, out / "logs", max_steps=80, learning_rates=[0.003, 0.006])


def test_the_loss_falls_and_findings_come_out_above_the_floor_on_scans_that_were_not_trained_on(path):
    record, of = read_record(path), kind("report")
    losses = record.execution.runs[0].training.loss
    assert losses[-1] < losses[0] / 2
    cases = as_cases(of, record.runs[0].cases["test"])
    floor = [of.metric("MacroF1").value(knowing_nothing(cases, text)) for text in (COMMON, RANDOM)]
    assert of.metric("MacroF1").value(cases) > max(floor) + 0.1
    page = write_report(path).read_text(encoding="utf-8")
    assert COMMON in page
    assert RANDOM in page


def test_the_record_and_the_head_hold_what_wrote_and_no_text_and_nothing_that_is_frozen(path, files):
    record = read_record(path)
    about, files = record.probe, find(str(files / "model"))
    assert about.generator.language_model_sha256 == files.sha256
    assert (about.language_model.name, about.language_model.architecture) == ("model", "LlamaForCausalLM")
    assert (about.decoding.most_tokens, about.decoding.temperature, about.cut_reports) == (24, 0, 0)
    assert about.generator.most_cells == 4096
    assert all(case.report.of is None for case in record.runs[0].cases["test"])
    assert b"is seen" not in path.read_bytes()
    head = safetensors.torch.load_file(path.parent / "run_0" / "head.safetensors")
    assert all(name.startswith("resampler.") for name in head)
    assert record.runs[0].selection.score is not None


def test_two_language_models_never_compare(path):
    record = read_record(path)
    other = record.probe.generator.model_copy(update={"language_model_sha256": "0" * 64})
    another = record.model_copy(update={"probe": record.probe.model_copy(update={"generator": other})})
    with pytest.raises(RecordError, match="do not compare: generator"):
        from_records([record, another], "MacroF1", names=["one", "other"])


def test_written_one_by_one_and_from_the_encoder_reports_are_those_of_a_batch(files, tmp_path):
    """No batch of the store, no store: nothing of the result tells, and the floor is made of the same features."""
    settings = {"max_steps": 2, "generator": {"most_cells": 8}}
    batched = read_record(fit(files, tmp_path / "batched", **settings))
    alone = read_record(fit(files, tmp_path / "alone", max_steps=2, generator={"most_cells": 8, "batch": 1}))
    assert alone.fingerprint == batched.fingerprint
    floor = fit(files, tmp_path / "floor", adaptor="nearest:max", features="only-cached")  # nothing is encoded twice
    assert read_record(floor).probe.generator is None


@pytest.mark.thorough
def test_a_resumed_run_with_lora_is_the_unbroken_one_and_its_checkpoint_holds_what_is_trained(files, tmp_path):
    settings = {"generator": {"lora": LORA}, "checkpoint_every": 1}
    whole = read_record(fit(files, tmp_path / "whole", **settings))
    assert whole.probe.generator.lora.rank == 2
    losses, left = ReportProbe.losses, iter(range(3))

    def mortal(self, heads, cases):
        if next(left, None) is None:
            raise KeyError("killed")
        return losses(self, heads, cases)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportProbe, "losses", mortal)
        with pytest.raises(KeyError, match="killed"):
            fit(files, tmp_path / "broken", **settings)
    (kept,) = (tmp_path / "broken" / FOLDER).iterdir()
    (head,) = torch.load(kept, weights_only=True)["candidates"]["heads"]
    assert {name.partition(".")[0] for name in head["weights"]} == {"resampler", "adapter"}
    assert all("lora_" in name for name in head["weights"] if name.startswith("adapter"))
    assert read_record(fit(files, tmp_path / "broken", **settings)).fingerprint == whole.fingerprint


def test_the_gradient_reaches_the_projector_and_lora_and_nothing_else(files):
    settings = {**SMALL, "language_model": str(files / "model"), "lora": LORA}
    writer = Writer(Generator(**settings), torch.device("cpu"))
    head, scan = writer.head(5), ScanPatches(torch.randn(5, 9), 50 * torch.randn(9, 3).double())
    with torch.no_grad():
        for weight in head.adapter.values():  # B begins at zero, and then A has no gradient
            weight.add_(0.1)
    writer.losses(head, [writer.prompted(head, scan)], ["No calcification."]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert all(p.grad is None for p in writer.model._network.parameters())


def test_what_a_generator_lacks_is_said_before_anything_is_encoded(files, tmp_path):
    with pytest.raises(TaskError, match="needs a language model"):
        fit(files, tmp_path, generator={"language_model": None})
    with pytest.raises(TaskError, match="width of 30 cannot be divided among 4 heads"):
        Generator(**{**SMALL, "width": 30})
    with pytest.raises(TaskError, match="tokens is 0, and must be at least 1"):
        Generator(**{**SMALL, "tokens": 0})
    long = dataclasses.replace(SMALL["decoding"], most_tokens=120)
    with pytest.raises(TaskError, match=r"sees 128 tokens.*lower generator\.decoding\.most_tokens"):
        Writer(Generator(**{**SMALL, "language_model": str(files / "model"), "decoding": long}), torch.device("cpu"))


def test_reports_that_are_cut_are_counted_and_noted(files, tmp_path):
    record = read_record(fit(files, tmp_path, max_steps=1, generator={"decoding": Decoding(most_tokens=3)}))
    assert record.probe.cut_reports == written_reports.CASES["train"]
    assert any("had not ended at 3 tokens" in note for case in record.runs[0].cases["test"] for note in case.notes)
