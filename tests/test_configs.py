"""The shipped configs through eva's own command line, in this process."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jsonargparse
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from eva.__main__ import main

import tapct.probes.frozen
from tapct.encoders import Encoder
from tapct.probes.settings import ProbeSettings
from tapct.records import Record, read_record
from tapct.report.page import write_report
from tests.data import quickstart

CONFIGS = Path(__file__).parents[1] / "eva_configs"
SMALL = {"class_path": "tests.small.Small3D", "init_args": {"weights": "random"}}
DEFERRED = {**SMALL, "init_args": {"weights": "random", "deferred": True}}
DRIFTING = {**SMALL, "class_path": "tests.small.Drifting"}
OVERRIDES_PARSE = jsonargparse.__version__ < "4.51"


def eva_fit(monkeypatch, tmp_path: Path, trainer=None, encoder=SMALL, is_drawn=False, **model) -> None:
    """Runs `eva fit --config quickstart.yaml --config overrides.yaml`, with a small encoder by class_path.

    The picture that the config asks for is drawn where a test looks at it: it takes as long as all the rest.
    """
    if encoder is not None:
        model |= {"encoder": encoder, "weights": None}
    if not is_drawn:
        model |= {"overlays": 0}
    overrides = {"trainer": {"init_args": trainer or {}}, "model": {"init_args": model}}
    (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    configs = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(tmp_path / "overrides.yaml")]
    monkeypatch.setattr(sys, "argv", ["eva", "fit", *configs])
    main()


def session(tmp_path: Path, index: int = -1) -> Path:
    return sorted((tmp_path / "logs" / "quickstart").iterdir())[index]


def record(tmp_path: Path, index: int = -1) -> Record:
    return read_record(session(tmp_path, index) / "record.json")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> Path:
    return quickstart.write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def short_on_shipped_data(monkeypatch):
    monkeypatch.setenv("MAX_STEPS", "2")
    monkeypatch.setenv("N_RUNS", "2")
    monkeypatch.setenv("ACCELERATOR", "cpu")


@pytest.fixture
def short(monkeypatch, short_on_shipped_data, small_data):
    monkeypatch.setenv("DATA_ROOT", str(small_data))


@dataclass(frozen=True)
class Fitted:
    """What a fit left; no test changes it."""

    record: Record
    cache: str
    builds: int


@pytest.fixture(scope="module")
def fitted(small_data, tmp_path_factory) -> Fitted:
    """Two runs of two steps under the defaults, by an encoder that is built only where it is needed."""
    folder, builds = tmp_path_factory.mktemp("fitted"), list[int]()
    variables = {"MAX_STEPS": "2", "N_RUNS": "2", "ACCELERATOR": "cpu", "DATA_ROOT": small_data}
    places = {"OUTPUT_ROOT": folder / "logs", "TAPCT_CACHE": folder / "cache"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (variables | places).items():
            patch.setenv(name, str(value))
        patch.setattr("tests.small.Small3D.load", lambda self: builds.append(1) or Encoder.load(self))
        eva_fit(patch, folder, encoder=DEFERRED)
    return Fitted(record(folder), str(folder / "cache"), len(builds))


def test_the_quickstart_leaves_what_it_says(monkeypatch, tmp_path, short_on_shipped_data, capsys):
    eva_fit(monkeypatch, tmp_path, is_drawn=True)
    out, folder = capsys.readouterr().out, session(tmp_path)
    experiment = record(tmp_path)
    assert experiment.complete
    assert [run.seed for run in experiment.runs] == [0, 1]
    assert "not a benchmark score" in experiment.notice
    assert experiment.notice in out
    assert str(folder / "record.json") in out
    assert (folder / "run_0" / "overlays" / "chest.png").stat().st_size > 20_000
    for organ in ("liver", "costal cartilages"):
        assert organ in out
    (case,) = experiment.runs[0].cases["test"]
    assert (case.case, case.patient) == ("chest", "totalsegmentator-example-ct-dicom")
    assert case.dice.keys() == {"native", "paper"}
    assert len(case.dice["native"]) == 11
    assert case.padding_voxels == (0, 0, 0)
    assert experiment.encoder.weights == "random"
    assert experiment.encoder.precision == "auto"
    assert experiment.task.split_sha256
    assert experiment.execution.packages["kaiko-eva"] == "0.4.5"
    # eva's own file, where eva users look for it, with the same numbers.
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]["test"][0]
    for metric in ("dice_native", "dice_paper"):
        values = [run.metrics["test"][metric] for run in experiment.runs]
        assert results[f"test/{metric}"]["values"] == pytest.approx(values)
    mean = sum(case.dice["native"].values()) / 11
    assert experiment.runs[0].metrics["test"]["dice_native"] == pytest.approx(mean)


def test_runs_start_from_different_weights_and_each_can_be_reproduced_alone(monkeypatch, tmp_path, short, fitted):
    """eva 0.4.5 copies one initialised head: its three "runs" differ only by shuffling."""
    both = fitted.record
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1}, seed=1)
    alone = record(tmp_path)
    assert both.runs[0].probe_sha256 != both.runs[1].probe_sha256
    assert alone.runs[0].seed == both.runs[1].seed == 1
    assert alone.runs[0].probe_sha256 == both.runs[1].probe_sha256
    assert alone.runs[0].metrics == both.runs[1].metrics
    assert alone.runs[0].cases == both.runs[1].cases


def test_the_same_seed_gives_the_same_record(monkeypatch, tmp_path, short, fitted):
    eva_fit(monkeypatch, tmp_path)
    assert record(tmp_path).fingerprint == fitted.record.fingerprint


def test_a_crash_in_the_last_run_loses_nothing(monkeypatch, tmp_path, short):
    """eva writes results.json after the last run only."""
    started = tapct.probes.frozen.FrozenEncoderProbe.on_fit_start

    def crash(self):
        if self.run == 1:
            raise RuntimeError("node failure")
        started(self)

    monkeypatch.setattr("tapct.probes.frozen.FrozenEncoderProbe.on_fit_start", crash)
    with pytest.raises(RuntimeError, match="node failure"):
        eva_fit(monkeypatch, tmp_path)
    assert not (session(tmp_path) / "results.json").exists()
    experiment = record(tmp_path)
    assert [run.run for run in experiment.runs] == [0]
    assert not experiment.complete
    assert experiment.runs_planned == 2


def test_the_encoder_is_frozen_in_every_stage(monkeypatch, tmp_path, short):
    """eva 0.4.5 leaves it in train mode: batch statistics drift, dropout is active."""
    import tests.small

    seen = []
    encode = tests.small.Drifting._encode

    def watched(self, x):
        state = {k: v.clone() for k, v in self.network.state_dict().items()}
        features = encode(self, x)
        drifted = any(not torch.equal(state[k], v) for k, v in self.network.state_dict().items())
        seen.append((any(m.training for m in self.modules()), features.map.requires_grad, drifted))
        return features

    monkeypatch.setattr(tests.small.Drifting, "_encode", watched)
    eva_fit(monkeypatch, tmp_path, encoder=DRIFTING, features="off", feature_memory_gb=0)
    assert len(seen) >= 4  # nothing is kept, so it encodes in training and in testing, in both runs
    assert set(seen) == {(False, False, False)}


def test_features_are_extracted_once_and_the_encoder_is_not_even_built_again(monkeypatch, tmp_path, short, fitted):
    built = []
    assert fitted.builds
    monkeypatch.setattr("tests.small.Small3D.load", lambda self: built.append(1) or Encoder.load(self))
    monkeypatch.setenv("TAPCT_CACHE", fitted.cache)
    eva_fit(monkeypatch, tmp_path, encoder=DEFERRED, features="only-cached")
    assert not built
    assert record(tmp_path).fingerprint == fitted.record.fingerprint


def test_stored_features_train_as_those_made_on_the_way(monkeypatch, tmp_path, short):
    monkeypatch.setenv("MAX_STEPS", "6")
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1}, features="off")
    on_the_way = record(tmp_path).runs[0]
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1}, feature_dtype="fp32")
    full = record(tmp_path).runs[0]
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1})
    half = record(tmp_path).runs[0]
    assert full.metrics["test"] == pytest.approx(on_the_way.metrics["test"], rel=1e-4)
    for run in (full, half):
        dice = [run.metrics["test"][f"dice_{grid}"] for grid in ("native", "paper")]
        assert dice == pytest.approx(
            [on_the_way.metrics["test"][f"dice_{grid}"] for grid in ("native", "paper")], abs=2e-3
        )


def test_runs_that_train_side_by_side_give_what_they_give_one_after_the_other(monkeypatch, tmp_path, short, fitted):
    assert ProbeSettings.runs_together
    eva_fit(monkeypatch, tmp_path, runs_together=False)
    together, apart = fitted.record, record(tmp_path)
    assert [run.seed for run in apart.runs] == [0, 1]
    assert together.runs == apart.runs
    assert together.probe == apart.probe


def test_no_labels_are_predicted_while_training(monkeypatch, tmp_path, short):
    """In eva 0.4.5 argmax and one-hot run on every training batch, for half of the time."""
    import tapct.probes.segmentation

    predict, calls = tapct.probes.segmentation.predict_labels, []
    monkeypatch.setattr(
        "tapct.probes.segmentation.predict_labels", lambda *a: calls.append(torch.is_grad_enabled()) or predict(*a)
    )
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1})
    assert calls == [False, False]  # native and encoder grid of the one test case


def test_overrides_reach_the_record(monkeypatch, tmp_path, short):
    """eva's recorded config ignores overrides: the record takes settings from the objects that ran."""
    monkeypatch.setenv("MAX_STEPS", "3")
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.125}}
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1, "accumulate_grad_batches": 2}, optimizer=optimizer, window_overlap=0.5)
    probe = record(tmp_path).probe
    assert probe.optimizer["lr"] == 0.125
    assert probe.optimizer["class"] == "SGD"
    assert (probe.steps, probe.accumulate_grad_batches) == (3, 2)
    assert probe.window_overlap == 0.5


