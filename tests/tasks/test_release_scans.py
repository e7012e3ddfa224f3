"""Tasks of one release: what they read of its scans is the same, and no scan is encoded twice, whatever their order."""

import pytest
import yaml

from tapct.tasks import SPLITS, list_tasks
from tapct.tasks.registry import task_class
from tapct.tasks.release_scans import ReleaseScans
from tests.data import ct_rate, report_reader, totalsegmentator
from tests.small import Drifting
from tests.tasks.end_to_end import CONFIGS, SMALL, run, write_split

RELEASES = {"ct_rate": ct_rate.REPORTED, "totalsegmentator": totalsegmentator.PATIENTS}
OF_KEYS = ("feature_dtype", "window_overlap", "fit_windows", "precision")
"""Settings of probes that stored features hang on."""


def tasks_of(release):
    return [name for name in list_tasks() if task_class(name).spec.folder == release]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    ct_rate.write(folder / "ct_rate")
    totalsegmentator.write_patients(folder / "totalsegmentator")
    totalsegmentator.write_about(folder / "totalsegmentator")
    return folder


@pytest.mark.parametrize("release", RELEASES)
def test_all_tasks_of_a_release_read_the_same_of_a_scan(release, root, tmp_path):
    cases = [*RELEASES[release]]
    split = write_split(tmp_path / "split.csv", test=cases)
    read, settings = {}, {}
    for name in tasks_of(release):
        assert issubclass(task_class(name), ReleaseScans)
        part = task_class(name)(root / release, "test", split)
        read[name] = [(part.scan_cache_key(case), part.scan_paths(case)) for case in cases]
        config = yaml.safe_load(next(CONFIGS.glob(f"*/{name}.yaml")).read_text(encoding="utf-8"))
        probe = config["model"]["init_args"]
        settings[name] = {key: probe.get(key) for key in OF_KEYS}
    assert len({repr(of) for of in read.values()}) == 1, read
    assert len({repr(of) for of in settings.values()}) == 1, settings


ORDERS = {
    "totalsegmentator": [
        ("retrieval/totalsegmentator_retrieval.yaml", {"test": ["s0002", "s0001", "s0235"]}),
        (
            "classification/totalsegmentator_sex.yaml",
            {"train": ["s0001", "s0002", "s0004"], "val": ["s0011"], "test": ["s0013", "s0029"]},
        ),
        ("retrieval/totalsegmentator_study_retrieval.yaml", {"test": [*totalsegmentator.PATIENTS]}),
    ],
    "ct_rate": [
        ("classification/ct_rate.yaml", None),
        ("retrieval/ct_rate_retrieval.yaml", None),
        ("report/ct_rate_report.yaml", None),
    ],
}
"""Configs of tasks, and the splits that they take; None for the task's own."""


@pytest.mark.parametrize(
    ("release", "step"),
    [
        ("totalsegmentator", 1),
        pytest.param("totalsegmentator", -1, marks=pytest.mark.thorough),
        pytest.param("ct_rate", 1, marks=pytest.mark.thorough),
        pytest.param("ct_rate", -1, marks=pytest.mark.thorough),
    ],
)
def test_no_scan_is_encoded_twice_whatever_the_order_of_tasks(release, step, root, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "features"))
    reader = report_reader.of_ct_rate(tmp_path / "reader")
    monkeypatch.setenv("READER_WEIGHTS", str(reader.weights))
    monkeypatch.setenv("READER_BACKBONE", str(reader.backbone))
    monkeypatch.setattr("tapct.probes.input_sheet.received_of", lambda encoder, ct: None)
    encode, seen = Drifting._encode, list[bytes]()

    def counted(self, windows):
        seen.extend(window.numpy().tobytes() for window in windows)
        return encode(self, windows)

    monkeypatch.setattr(Drifting, "_encode", counted)
    used = set()
    for number, (config, cases) in enumerate(ORDERS[release][::step]):
        (folder := tmp_path / str(number)).mkdir()
        split = None if cases is None else write_split(folder / "split.csv", **cases)
        kind = config.partition("/")[0]
        head = {"retrieval": "cosine", "classification": "linear", "report": "nearest"}[kind]
        monkeypatch.setenv("ADAPTOR", f"{head}:{('mean', 'max')[number % 2]}")
        run(config, root, split, folder, kind, encoder={**SMALL, "class_path": "tests.small.Drifting"})
        parts = [task_class(config.split("/")[1][:-5])(root / release, side, split) for side in SPLITS]
        used |= {case for part in parts for case in part.cases}
    scans = {"totalsegmentator": 7, "ct_rate": 11}[release]
    assert len(used) == scans
    assert len(seen) == len({*seen}) == scans * {"totalsegmentator": 2, "ct_rate": 1}[release]  # windows
