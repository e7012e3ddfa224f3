"""What a run and the doctor find before any GPU time is spent: every broken case, and every one that lies wrongly."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tapct import cli, doctor
from tapct._utils.files import cache_folder
from tapct.errors import TapctError, TaskError
from tapct.tasks import Quickstart, TaskData
from tapct.tasks.checks import cases_of, examine, require_valid
from tapct.tasks.findings import findings
from tapct.tasks.look import look_at
from tapct.viz.canvas import PictureError, png_path
from tests.conftest import QUICKSTART
from tests.tasks.end_to_end import write_split


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    """Every other voxel of the quickstart's abdomen along each axis: an eighth of what there is to read."""
    folder = tmp_path_factory.mktemp("abdomen")
    for path in (QUICKSTART / "abdomen").glob("*.nii.gz"):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj[::2, ::2, ::2], dtype=image.get_data_dtype())
        nib.save(nib.Nifti1Image(voxels, image.affine @ np.diag([2, 2, 2, 1])), folder / path.name)
    return folder


@pytest.fixture
def root(tmp_path, coarse):
    """A data root with a copy of it under two names."""
    for case in ("abdomen", "second"):
        shutil.copytree(coarse, tmp_path / "quickstart" / case)
    write_split(tmp_path / "split.csv", train=["abdomen"], test=["second"])
    return tmp_path


def turn(root, case: str, axis: int) -> None:
    """Stores scan and labels of a case turned round, under the header as it was; 0 is from right to left."""
    for name in ("ct", "organs"):
        path = root / "quickstart" / case / f"{name}.nii.gz"
        image = nib.load(path)
        voxels = np.flip(np.asanyarray(image.dataobj), axis)
        nib.save(nib.Nifti1Image(voxels, image.affine, image.header), path)


def data(root, **settings) -> TaskData:
    return TaskData("quickstart", str(root), split_file=str(root / "split.csv"), **settings)


def report(root, **settings) -> dict[str, list[str]]:
    """The doctor's messages by status."""
    found = list(findings("quickstart", str(root), split_file=str(root / "split.csv"), **settings))
    return {status: [message for s, message, _ in found if s == status] for status in ("ok", "warn", "fail")}


def test_a_mirrored_case_ends_a_run_before_it_starts_and_says_how_to_go_on(root):
    turn(root, "second", 0)
    with pytest.raises(TaskError) as error:
        data(root).setup("fit")
    text = str(error.value)
    assert "1 cases do not lie as their headers say:\n  quickstart, case second: mirrored: " in text
    assert "spleen 180 mm right of liver" in text
    assert "case abdomen" not in text
    for way in ("split_file", "accept_orientation", "--look OUT.png"):
        assert way in text


@pytest.mark.parametrize("accepted", [["second"], ["all"]])
def test_a_case_that_is_like_that_is_accepted_by_name_and_recorded(root, accepted):
    write_split(root / "split.csv", train=["second"], test=["abdomen"])
    turn(root, "second", 0)
    parts = data(root, accept_orientation=accepted)
    parts.setup("fit")
    assert parts.describe()["accepted_orientation"] == {"second": "mirrored"}
    parts.setup("test")
    assert parts.describe()["accepted_orientation"] == {"second": "mirrored"}, "the next stage has other cases"
    assert report(root, accept_orientation=accepted)["fail"] == []
    right = data(root, accept_orientation=["abdomen"])
    with pytest.raises(TaskError, match="case second: mirrored"):
        right.setup("fit")


def test_without_selection_cases_there_is_nothing_to_validate(root):
    with pytest.raises(TaskError, match="no cases of 'val'"):
        data(root).setup("validate")


def test_only_cases_of_the_task_can_be_accepted(root):
    with pytest.raises(TaskError, match=r"no case 'secnd'\. Did you mean second\?"):
        data(root, accept_orientation=["secnd"])
    with pytest.raises(TaskError, match="no case 'all'"):
        data(root, accept_orientation=["all", "second"])
    (failed,) = report(root, accept_orientation=["secnd"])["fail"]
    assert "no case 'secnd'" in failed


def test_what_is_right_is_recorded_as_nothing(root):
    parts = data(root, perturbation="fov-plane-0.7")
    parts.setup("fit")
    assert parts.describe()["accepted_orientation"] == {}


