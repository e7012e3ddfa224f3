"""OSIC's lung function on a tiny tree of the layout that is known of it."""

import shutil

import pytest

from tapct.errors import TaskError
from tapct.tasks import SPLITS
from tapct.tasks.osic_fvc import OSICFVC
from tests.data import osic
from tests.data.slabs import edited


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    osic.write(folder)
    return folder


@pytest.fixture
def root(release, tmp_path):
    return shutil.copytree(release, tmp_path, dirs_exist_ok=True)


def test_a_patient_is_on_the_side_of_their_hash_and_has_the_value_of_the_table(root):
    parts = [OSICFVC(root, split) for split in SPLITS]
    assert sorted(case for part in parts for case in part.cases) == sorted(osic.write(root))
    for part in parts:
        part.validate()
        for index, case in enumerate(part.cases):
            assert part[index][1].tolist() == [float(osic.FVC[case])]


def test_who_cannot_be_used_is_named_with_the_reason(root):
    part = OSICFVC(root, "train")
    assert part.excluded == {
        "A-8": "baselines.csv has no FVC PREDICTED",
        "B-2": "it has no scan ct/<PATIENT ID>_0.nii.gz",
    }
    assert "A-8" not in part.cases


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("71.5", "2.9"), "329205: FVC PREDICTED is 2.9.*another unit"),
        (lambda text: text.replace(",71.5,", ',"71,5",'), "decimal comma"),
        (lambda text: text.replace("000123,", "329205,"), "329205 twice"),
        (lambda text: text.replace("FVC PREDICTED", "FVC"), "lacks the columns FVC PREDICTED"),
    ],
)
def test_a_bad_table_is_refused(root, change, message):
    edited(root / "baselines.csv", change)
    with pytest.raises(TaskError, match=message):
        OSICFVC(root, "train")


def test_a_folder_without_the_table_is_refused(tmp_path):
    with pytest.raises(TaskError, match="no label file"):
        OSICFVC(tmp_path, "train")
