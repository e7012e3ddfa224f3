"""iCTCF's laboratory values on a tiny tree of the layout that is known of it."""

import math
import shutil

import pytest

from tapct.errors import TaskError
from tapct.tasks import SPLITS
from tapct.tasks.ictcf_lab import ICTCFLab
from tests.data import ictcf
from tests.data.slabs import edited


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    ictcf.write(folder)
    return folder


@pytest.fixture
def root(release, tmp_path):
    return shutil.copytree(release, tmp_path, dirs_exist_ok=True)


def test_each_value_may_be_missing_by_itself(root):
    parts = [ICTCFLab(root, split) for split in SPLITS]
    cases = {case: part for part in parts for case in part.cases}
    assert sorted(cases) == ["Patient_1", "Patient_2", "Patient_3", "Patient_4", "Patient_6"]
    for case, part in cases.items():
        part.validate()
        given = [float(v) if v not in ("", "NA") else math.nan for v in ictcf.VALUES[case.replace("_", " ")].split(",")]
        assert part.read(case)[1].tolist() == pytest.approx(given, nan_ok=True)
    assert cases["Patient_2"].missing("Patient_2") == ("CRP (mg/l) is missing: clinical.csv has none.",)


def test_who_cannot_be_used_is_named_with_the_reason(root):
    assert ICTCFLab(root, "train").excluded == {
        "Patient_5": "clinical.csv has none of HGB, WBC, CRP, PCT, CK",
        "Control_7": "it has no folder ct/<ID>",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("131,5.2", "13.1,5.2"), "Patient 1: HGB is 13.1, .*g/l.*another unit"),
        (lambda text: text.replace("131,5.2", "131,-5.2"), "WBC is -5.2"),
        (lambda text: text.replace("Patient 2", "Patient_1"), "Patient_1 twice"),
        (lambda text: text.replace("131,5.2", "131,>5.2"), "WBC is '>5.2', which is not a number"),
    ],
)
def test_a_bad_table_is_refused(root, change, message):
    edited(root / "clinical.csv", change)
    with pytest.raises(TaskError, match=message):
        ICTCFLab(root, "train")
