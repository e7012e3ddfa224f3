"""Label files as people fetch, edit and save them again."""

import pytest

from tapct.errors import TaskError
from tapct.tasks.splits import hashed
from tapct.tasks.tables import number, read_table


def test_a_release_may_separate_by_semicolons(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text("image_id;age\ns0001;50.00\n", encoding="utf-8-sig")
    assert read_table(path, ("image_id", "age"), separator=";") == [{"image_id": "s0001", "age": "50.00"}]
    path.write_text("image_id,age\ns0001,50.00\n")
    with pytest.raises(TaskError, match=r"lacks the columns image_id, age.*separated by semicolons"):
        read_table(path, ("image_id", "age"), separator=";")


YEARS = {"low": 0, "high": 120, "unit": "years"}


@pytest.mark.parametrize("text", ["50", "50.00", " 50.0 ", "+50", "5e1", "50."])
def test_a_number_is_read_as_people_write_it(text):
    assert number({"age": text}, "age", "meta.csv, s0001", **YEARS) == 50


@pytest.mark.parametrize("text", ["", " ", "NA"])
def test_where_nothing_is_known_there_is_no_number(text):
    assert number({"age": text}, "age", "meta.csv, s0001", **YEARS) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nan", "not a number"),
        ("inf", "not a number"),
        ("50,5", "decimal comma"),
        ("1,234.5", "not a number"),
        ("fifty", "not a number"),
        ("5_0", "not a number"),
        ("-3", "between 0 and 120"),
        ("600", "another unit"),
    ],
)
def test_what_is_no_number_or_cannot_be_is_refused_by_name(text, why):
    with pytest.raises(TaskError, match=rf"meta.csv, s0001: age is .*{why}"):
        number({"age": text}, "age", "meta.csv, s0001", **YEARS)


def test_a_hashed_split_depends_on_nobody_else():
    patients = {f"scan {i}": f"patient {i}" for i in range(2000)}
    table = hashed(patients, "task v1", "here")
    shares = [count / 2000 for count in table.counts.values()]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    fewer = hashed({case: patient for case, patient in patients.items() if not case.endswith("7")}, "task v1", "here")
    for split, cases in fewer.cases.items():
        assert cases.items() <= table.cases[split].items()
    assert hashed(patients, "task v2", "here").sha256 != table.sha256
