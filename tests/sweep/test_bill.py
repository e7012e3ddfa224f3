"""The bill of a sweep against what its experiments then took, and against counts worked out by hand."""

import inspect
import io
import json
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
import yaml
from rich.console import Console

from tapct.encoders import Features, load_encoder
from tapct.features import FeatureBank, TensorStore
from tapct.sweep import commands
from tapct.sweep.bill import cost, fit, settings
from tapct.sweep.bill.cost import Costs
from tapct.sweep.bill.count import bill_of
from tapct.sweep.bill.counted import encodings, windows_of
from tapct.sweep.bill.encoding import LABELS_PER_BYTE
from tapct.sweep.bill.folder import Folder, MissingEntry
from tapct.sweep.bill.remembered import Remembered
from tapct.sweep.bill.settings import Encoding
from tapct.sweep.bill.stored import FolderEntries
from tapct.sweep.bill.table import as_json, table
from tapct.sweep.bill.weights import weights_check
from tapct.sweep.experiment import SweepError
from tapct.tasks.quickstart import Quickstart
from tapct.volumes import Size
from tests.small import Drifting, known_by_name, small_card
from tests.sweep.fakes import Lab

CPU = torch.device("cpu")


class Curious(Drifting):
    """Looks at what is in its windows."""

    card = small_card(
        name="curious", display_name="Curious", feature_dim=6, embedding_dim=6, has_cls=False, num_params=1_554
    )

    def _encode(self, windows_hu) -> Features:
        if type(windows_hu) is not torch.Tensor:
            raise ValueError("what is in it?")
        return super()._encode(windows_hu)


class Fixed(Drifting):
    """The same encoder, which does not any more."""

    card = Curious.card


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "features"))
    monkeypatch.delenv("DATA_ROOT", raising=False)


def experiments(encoders: str, tasks: str, **asked):
    return commands.Sweep(encoders=encoders, tasks=tasks, **asked).experiments()


def encoding(name: str, **changes) -> Encoding:
    fields = {
        "options": "",
        "weights": None,
        "precision": "auto",
        "overlap": 0.0,
        "fit_windows": False,
        "dtype": "bf16",
    }
    return Encoding(encoder=name, **{**fields, **changes})


# -- Refused ---------------------------------------------------------------------------------------------


def test_all_that_is_stored_is_foretold_within_two_percent(tmp_path):
    """Of an encoder of a true size, features and labels together; then labels that are missing are as those there."""
    said = bill_of(experiments("tap-t-3d", "quickstart"), arithmetic=False).rows[0]
    store = TensorStore(tmp_path / "features")
    parts = [Quickstart(Quickstart.shipped_root, split) for split in ("train", "test")]
    FeatureBank(load_encoder("tap-t-3d"), store).fill(parts)
    files = store.files()
    assert said.disk_bytes == pytest.approx(sum(file.nbytes for file in files), rel=0.02)
    assert 0 < said.guessed_bytes < 0.05 * said.disk_bytes
    gone, there = (file for file in files if store.about(file.key)["kind"] == "labels")
    voxels = {one: sum(t.numel() for t in store.load(one.key).tensors.values()) for one in (gone, there)}
    store.remove(gone.key)
    after = bill_of(experiments("tap-t-3d", "quickstart"), arithmetic=False).rows[0]
    assert (after.stored_scans, after.guessed_bytes) == (said.scans, 0)
    foretold = there.nbytes * voxels[gone] / voxels[there]
    assert after.disk_bytes - after.stored_bytes == pytest.approx(foretold, rel=0.05)


@pytest.fixture
def lab(tmp_path, real_record) -> Lab:
    return Lab(tmp_path, real_record)


def test_a_disk_that_is_too_small_is_refused_before_any_work(lab, monkeypatch, tmp_path):
    needed = bill_of(experiments("tap-t-3d", "quickstart"), arithmetic=False).folders[0].missing_bytes
    monkeypatch.setattr(fit, "free_bytes", lambda folder: needed - 1)
    with pytest.raises(SweepError, match=r"nothing was started.*--keep-features.*FEATURE_DTYPE=int8.*TAPCT_FEATURES"):
        lab.run("tap-t-3d", "quickstart")
    assert not (lab.results / "quickstart").exists()
    assert not (tmp_path / "features").exists()
    monkeypatch.setattr(fit, "free_bytes", lambda folder: needed)
    lab.run("tap-t-3d", "quickstart")
    assert lab.ran() == ["tap-t-3d on quickstart"]


