import hashlib
import io
import json
import math

import pytest
from rich.console import Console

from tapct.errors import RecordError
from tapct.records import CaseResult, Record, RunRecord, read_record, write_record
from tapct.records.console import class_table


def run(index: int, liver: float | None = 0.5) -> RunRecord:
    dice = {"liver": liver, "spleen": None}
    case = CaseResult(
        case="a",
        patient="p",
        loss=1.0,
        dice={"native": dice, "paper": dice},
        nsd={"liver": liver, "spleen": 0.0},
        hd95_mm={"liver": 12.5, "spleen": None},
        padding_voxels=(0, 0, 0),
    )
    metrics = {"test": {"dice_native": liver}}
    return RunRecord(run=index, seed=index, probe_sha256="0" * 64, metrics=metrics, cases={"test": [case]})


def record(*runs: RunRecord, **changes) -> Record:
    fields = {
        "notice": None,
        "encoder": {"card": {"name": "small"}, "window_size": (1, 2, 3)},
        "task": {"name": "quickstart", "version": 1},
        "probe": {"lr": 0.1, "nsd_tolerance_mm": 2.0},
        "runs_planned": 3,
        "runs": list(runs),
        "execution": {"seconds": {"fit": 1.0}},
    }
    return Record(**{**fields, **changes})


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    path = write_record(record(run(0), run(1, None)), tmp_path)
    back = read_record(path)
    assert back.fingerprint == record(run(0), run(1, None)).fingerprint
    assert back.class_table("test", "dice_native") == {"liver": [0.5, None], "spleen": [None, None]}
    assert not back.complete
    content = json.loads(path.read_text())
    assert content["complete"] is False
    assert content["schema_version"] == 1


def test_runs_join_the_record_as_they_end_and_nothing_is_lost_on_the_way(tmp_path):
    for index in (0, 1, 2):
        path = write_record(record(run(index)), tmp_path)
        assert [r.run for r in read_record(path).runs] == list(range(index + 1))
    assert read_record(path).complete
    assert sorted(p.name for p in tmp_path.iterdir()) == ["record.json"]


def test_the_fingerprint_covers_everything_but_the_execution():
    base = record(run(0))
    assert base.fingerprint == record(run(0), execution={"seconds": {"fit": 9.0}}).fingerprint
    for changed in (record(run(0, 0.6)), record(run(0), probe={"lr": 0.2}), record(run(0), notice="x")):
        assert changed.fingerprint != base.fingerprint


def test_runs_of_other_settings_are_not_mixed(tmp_path):
    write_record(record(run(0)), tmp_path)
    with pytest.raises(RecordError, match="other settings"):
        write_record(record(run(1), probe={"lr": 0.2}), tmp_path)
    assert len(read_record(tmp_path / "record.json").runs) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 99'), "not a record of schema 1"),
        (lambda text: text.replace('"notice"', '"notise"'), "notise"),
        (lambda text: text.replace("0.5", "0.9"), "changed after it was written"),
        (lambda text: "[]", "no record"),
    ],
)
def test_a_damaged_record_is_refused(damage, message, tmp_path):
    path = write_record(record(run(0)), tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)


def test_undefined_numbers_are_null_never_nan():
    with pytest.raises(ValueError, match="finite"):
        run(0, math.nan)


def test_a_run_is_there_once():
    with pytest.raises(ValueError, match="twice"):
        record(run(0), run(0))


def test_a_write_that_fails_keeps_the_old_record(tmp_path, monkeypatch):
    path = write_record(record(run(0)), tmp_path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(RecordError, match=r"cannot write .*record.json: No space left"):
        write_record(record(run(1)), tmp_path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(RecordError, match="no record at"):
        read_record(tmp_path / "record.json")


def without(content, *names):
    """The JSON of a record without some keys, at any depth."""
    if isinstance(content, dict):
        return {k: without(v, *names) for k, v in content.items() if k not in names}
    return [without(v, *names) for v in content] if isinstance(content, list) else content


def test_a_record_of_before_an_optional_field_is_still_valid(tmp_path):
    path = write_record(record(run(0)), tmp_path)
    old = without(json.loads(path.read_text()), "nsd", "hd95_mm")
    signed = {k: v for k, v in old.items() if k not in ("fingerprint", "complete", "execution")}
    old["fingerprint"] = hashlib.sha256(json.dumps(signed, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(old))
    (case,) = read_record(path).runs[0].cases["test"]
    assert (case.nsd, case.hd95_mm) == (None, None)
    assert case.dice["native"]["liver"] == 0.5
    write_record(record(run(1)), tmp_path)  # and it can be gone on with
    assert [one.run for one in read_record(path).runs] == [0, 1]


def test_a_field_that_was_taken_out_is_noticed(tmp_path):
    path = write_record(record(run(0)), tmp_path)
    path.write_text(json.dumps(without(json.loads(path.read_text()), "nsd")))
    with pytest.raises(RecordError, match="changed after it was written"):
        read_record(path)


def test_the_table_shows_surfaces_beside_dice_and_counts_what_is_undefined():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(class_table(with_card(record(run(0, 0.5), run(1, 0.7))), "test"))
    lines = {line.split("  ")[0].strip(): line for line in console.export_text().splitlines()}
    assert lines["liver"].split()[1:] == [*["0.600", "±", "0.141"] * 3, "12.5", "±", "0.0"]
    assert lines["spleen"].split()[1:] == ["–", "–", "0.000", "±", "0.000", "–"]
    assert lines["mean over cases"].split()[3:] == [
        *["0.600", "±", "0.141"] * 2,
        "0.300",
        "±",
        "0.071",
        "12.5",
        "±",
        "0.0",
    ]
    assert lines["undefined cells"].split()[2:] == ["2", "of", "4", "2", "of", "4", "0", "of", "4", "2", "of", "4"]


def with_card(one: Record) -> Record:
    return one.model_copy(update={"encoder": {"card": {"display_name": "Small"}, "weights": "random"}})
