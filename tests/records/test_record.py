import hashlib
import io
import json
import math
import os
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.special import expit

import tapct.records.store
from tapct.errors import RecordError
from tapct.records import SCHEMA_VERSION, CaseResult, Flag, Record, RunRecord, read_record, read_records, write_record
from tapct.records.cases import read_cases
from tapct.records.console import class_table, print_summary
from tapct.records.store import write_atomically
from tests.features.processes import Child
from tests.records.made import changed, encoder


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
        "encoder": encoder("small", own_setting=(1, 2, 3)),
        "task": {"name": "quickstart", "version": 1},
        "probe": {"seed": 1, "nsd_tolerance_mm": 2.0},
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
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["complete"] is False
    assert content["schema_version"] == SCHEMA_VERSION
    assert back.to_json() == record(run(0), run(1, None)).to_json()


def test_runs_join_the_record_as_they_end_and_nothing_is_lost_on_the_way(tmp_path):
    for index in (0, 1, 2):
        path = write_record(record(run(index)), tmp_path)
        assert [r.run for r in read_record(path).runs] == list(range(index + 1))
    assert read_record(path).complete
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cases.parquet", "record.json"]


def test_the_fingerprint_covers_everything_but_the_execution():
    base = record(run(0))
    assert base.fingerprint == record(run(0), execution={"seconds": {"fit": 9.0}}).fingerprint
    for other in (record(run(0, 0.6)), record(run(0), probe={"seed": 2}), record(run(0), notice="x")):
        assert other.fingerprint != base.fingerprint


