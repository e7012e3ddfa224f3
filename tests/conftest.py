"""What every test shares."""

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports eva
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers that each take all cores wait for one another

import pytest

QUICKSTART = Path(__file__).parents[1] / "tapct" / "tasks" / "quickstart_data"
SHARED = Path(__file__).parents[2] / "shared" / "data"


VARIABLES = (
    *("ENCODER", "ENCODER_WEIGHTS", "DATA_ROOT", "SPLIT_FILE", "NUM_WORKERS", "MAX_STEPS", "N_RUNS", "ACCELERATOR"),
    *("TRAIN_FRACTION", "TRAIN_DRAW", "PERTURBATION"),
    "TAPCT_FEATURES",
)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch, tmp_path):
    """Keeps the variables of the user's shell out, and logs out of the checkout."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "logs"))
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def quickstart_root() -> Path:
    return QUICKSTART


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here")
    return SHARED
