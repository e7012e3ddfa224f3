"""The table of cases against the record that it is made of, read as a third party would."""

import io
import math

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tapct.errors import RecordError
from tapct.records import CaseResult, read_cases, read_record, write_record
from tests.leaderboard.test_inputs import case, record, scan
from tests.records.test_record import SCHEMA_1


def test_the_table_of_a_real_record_says_what_the_record_says(tmp_path):
    path = write_record(read_record(SCHEMA_1), tmp_path)
    written, table = read_record(path), pd.read_parquet(tmp_path / "cases.parquet")
    assert set(table["encoder"]) == {"tap-s-3d"}
    assert set(table["task"]) == {"quickstart"}
    seen = 0
    for run in written.runs:
        for split, cases in run.cases.items():
            for one in cases:
                rows = table[(table["run"] == run.run) & (table["split"] == split) & (table["case"] == one.case)]
                assert set(rows["loss"]) == {one.loss}
                assert set(rows["patient"]) == {one.patient}
                assert set(rows["seed"]) == {run.seed}
                for metric, values in (
                    ("dice_native", one.dice["native"]),
                    ("dice_paper", one.dice["paper"]),
                    ("nsd_native", one.nsd),
                    ("hd95_mm_native", one.hd95_mm),
                ):
                    found = dict(zip(rows["class"], rows[metric], strict=True))
                    assert {k: None if math.isnan(v) else v for k, v in found.items()} == values
                    seen += len(found)
    assert seen == 4 * len(table) > 0
    assert pq.read_schema(tmp_path / "cases.parquet").metadata[b"tapct.fingerprint"].decode() == written.fingerprint


def test_what_a_run_logs_can_be_computed_from_the_table(tmp_path):
    path = write_record(read_record(SCHEMA_1), tmp_path)
    table = pd.read_parquet(tmp_path / "cases.parquet")
    headline = table.groupby(["run", "case"])["dice_native"].mean().groupby("run").mean()
    logged = [run.metrics["test"]["dice_native"] for run in read_record(path).runs]
    assert headline.tolist() == pytest.approx(logged, abs=1e-7)  # logged in float32


def test_logits_probabilities_and_targets_are_there_by_label(tmp_path):
    logits = {"x": 2.0, "y": 0.0}
    probabilities = {"x": 1 / (1 + math.exp(-2)), "y": 0.5}
    first = scan("p1", 0.9, 1, logits=logits, probabilities=probabilities)
    write_record(record("a", [first], [scan("p2", 0.75, 0)]), tmp_path)  # the second is of an older protocol
    table = pd.read_parquet(tmp_path / "cases.parquet")
    columns = ["case", "class", "logit", "probability", "target"]
    rows = table[columns].astype(object).where(table[columns].notna(), None).to_numpy().tolist()
    assert rows == [
        ["p1", "x", 2.0, probabilities["x"], 1],
        ["p1", "y", 0.0, 0.5, 0],
        ["p2", "x", None, 0.75, 0],
        ["p2", "y", None, 0.5, 1],
    ]
    assert table["dice_native"].isna().all()


def test_volumes_padding_and_a_case_without_classes_are_there(tmp_path):
    sized = case("p1", 0.5, 0.1, voxels=1000, reference_voxels={"liver": 30, "spleen": 0}, padding_voxels=(1, 2, 3))
    write_record(record("a", [sized]), tmp_path)
    table = pd.read_parquet(tmp_path / "cases.parquet")
    assert table["class"].tolist()[:2] == ["liver", "spleen"]
    assert table["reference_voxels"].tolist()[:2] == [30, 0]
    assert table["voxels"].tolist()[:2] == [1000, 1000]
    assert table[["padding_z", "padding_y", "padding_x"]].iloc[0].tolist() == [1, 2, 3]
    assert table["loss"].tolist() == [1.0, 1.0]
    bare = CaseResult(case="p2", patient="p", loss=2.0, padding_voxels=(0, 0, 0))
    assert record("b", [bare]).table().to_pylist()[0].items() >= {"case": "p2", "class": None, "loss": 2.0}.items()


def test_tables_of_both_kinds_of_task_join(tmp_path):
    write_record(record("a", [case("p1", 0.5, None)]), tmp_path / "a")
    write_record(record("b", [scan("p1", 0.25, 1)]), tmp_path / "b")
    joined = pq.read_table([tmp_path / name / "cases.parquet" for name in "ab"])
    assert joined.column("encoder").to_pylist() == ["a", "a", "b", "b"]


def test_a_table_of_another_record_or_a_damaged_or_missing_one_is_refused(tmp_path):
    first = record("a", [case("p1", 0.5, 0.1)])
    second = record("a", [case("p1", 0.6, 0.1)])
    write_record(first, tmp_path / "a")
    assert read_cases(first, tmp_path / "a").num_rows == 2
    with pytest.raises(RecordError, match="of another record"):
        read_cases(second, tmp_path / "a")
    path = tmp_path / "a" / "cases.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match="cannot be read"):
        read_cases(first, tmp_path / "a")
    path.unlink()
    with pytest.raises(RecordError, match=r"cannot be read.*write_record"):
        read_cases(first, tmp_path / "a")
    foreign = io.BytesIO()
    pd.DataFrame({"x": [1]}).to_parquet(foreign)
    path.write_bytes(foreign.getvalue())
    with pytest.raises(RecordError, match="of another record"):
        read_cases(first, tmp_path / "a")