def test_runs_of_other_settings_are_not_mixed(tmp_path):
    write_record(record(run(0)), tmp_path)
    with pytest.raises(RecordError, match="other settings"):
        write_record(record(run(1), probe={"seed": 2}), tmp_path)
    assert len(read_record(tmp_path / "record.json").runs) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: text.replace('"schema_version": 3', '"schema_version": 99'), r"newer tapct \(schema 99.*upgrade"),
        (lambda text: text.replace('"schema_version": 3', '"schema_version": "two"'), "its schema_version is 'two'"),
        (
            lambda text: text.replace('"loss": 1.0', '"loss": "low"'),
            "schema 3: runs.0.cases.test.0.loss: Input should be a valid number, not 'low'$",
        ),
        (lambda text: text.replace('"flags": []', '"flags": [{"id": "x"}]'), "flags.0.message"),
        (lambda text: text.replace('"notice"', '"notise"'), "notice: Field required .and 1 more.$"),
        (lambda text: text.replace("0.5", "0.9"), "changed after it was written"),
        (lambda text: "[]", "not a record"),
    ],
)
def test_a_damaged_record_is_refused(damage, message, tmp_path):
    path = write_record(record(run(0)), tmp_path)
    path.write_text(damage(path.read_text(encoding="utf-8")))
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
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(RecordError, match=r"cannot write .*cases.parquet: No space left"):
        write_record(record(run(1)), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert [one.run for one in read_record(path).runs] == [0]


def test_a_disk_that_fills_up_between_the_two_files_leaves_a_record_that_is_valid(tmp_path):
    """A real limit of the system: files of this process may be no longer than the table, and the JSON is longer."""
    path = write_record(record(run(0)), tmp_path)
    (one,) = run(1).cases["test"]
    many = [one.model_copy(update={"case": f"case {number}"}) for number in range(200)]
    larger = record(run(1).model_copy(update={"cases": {"test": many}}))

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            write_record(larger, tmp_path)
        except RecordError as error:
            return str(error)

    assert re.match(r"cannot write .*record.json: File too large", Child(lambda send: write()).receive())
    assert [one.run for one in read_record(path).runs] == [0]
    with pytest.raises(RecordError, match="of another record"):
        read_cases(read_record(path), tmp_path)
    write_record(larger, tmp_path)  # with room again, both are whole
    assert read_cases(read_record(path), tmp_path).column("run").to_pylist() == [0, 0, *[1] * 400]


def test_a_folder_that_may_not_be_written_is_an_error_that_names_the_file(tmp_path):
    tmp_path.chmod(0o555)
    child = Child(lambda send: write_record(record(run(0)), tmp_path), bound=True)
    with pytest.raises(RecordError, match=rf"cannot write {tmp_path}/cases.parquet: Permission denied"):
        child.receive()
    tmp_path.chmod(0o755)


def test_a_kill_between_table_and_record_loses_only_the_run_that_had_not_been_written(tmp_path, monkeypatch):
    path = write_record(record(run(0)), tmp_path)

    def killed(send):
        files = write_atomically

        def until_the_record(target, content):
            if target.name == "record.json":
                os.kill(os.getpid(), signal.SIGKILL)
            files(target, content)

        tapct.records.store.write_atomically = until_the_record
        write_record(record(run(1)), tmp_path)

    with pytest.raises(EOFError):
        Child(killed).receive()
    assert [one.run for one in read_record(path).runs] == [0]
    with pytest.raises(RecordError, match="of another record"):
        read_cases(read_record(path), tmp_path)
    write_record(record(run(1)), tmp_path)
    assert read_cases(read_record(path), tmp_path).num_rows == 4


def test_what_would_not_be_read_is_not_written(tmp_path):
    path = write_record(record(run(0)), tmp_path)
    twice = record(run(1)).model_copy(update={"runs_planned": 0})
    with pytest.raises(RecordError, match=r"what would be written to [^\n]* runs_planned"):
        write_record(twice, tmp_path)
    assert [one.run for one in read_record(path).runs] == [0]


def test_times_of_every_run_are_kept_and_added_up(tmp_path):
    for index, seconds in enumerate(({"extract": 5.0, "fit": 3.0, "test": 1.0}, {"extract": 0.25, "test": 1.5})):
        execution = {"seconds": seconds, "runs": [{"run": index, "seconds": seconds}], "threads": index}
        path = write_record(record(run(index), execution=execution), tmp_path)
    execution = read_record(path).execution
    assert execution.seconds == {"extract": 5.25, "fit": 3.0, "test": 2.5}
    assert [each.run for each in execution.runs] == [0, 1]
    assert execution.threads == 1
    write_record(read_record(path), tmp_path)
    assert read_record(path).execution == execution, "written again, nothing counts twice"


SCHEMA_1 = Path(__file__).parent / "data" / "schema-1.json"


def test_a_record_of_schema_1_is_read_with_its_fingerprint(tmp_path):
    """A real one: TAP-S-3D on the quickstart, written by the release before schema 2."""
    old, written = read_record(SCHEMA_1), json.loads(SCHEMA_1.read_text(encoding="utf-8"))
    assert written["schema_version"] == 1
    assert old.schema_version == SCHEMA_VERSION
    assert old.fingerprint == written["fingerprint"], "cell.json of a sweep names it"
    assert [run.metrics["test"]["dice_native"] for run in old.runs] == [
        run["metrics"]["test"]["dice_native"] for run in written["runs"]
    ]
    assert old.flags == []
    assert [one.content() for one in old.execution.runs] == [{"run": 2, "seconds": written["execution"]["seconds"]}]
    again = read_record(write_record(old, tmp_path))
    assert (again, again.fingerprint) == (old, old.fingerprint)


SCHEMA_2 = SCHEMA_1.with_name("schema-2.json")


def test_a_record_of_schema_2_is_read_and_marked_as_of_the_older_protocol(tmp_path, capsys):
    """A real one: three labels of eight slabs, with probabilities of exactly 1, by the release before schema 3."""
    old, written = read_record(SCHEMA_2), json.loads(SCHEMA_2.read_text(encoding="utf-8"))
    assert written["schema_version"] == 2
    assert (old.schema_version, old.older_schema) == (SCHEMA_VERSION, 2)
    assert old.fingerprint == written["fingerprint"]
    assert old.older_protocol == "ranks from float32 probabilities"
    assert [flag.id for flag in old.flags] == [flag["id"] for flag in written["flags"]]
    case = old.runs[0].cases["test"][0]
    assert case.logits is None
    assert case.scores == case.probabilities
    path = write_record(old, tmp_path)
    assert (read_record(path), read_record(path).fingerprint) == (old, old.fingerprint)
    print_summary(path)
    assert "older protocol: ranks from float32 probabilities" in capsys.readouterr().out


@pytest.mark.parametrize("older", [SCHEMA_1, SCHEMA_2])
def test_the_mark_of_an_older_protocol_stays(older, tmp_path):
    path = write_record(read_record(older), tmp_path)
    assert read_record(path).older_protocol
    path.write_text(re.sub(r' "older_schema": \d,\n', "", path.read_text(encoding="utf-8")))
    with pytest.raises(RecordError, match="changed after it was written"):
        read_record(path)
    plain = older.read_text(encoding="utf-8")
    path.write_text(re.sub('"schema_version": [12]', '"schema_version": 3', plain))
    with pytest.raises(RecordError, match="changed after it was written"):
        read_record(path)


def test_a_record_of_today_cannot_pass_for_an_older_one_and_has_no_mark(tmp_path):
    path = write_record(record(run(0)), tmp_path)
    assert read_record(path).older_protocol is None
    assert "older" not in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace('"schema_version": 3', '"schema_version": 2'))
    with pytest.raises(RecordError, match="changed after it was written"):
        read_record(path)


