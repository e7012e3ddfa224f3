"""Few labels: whom a fraction draws, and that nothing else changes."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tapct.errors import TaskError
from tapct.features.bank import FeatureBank
from tapct.features.store import TensorStore
from tapct.tasks import TaskData
from tapct.tasks.fractions import drawn_patients, patients_of
from tests.data import luna25
from tests.data.abdomen import block, save
from tests.small import CubicMillimetres

SEGMENTATION = {f"p{i}": frozenset() for i in range(200)}
COMMON, RARE = frozenset({"not a", "not b"}), frozenset({"a", "not b"})
CLASSIFICATION = {f"p{i}": frozenset({"a", "b"}) if i == 777 else RARE if i % 10 == 0 else COMMON for i in range(2000)}


@pytest.mark.parametrize("answers", [SEGMENTATION, CLASSIFICATION], ids=["segmentation", "classification"])
def test_draws_are_nested_and_differ(answers):
    for draw in range(3):
        sets = [drawn_patients(answers, fraction, draw, "toy") for fraction in (0.001, 0.01, 0.1, 0.5, 1.0)]
        assert [len(s) for s in sets] == [max(1, round(f * len(answers))) for f in (0.001, 0.01, 0.1, 0.5, 1.0)]
        for fewer, more in pairwise(sets):
            assert more[: len(fewer)] == fewer
        assert set(sets[-1]) == answers.keys()
    one, two = (set(drawn_patients(answers, 0.1, draw, "toy")) for draw in (0, 1))
    assert len(one & two) < len(one) / 2
    assert set(drawn_patients(answers, 0.1, 0, "other task")) != one


def test_a_draw_is_the_same_on_every_machine():
    """Pinned: what was drawn once must be drawn again, or results under one name are of other patients."""
    assert drawn_patients(SEGMENTATION, 0.025, 0, "toy") == ["p163", "p126", "p157", "p17", "p110"]
    assert drawn_patients(CLASSIFICATION, 0.003, 4, "toy") == ["p777", "p614", "p1679", "p719", "p1525", "p1594"]
    shuffled = dict(sorted(CLASSIFICATION.items(), key=lambda item: hash(item[0])))
    assert drawn_patients(shuffled, 0.1, 4, "toy") == drawn_patients(CLASSIFICATION, 0.1, 4, "toy")


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.37])
def test_every_stratum_has_its_share(fraction):
    for draw in range(10):
        drawn = Counter(CLASSIFICATION[p] for p in drawn_patients(CLASSIFICATION, fraction, draw, "toy"))
        for stratum, size in Counter(CLASSIFICATION.values()).items():
            assert abs(drawn[stratum] - fraction * size) <= 2, "one for the rounding, one who shows a rare answer"


def test_few_patients_still_show_every_answer():
    for draw in range(20):
        drawn = drawn_patients(CLASSIFICATION, 0.001, draw, "toy")
        assert len(drawn) == 2
        assert frozenset().union(*(CLASSIFICATION[p] for p in drawn)) == {"a", "b", "not a", "not b"}
        alone = drawn_patients(CLASSIFICATION, 1e-9, draw, "toy")
        assert alone == drawn[:1]


def test_every_patient_is_as_likely_as_any_other():
    draws = 2000
    answers = {f"p{i}": frozenset({f"stratum {min(i, 7)}"}) for i in range(40)}  # seven strata of one, one of 33
    without_cover = {p: frozenset({"x", "y"} if a == frozenset({"stratum 7"}) else {"x"}) for p, a in answers.items()}
    found = Counter(p for draw in range(draws) for p in drawn_patients(without_cover, 0.3, draw, "toy"))
    expected, error = 0.3 * draws, np.sqrt(draws * 0.3 * 0.7)
    # The first to show "y" is one of 33, which moves their share by less than a third of a percent.
    assert all(abs(found[p] - expected) < 4.5 * error for p in answers)


def test_a_patient_is_an_example_of_what_any_case_is():
    cases = {"c1": "p", "c2": "p", "c3": "q"}
    found = patients_of(cases, {"c1": {"a"}, "c2": {"not a"}, "c3": {"a"}})
    assert found == {"p": {"a", "not a"}, "q": {"a"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Nine slabs of the quickstart's abdomen: four training patients of two, two, one and one, and one each."""
    root = tmp_path_factory.mktemp("data")
    cases = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c", "d1": "d", "v1": "v", "v2": "v", "t1": "t"}
    for number, case in enumerate(cases):
        slab = block(30 + 8 * number, 8)
        save(root / "quickstart" / case / "ct.nii.gz", slab.hu, slab.affine)
        save(root / "quickstart" / case / "organs.nii.gz", slab.organs, slab.affine)
    side = {"v": "val", "t": "test"}
    rows = [f"{case},{patient},{side.get(patient, 'train')}" for case, patient in cases.items()]
    (root / "split.csv").write_text("\n".join(["case,patient,split", *rows]))
    return root


