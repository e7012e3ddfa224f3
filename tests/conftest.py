"""What every test shares."""

import gc
import os
import re
import sys
from pathlib import Path

import pytest

# What the shell, the terminal, a cluster's job or torchrun set and our code, eva, Lightning, rich or the hub read: no
# test is to depend on it. It goes before anything is imported, so that processes that tests start are without it too.
OUTSIDE = re.compile(
    "(SLURM|SBATCH|PMI|PMIX|OMPI|TORCHELASTIC|PL|TAPCT|NCCL|GLOO)_.*|JSM_NAMESPACE_.*"
    "|(LOCAL_|GROUP_|NODE_|ROLE_)?(RANK|WORLD_SIZE)|LOCAL_WORLD_SIZE|MASTER_(ADDR|PORT)"
    "|(FORCE|NO|CLICOLOR)_COLOR|CLICOLOR(_FORCE)?|COLUMNS|LINES|TERM|TTY_.*|LOGURU_.*|TQDM_.*|MPLBACKEND|MPLCONFIGDIR"
    "|HF_(HUB|DATASETS)_OFFLINE|TRANSFORMERS_OFFLINE"
    "|ENCODER(_WEIGHTS|_OPTIONS)?|DATA_ROOT|OUTPUT_ROOT|RESULTS_ROOT|SPLIT_FILE|NUM_WORKERS|MAX_STEPS|N_RUNS|ACCELERATOR"
    "|READER_WEIGHTS|READER_BACKBONE|LANGUAGE_MODEL"
    "|TRAIN_FRACTION|TRAIN_DRAW|PERTURBATION|ADAPTOR|PACK|FEATURE_DTYPE|TZ"
    "|PYTHON(IOENCODING|WARNINGS|DONTWRITEBYTECODE)"
)
for _name in filter(OUTSIDE.fullmatch, list(os.environ)):
    del os.environ[_name]
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports eva
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers that each take all cores wait for one another

sys.dont_write_bytecode = False  # else each process compiles all modules and tests anew: half a minute
gc.disable()  # while modules are imported and tests collected, nothing is garbage, and looking took a third of the time


def pytest_collection_finish() -> None:
    """What is there by now stays to the end: it is not looked at again."""
    gc.enable()
    gc.freeze()


QUICKSTART = Path(__file__).parents[1] / "tapct" / "tasks" / "quickstart_data"
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _nothing_into_the_checkout_or_the_home(monkeypatch, tmp_path):
    """Keeps logs and caches with the test."""
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path / "logs"))
    monkeypatch.setenv("RESULTS_ROOT", str(tmp_path / "results"))
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def quickstart_root() -> Path:
    return QUICKSTART


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here")
    return SHARED