@pytest.mark.skipif(not OVERRIDES_PARSE, reason="jsonargparse 4.51 and newer refuse overrides of eva's arguments")
def test_the_command_line_overrides_the_config(monkeypatch, tmp_path, short):
    overrides = ["--trainer.n_runs=1", "--model.seed=3", "--model.init_args.optimizer.init_args.lr=0.125"]
    small = ["--model.encoder.class_path=tests.small.Small3D", "--model.encoder.init_args.weights=random"]
    command = ["eva", "fit", "--config", str(CONFIGS / "quickstart.yaml"), "--model.weights=null", *small, *overrides]
    monkeypatch.setattr(sys, "argv", command)
    main()
    experiment = record(tmp_path)
    assert [run.seed for run in experiment.runs] == [3]
    assert experiment.probe.optimizer["lr"] == 0.125


def test_a_schedule_steps_with_the_optimizer_and_is_recorded(monkeypatch, tmp_path, short):
    monkeypatch.setenv("MAX_STEPS", "4")
    linear = {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": {"total_iters": 3}}
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1})
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1}, lr_scheduler=linear)
    assert session(tmp_path, 0) != session(tmp_path, 1)
    default, chosen = (record(tmp_path, index).probe for index in (0, 1))
    assert default.lr_scheduler[0]["class"] == "CosineAnnealingLR"
    assert (default.lr_scheduler[0]["T_max"], default.lr_scheduler[0]["eta_min"]) == (4, 0)
    assert chosen.lr_scheduler[0]["class"] == "LinearLR"
    for probe in (default, chosen):
        assert probe.lr_scheduler[0]["last_epoch"] == 4
        assert probe.optimizer["lr"] == 0.005, "the rate that it started from"


