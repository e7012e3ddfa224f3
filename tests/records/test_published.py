"""What is published of records: their JSON schema, and their cases as data frames."""

import dataclasses
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

import tapct
from tapct.cli import main
from tapct.encoders.card import EncoderCard, Weights
from tapct.errors import RecordError
from tapct.records import CardRecord, Record, read_record, write_record
from tapct.records.encoder import WeightsRecord
from tests.leaderboard import results

SCHEMA = Path(__file__).parents[2] / "docs" / "record.schema.json"


def test_the_schema_in_the_docs_is_that_of_the_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tapct", "record-schema"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out == SCHEMA.read_text(encoding="utf-8"), (
        "a record's model changed: `tapct record-schema > docs/record.schema.json`"
    )


def test_the_schema_names_every_key_that_a_record_has_and_no_range_is_lost():
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema["properties"].keys() >= json.loads(results.record("curia", "luna16").to_json()).keys()
    parts = schema["$defs"]
    assert parts["CaseResult"]["properties"]["case"]["maxLength"] == 100
    dice = parts["CaseResult"]["properties"]["nsd"]["anyOf"][0]["additionalProperties"]["anyOf"][0]
    assert (dice["minimum"], dice["maximum"]) == (0, 1)
    target = parts["CaseResult"]["properties"]["target"]["anyOf"][0]["additionalProperties"]["anyOf"][0]
    assert (target["minimum"], target["maximum"]) == (0, 1)
    assert parts["TaskRecord"]["additionalProperties"] is False


@pytest.mark.parametrize(("recorded", "own"), [(CardRecord, EncoderCard), (WeightsRecord, Weights)])
def test_a_record_holds_every_field_of_a_card(recorded, own):
    assert list(recorded.model_fields) == [field.name for field in dataclasses.fields(own)]


def test_a_frame_of_a_segmentation_has_a_row_a_case_class_seed_and_protocol():
    one = results.record("curia", "lits17", patients=3, seeds=2)
    frame = one.to_frame()
    assert not frame.duplicated(["case", "class", "seed", "protocol"]).any()
    assert len(frame) == 3 * len(one.task.classes[1:]) * 2 * 2
    for protocol in ("native", "paper"):
        for run in one.runs:
            for case in run.cases["test"]:
                rows = frame.query("seed == @run.seed and case == @case.case and protocol == @protocol")
                found = dict(
                    zip(rows["class"], rows["dice"].astype(object).where(rows["dice"].notna(), None), strict=True)
                )
                assert found == case.dice[protocol]
    assert frame[frame["protocol"] == "paper"][["nsd", "hd95_mm"]].isna().all().all()
    assert set(frame["record"]) == {one.fingerprint}


def test_a_frame_of_a_classification_has_a_row_a_case_label_and_seed():
    one = results.record("curia", "luna16", patients=4, seeds=2, adaptor="linear")
    frame = one.to_frame()
    assert len(frame) == 4 * len(one.task.classes) * 2
    assert frame["protocol"].isna().all()
    assert frame["dice"].isna().all()
    assert set(frame["adaptor"]) == {"linear"}
    first = one.runs[0].cases["test"][0]
    assert frame.iloc[0][["logit", "probability", "target"]].tolist() == [
        next(iter(of.values())) for of in (first.logits, first.probabilities, first.target)
    ]


def test_results_are_one_frame_and_what_cannot_be_used_is_said(tmp_path):
    for encoder in ("curia", "suprem"):
        results.write(tmp_path, encoder, results.record(encoder, "lits17", patients=3, seeds=1))
    results.write(tmp_path, "curia", results.record("curia", "luna16", patients=3, seeds=1))
    broken = tmp_path / "lits17" / "broken" / "record.json"
    broken.parent.mkdir()
    broken.write_text("{")
    with pytest.warns(UserWarning, match=r"1 records are left out, such as: .*broken"):
        frame = tapct.load_results(tmp_path)
    assert set(zip(frame["task"], frame["encoder"], strict=True)) == {
        ("lits17", "curia"),
        ("lits17", "suprem"),
        ("luna16", "curia"),
    }
    assert list(frame.attrs["left_out"]) == [str(broken)]
    means = frame.query("protocol == 'native'").groupby("encoder")["dice"].mean()
    assert isinstance(means, pd.Series)
    assert (means > 0).all()
    with pytest.raises(RecordError, match="no finished record"):
        tapct.load_results(broken.parent)


DATA = Path(__file__).parent / "data"


def test_a_record_of_before_records_were_typed_is_read_and_written_as_it_was(tmp_path):
    """A real one, of a solved head, by the release before."""
    path = DATA / "before-types.json"
    written, old = json.loads(path.read_text(encoding="utf-8")), read_record(path)
    assert old.fingerprint == written["fingerprint"]
    assert json.loads(write_record(old, tmp_path).read_text(encoding="utf-8")) == written
    assert json.loads(Record.from_json(old.to_json(), where="it").to_json()) == written
