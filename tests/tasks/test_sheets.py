"""Spreadsheets as Excel and others write them."""

import zipfile

import pytest

from tapct.errors import TaskError
from tapct.tasks.sheets import read_sheet
from tests.data.merlin_findings import write_sheet

COLUMNS = ("study id", "Split")
HEADER = ["study id", "Findings", "Split"]


def test_ids_that_excel_took_for_numbers_are_their_digits_and_empty_rows_are_none(tmp_path):
    rows = [[None, None, None], ["Study ID ", "Findings", "split", None], [12, "", "train"], [13.0, None, " val "]]
    write_sheet(tmp_path / "list.xlsx", [*rows, [None, "  ", None], ["AC42e5", "x", None]], Notes=[["nothing", "here"]])
    assert read_sheet(tmp_path / "list.xlsx", COLUMNS) == [
        {"study id": "12", "Split": "train"},
        {"study id": "13", "Split": "val"},
        {"study id": "AC42e5", "Split": ""},
    ]


def test_a_column_that_may_be_there_is_read_where_it_is(tmp_path):
    write_sheet(tmp_path / "list.xlsx", [[*HEADER, "Patient ID"], ["a", "x", "train", 7]])
    assert read_sheet(tmp_path / "list.xlsx", COLUMNS, optional=("patient id", "mrn")) == [
        {"study id": "a", "Split": "train", "patient id": "7"}
    ]


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "list.xlsx"
    write_sheet(path, [HEADER, ["a", "x", "train"]])
    read_sheet(path, COLUMNS)[0]["Split"] = "mine"
    assert read_sheet(path, COLUMNS) == [{"study id": "a", "Split": "train"}]
    write_sheet(path, [HEADER, ["a", "x", "train"], ["b", "x", "test"]])
    assert len(read_sheet(path, COLUMNS)) == 2


def test_a_size_that_a_file_gives_of_itself_cuts_no_row_off(tmp_path):
    path = tmp_path / "list.xlsx"
    write_sheet(tmp_path / "true.xlsx", [HEADER, *([str(n), "x", "train"] for n in range(9))])
    with zipfile.ZipFile(tmp_path / "true.xlsx") as true, zipfile.ZipFile(path, "w") as false:
        for name in true.namelist():
            false.writestr(name, true.read(name).replace(b'<dimension ref="A1:C10"', b'<dimension ref="A1:C3"'))
    assert len(read_sheet(path, COLUMNS)) == 9


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["study", "Split"], ["a", "train"]], r"no sheet of .*list\.xlsx has the columns .*'Sheet1' has study, Split"),
        ([], r"no sheet of .*'Sheet1' has nothing"),
        ([[*HEADER, "SPLIT"], ["a", "x", "train", "test"]], r"'Sheet1' has the column Split twice"),
        ([HEADER], r"'Sheet1' has a header and no rows"),
        ([HEADER, ["a", "x", "#N/A"]], r"'Sheet1' has a cell with #N/A, the error of a formula"),
    ],
)
def test_a_sheet_that_does_not_fit_is_refused(rows, message, tmp_path):
    write_sheet(tmp_path / "list.xlsx", rows)
    with pytest.raises(TaskError, match=message):
        read_sheet(tmp_path / "list.xlsx", COLUMNS)


def test_two_sheets_of_the_same_columns_are_refused_and_so_is_no_workbook(tmp_path):
    rows = [HEADER, ["a", "x", "train"]]
    write_sheet(tmp_path / "list.xlsx", rows, Old=rows)
    with pytest.raises(TaskError, match=r"2 sheets of .*Sheet1, Old\. Leave the one that is meant"):
        read_sheet(tmp_path / "list.xlsx", COLUMNS)
    cut = (tmp_path / "list.xlsx").read_bytes()[:-500]
    for content in (b"<!doctype html>", b"", cut):
        (tmp_path / "list.xlsx").write_bytes(content)
        with pytest.raises(TaskError, match=r"cannot be read as a spreadsheet \(\.xlsx\)"):
            read_sheet(tmp_path / "list.xlsx", COLUMNS)
    with pytest.raises(TaskError, match=r"there is no spreadsheet"):
        read_sheet(tmp_path / "other.xlsx", COLUMNS)