@pytest.mark.parametrize(("budget_gb", "refused"), [(0.001, True), (1.0, False)])
def test_a_budget_that_one_experiment_exceeds_is_refused(lab, tmp_path, budget_gb, refused):
    override = tmp_path / "budget.yaml"
    override.write_text(yaml.safe_dump({"model": {"init_args": {"feature_budget_gb": budget_gb}}}))
    if refused:
        with pytest.raises(SweepError, match="feature_budget_gb"):
            lab.run("tap-t-3d", "quickstart", overrides=(str(override),))
        return
    lab.run("tap-t-3d", "quickstart", overrides=(str(override),))
    assert lab.ran() == ["tap-t-3d on quickstart"]


def test_experiments_without_data_are_left_to_say_so(lab, monkeypatch):
    monkeypatch.setattr(fit, "free_bytes", lambda folder: 0)
    lab.run("tap-t-3d", "lits17")
    assert lab.ran() == ["tap-t-3d on lits17"]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_what_is_there_at_once_is_that_of_a_simulation(tmp_path, jobs):
    folder = Folder(tmp_path, FolderEntries(tmp_path, CPU))
    needs = [("a", 10, 1), ("b", 7, 0), ("a", 10, 1), ("c", 30, 3), ("b", 7, 0), ("d", 4, 4)]
    for number, (group, nbytes, stays) in enumerate(needs):
        folder.entries.setdefault(group, MissingEntry(nbytes, stays, group, number))
        folder.last[group] = number
    seen = []
    for now in range(len(needs) + jobs):
        there = 0
        for group, nbytes, stays in {need[0]: need for need in needs}.values():
            at = [number for number, need in enumerate(needs) if need[0] == group]
            if now >= at[0]:
                there += nbytes if now < at[-1] + jobs else stays
        seen.append(there)
    assert folder.peak_bytes(jobs) == max(seen)


# -- Counted ---------------------------------------------------------------------------------------------


def test_what_configs_leave_out_is_what_the_probes_take():
    from tapct.probes.classification import ClassificationProbe
    from tapct.probes.settings import ProbeSettings
    from tapct.tasks.data import TaskData

    taken = dict(inspect.signature(ProbeSettings).parameters)
    taken |= inspect.signature(ClassificationProbe.__init__).parameters
    assert {name: taken[name].default for name in settings.DEFAULTS} == settings.DEFAULTS
    data = inspect.signature(TaskData.__init__).parameters
    assert {name: data[name].default for name in settings.DATA_DEFAULTS} == settings.DATA_DEFAULTS


def test_typical_sizes_stand_in_for_scans_that_are_not_there():
    bill = bill_of(experiments("tap-b-3d,tap-b-3d+in_plane_size=512", "lits17"), accelerator="cpu")
    small, large = bill.rows
    assert small.typical.startswith("scan of 432 x 512 x 512 voxels")
    assert (small.scans, small.windows) == (111, 111 * 36)  # 432 slices in windows of 12, one across
    assert large.windows == 111 * 36 * 9  # 512 in windows of 224, the last one shifted inside
    experiments_of, windows_of = 108 * (64**2 - 28**2), 36 * (9 - 1)
    labels_of = 432 * (512**2 - 224**2) / LABELS_PER_BYTE  # on the encoder's grid
    features_of = 2 * 768 * (experiments_of + windows_of)
    assert large.disk_bytes - small.disk_bytes == pytest.approx(111 * (features_of + labels_of), abs=111)
    assert bill.tflop == pytest.approx(small.tflop + large.tflop)
    assert not bill.folders[0].exact


def test_tasks_of_one_release_have_scans_of_one_size():
    (age,) = bill_of(experiments("body-size", "totalsegmentator_age"), accelerator="cpu").rows
    (organs,) = bill_of(experiments("body-size", "totalsegmentator"), accelerator="cpu").rows
    assert age.typical == organs.typical
    assert (age.scans, organs.scans) == (1227, 1228)


def test_crops_are_counted_as_crops():
    (row,) = bill_of(experiments("fmcib", "luna16"), accelerator="cpu").rows
    assert (row.scans, row.windows) == (677, 677)
    assert row.typical.startswith("crop of 50 mm of 40 x 71 x 71 voxels")


