"""What is measured of masks is remembered for as long as the files and the code are what they were."""

import shutil

import pytest

from tapct.errors import TaskError
from tapct.tasks import Quickstart
from tapct.tasks.measured import measured


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(Quickstart.shipped_root, tmp_path / "quickstart")
    return Quickstart(tmp_path / "quickstart", "train")


def test_is_measured_once_and_again_when_a_file_changes(dataset):
    case, calls = dataset.cases[0], []
    path = dataset.label_path(case)

    def volume():
        calls.append(case)
        return {"bytes": path.stat().st_size, "where": (1.5, 2)}

    first = measured(dataset, case, "size", [path], volume)
    assert first == {"bytes": path.stat().st_size, "where": [1.5, 2]}
    assert measured(dataset, case, "size", [path], volume) == first
    assert calls == [case]
    path.write_bytes(path.read_bytes() + b"\0")
    assert measured(dataset, case, "size", [path], volume)["bytes"] == first["bytes"] + 1


def test_two_questions_and_two_cases_have_two_answers(dataset):
    path = dataset.label_path(dataset.cases[0])
    asked = [(case, what) for case in ("a", "b") for what in ("volume", "centre")]
    answers = [measured(dataset, case, what, [path], lambda c=case, w=what: f"{c} {w}") for case, what in asked]
    assert answers == ["a volume", "a centre", "b volume", "b centre"]


def test_a_damaged_answer_is_measured_again(dataset, tmp_path):
    path = dataset.label_path(dataset.cases[0])
    measured(dataset, "a", "volume", [path], lambda: 1.0)
    (kept,) = (tmp_path / "cache" / "measured").rglob("*.json")
    kept.write_text("{")
    assert measured(dataset, "a", "volume", [path], lambda: 2.0) == 2.0


def test_a_file_that_is_not_there_is_named(dataset, tmp_path):
    with pytest.raises(TaskError, match=r"gone\.nii\.gz cannot be read"):
        measured(dataset, "a", "volume", [tmp_path / "gone.nii.gz"], lambda: 1.0)
