"""What the tests of pretraining share."""

import re

import pytest

from pretrain.config import Config
from pretrain.data.prepare import PrepareSettings, prepare
from pretrain.data.sources import find_scans
from pretrain.settings import parse_config
from tests.conftest import QUICKSTART
from tests.pretrain.runs import Running

CLIP_HU = (-1008.0, 822.0)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The two scans that ship with the project, prepared: an abdomen and a chest."""
    folder = tmp_path_factory.mktemp("store")
    sources = find_scans([QUICKSTART], ["*"], ["*organs*"], re.compile("quickstart_data/([^/]+)"))
    assert prepare(sources, PrepareSettings(folder, CLIP_HU, min_slices=12, patient_given=True), workers=1) == {}
    return folder


@pytest.fixture
def small_config(store, tmp_path):
    """Makes the settings of a small run on that store; keywords are sections with changes."""

    def make(**changes) -> Config:
        content = {
            "model": {"size": "debug", "patch_size": [4, 8, 8], "drop_path_rate": 0.1},
            "data": {"store": str(store), "slab_slices": 12, "workers": 0},
            "crops": {"global_size": [8, 64, 64], "local_size": [8, 32, 32]},
            "optim": {"warmup_steps": 1},
            "run": {"output": str(tmp_path / "run"), "steps": 4, "micro_batch_size": 2, "micro_batches": 2},
        }
        for section, keys in changes.items():
            content[section] = {**content.get(section, {}), **keys}
        return parse_config(content, "the test")

    return make


@pytest.fixture(autouse=True)
def _no_process_is_left():
    """Ends the runs that a failed test has left behind."""
    yield
    while Running.started:
        Running.started.pop().kill()
