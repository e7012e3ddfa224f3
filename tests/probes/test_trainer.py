"""The trainer is one process, whatever the variables of the job that it runs in say."""

import io
import sys
from pathlib import Path

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from tapct.probes import Trainer

TASKS_OF_A_JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"}
ONE_OF_MANY = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}


@pytest.mark.parametrize("variables", [{}, TASKS_OF_A_JOB, ONE_OF_MANY])
def test_a_session_is_written_where_it_belongs_also_as_one_of_several_processes_of_a_job(
    tmp_path, monkeypatch, variables
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", int(variables.get("RANK", variables.get("SLURM_PROCID", "0"))))
    trainer = Trainer(default_root_dir=str(tmp_path), accelerator="cpu")
    assert (trainer.is_global_zero, trainer.world_size) == (True, 1)
    assert Path(trainer.log_dir).parent.parent == tmp_path, "OUTPUT_ROOT/SESSION/run_0"


def test_what_the_locale_cannot_write_ends_no_training(tmp_path, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    Trainer(default_root_dir=str(tmp_path), accelerator="cpu")
    print("•", flush=True)
    assert written.getvalue().endswith(b"\\u2022\n")
