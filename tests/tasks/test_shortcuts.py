"""What scans may be sorted by: levels by rules that no data set decides, from headers, tables and grids."""

import numpy as np
import pytest

from tapct.errors import TaskError
from tapct.tasks import shortcuts
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.columns import Column
from tapct.tasks.registry import task_class
from tapct.tasks.spec import TaskSpec
from tapct.volumes import Grid
from tests.volumes.dicom_files import phantom, write_series

SAID = {
    "Manufacturer": "GE MEDICAL SYSTEMS",
    "ManufacturerModelName": " LightSpeed  VCT ",
    "ConvolutionKernel": ["Br38f", "3"],
    "KVP": "120.0",
    "SliceThickness": 1.25,
    "InstitutionName": "Anonymous",
    "PatientSex": "F",
    "PatientAge": "063Y",
}
LEVELS = {
    "manufacturer": "ge",
    "scanner_model": "lightspeed vct",
    "kernel": "br38f\\3",
    "kvp": "120",
    "slice_thickness": "0.95 to 1.4 mm",
    "institute": None,
    "sex": "f",
    "age": "60 to 70 years",
}


class Scanned(ClassificationDataset):
    """Scans that are folders of DICOM."""

    spec = TaskSpec(
        name="scanned",
        display_name="Scanned",
        kind="classification",
        version=1,
        classes=("ill",),
        metric="MicroAUROC",
        licence="none",
        source="none",
        shortcuts=shortcuts.DICOM,
    )

    def ct_path(self, case):
        return self.root / case

    def target_paths(self, case):
        return []

    def targets(self, case):
        return [1]


def dataset(root, **said) -> Scanned:
    """A dataset of one scan whose header says this."""

    def edit(slice_, number):
        for tag, value in said.items():
            setattr(slice_, tag, value)

    write_series(root / "one", phantom(), edit=edit)
    (root / "split.csv").write_text("case,patient,split\none,p1,test\n")
    return Scanned(root, "test", root / "split.csv")


def test_headers_are_read_in_one_spelling(tmp_path):
    assert dataset(tmp_path, **SAID).levels("one", shortcuts.DICOM) == LEVELS


def test_what_a_header_does_not_say_is_not_known(tmp_path):
    odd = {"SliceThickness": 0, "PatientAge": "old", "Manufacturer": "", "KVP": None}
    found = dataset(tmp_path, **odd).levels("one", shortcuts.DICOM)
    assert found == dict.fromkeys(LEVELS)


def test_a_slice_stands_for_its_folder_and_nifti_has_no_header(tmp_path):
    files = write_series(tmp_path, phantom(), edit=lambda slice_, number: setattr(slice_, "KVP", 100))
    assert shortcuts.of_header(files[2])["kvp"] == shortcuts.of_header(tmp_path)["kvp"] == "100"
    (tmp_path / "ct.nii").write_bytes(bytes(400))
    assert set(shortcuts.of_header(tmp_path / "ct.nii").values()) == {None}


@pytest.mark.parametrize(
    ("text", "years"), [("063Y", 63), ("18M", 1.5), ("052W", 52 * 7 / 365.25), ("063", None), ("-1Y", None)]
)
def test_ages_of_headers_are_in_years(text, years):
    assert shortcuts.age_years(text) == (None if years is None else pytest.approx(years))


@pytest.mark.parametrize(
    ("text", "maker"),
    [("SIEMENS", "siemens"), ("Siemens Healthineers", "siemens"), ("TOSHIBA_MEC_CT3", "toshiba"), ("--", "")],
)
def test_a_manufacturer_is_the_first_word_of_its_name(text, maker):
    assert shortcuts.manufacturer(text) == maker


@pytest.mark.parametrize(
    ("column", "values", "bin_"),
    [
        (shortcuts.SLICE_THICKNESS, (0.5, 0.625, 0.9), "under 0.95 mm"),
        (shortcuts.SLICE_THICKNESS, (1.5, 2, 1.9999999), "1.4 to 2.2 mm"),
        (shortcuts.SLICE_THICKNESS, (4.5, 5, 6), "4.4 to 6.8 mm"),
        (shortcuts.AGE, (80, 120), "80 years or more"),
        (shortcuts.EXTENT_Z, (300, 349.9), "300 to 350 mm"),
    ],
)
def test_numbers_are_alike_within_a_bin(column, values, bin_):
    assert {column.level(value) for value in values} == {bin_}
    assert bin_ in column.bins


def test_the_nominal_values_of_scanners_lie_in_the_middle_of_bins():
    nominal = (0.5, 0.6, 0.625, 0.75, 0.8, 0.9, 1, 1.25, 1.5, 2, 2.5, 3, 3.75, 4, 5, 6, 7.5, 10)
    for column in (shortcuts.SLICE_THICKNESS, shortcuts.SPACING_Z):
        for value in nominal:
            assert len({column.level(value * off) for off in (0.99, 1, 1.01)}) == 1


