"""The memory of valid cases: it hangs on every file that is read, and on the code that reads."""

import os

import numpy as np
import pytest

from tapct.tasks.checks import cases_of, examine
from tapct.tasks.quickstart import Quickstart
from tests.data.abdomen import block, save
from tests.data.reading import Reading, write


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "reading")


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a case is read."""
    found = []
    read = Quickstart.read
    monkeypatch.setattr(Quickstart, "read", lambda self, case: found.append(case) or read(self, case))
    return found


def broken(parts):
    return [check.broken for check in examine(cases_of(parts)) if check.broken]


def messages(folder):
    return broken([Reading(folder, "train", folder / "split.csv")])


def test_a_case_is_read_once_and_again_when_its_voxels_are_replaced(root, reads):
    assert messages(root) == messages(root) == []
    assert reads == ["c0"]
    voxels = root / "c0" / "voxels.bin"
    stat = voxels.stat()
    np.zeros(stat.st_size // 2, np.int16).tofile(voxels)
    os.utime(voxels, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (message,) = messages(root)
    assert "case c0: " in message
    assert reads == ["c0", "c0"]


def test_other_code_reads_again(root, reads, monkeypatch):
    messages(root)
    monkeypatch.setattr(Reading, "reading", ["another"])
    messages(root)
    assert reads == ["c0", "c0"]


def test_a_task_in_no_file_is_read_each_time(root, reads):
    namespace = {"Reading": Reading, "__name__": "nowhere"}
    exec("class Loose(Reading):\n    pass\n", namespace)  # as in a notebook
    part = namespace["Loose"](root, "train", root / "split.csv")
    assert broken([part]) == broken([part]) == []
    assert reads == ["c0", "c0"]


def test_a_missing_file_is_no_reason_to_remember_nothing(root, reads):
    (root / "c0" / "organs.nii.gz").unlink()
    assert len(messages(root)) == 1
    slab = block(60)
    save(root / "c0" / "organs.nii.gz", slab.organs, slab.affine)
    assert messages(root) == messages(root) == []
    assert len(reads) == 2
