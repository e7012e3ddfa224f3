"""Whether a process is one of several is torchrun's to say."""

import pytest

from pretrain.distributed import join
from pretrain.errors import PretrainError


def test_without_torchrun_it_is_one_process():
    with join("cpu") as world:
        assert (world.rank, world.size) == (0, 1)


@pytest.mark.parametrize("variables", [{"RANK": "1", "WORLD_SIZE": "8"}, {"WORLD_SIZE": "1"}, {"RANK": "0"}])
def test_half_of_torchruns_variables_are_refused(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PretrainError, match=r"MASTER_ADDR, MASTER_PORT is not.*unset RANK and WORLD_SIZE"), join("cpu"):
        pass


def test_variables_of_a_job_that_are_not_torchruns_change_nothing(monkeypatch):
    for name, value in {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "n1"}.items():
        monkeypatch.setenv(name, value)
    with join("cpu") as world:
        assert (world.rank, world.size) == (0, 1)