def data(root, **settings) -> TaskData:
    return TaskData("quickstart", str(root), split_file=str(root / "split.csv"), **settings)


def test_whole_patients_are_drawn_and_the_other_parts_stay(root):
    seen = set()
    for draw in range(6):
        half = data(root, train_fraction=0.5, train_draw=draw)
        train, val, test = half.parts
        cases = {case: train.patient(case) for case in train.cases}
        assert len(set(cases.values())) == 2
        assert all(case in cases for case in ("a1", "a2", "b1", "b2", "c1", "d1") if case[0] in set(cases.values()))
        assert (val.cases, test.cases) == (["v1", "v2"], ["t1"])
        about = half.describe()
        assert about["cases"] == {"train": len(cases), "val": 2, "test": 1}
        assert about["patients"] == {"train": 2, "val": 1, "test": 1}
        assert (about["train_fraction"], about["train_draw"]) == (0.5, draw)
        assert about["split_sha256"] == data(root).describe()["split_sha256"]
        seen.add(tuple(cases))
    assert len(seen) > 2
    whole = data(root).describe()
    assert whole["cases"] == {"train": 6, "val": 2, "test": 1}
    assert (whole["train_fraction"], whole["train_draw"], whole["patients"]["train"]) == (1.0, 0, 4)


def test_a_fraction_needs_no_new_features(root, tmp_path):
    extracted = []
    for settings in ({}, {"train_fraction": 0.25}, {"train_fraction": 0.5, "train_draw": 3}):
        bank = FeatureBank(CubicMillimetres("random", deferred=True), TensorStore(tmp_path))
        bank.fill(data(root, **settings).parts)
        extracted.append(bank.extracted)
    assert extracted == [9, 0, 0]


def test_a_fraction_of_a_classification_task_has_both_answers(tmp_path):
    (tmp_path / "luna25").mkdir()
    annotations = [luna25.Annotation(patient=i, label=int(i == 17)) for i in range(100, 140)]
    annotations += [luna25.Annotation(patient=117, label=1, lesion=2), luna25.Annotation(patient=90, label=0)]
    rows = [luna25.HEADER, *(a.row for a in annotations)]
    (tmp_path / "luna25" / luna25.LIST).write_text("\n".join([*rows, ""]))
    split = luna25.write_split(tmp_path / "split.csv", train=annotations[:-1], test=annotations[-1:])
    for draw in range(5):
        few = TaskData("luna25", str(tmp_path), split_file=str(split), train_fraction=0.05, train_draw=draw)
        assert few.describe()["patients"]["train"] == 2
        assert {int(few.parts[0].target(case)) for case in few.parts[0].cases} == {0, 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_fraction": 0}, r"must be in \(0, 1\], not 0"),
        ({"train_fraction": 1.5}, "not 1.5"),
        ({"train_fraction": float("nan")}, "not nan"),
        ({"train_fraction": 0.5, "train_draw": -1}, "train_draw must be 0, 1, 2"),
        ({"train_draw": 2}, "there is only the draw 0"),
    ],
)
def test_what_is_no_fraction_is_refused(settings, message, root):
    with pytest.raises(TaskError, match=message):
        data(root, **settings)
