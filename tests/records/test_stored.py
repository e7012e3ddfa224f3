"""Records of a folder whose cases are read from their tables: the same answers, and nobody's other ones."""

import hashlib
import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tapct.errors import RecordError
from tapct.records import (
    CASES_FILE,
    RECORD_FILE,
    Record,
    StoredRecord,
    find_records,
    parquet,
    read_stored,
    write_record,
)
from tapct.statistics import from_records
from tests.leaderboard import results


@pytest.fixture(params=["lits17", "rsna2022"])
def folder(request, tmp_path):
    write_record(results.record("curia", request.param, patients=6), tmp_path / request.param / "curia")
    return tmp_path / request.param / "curia"


def json_is_not_parsed(monkeypatch):
    monkeypatch.setattr(Record, "from_json", lambda *_, **__: pytest.fail("the whole record was read"))


def test_it_says_what_the_whole_record_says_without_reading_it(folder, monkeypatch):
    whole = Record.from_json((folder / RECORD_FILE).read_text(encoding="utf-8"), where="it")
    json_is_not_parsed(monkeypatch)
    stored = read_stored(folder / RECORD_FILE)
    assert stored.content() == parquet.header_content(whole)
    assert (stored.fingerprint, stored.complete, stored.older_protocol) == (whole.fingerprint, True, None)
    assert stored.table().equals(whole.table())
    assert list(find_records(folder.parents[1]).valid.values()) == [stored]


def test_statistics_are_the_same_from_either(folder):
    whole = Record.from_json((folder / RECORD_FILE).read_text(encoding="utf-8"), where="it")
    metrics = ("dice_native", "dice_paper", "nsd_native") if whole.task.kind == "segmentation" else ("MicroAP",)
    for metric in metrics:
        one, other = (from_records([each], metric) for each in (whole, read_stored(folder / RECORD_FILE)))
        assert (one.cases, one.patients, one.version) == (other.cases, other.patients, other.version)
        assert one.values.tobytes() == other.values.tobytes()
        scores = [run.cases["test"][0] for run in whole.runs]
        if metric == "MicroAP":
            assert one.targets.tolist() == other.targets.tolist()
            assert one.values[0, :, 0].tolist() == [list(case.logits.values()) for case in scores]
        else:
            rows = [[v for v in case.by_class(metric).values() if v is not None] for case in scores]
            assert one.values[0, :, 0] == pytest.approx([sum(row) / len(row) for row in rows], abs=1e-15)


def of_another_record(folder):
    write_record(results.record("curia", folder.parent.name, patients=6, ability=1.0), folder / "other")
    (folder / "other" / CASES_FILE).replace(folder / CASES_FILE)


def without_metadata(folder):
    pq.write_table(pq.read_table(folder / CASES_FILE).replace_schema_metadata(None), folder / CASES_FILE)


@pytest.mark.parametrize(
    "change",
    [
        of_another_record,
        without_metadata,
        lambda folder: (folder / CASES_FILE).unlink(),
        lambda folder: (folder / CASES_FILE).write_bytes(b"PAR1"),
    ],
    ids=["of another record", "without metadata", "missing", "damaged"],
)
def test_without_its_table_the_record_itself_is_read(folder, change):
    whole = Record.from_json((folder / RECORD_FILE).read_text(encoding="utf-8"), where="it")
    change(folder)
    stored = read_stored(folder / RECORD_FILE)
    assert stored.fingerprint == whole.fingerprint
    assert stored.table().equals(whole.table())


def test_a_record_that_was_edited_is_not_what_its_table_says(folder):
    path = folder / RECORD_FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"loss": 1.0', '"loss": 0.5', 1), encoding="utf-8")
    found = find_records(folder.parents[1])
    assert "was changed after it was written" in found.invalid[path]


def edited(table: pa.Table, column: str, value) -> pa.Table:
    place = table.schema.get_field_index(column)
    values = [value, *table[column].to_pylist()[1:]]
    return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))


def test_a_table_that_was_edited_is_refused(folder):
    column = "dice_native" if "lits17" in str(folder) else "logit"
    pq.write_table(edited(pq.read_table(folder / CASES_FILE), column, 0.123), folder / CASES_FILE)
    with pytest.raises(RecordError, match=r"cases.parquet was changed after it was written.*makes it anew"):
        read_stored(folder / RECORD_FILE).table()


HOSTILE = {
    "dice_native": [7.5, -0.1, float("inf"), float("nan")],
    "hd95_mm_native": [-1.0],
    "probability": [1.5],
    "logit": [float("inf")],
    "loss": [float("nan")],
    "target": [2],
    "case": ["../up", "", "a\u202eb", "x" * 101, "a\nb"],
    "patient": [" "],
    "class": ["\x07"],
}


@pytest.mark.parametrize(("column", "value"), [(c, v) for c, values in HOSTILE.items() for v in values])
def test_a_signed_table_of_what_no_record_holds_is_refused(tmp_path, column, value):
    one = results.record("curia", "rsna2022" if column in ("probability", "logit", "target") else "lits17", patients=4)
    path = write_record(one, tmp_path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    lying = parquet.packed(edited(one.table(), column, value), parquet.header_content(one), sha256)
    (tmp_path / CASES_FILE).write_bytes(lying)
    with pytest.raises(RecordError, match=rf"holds what no record can: {column}"):
        read_stored(path).table()


def test_a_signed_header_of_what_no_record_says_is_refused(tmp_path):
    one = results.record("curia", "lits17", patients=4)
    path = write_record(one, tmp_path)
    header = json.loads(json.dumps(parquet.header_content(one)))
    header["runs"][0]["metrics"]["test"]["dice_native"] = 7.5
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / CASES_FILE).write_bytes(parquet.packed(one.table(), header, sha256))
    with pytest.raises(RecordError, match=r"dice_native is 7\.5"):
        read_stored(path)


def test_runs_that_are_not_of_the_same_cases_are_named(tmp_path):
    one = results.record("curia", "lits17", patients=4)
    table = one.table()
    path = write_record(one, tmp_path)
    gone = table.filter(pc.invert(pc.and_(pc.equal(table["run"], 1), pc.equal(table["case"], "case 2"))))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / CASES_FILE).write_bytes(parquet.packed(gone, parquet.header_content(one), sha256))
    with pytest.raises(RecordError, match="run 1: case case 2 of 'test' is there not in every run"):
        from_records([read_stored(path)], "dice_native")


def test_an_older_record_is_read_in_full_and_keeps_its_mark(tmp_path):
    one = results.record("curia", "rsna2022", patients=4).model_copy(update={"older_schema": 2})
    path = write_record(one, tmp_path)
    stored = read_stored(path)
    assert isinstance(stored, StoredRecord)
    assert stored.older_protocol == "schema 2"
    assert from_records([stored], "MicroAP").values.shape == (1, 3, 4, 8)


def test_what_is_there_and_cannot_be_reached_is_named(folder):
    """A link to a disk that is not mounted: its row must not just vanish."""
    task = folder.parent
    (task / "experiment").symlink_to(task / "elsewhere")
    (task / "of_file").mkdir()
    (task / "of_file" / RECORD_FILE).symlink_to(task / "elsewhere")
    (task / "not_run").mkdir()
    found = find_records(task.parent)
    assert [*found.valid] == [folder / RECORD_FILE]
    assert [*found.invalid] == [task / "experiment" / RECORD_FILE, task / "of_file" / RECORD_FILE]
