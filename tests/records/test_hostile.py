"""Records of third parties: whatever is wrong with one is said in a line, and takes nothing from the others."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tapct.errors import RecordError
from tapct.flags import with_cross_checks
from tapct.leaderboard import site
from tapct.records import read_record, read_records
from tapct.records.schema import fingerprint
from tapct.report.page import write_report
from tapct.sweep.state import state_of
from tests.leaderboard import results

VALID = results.record("curia", "lits17", patients=6, seeds=2)
CLASSIFIED = results.record("curia", "luna16", patients=8, seeds=2)


def content(of=VALID) -> dict[str, Any]:
    return json.loads(of.to_json())


def of_case(of=VALID) -> dict[str, Any]:
    return content(of)["runs"][0]["cases"]["test"][0]


def signed(found: dict[str, Any]) -> bytes:
    """What a third party would write who knows how a record is signed."""
    return json.dumps({**found, "fingerprint": fingerprint(found)}, allow_nan=True).encode()


def text(pattern: str, replacement: str, of=VALID) -> bytes:
    """A record with its first match replaced in the text."""
    changed, number = re.subn(pattern, lambda _: replacement, of.to_json(), count=1)
    assert number == 1, pattern
    return changed.encode("utf-8", "surrogatepass")


def with_value(path: str, value: Any, of=VALID) -> bytes:
    """A record with one value changed, signed again."""
    found = content(of)
    *parts, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    at = found
    for part in parts:
        at = at[part]
    at[last] = value
    return signed(found)


def without(path: str, of=VALID) -> bytes:
    found = content(of)
    *parts, last = path.split("/")
    at = found
    for part in parts:
        at = at[int(part) if part.isdigit() else part]
    del at[last]
    return signed(found)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def older(changes: dict[str, Any]) -> bytes:
    found = {**content(), "schema_version": 1, **changes}
    return json.dumps(found).encode()


CASE = "runs/0/cases/test/0"
NO_SIZE = {"size_mm": [0, 1, 1], "dice": None, "by_class": {}, "cases": 1}
LIVER = f"{CASE}/dice/native/liver"
NAME = "encoder/card/display_name"

HOSTILE: dict[str, bytes | Callable[[], bytes]] = {
    "empty": b"",
    "blank": b" \n",
    "truncated": VALID.to_json()[:5000].encode(),
    "binary": bytes(range(256)),
    "not UTF-8": VALID.to_json().encode("latin-1") + b"\xff",
    "UTF-16": VALID.to_json().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + VALID.to_json().encode(),
    "a number": b"7",
    "null": b"null",
    "a list of records": f"[{VALID.to_json()}]".encode(),
    "two records in one file": (VALID.to_json() * 2).encode(),
    "nested 5,000 deep": b'{"encoder": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "objects 5,000 deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a setting nested 500 deep": lambda: with_value("encoder/own", nested(500)),
    "a setting nested 60 deep": lambda: with_value("task/options", {"a": nested(60)}),
    "an integer of 5,000 digits": text(r'"loss": 1\.0', f'"loss": {"9" * 5000}'),
    "an integer of 4,000 digits": lambda: with_value("runs/0/seed", 10**4000),
    "a loss of 4,000 digits": lambda: with_value(f"{CASE}/loss", 10**4000),
    "a card of 4,000 digits": lambda: with_value("encoder/card/pad_hu", 10**4000),
    "NaN": text(r'"loss": 1\.0', '"loss": NaN'),
    "infinity": text(r'"loss": 1\.0', '"loss": -Infinity'),
    "1e400": text(r'"loss": 1\.0', '"loss": 1e400'),
    "1e400 as a setting": lambda: with_value("encoder/own", float("inf")),
    "a key twice": text(r'"notice": null', '"notice": null, "notice": "Best of all."'),
    "changed": text(r'"loss": 1\.0', '"loss": 0.5'),
    "no fingerprint": json.dumps({k: v for k, v in content().items() if k != "fingerprint"}).encode(),
    "the fingerprint a list": json.dumps(content() | {"fingerprint": []}).encode(),
    "no schema": lambda: json.dumps({k: v for k, v in content().items() if k != "schema_version"}).encode(),
    "schema true": json.dumps(content() | {"schema_version": True}).encode(),
    "schema 3.0": json.dumps(content() | {"schema_version": 3.0}).encode(),
    "schema of tomorrow": json.dumps(content() | {"schema_version": 4}).encode(),
    "older_schema an object": json.dumps(content() | {"older_schema": {"a": 1}}).encode(),
    "older runs an object": older({"runs": {"run": 1}}),
    "older seconds a list": older({"execution": {"seconds": [1]}}),
    "no encoder": lambda: without("encoder"),
    "no card": lambda: without("encoder/card"),
    "no display name": lambda: without("encoder/card/display_name"),
    "the encoder a list": lambda: with_value("encoder", []),
    "the card a text": lambda: with_value("encoder/card", "curia"),
    "no weights": lambda: without("encoder/weights"),
    "weights empty": lambda: with_value("encoder/weights", ""),
    "no task name": lambda: without("task/name"),
    "the version a text": lambda: with_value("task/version", "1"),
    "the version true": lambda: with_value("task/version", True),
    "another kind": lambda: with_value("task/kind", "clairvoyance"),
    "another metric": lambda: with_value("task/metric", "luck"),
    "the split hash short": lambda: with_value("task/split_sha256", "0"),
    "a key that nobody knows": lambda: with_value("probe/rank", 1),
    "no runs": lambda: with_value("runs", []),
    "a run twice": lambda: with_value("runs", content()["runs"][:1] * 2),
    "no runs planned": lambda: with_value("runs_planned", 0),
    "a run without cases": lambda: with_value("runs/0/cases/test", []),
    "a split that nobody knows": lambda: with_value("runs/0/cases/best", content()["runs"][0]["cases"]["test"]),
    "a case twice": lambda: with_value(f"{CASE}/case", "case 1"),
    "Dice 7.5": lambda: with_value(LIVER, 7.5),
    "Dice below 0": lambda: with_value(LIVER, -0.1),
    "Dice true": lambda: with_value(LIVER, True),
    "Dice a text": lambda: with_value(LIVER, "0.9"),
    "Dice of one protocol": lambda: without(f"{CASE}/dice/native"),
    "a mean Dice of 7.5": lambda: with_value("runs/0/metrics/test/dice_native", 7.5),
    "a class more in one case": lambda: with_value(f"{CASE}/dice/native/heart", 0.5),
    "classes in another order": lambda: with_value(f"{CASE}/nsd", dict(reversed(of_case()["nsd"].items()))),
    "NSD above 1": lambda: with_value(f"{CASE}/nsd/liver", 1.5),
    "HD95 below 0": lambda: with_value(f"{CASE}/hd95_mm/liver", -1.0),
    "voxels below 0": lambda: with_value(f"{CASE}/voxels", -1),
    "a target of 2": lambda: with_value(f"{CASE}/target", {"malignant": 2}, CLASSIFIED),
    "a target of true": lambda: with_value(f"{CASE}/target", {"malignant": True}, CLASSIFIED),
    "a probability of 1.5": lambda: with_value(f"{CASE}/probabilities", {"nodule": 1.5}, CLASSIFIED),
    "a logit that is not its probability's": lambda: with_value(
        f"{CASE}/logits", dict.fromkeys(content(CLASSIFIED)["runs"][0]["cases"]["test"][0]["logits"], 9.0), CLASSIFIED
    ),
    "an AUROC of 3": lambda: with_value("runs/0/metrics/test/MicroAUROC", 3, CLASSIFIED),
    "a name of 200 characters": lambda: with_value(NAME, "x" * 200),
    "a name of a million": lambda: with_value(NAME, "x" * 1_000_000),
    "an empty name": lambda: with_value(NAME, ""),
    "a blank name": lambda: with_value(NAME, "   "),
    "a name with a line end": lambda: with_value(NAME, "A\nB"),
    "a name with an escape": lambda: with_value(NAME, "\x1b[2J"),
    "a name that turns the writing": lambda: with_value(NAME, "\u202emodel"),
    "a name with an isolate": lambda: with_value(NAME, "\u2066model"),
    "a name without width": lambda: with_value(NAME, "a\u200bb"),
    "a name with half a character": lambda: with_value(NAME, "\ud800"),
    "a key with half a character": lambda: with_value("task/options", {"\ud800": 1}),
    "a setting with half a character": lambda: with_value("encoder/own", ["\ud83d"]),
    "a case that leaves its folder": lambda: with_value(f"{CASE}/case", "../../etc/cron"),
    "a case with an absolute path": lambda: with_value(f"{CASE}/case", "/etc/passwd"),
    "an empty patient": lambda: with_value(f"{CASE}/patient", ""),
    "a class with a NUL": lambda: with_value("task/classes", ["background", "\0"]),
    "a notice with an escape": lambda: with_value("notice", "\x1b]0;owned\x07"),
    "seconds below 0": lambda: with_value("execution/seconds", {"fit": -1}),
    "git a text": lambda: with_value("execution/git", "main"),
    "a gradient of a stepped head": lambda: with_value("runs/0/selection/gradient", 0.1),
    "a flag with another id": lambda: with_value("flags", [{"id": "<b>", "message": "m", "detail": "d"}]),
    "an experiment of no size": lambda: with_value(
        "cell_size", {"size_mm": [0, 1, 1], "dice": None, "by_class": {}, "cases": 1}
    ),
}


def hostile(name: str) -> bytes:
    found = HOSTILE[name]
    return found if isinstance(found, bytes) else found()


def is_one_plain_line(message: str) -> bool:
    return message.isprintable() and len(message) < 1500 and bool(message.encode())


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_is_said_in_a_line(name, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(hostile(name))
    with pytest.raises(RecordError) as error:
        read_record(path)
    assert is_one_plain_line(str(error.value)), str(error.value)
    assert str(path) in str(error.value)
    with pytest.raises(RecordError):
        write_report(path)


ODD: dict[str, Callable[[], bytes]] = {
    "without a kind": lambda: without("task/kind"),
    "without a metric": lambda: without("task/metric", CLASSIFIED),
    "without a split": lambda: without("task/split_sha256"),
    "without classes": lambda: without("task/classes"),
    "of another kind than its cases": lambda: with_value("task/kind", "classification"),
    "of a task that is not installed": lambda: with_value("task/name", "</td>"),
    "of validation cases alone": lambda: signed(
        content() | {"runs": [{**run, "cases": {"val": run["cases"]["test"]}} for run in content()["runs"]]}
    ),
    "of a run less": lambda: with_value("runs", content()["runs"][:1]),
    "of other cases in one run": lambda: with_value("runs/1/cases/test", content()["runs"][1]["cases"]["test"][:3]),
    "of heads from nowhere": lambda: with_value("probe/head_from", {}),
    "without a probe": lambda: with_value("probe", {}),
    "of a perturbation": lambda: with_value("task/perturbation", "noise"),
    "of a small share of the patients": lambda: with_value("task/train_fraction", 1e-300),
    "without any class in a case": lambda: with_value(f"{CASE}/dice", {"native": {}, "paper": {}}),
}
"""Records that are valid, and do not go with the others."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two valid experiments, and all that is not, as experiments of their task."""
    for encoder in ("suprem", "ct-fm"):
        results.write(tmp_path, encoder, results.record(encoder, "lits17", patients=6, seeds=2, ability=0.5))
    for number, found in enumerate([*HOSTILE, *ODD]):
        path = tmp_path / "lits17" / f"bad{number:03}" / "record.json"
        path.parent.mkdir()
        path.write_bytes(hostile(found) if found in HOSTILE else ODD[found]())
    (tmp_path / "lits17" / "folder" / "record.json").mkdir(parents=True)
    os.mkfifo(tmp_path / "lits17" / "pipe")
    (tmp_path / "lits17" / "loop").mkdir()
    (tmp_path / "lits17" / "loop" / "record.json").symlink_to("record.json")
    return tmp_path