def test_what_experiments_share_is_counted_once():
    asked = experiments("suprem", "luna16", adaptors="linear,knn,abmil", fractions=(0.1, 1.0), draws=1)
    bill = bill_of(asked, arithmetic=False)
    assert len(asked) == 6
    assert sum(row.disk_bytes for row in bill.rows) > 4 * bill.folders[0].missing_bytes
    assert bill.folders[0].missing_bytes == max(row.disk_bytes for row in bill.rows)
    assert bill.encoded == 677


def test_perturbed_test_scans_are_further_scans():
    plain = bill_of(experiments("suprem", "lits17"), arithmetic=False)
    both = bill_of(experiments("suprem", "lits17", perturbations="noise-30hu"), arithmetic=False)
    assert plain.encoded < both.encoded < 2 * plain.encoded
    assert both.rows[0].disk_bytes == both.rows[1].disk_bytes
    assert both.folders[0].missing_bytes < sum(row.disk_bytes for row in both.rows)


def test_operations_of_a_transformer_are_those_of_its_matrices():
    tokens, width, depth, patch = 3 * 28 * 28 + 5, 768, 12, 4 * 8 * 8
    linear = 2 * tokens * width * width * (3 + 1 + 4 + 4)
    attention = 2 * 2 * tokens * tokens * width
    embedding = 2 * (tokens - 5) * patch * width
    found = Costs(Remembered("costs"), CPU).count(encoding("tap-b-3d"), Size(12, 224, 224))
    assert found.tflop == pytest.approx((depth * (linear + attention) + embedding) / 1e12, rel=1e-3)
    assert found.map_shape == (768, 3, 28, 28)


@pytest.mark.parametrize(
    "counted", [("tap-t-3d",), pytest.param(("tap-t-3d", "suprem", "fmcib"), marks=pytest.mark.thorough)], ids=len
)
def test_shipped_counts_are_those_of_the_encoders_here(counted):
    shipped = json.loads(cost.SHIPPED.read_text(encoding="utf-8"))
    costs = Costs(Remembered("costs"), CPU)
    windows = {
        (name + options, window): one
        for name, options in encodings()
        for window, one in windows_of(name, costs, options).items()
    }
    keys = {costs.counted_key(one, window): (name, window) for (name, window), one in windows.items()}
    assert set(keys) == set(shipped), "architectures have changed: run `python -m tapct.sweep.bill.counted`"
    for key, (name, window) in keys.items():
        if name in counted:
            count = costs.count(windows[name, window], window)
            assert [count.tflop, list(count.map_shape), count.why] == shipped[key]


@pytest.mark.parametrize(("name", "map_shape"), [("body-size", (1, 8, 8, 8)), ("organ-centre", (1, 64, 32, 32))])
def test_what_is_known_of_whole_scans_by_other_means_than_tensors_costs_no_operations(name, map_shape):
    asked = encoding(name)
    window = Size(*Costs(Remembered("costs"), CPU).encoder(asked).card.window_size)
    for costs in (Costs(Remembered("costs"), CPU), Costs(Remembered("costs", cost.SHIPPED), CPU)):
        assert costs.count(asked, window) == cost.WindowCost(0.0, map_shape)


class Rewritten(Drifting):
    """The same network, written anew."""

    depth_of_nothing = 3

    def build(self):
        layers = [*super().build().children()]
        return torch.nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("options", "changes", "holds"),
    [
        ("", {}, True),
        ("spacing_mm=1x1x1+in_plane_size=128+precision=bf16", {}, True),
        ("", {"spacing_mm": (2.0, 2.0, 2.0), "reference": "Somebody, 2026"}, True),
        ("window_size=8x128x128", {}, False),
        ("", {"num_params": 1_555}, False),
        ("", {"feature_stride": (4, 16, 16)}, False),
        ("", {"feature_dim": 7}, False),
        ("", {"embedding_dim": 7}, False),
    ],
)
def test_a_count_holds_for_an_architecture_however_it_is_written(monkeypatch, options, changes, holds):
    def key(cls, options=""):
        with known_by_name("drifting", f"tests.sweep.test_bill:{cls}"):
            return Costs(Remembered("costs"), CPU).counted_key(encoding("drifting", options=options), Size(8, 64, 64))

    before = key("Drifting")
    monkeypatch.setattr(Rewritten, "card", replace(Drifting.card, **changes))
    assert (key("Rewritten", options) == before) is holds