def test_sums_over_voxels_are_never_in_half_precision(monkeypatch, tmp_path, short, fitted):
    eva_fit(monkeypatch, tmp_path, {"precision": "bf16-mixed"})
    mixed = record(tmp_path)
    assert mixed.probe.precision == "bf16-mixed"
    assert mixed.runs == fitted.record.runs


def test_every_step_sees_a_full_accumulation(monkeypatch, tmp_path, short):
    """With epochs over one case, Lightning steps after one of four cases, on a quarter of the gradient."""
    calls = []
    step = tapct.probes.SegmentationProbe.training_step
    monkeypatch.setattr(
        "tapct.probes.SegmentationProbe.training_step", lambda self, *a: calls.append(1) or step(self, *a)
    )
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1, "accumulate_grad_batches": 4})
    assert len(calls) == 2 * 4


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--model.init_args.encodr=tap-s-3d", "Did you mean 'encoder'"),
        ("--model.init_args.window_overlop=0.5", "Did you mean 'window_overlap'"),
        ("--data.init_args.taks=quickstart", "Did you mean 'task'"),
        ("--trainer.init_args.max_stepz=3", "Did you mean 'max_steps'"),
    ],
)
def test_a_misspelt_key_names_the_nearest(argument, hint, monkeypatch, capsys, tmp_path):
    key, _, value = argument.removeprefix("--").partition("=")
    section, _, name = key.partition(".init_args.")
    text = (CONFIGS / "quickstart.yaml").read_text(encoding="utf-8")
    config = tmp_path / "misspelt.yaml"
    at = text.index("init_args:\n", text.index(f"{section}:")) + len("init_args:\n")
    config.write_text(f"{text[:at]}    {name}: {value}\n{text[at:]}")
    monkeypatch.setattr(sys, "argv", ["eva", "fit", "--config", str(config)])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    assert hint in capsys.readouterr().err


