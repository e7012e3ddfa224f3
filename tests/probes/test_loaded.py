"""`eva test` and `eva validate` on heads that were trained before; the progress bar of training."""

import re
import shutil
import sys

import pytest
import yaml
from eva.__main__ import main

from tapct.errors import TaskError
from tapct.records import read_record
from tests.test_configs import CONFIGS, SMALL, eva_fit, session, short, short_on_shipped_data, small_data  # noqa: F401


def eva(monkeypatch, command: str, tmp_path, head=None, trainer=None, data=None) -> None:
    """Runs `eva COMMAND` on the quickstart, with the small encoder."""
    model = {"encoder": SMALL, "weights": None, "overlays": 0, **({} if head is None else {"head": str(head)})}
    overrides = {
        "trainer": {"init_args": {"default_root_dir": str(tmp_path / "again"), **(trainer or {})}},
        "model": {"init_args": model},
        "data": {"init_args": data or {}},
    }
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(overrides), encoding="utf-8")
    configs = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(tmp_path / "again.yaml")]
    monkeypatch.setattr(sys, "argv", ["eva", command, *configs])
    main()


@pytest.fixture(scope="module")
def fitted(small_data, tmp_path_factory):  # noqa: F811
    """A session of two runs on two small scans."""
    folder = tmp_path_factory.mktemp("fitted")
    variables = {"MAX_STEPS": "2", "N_RUNS": "2", "ACCELERATOR": "cpu", "DATA_ROOT": str(small_data)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, "OUTPUT_ROOT": f"{folder}/logs", "TAPCT_CACHE": f"{folder}/cache"}.items():
            patch.setenv(name, value)
        eva_fit(patch, folder)
    return session(folder)


@pytest.fixture
def trained(fitted, tmp_path, short):  # noqa: F811
    """A copy of it, for spoiling."""
    return shutil.copytree(fitted, tmp_path / "trained")


def again(tmp_path):
    (folder,) = (tmp_path / "again").iterdir()
    return read_record(folder / "record.json")


def test_eva_test_reports_what_fit_reported(monkeypatch, tmp_path, trained, capsys):
    eva(monkeypatch, "test", tmp_path, trained)
    before, after = read_record(trained / "record.json"), again(tmp_path)
    assert after.complete
    for one, other in zip(before.runs, after.runs, strict=True):
        assert one.probe_sha256 == other.probe_sha256
        assert one.selection == other.selection
        assert one.cases["test"] == other.cases["test"]
    assert after.probe.head_from.record == before.fingerprint
    assert after.probe.head_from.split_sha256 == before.task.split_sha256
    assert after.probe.steps == before.probe.steps
    assert after.execution.runs[0].training is None
    assert "again" in capsys.readouterr().out  # the path of the record


def test_a_head_is_reported_on_another_split_and_only_what_is_reported_must_be_there(
    monkeypatch,
    tmp_path,
    trained,
    small_data,  # noqa: F811
):
    """External validation: the scans of another site, none of which trains."""
    name, patient = "chest", "somebody"
    (tmp_path / "split.csv").write_text(f"case,patient,split\nabdomen,other,train\n{name},{patient},test\n")
    root = tmp_path / "elsewhere"
    shutil.copytree(small_data, root)
    shutil.rmtree(root / "quickstart" / "abdomen")
    data = {"data_root": str(root), "split_file": str(tmp_path / "split.csv")}
    eva(monkeypatch, "test", tmp_path, trained / "run_1" / "head.safetensors", {"n_runs": 1}, data)
    record = again(tmp_path)
    assert [case.patient for case in record.runs[0].cases["test"]] == ["somebody"]
    assert record.probe.head_from.split_sha256 != record.task.split_sha256


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_command_without_a_head_says_what_to_do(monkeypatch, tmp_path, short, command):  # noqa: F811
    with pytest.raises(TaskError, match=r"model\.init_args\.head" if command == "test" else "tapct embed"):
        eva(monkeypatch, command, tmp_path)


def test_fit_refuses_a_head(monkeypatch, tmp_path, trained):
    with pytest.raises(TaskError, match="eva test"):
        eva(monkeypatch, "fit", tmp_path, trained)


def test_heads_that_are_missing_damaged_or_another_one_are_refused(monkeypatch, tmp_path, trained):
    with pytest.raises(TaskError, match="2 runs would report it"):
        eva(monkeypatch, "test", tmp_path, trained / "run_0" / "head.safetensors")
    with pytest.raises(TaskError, match="no head at"):
        eva(monkeypatch, "test", tmp_path, tmp_path / "nowhere", {"n_runs": 1})
    shutil.copy(trained / "run_1" / "head.safetensors", trained / "run_0" / "head.safetensors")
    with pytest.raises(TaskError, match="its hash differs"):
        eva(monkeypatch, "test", tmp_path, trained)
    (trained / "run_0" / "head.safetensors").write_bytes(b"no head")
    with pytest.raises(TaskError, match="cannot be read as a head"):
        eva(monkeypatch, "test", tmp_path, trained)


def test_a_head_of_other_classes_or_another_encoder_is_refused(monkeypatch, tmp_path, trained):
    bare = tmp_path / "bare" / "head.safetensors"
    bare.parent.mkdir()
    shutil.copy(trained / "run_0" / "head.safetensors", bare)
    eva(monkeypatch, "test", tmp_path, bare, {"n_runs": 1})
    assert again(tmp_path).probe.head_from.content().keys() == {"sha256"}
    monkeypatch.setitem(SMALL, "class_path", "tests.small.Drifting")
    with pytest.raises(TaskError, match=r"weights of the encoder|of the encoder"):
        eva(monkeypatch, "test", tmp_path, trained)
    with pytest.raises(TaskError, match="the head has the parameters"):
        eva(monkeypatch, "test", tmp_path, bare, {"n_runs": 1})


def test_the_progress_bar_is_full_when_the_run_is_and_stands_on_stderr(monkeypatch, tmp_path, short, capsys):  # noqa: F811
    eva_fit(monkeypatch, tmp_path, {"n_runs": 1, "accumulate_grad_batches": 4})
    streams = capsys.readouterr()
    counts = [tuple(map(int, pair)) for pair in re.findall(r"training[^\r\n]*?(\d+)/(\d+) \[", streams.err)]
    assert counts[-1] == (2, 2), "steps, of four cases each"
    assert "Epoch" not in streams.err
    assert "training" not in streams.out