def test_runs_that_join_a_record_of_an_older_protocol_do_not_take_off_its_mark(tmp_path):
    path = write_record(read_record(SCHEMA_1), tmp_path)
    settings = {name: getattr(read_record(path), name) for name in ("notice", "encoder", "task", "probe")}
    write_record(record(run(0), **settings), tmp_path)
    assert [one.probe_sha256 == "0" * 64 for one in read_record(path).runs] == [True, False, False]
    assert read_record(path).older_protocol == "schema 1"
    write_record(record(run(1), run(2), **settings), tmp_path)
    assert read_record(path).older_protocol == "schema 1", "who knows what run 0 was joined to"
    write_record(record(run(0), run(1), run(2), **settings), tmp_path)
    assert read_record(path).older_protocol is None, "no run of it is left"


def scan(logits: dict[str, float], probabilities: dict[str, float] | None) -> RunRecord:
    case = {"case": "a", "patient": "p", "loss": 1.0, "target": dict.fromkeys(logits, 1), "padding_voxels": (0, 0, 0)}
    made = CaseResult(**case, logits=logits, probabilities=probabilities)
    return RunRecord(run=0, seed=0, probe_sha256="0" * 64, metrics={}, cases={"test": [made]})


def test_logits_are_kept_as_they_are_and_are_what_is_ranked(tmp_path):
    logits = {"x": float(np.float32(0.1)), "y": 40.0, "z": float(np.float32(-1e4)), "t": 20.0}
    probabilities = {name: float(expit(logit)) for name, logit in logits.items()}
    assert probabilities["y"] == 1 > probabilities["t"]
    path = write_record(record(scan(logits, probabilities)), tmp_path)
    (back,) = read_record(path).runs[0].cases["test"]
    assert back.logits == back.scores == logits
    assert back.probabilities == probabilities
    assert read_record(path).older_protocol is None


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (None, "a: logits and probabilities must be of the same labels"),
        ({"x": 0.5}, "a: logits and probabilities must be of the same labels"),
        ({"y": 0.5, "x": float(expit(2.0))}, "a: logits and probabilities must be of the same labels"),
        ({"x": 0.88, "y": 0.5}, "a: the probability of x is 0.88, which is not the sigmoid of its logit 2"),
        ({"x": float(expit(2.0)), "y": 0.5 + 1e-6}, "a: the probability of y"),
    ],
)
def test_probabilities_that_are_not_those_of_the_logits_are_refused(probabilities, message):
    with pytest.raises(ValueError, match=message):
        scan({"x": 2.0, "y": 0.0}, probabilities)


def test_cases_with_and_without_logits_are_not_ranked_together():
    one = scan({"x": 2.0}, {"x": float(expit(2.0))})
    (case,) = one.cases["test"]
    older = case.model_copy(update={"case": "b", "logits": None})
    with pytest.raises(ValueError, match="a and b have logits in only one of them"):
        RunRecord(**{**dict(one), "cases": {"test": [case, older]}})
    assert RunRecord(**{**dict(one), "cases": {"test": [older], "val": [older]}}).cases["val"] == [older]