def test_the_doctor_names_each_case_and_counts_what_could_be_judged(root):
    assert report(root)["ok"][-1] == (
        "organs and headers agree (judged: right and left in 2, front and back in 2, head and feet in 2 of 2 cases)"
    )
    turn(root, "second", 2)
    found = report(root)
    (failed,) = found["fail"]
    assert failed.startswith("quickstart, case second: upside down: ")
    assert "agree in all others" in found["ok"][-1]
    turn(root, "abdomen", 2)
    assert "not one case lies as its header says" in report(root)["fail"][-1]
    assert report(root, accept_orientation=["all"])["fail"] == []


def test_what_was_found_is_remembered_and_a_file_that_changed_is_read_again(root, monkeypatch):
    turn(root, "second", 1)
    first = report(root)
    with monkeypatch.context() as patch:
        patch.setattr(Quickstart, "read_scan", lambda *_: pytest.fail("read again"))
        assert report(root) == first
        with pytest.raises(TaskError, match="back to front"):
            data(root).setup("fit")
    turn(root, "second", 1)
    assert report(root)["fail"] == []


@pytest.mark.parametrize("content", ['["a", "b"]', "{", '{"a": {"judged": []}}', '{"a": 1}'])
def test_a_memory_that_cannot_be_read_is_made_anew(root, content):
    memory = cache_folder() / "checked" / "quickstart.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(content)
    data(root).setup("fit")
    assert len(json.loads(memory.read_text())) == 2


# -- Broken cases ---------------------------------------------------------------------------------------------------


class Odd(Exception):
    """What no reader here raises."""


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError("unable to allocate 64 TiB"), "not enough memory"), (Odd("why"), "Odd: why")],
)
def test_whatever_is_the_matter_with_a_case_the_others_are_read(root, monkeypatch, error, said):
    turn(root, "second", 0)
    read = Quickstart.read_scan

    def fail(self, case):
        if case == "abdomen":
            raise error
        return read(self, case)

    monkeypatch.setattr(Quickstart, "read_scan", fail)
    with pytest.raises(TaskError, match=f"1 cases cannot be used:\n  quickstart, case abdomen: .*{said}") as raised:
        data(root).setup("fit")
    assert "case second: mirrored" in str(raised.value)
    broken, wrong = report(root)["fail"]
    assert "case abdomen" in broken
    assert "case second" in wrong


def test_a_reading_process_that_is_killed_is_an_error_with_advice(root, monkeypatch):
    monkeypatch.setattr(Quickstart, "read_scan", lambda *_: os._exit(9))
    with pytest.raises(TaskError, match=r"quickstart: a process that read cases was killed.*NUM_WORKERS"):
        require_valid(data(root).parts, num_workers=1)


# -- Looking --------------------------------------------------------------------------------------------------------


def test_the_doctor_draws_cases_and_reads_each_once(root, monkeypatch):
    turn(root, "second", 0)
    read, reads = Quickstart.read_scan, []
    monkeypatch.setattr(Quickstart, "read_scan", lambda self, case: (reads.append(case), read(self, case))[1])
    monkeypatch.setattr(doctor, "READERS", 0)
    settings = {"split_file": str(root / "split.csv"), "look": root / "sheet.png"}
    found = {check.name: check for check in doctor.checks("quickstart", str(root), **settings)}
    assert sorted(reads) == ["abdomen", "second"]
    assert found["look quickstart"].status == "ok"
    assert found["look quickstart"].message.endswith("sheet.png: abdomen, second")
    pixels = np.asarray(Image.open(root / "sheet.png").convert("RGB")).astype(int)
    assert pixels.shape[1] > 1000
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 100) & (pixels[..., 2] < 100)
    assert red.any(axis=1).any(), "what is wrong is written in red"


def test_of_a_release_that_is_not_whole_what_is_there_is_drawn(root):
    (root / "quickstart" / "abdomen" / "ct.nii.gz").unlink()
    shown = []
    found = report(root, show=shown.append)
    assert [check.of.case for check in shown] == ["second"]
    assert any("1 of 2 cases are there" in message for message in found["fail"])
    assert not any("can be read" in message for message in found["ok"])


