"""`tapct run --keep-features`: real experiments through eva, and what is left of their features."""

import os
from unittest import mock

import pytest

from tapct.features import TensorStore, leases
from tapct.probes import input_sheet
from tapct.sweep import commands, launches, local
from tapct.sweep.launches import FEATURES_FILE
from tests.features.processes import Child
from tests.small import Small3D
from tests.sweep.test_adaptor_grid import CASES, Here, data  # noqa: F401 a fixture

CASES_IN_ALL = sum(map(len, CASES.values()))


@pytest.fixture
def sweep(site, data, tmp_path, monkeypatch):  # noqa: F811
    """Runs sweeps of the small encoder on nodules; knows what was encoded for which experiment."""
    encode = Small3D._encode

    class Sweep:
        def __init__(self) -> None:
            self.encoded: list[str] = []
            self.current = ""
            self.before_each = lambda label: None
            self.store = TensorStore(tmp_path / "cache" / "features")

        def __call__(self, keep: str, start=None, **asked) -> int:
            settings = {"weights": "random", "results": str(tmp_path / "results"), "max_steps": 1, "runs": 1}
            sweep = commands.Sweep(
                **{"encoders": "small-3d", "tasks": "luna16", "accelerator": "cpu", **settings, **asked}
            )
            options = {"jobs": 1}
            with mock.patch.dict(os.environ, variables):  # workers set more of them
                self.experiments = sweep.experiments()
                return commands.run(sweep, **options, keep=keep, start=start or self.start)

        def start(self, order, variables):
            self.current = order.experiment.label
            self.before_each(self.current)
            return Here(order, variables)

        def kinds(self) -> dict[str, int]:
            kinds = [self.store.about(file.key)["kind"] for file in self.store.files()]
            return {kind: kinds.count(kind) for kind in ("features", "embeddings")}

        def pending(self) -> list[str]:
            return sorted(path.parent.name for path in (tmp_path / "results").glob(f"*/*/{FEATURES_FILE}"))

        def cases_encoded(self) -> dict[str, int]:
            """By experiment; three windows a case."""
            return {label: self.encoded.count(label) // 3 for label in dict.fromkeys(self.encoded)}

    found = Sweep()

    def counted(self, windows_hu):
        found.encoded.extend([found.current] * len(windows_hu))
        return encode(self, windows_hu)

    variables = {"DATA_ROOT": str(data.parent), "SPLIT_FILE": str(data), "NUM_WORKERS": "0"}
    monkeypatch.setattr(Small3D, "_encode", counted)
    monkeypatch.setattr(input_sheet, "received_of", lambda *of: None)  # each record looks at what the network receives
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("sys.argv", ["tapct"])
    yield found
    leases.let_go()
    Child.kill_all()


def test_features_stay_for_the_experiments_that_need_them_and_then_go_and_a_done_sweep_extracts_nothing(sweep):
    seen = {}
    sweep.before_each = lambda label: seen.update({label: sweep.kinds()["features"]})
    asked = {"adaptors": "linear,knn", "perturbations": "noise-30hu"}
    assert sweep("none", **asked) == 0
    assert list(seen.values())[1:] == [CASES_IN_ALL, CASES_IN_ALL, CASES_IN_ALL + len(CASES["test"])]
    assert sweep.kinds() == {"features": 0, "embeddings": 0}
    assert sweep.pending() == []
    first, perturbed = next(iter(seen)), next(label for label in seen if "perturbation" in label)
    assert sweep.cases_encoded() == {first: CASES_IN_ALL, perturbed: len(CASES["test"])}, "each case once"
    sweep.encoded.clear()
    assert sweep("none", **asked) == 0
    assert sweep.encoded == []


def test_with_embeddings_a_later_experiment_of_class_tokens_encodes_nothing_and_one_of_maps_does(sweep):
    assert sweep("embeddings") == 0
    assert sweep.kinds() == {"features": 0, "embeddings": CASES_IN_ALL}
    sweep.encoded.clear()
    assert sweep("embeddings", adaptors="knn") == 0
    assert sweep.encoded == []
    assert sweep("embeddings", adaptors="linear:mean") == 0
    assert sweep.cases_encoded() == {"small-3d+adaptor=linear-mean": CASES_IN_ALL}
    assert sweep.kinds() == {"features": 0, "embeddings": CASES_IN_ALL}
    sweep.encoded.clear()
    assert sweep("embeddings", adaptors="knn:mean") == 0, "the vectors of the experiment before are stored"
    assert sweep.encoded == []


def hold(send, store, keys):
    leases.take(store, keys)
    send("held")
    send(None)
    os.read(os.pipe()[0], 1)


def test_features_of_a_running_process_stay_and_the_same_command_removes_them_once_it_has_ended(sweep, capfd):
    held = []

    def take(label):
        if label.endswith("knn"):
            keys = [file.key for file in sweep.store.files() if sweep.store.about(file.key)["kind"] == "features"][:3]
            child = Child(hold, sweep.store.folder, keys)
            child.receive()
            held.append((child, keys))

    sweep.before_each = take
    assert sweep("none", adaptors="linear,knn") == 0
    ((child, keys),) = held
    assert {file.key for file in sweep.store.files()} >= set(keys)
    assert sweep.kinds()["features"] == 3
    assert sweep.pending() == ["small-3d", "small-3d+adaptor=knn"]
    assert "those of 3 cases stay for a process that runs" in capfd.readouterr().err
    child.kill()
    sweep.encoded.clear()
    assert sweep("none", adaptors="linear,knn") == 0
    assert (sweep.kinds()["features"], sweep.pending(), sweep.encoded) == (0, [], [])


def test_features_stay_for_an_experiment_that_did_not_run_and_for_the_queue_of_another_launcher(sweep):
    def break_knn(order, variables):
        if order.experiment.label.endswith("knn"):
            raise local.Interrupted(15)  # as a launcher that is told to end
        return sweep.start(order, variables)

    assert sweep("none", start=break_knn, adaptors="linear,knn") == 128 + 15
    assert sweep.kinds()["features"] == CASES_IN_ALL
    assert sweep.pending() == ["small-3d"]
    other = sweep.experiments[1]
    with launches.announced([other], "all", outlives=False):  # what another launcher says that it runs
        assert sweep("none", adaptors="linear") == 0
        assert sweep.kinds()["features"] == CASES_IN_ALL
    with launches.announced([other], "none", outlives=True):  # a launcher that has left its experiment to Slurm
        pass
    assert sweep("none", adaptors="linear") == 0
    assert sweep.kinds()["features"] == CASES_IN_ALL
    assert sweep("none", adaptors="knn") == 0
    assert sweep.kinds()["features"] == 0