def test_a_record_of_schema_1_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(SCHEMA_1.read_text(encoding="utf-8").replace("0.0666690543293953", "0.9"))
    with pytest.raises(RecordError, match="changed after it was written"):
        read_record(path)


def test_flags_travel_with_the_record_outside_its_fingerprint(tmp_path):
    flag = Flag(id="chance-level", message="Check the labels", detail="MicroAP")
    path = write_record(record(run(0), flags=[flag]), tmp_path)
    assert read_record(path).flags == [flag]
    assert read_record(path).fingerprint == record(run(0)).fingerprint


def test_the_records_of_a_folder_are_read_with_the_reasons_for_those_that_are_not_valid(tmp_path):
    whole = record(run(0), runs_planned=1)
    valid = write_record(whole, tmp_path / "quickstart" / "small")
    other = write_record(whole, tmp_path / "amos22" / "small@random")
    half = write_record(record(run(0)), tmp_path / "quickstart" / "half")
    truncated = write_record(whole, tmp_path / "quickstart" / "truncated")
    truncated.write_text(truncated.read_text(encoding="utf-8")[:100])
    binary = write_record(whole, tmp_path / "quickstart" / "binary")
    binary.write_bytes(b"\xff\xfe\x00")
    write_record(whole, valid.parent / "sessions" / "1")
    (valid.parent / "replaced-2026-record.json").write_text("{}")
    found = read_records(tmp_path)
    assert list(found.valid) == [other, valid]
    assert all(one.to_json() == whole.to_json() for one in found.valid.values())
    assert list(found.invalid) == [binary, half, truncated]
    for path, reason in (
        (half, "holds 1 of 3 runs"),
        (truncated, "may be truncated"),
        (binary, "cannot be read"),
    ):
        assert reason in found.invalid[path]
        assert str(path) in found.invalid[path]
    assert list(read_records(tmp_path, "amos22").valid) == [other]
    with pytest.raises(RecordError, match="no results folder"):
        read_records(tmp_path / "nowhere")


@pytest.mark.parametrize("path", [str, Path])
def test_a_missing_record_is_named(tmp_path, path):
    with pytest.raises(RecordError, match="no record at"):
        read_record(path(tmp_path / "record.json"))


def without(content, *names):
    """The JSON of a record without some keys, at any depth."""
    if isinstance(content, dict):
        return {k: without(v, *names) for k, v in content.items() if k not in names}
    return [without(v, *names) for v in content] if isinstance(content, list) else content


def test_a_record_of_before_an_optional_field_is_still_valid(tmp_path):
    path = write_record(record(run(0)), tmp_path)
    old = without(json.loads(path.read_text(encoding="utf-8")), "nsd", "hd95_mm")
    old = {k: v for k, v in old.items() if k != "flags"} | {"schema_version": 1}
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
    path.write_text(json.dumps(without(json.loads(path.read_text(encoding="utf-8")), "nsd")))
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
    assert lines["undefined entries"].split()[2:] == [
        "2",
        "of",
        "4",
        "2",
        "of",
        "4",
        "0",
        "of",
        "4",
        "2",
        "of",
        "4",
    ]


def with_card(one: Record) -> Record:
    return changed(one, encoder={"weights": "random"})


def test_flags_are_shown_beneath_the_numbers(tmp_path, capsys):
    flag = Flag(id="zero-head", message="Check the weight decay", detail="run 0 [of 3]")
    path = write_record(with_card(record(run(0), flags=[flag])), tmp_path)
    print_summary(path)
    out = " ".join(capsys.readouterr().out.split())
    assert "red flag zero-head: run 0 [of 3]. Check the weight decay" in out


def test_notes_on_a_scan_are_kept_and_nothing_is_written_where_there_are_none(tmp_path):
    plain = record(run(0))
    assert "notes" not in plain.to_json()
    case = plain.runs[0].cases["test"][0].model_copy(update={"notes": ("The gantry was tilted.",)})
    noted = record(run(0).model_copy(update={"cases": {"test": [case]}}))
    assert noted.fingerprint != plain.fingerprint
    assert read_record(write_record(noted, tmp_path)).runs[0].cases["test"][0].notes == ("The gantry was tilted.",)