def test_parsers_of_others_are_left_as_they_were(capsys):
    """What a parser of configs is told more, it alone is told; jsonargparse itself is not changed."""
    error = jsonargparse.ArgumentParser.error
    ours, theirs = jsonargparse.ArgumentParser(), jsonargparse.ArgumentParser()
    ours.add_argument("--trainer", type=tapct.probes.Trainer)
    theirs.add_argument("--loader", type=torch.utils.data.DataLoader)
    messages = []
    for parser, words in (
        (theirs, ["--loader.class_path=torch.utils.data.DataLoader", "--loader.init_args.bach_size=1"]),
        (ours, ["--trainer.class_path=tapct.probes.Trainer", "--trainer.init_args.max_stepz=3"]),
        (theirs, ["--loader.class_path=torch.utils.data.DataLoader", "--loader.init_args.bach_size=1"]),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        messages.append("Did you mean" in capsys.readouterr().err)
    assert messages == [False, True, False]
    assert jsonargparse.ArgumentParser.error is error
    assert error.__module__.startswith("jsonargparse")


def test_a_misspelt_section_names_the_nearest(monkeypatch, capsys, tmp_path):
    config = tmp_path / "misspelt.yaml"
    config.write_text((CONFIGS / "quickstart.yaml").read_text(encoding="utf-8").replace("data:\n", "dat:\n"))
    monkeypatch.setattr(sys, "argv", ["eva", "fit", "--config", str(config)])
    with pytest.raises(SystemExit):
        main()
    assert "dat" in capsys.readouterr().err


def test_variables_choose_encoder_weights_data_and_output(monkeypatch, tmp_path):
    for name, value, message in (
        ("ENCODER", "tap-s3d", "Did you mean 'tap-s-3d'"),
        ("ENCODER_WEIGHTS", str(tmp_path / "none.pth"), "no weights file"),
        ("DATA_ROOT", str(tmp_path), "no folder"),
        ("ENCODER", "vista4d", "no encoder 'vista4d'"),
    ):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            with pytest.raises(Exception, match=message):
                eva_fit(context, tmp_path, encoder=None)


def test_lightning_does_not_choose_as_well(monkeypatch, tmp_path, short):
    """Without a monitor, Lightning silently evaluates some other checkpoint under the name "best"."""
    with pytest.raises(Exception, match="the probe chooses the head that is reported"):
        eva_fit(monkeypatch, tmp_path, {"checkpoint_type": "best"})


@pytest.mark.parametrize(
    ("trainer", "model", "message"),
    [
        ({}, {"learning_rates": [0.1, 0.01]}, "need selection cases to choose by"),
        ({"gradient_clip_val": 1.0}, {}, "set runs_together: false"),
    ],
)
def test_what_would_choose_on_reported_cases_or_couple_the_heads_is_refused(
    trainer, model, message, monkeypatch, tmp_path, short
):
    with pytest.raises(Exception, match=message):
        eva_fit(monkeypatch, tmp_path, trainer, **model)


def test_a_scan_thinner_than_the_window_is_padded_with_air_and_reported(monkeypatch, tmp_path, short, capfd):
    thick = {**SMALL, "dict_kwargs": {"window_size": [20, 64, 64]}}
    eva_fit(monkeypatch, tmp_path, encoder=thick)
    (case,) = record(tmp_path).runs[0].cases["test"]
    assert case.padding_voxels == (12, 0, 0)
    said = capfd.readouterr().err
    assert "chest: 8 x 64 x 64 voxels are fewer than a window of 20 x 64 x 64; padded with air" in said


def test_several_devices_are_refused(monkeypatch, tmp_path, short):
    monkeypatch.setattr("lightning.pytorch.Trainer.world_size", 2)
    with pytest.raises(Exception, match="trains on one device"):
        eva_fit(monkeypatch, tmp_path)


PADDED = (
    "25.00% of the voxels lie below -1500 HU, mostly at -2000: padding outside the field of view, raised to -1024 HU."
)


def test_how_a_scan_was_read_is_in_the_record_and_said_once(monkeypatch, tmp_path, short_on_shipped_data, capfd):
    """Whether it is encoded as it comes, encoded for the store, or taken from there."""
    monkeypatch.setenv("DATA_ROOT", str(quickstart.write(tmp_path / "data")))
    path = tmp_path / "data" / "quickstart" / "chest" / "ct.nii.gz"
    scan = nib.load(path)
    hu = np.asanyarray(scan.dataobj).copy()
    hu[:20] = -2000
    nib.save(nib.Nifti1Image(hu, scan.affine, scan.header), path)
    monkeypatch.setenv("N_RUNS", "1")
    for mode, workers in (("off", "0"), ("use", "1"), ("only-cached", "0")):
        monkeypatch.setenv("NUM_WORKERS", workers)
        eva_fit(monkeypatch, tmp_path, features=mode)
        assert capfd.readouterr().err.count(f"chest: {PADDED}") == 1, mode
    experiments = [record(tmp_path, index) for index in range(3)]
    assert [run.cases["test"][0].notes for experiment in experiments for run in experiment.runs] == [(PADDED,)] * 3
    page = write_report(session(tmp_path) / "record.json").read_text(encoding="utf-8")
    assert "How scans were read" in page
    assert PADDED in page