def test_the_geometry_of_a_grid_is_in_mm_whatever_way_it_is_turned():
    turn = np.array([[0, 1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    affine = turn @ np.diag([2.5, 0.7, 0.8, 1])
    values = shortcuts.of_grid(Grid.of((100, 512, 512), affine))
    assert values == {"spacing_z": 2.5, "spacing_xy": pytest.approx(0.748), "extent_z": 250.0}


def test_levels_of_tables_are_held_to_what_the_column_says():
    text = Column(name="maker", title="maker", kind="text")
    assert [text.level(value) for value in ("SIEMENS ", "siemens")] == ["siemens"] * 2
    assert [text.level(value) for value in ("Unknown", " ", None)] == [None] * 3
    assert text.level("GE\0 \u202e Optima " + 200 * "x") == "ge optima " + 90 * "x"  # a name that a record can hold
    stage = Column(name="stage", title="stage", kind="ordered", levels=("I", "II"))
    with pytest.raises(TaskError, match="stage is 'III', and must be one of I, II"):
        stage.level("III")
    with pytest.raises(TaskError, match="number without bins"):
        Column(name="dose", title="dose").level(3.0)


@pytest.mark.parametrize(
    "column",
    [
        {"kind": "text", "levels": ("a", "b")},
        {"kind": "categorical"},
        {"edges": (2.0, 1.0)},
        {"kind": "text", "edges": (1.0,)},
    ],
)
def test_a_column_that_contradicts_itself_is_refused(column):
    with pytest.raises(TaskError, match="the column 'x' is"):
        Column(name="x", title="x", **column)


@pytest.mark.parametrize(
    "odd",
    [
        (shortcuts.KVP, shortcuts.KVP),
        (Column(name="age", title="age"),),
        (Column(name="extent_z", title="extent", kind="text"),),
    ],
)
def test_shortcuts_of_a_task_must_be_told_apart_and_have_levels(odd):
    about = {field: getattr(Scanned.spec, field) for field in ("name", "display_name", "kind", "version", "classes")}
    with pytest.raises(TaskError, match="has no levels, is there twice, or is called as geometry"):
        TaskSpec(**about, metric="MicroAUROC", licence="none", source="none", shortcuts=odd)


def test_an_error_names_task_and_case(tmp_path):
    one = dataset(tmp_path)
    one.read_value = lambda case, column: "sixty" if column == "age" else None
    with pytest.raises(TaskError, match="scanned, case one: age is 'sixty', and must be a finite number"):
        one.levels("one", shortcuts.DICOM)


def test_what_heads_may_be_given_is_all_that_is_known_of_a_case(tmp_path):
    one = dataset(tmp_path, **SAID)
    names = ["acquisition", "kvp", "age"]
    columns = one.table_columns(names)
    found = dict(zip((column.name for column in columns), one.values("one", columns), strict=True))
    assert [*found][:2] == ["manufacturer", "scanner_model"]
    assert {"sex", "age"} & found.keys() == {"age"}, "the patient is no acquisition"
    assert found["spacing_z"] == shortcuts.of_grid(one.scan_grid("one"))["spacing_z"]
    assert found["manufacturer"] == shortcuts.MANUFACTURER.number(one.read_value("one", "manufacturer"))
    with pytest.raises(TaskError, match=r"scanned has no column 'stage'\. Did you mean 'age' or 'sex'\? "):
        one.table_columns(["stage"])
    with pytest.raises(TaskError, match="no column 'volume'"):
        one.table_columns(["volume"])


@pytest.mark.parametrize(
    "said",
    [
        {"table": (Column(name="acquisition", title="dose"),)},
        {"shortcuts": (shortcuts.VOLUME,)},
        {"table": (Column(name="volume", title="volume of the heart"),), "mask": "the tumour"},
    ],
)
def test_names_that_mean_something_in_every_task_are_taken(said):
    about = {field: getattr(Scanned.spec, field) for field in ("name", "display_name", "kind", "version", "classes")}
    with pytest.raises(
        TaskError, match="'acquisition' is several columns of every task, and 'volume' the volume of its"
    ):
        TaskSpec(**about, metric="MicroAUROC", licence="none", source="none", **said)


def test_a_row_to_beat_is_of_columns_that_there_are():
    about = {field: getattr(Scanned.spec, field) for field in ("name", "display_name", "kind", "version", "classes")}
    with pytest.raises(TaskError, match="scanned has no column 'stage'"):
        TaskSpec(**about, metric="MicroAUROC", licence="none", source="none", rows=(("stage",),))


def test_a_task_of_which_nothing_is_known_has_no_table():
    with pytest.raises(
        TaskError, match=r"cc_ccii has no column 'age'\. Nothing is known of its cases: leave table= out"
    ):
        task_class("cc_ccii").spec.named(["age"])


READS = {
    "luna25": {"sex", "age"},
    "fdg_pet_ct": {"manufacturer", "sex", "age"},
    "totalsegmentator_age": {"institute", "manufacturer", "scanner_model", "kvp", "sex"},
    "totalsegmentator_sex": {"institute", "manufacturer", "scanner_model", "kvp", "age"},
    "totalsegmentator_retrieval": {"institute", "manufacturer", "scanner_model", "kvp", "sex", "age"},
    **{task: {one.name for one in shortcuts.DICOM} for task in ("rsna2022", "rsna2023", "ictcf_lab", "lung1_survival")},
}


@pytest.mark.parametrize("task", READS)
def test_shipped_tasks_name_what_their_tables_and_headers_hold_but_not_what_they_ask(task):
    assert {column.name for column in task_class(task).spec.shortcuts} == READS[task]


def test_a_size_that_is_assumed_is_not_audited():
    assert task_class("cc_ccii").spec.audited == ()
    assert task_class("luna16").spec.audited == shortcuts.GEOMETRY