def test_the_valid_records_are_shown_and_of_the_others_it_is_said_why(folder, tmp_path_factory, capsys):
    found = read_records(folder)
    of_suprem, of_ct_fm = (found.valid[folder / "lits17" / name / "record.json"] for name in ("suprem", "ct-fm"))
    assert len(found.invalid) >= len(HOSTILE) + 1
    assert all(is_one_plain_line(reason) for reason in found.invalid.values())
    out = tmp_path_factory.mktemp("site")
    assert site.build([folder], out, resamples=20) == 0
    page, said = (out / "index.html").read_text(encoding="utf-8"), capsys.readouterr().err
    for path in found.invalid:
        assert path.relative_to(folder).as_posix() in said
        assert path.relative_to(folder).as_posix() in page
    shown = {row["model"] for row in json.loads((out / "leaderboard.json").read_text())["rows"] if row["value"]}
    assert {record.encoder.card.display_name for record in (of_suprem, of_ct_fm)} <= shown


def test_the_states_of_experiments_with_such_records_are_told(folder):
    for path in sorted(folder.glob("*/*/record.json")):
        (path.parent / "cell.json").write_text('{"fingerprint": "x", "settings": 3}')
        for whole in (True, False):
            state = state_of(path.parent, whole=whole)
            assert is_one_plain_line(state.detail or "-")
            assert state.status in ("done", "broken", "other", "missing")


def test_no_record_of_another_experiment_stops_an_experiment_that_has_trained(folder):
    """Its checks next to the others are advice; of one that cannot be made it is said so."""
    one = read_record(folder / "lits17" / "suprem" / "record.json")
    assert not [flag for flag in with_cross_checks(one, folder).flags if flag.id == "check-failed"]
