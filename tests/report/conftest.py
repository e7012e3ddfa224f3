"""A small real session of eva, with all that it leaves."""

import shutil
from pathlib import Path

import pytest
from eva.core.trainers.functional import run_evaluation_session

from tapct.probes import SegmentationProbe, Trainer
from tapct.tasks import TaskData
from tests.data.abdomen import write_slabs
from tests.small import known_by_name

CASES = {"c0": "train", "c1": "val", "c2": "test", "c3": "test", "c4": "test", "c5": "test"}


@pytest.fixture(scope="package")
def small_entry_points():
    """Makes the tests' encoder known by name, as a third-party package would."""
    with known_by_name("small-3d", "tests.small:Small3D"):
        yield


@pytest.fixture(scope="package")
def data_root(tmp_path_factory) -> Path:
    """Six slabs of the quickstart's abdomen, as the cases of its task."""
    return write_slabs(tmp_path_factory.mktemp("data"), CASES)


def session(data_root: Path, folder: Path, seed: int = 0) -> Path:
    """Runs two seeds of a small probe, and returns the session's folder."""
    features = str(data_root / "features")
    optimizer = {"learning_rates": [0.01, 0.1]}
    probe = SegmentationProbe("small-3d", "random", seed=seed, overlays=1, feature_folder=features, **optimizer)
    trainer = Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        n_runs=2,
        max_steps=4,
        accumulate_grad_batches=1,
        val_check_interval=2,
        enable_progress_bar=False,
    )
    data = TaskData("quickstart", str(data_root), split_file=str(data_root / "split.csv"))
    run_evaluation_session(trainer, probe, data, n_runs=2, verbose=False)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="package")
def sessions(small_entry_points, data_root, tmp_path_factory) -> list[Path]:
    """Two sessions that differ in their seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPCT_CACHE", str(data_root / "cache"))
        return [session(data_root, tmp_path_factory.mktemp(f"logs{seed}"), seed) for seed in (0, 7)]


@pytest.fixture
def copies(sessions, tmp_path, data_root, monkeypatch) -> list[Path]:
    """The same, for spoiling; their features are found."""
    monkeypatch.setenv("TAPCT_FEATURES", str(data_root / "features"))
    return [Path(shutil.copytree(path, tmp_path / f"experiment{i}")) for i, path in enumerate(sessions)]
