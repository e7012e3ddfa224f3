"""`tapct run --adaptors ...`: real experiments through eva from features that are encoded once."""

import os
from unittest import mock

import numpy as np
import pytest

from tapct.probes import input_sheet
from tapct.records import read_record
from tapct.sweep import commands
from tapct.tasks import task_class
from tapct.tasks.nodules import read_nodules
from tests.data import luna16
from tests.small import Small3D
from tests.sweep.fakes import Here

CASES = {"train": [0, 1, 0, 1], "val": [0, 1], "test": [1, 0]}
ADAPTORS = "linear,knn,prototype,abmil,linear:mask,linear:table=volume,linear:own&table=volume,linear:table=age"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight nodules, each in a scan of its own that shows less of the body than the one before."""
    root = tmp_path_factory.mktemp("data")
    nodules = read_nodules(luna16.LIST, luna16.COLUMNS)
    alone = {of.series: case for case, of in nodules.items()}  # one a scan
    names = {malignant: [c for c in alone.values() if nodules[c].malignant == malignant] for malignant in (0, 1)}
    patients, split, number = set(), {part: [] for part in CASES}, 0
    for part, labels in CASES.items():
        for label in labels:
            case = next(c for c in names[label] if nodules[c].patient not in patients)
            patients.add(nodules[case].patient)
            luna16.write(root / "luna16", [case], field_of_view_mm=40 - 4 * number)
            split[part].append(case)
            number += 1
    return luna16.write_split(root / "split.csv", **split)


@pytest.mark.thorough
def test_no_case_is_encoded_twice_over_the_whole_grid(site, data, tmp_path, monkeypatch, capsys):
    encoded, encode = [], Small3D._encode

    def counted(self, windows_hu):
        encoded.extend([current[-1]] * len(windows_hu))
        return encode(self, windows_hu)

    current = []

    def start(order, variables):
        current.append(order.experiment.label)
        return Here(order, variables)

    monkeypatch.setattr(Small3D, "_encode", counted)
    monkeypatch.setattr(input_sheet, "received_of", lambda *of: None)  # each record looks at what the network receives
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("sys.argv", ["tapct"])
    variables = {"DATA_ROOT": str(data.parent), "SPLIT_FILE": str(data), "NUM_WORKERS": "0"}
    asked = commands.Sweep(
        encoders="small-3d",
        tasks="luna16",
        weights="random",
        results=str(tmp_path / "results"),
        max_steps=1,
        runs=1,
        accelerator="cpu",
        adaptors=ADAPTORS,
    )
    options = {"jobs": 1}
    with mock.patch.dict(os.environ, variables):  # workers set more of them
        assert commands.run(asked, **options, start=start) == 0
        experiments = asked.experiments()
    assert current == [
        "small-3d",
        *(f"small-3d+adaptor={name}" for name in ("knn", "prototype", "abmil", "linear-mask")),
        "chance+adaptor=linear-table-volume",
        "small-3d+adaptor=linear-own-table-volume",
    ]
    said = capsys.readouterr().err
    assert (
        "linear:table=volume reads no features, and is the same for all encoders: it is run once, with chance" in said
    )
    assert "left out: linear:table=age: luna16 has no column 'age'" in said
    assert set(encoded) == {"small-3d"}, "the first experiment encodes, and no other"
    windows = len(encoded) / sum(map(len, CASES.values()))
    assert windows == 3
    records = {experiment.label: read_record(experiment.folder / "record.json") for experiment in experiments}
    assert {label: record.probe.pooling for label, record in records.items()} == {
        "small-3d": "cls",
        "small-3d+adaptor=knn": "cls",
        "small-3d+adaptor=prototype": "cls",
        "small-3d+adaptor=abmil": None,
        "small-3d+adaptor=linear-mask": "mask",
        "chance+adaptor=linear-table-volume": "none",
        "small-3d+adaptor=linear-own-table-volume": "cls",
    }
    for label in ("chance+adaptor=linear-table-volume", "small-3d+adaptor=linear-own-table-volume"):
        assert [(one.name, one.known) for one in records[label].probe.table] == [("volume", 4)]
    nodules = read_nodules(luna16.LIST, luna16.COLUMNS)
    part = task_class("luna16")(data.parent / "luna16", "test", data)
    for case in records["chance+adaptor=linear-table-volume"].runs[0].cases["test"]:
        ml = np.pi / 6 * nodules[case.case].diameter_mm ** 3 / 1000
        assert 10 ** part.value(case.case, "volume") == pytest.approx(ml, rel=0.01), "of a sphere"
    masked = records["small-3d+adaptor=linear-mask"]
    assert masked.probe.adaptor == "linear:mask"
    assert masked.probe.mask.startswith("a sphere round the nodule")
    assert all(record.complete and record.probe.head_from is None for record in records.values())