def test_where_nothing_can_be_drawn_the_doctor_says_so(root):
    shutil.rmtree(root / "quickstart" / "abdomen")
    shutil.rmtree(root / "quickstart" / "second")
    settings = {"split_file": str(root / "split.csv"), "look": root / "sheet.png"}
    (check,) = (c for c in doctor.checks("quickstart", str(root), **settings) if c.name == "look quickstart")
    assert (check.status, check.message) == ("fail", "no case can be drawn")
    assert not (root / "sheet.png").exists()


def test_cases_that_are_looked_at_are_far_apart_and_the_wrong_ones_are_among_them(root):
    names = [f"case{i}" for i in range(9)]
    for name in names:
        (root / "quickstart" / name).symlink_to(root / "quickstart" / "abdomen")
    (root / "quickstart" / "case4").unlink()
    (root / "quickstart" / "case4").symlink_to(root / "quickstart" / "second")
    turn(root, "second", 0)
    write_split(root / "split.csv", train=names[:7], test=names[7:])
    for _ in range(2):  # remembered or not
        shown = []
        report(root, show=shown.append)
        assert [check.of.case for check in shown] == ["case0", "case2", "case4", "case5", "case8"]


def test_planes_go_through_the_point_of_a_case_else_through_its_labels(root):
    dataset = data(root).parts[0]
    ct = dataset.read_scan("abdomen")
    one = np.zeros(ct.shape, dtype=np.uint8)
    one[20:30, 30, 40] = 1
    look = look_at(ct, one)
    assert [plane.labels.any() for plane in look.planes] == [True] * 3
    assert np.array_equal(look.planes[1].hu, ct.hu[:, 30])
    assert look.planes[2].spacing_mm == pytest.approx((6, 6))
    point = tuple(ct.index_to_world(np.array([[33, 24, 45]]))[0])
    look = look_at(ct, None, point)
    assert np.array_equal(look.planes[0].hu, ct.hu[33])
    assert look.planes[2].point == pytest.approx((33, 24))
    assert np.array_equal(look_at(ct, None).planes[0].hu, ct.hu[28])


def test_a_perturbed_part_is_judged_as_it_lies_on_disk(root):
    parts = data(root, perturbation="fov-z-0.5").parts
    plain = [check.orientation for check in examine(cases_of(data(root).parts))]
    shutil.rmtree(cache_folder())
    assert [check.orientation for check in examine(cases_of(parts))] == plain


@pytest.mark.parametrize(
    ("name", "message"), [("sheet.jpg", "ends in .png"), ("nowhere/sheet.png", "no folder"), ("dir.png", "is a folder")]
)
def test_a_picture_that_cannot_be_written_is_refused_at_once(tmp_path, name, message):
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(PictureError, match=message):
        png_path(str(tmp_path / name))
    with pytest.raises(PictureError, match=message):
        cli.doctor(task="quickstart", root=str(tmp_path / "nowhere"), look=str(tmp_path / name))
    assert png_path(str(tmp_path / "sheet.PNG")) == tmp_path / "sheet.PNG"


@pytest.mark.parametrize("settings", [{"look": "sheet.png"}, {"accept_orientation": ["all"]}])
def test_what_is_about_a_task_needs_one(settings):
    with pytest.raises(TapctError, match="name it with --task"):
        cli.doctor(**settings)


def test_the_doctors_table_keeps_what_stands_in_brackets(root, capsys, monkeypatch):
    turn(root, "second", 0)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.doctor(task="quickstart", root=str(root), split_file=str(root / "split.csv")) == 1
    assert "[all]" in capsys.readouterr().out


def test_the_doctor_says_how_scans_were_read_also_from_memory(root, monkeypatch):
    path = root / "quickstart" / "second" / "ct.nii.gz"
    image = nib.load(path)
    hu = np.asanyarray(image.dataobj).copy()
    hu[:10] = -2000
    nib.save(nib.Nifti1Image(hu, image.affine, image.header), path)
    first = report(root)
    (said,) = [message for message in first["warn"] if message.startswith("how 1 of 2 cases are read: second: ")]
    assert "padding outside the field of view, raised to -1024 HU" in said
    monkeypatch.setattr(Quickstart, "read", None)  # everything is remembered
    assert report(root) == first
