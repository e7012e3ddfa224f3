"""The header of a record, read without its cases."""

import json
from pathlib import Path

import pytest

from tapct.errors import RecordError
from tapct.records import RecordHeader, header, read_header, read_record
from tests.leaderboard.results import record

OLDER = Path(__file__).parent / "data"


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "record.json"
    path.write_text(record("curia", "luna25", patients=6, seeds=2).to_json(), encoding="utf-8")
    return path


@pytest.fixture
def _no_cases(monkeypatch):
    """Fails a test that reads a record in full."""

    def read(path):
        raise AssertionError(f"{path} was read in full")

    monkeypatch.setattr(header, "read_record", read)


def changed(path: Path, change) -> Path:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(content) or content, indent=1), encoding="utf-8")
    return path


def test_it_is_what_the_record_says(path):
    full = RecordHeader.of(read_record(path))
    assert full.complete
    assert read_header(path) == full


@pytest.mark.usefixtures("_no_cases")
def test_nothing_of_the_cases_is_read(path, monkeypatch):
    changed(path, lambda c: c["runs"][0]["cases"].update(test=["no case"]))
    monkeypatch.setattr(header, "HEADER_BYTES", 16)
    assert read_header(path).runs == 2


@pytest.mark.parametrize("layout", [{}, {"indent": 4}, {"indent": 1, "sort_keys": True}])
def test_a_file_that_is_laid_out_otherwise_is_read_too(layout, path):
    full = read_header(path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), **layout), encoding="utf-8")
    assert read_header(path) == full


@pytest.mark.parametrize("older", sorted(OLDER.glob("schema-*.json")), ids=lambda path: path.stem)
def test_older_schemas_say_that_they_are(older):
    found = read_header(older)
    assert found == RecordHeader.of(read_record(older))
    assert found.older_protocol.startswith("schema ")


def test_a_part_of_a_file_is_no_record_wherever_it_ends(path):
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(RecordError):
            read_header(path)


def test_of_a_record_that_lacks_runs_they_are_counted(path):
    whole = read_record(path)
    path.write_text(whole.model_copy(update={"runs": whole.runs[:1]}).to_json(), encoding="utf-8")
    found = read_header(path)
    assert (found.runs, found.runs_planned, found.complete) == (1, 2, False)


HOSTILE = {
    "not there": None,
    "empty": b"",
    "no text": b"\xff\xfe" * 50,
    "a list": b"[]",
    "deep": b'{\n "notice": ' + b"[" * 5000 + b"]" * 5000 + b',\n "runs": [\n ]\n}',
    "digits": b'{\n "notice": ' + b"9" * 5000 + b',\n "runs": [\n ]\n}',
    "newer": b'{\n "schema_version": 99,\n "complete": true,\n "runs": [\n ]\n}',
    "no schema": b'{\n "complete": true,\n "runs": [\n ]\n}',
    "no keys": b'{\n "schema_version": 3,\n "complete": true,\n "runs": [\n ]\n}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_record_is_one_clear_error(content, tmp_path):
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError) as raised:
        read_header(path)
    assert str(path) in str(raised.value)