def test_a_count_is_of_its_window_and_why_there_is_none_of_its_code(monkeypatch):
    costs = Costs(Remembered("costs"), CPU)
    asked = encoding("tap-t-3d")
    assert costs.counted_key(asked, Size(8, 64, 64)) != costs.counted_key(asked, Size(8, 64, 128))
    for cls in ("Curious", "Fixed"):
        with known_by_name("curious", f"tests.sweep.test_bill:{cls}"):
            found = Costs(costs._remembered, CPU).count(encoding("curious"), Size(8, 64, 64))
            assert (found.tflop is None) is (cls == "Curious")


@pytest.mark.parametrize("suite", ["paper-table-4", pytest.param("paper", marks=pytest.mark.thorough)])
def test_a_first_bill_of_the_paper_counts_nothing_anew(suite, monkeypatch):
    monkeypatch.setattr(cost, "_count", None)
    bill = bill_of(commands.Sweep(suite=suite).experiments(), accelerator="cpu")
    assert bill.tflop > 0


def test_a_network_that_cannot_be_counted_says_why_and_the_rest_is_counted():
    with known_by_name("curious", "tests.sweep.test_bill:Curious"):
        (row,) = bill_of(experiments("curious", "quickstart"), accelerator="cpu").rows
    assert row.tflop is None
    assert "cannot be counted: ValueError: what is in it?" in row.why
    assert row.windows > 0
    assert row.disk_bytes > 0


def test_measured_once_and_remembered(monkeypatch):
    asked = experiments("tap-t-3d@random", "quickstart")
    assert bill_of(asked, accelerator="cpu").rows[0].hours is None
    monkeypatch.setattr(cost, "MOST_BATCHES", 2)
    (row,) = bill_of(asked, accelerator="cpu", measure=True).rows
    assert row.hours > 0
    monkeypatch.setattr(cost, "_timed", None)
    assert bill_of(asked, accelerator="cpu", measure=True).rows[0].hours == row.hours


def test_a_config_of_another_model_is_said_and_not_guessed(tmp_path):
    override = tmp_path / "other.yaml"
    override.write_text(yaml.safe_dump({"model": {"class_path": "their.Probe"}}))
    other = experiments("tap-t-3d", "quickstart", overrides=(str(override),))
    bill = bill_of([*other, *experiments("tap-t-3d", "quickstart", results=str(tmp_path))], accelerator="cpu")
    assert bill.rows[0].windows is None
    assert "their.Probe" in bill.rows[0].why
    assert bill.rows[1].windows == bill.windows > 0
    assert as_json(bill, 1, [], [])["total"]["cells_not_counted"] == 1, "sums without an experiment say so"
    shown = io.StringIO()
    Console(file=shown, width=250).print(table(bill, 1, [], []))
    assert "1 of 2 experiments are not in it" in shown.getvalue()


# -- Checks ----------------------------------------------------------------------------------------------


def test_weights_are_looked_for_and_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr("tapct.encoders.download.hf_hub_download", None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = {
        name: weights_check(encoding(name, **changes))
        for name, changes in {
            "chance": {},
            "tap-t-3d": {},
            "tap-b-2.5d": {},
            "curia": {},
            "suprem": {},
            "fmcib": {"weights": "random"},
            "vista3d": {"weights": str(tmp_path / "none.pt")},
        }.items()
    }
    assert {name: check.status for name, check in found.items()} == {
        **{"chance": "ok", "tap-t-3d": "ok", "fmcib": "ok"},
        **{"tap-b-2.5d": "fail", "vista3d": "fail"},
        **{"curia": "warn", "suprem": "warn"},
    }
    assert "gated" in found["curia"].message
    assert "none.pt" in found["vista3d"].message


def test_missing_files_of_a_split_are_told(tmp_path, monkeypatch):
    (tmp_path / "lits17").mkdir()
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    bill = bill_of(experiments("tap-t-3d", "lits17"), arithmetic=False)
    checks = defaultdict(str, {check.name: check.status for check in fit.checks_of(bill, tmp_path)})
    assert checks["data lits17"] == "fail"
    assert checks["weights tap-t-3d"] == "ok"
    assert "does not exist" in bill.rows[0].why
