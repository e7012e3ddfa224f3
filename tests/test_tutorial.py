"""The tutorial, run as it stands: on eight slices of each scan, its experiment in this process."""

import runpy
from pathlib import Path

import pytest

from tapct.sweep import evaluation
from tests.data import quickstart
from tests.sweep.fakes import Here

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.py"


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        variables = {"DATA_ROOT": quickstart.write(folder), "TAPCT_CACHE": folder / "cache", "ACCELERATOR": "cpu"}
        for name, value in variables.items():
            patch.setenv(name, str(value))
        patch.setitem(evaluation.run_one.__kwdefaults__, "start", Here)
        return runpy.run_path(str(TUTORIAL))


def test_the_tutorial_runs_and_finds_the_liver_of_another_patient(ran):
    assert ran["record"].complete
    assert (ran["record"].runs_planned, ran["record"].probe.steps) == (1, 30)
    assert set(ran["cases"]["protocol"]) == {"native", "paper"}
    assert ran["features"].cases == ["abdomen", "chest"]
    assert ran["found"] > 2 * ran["chance"] > 0


def test_each_of_its_cells_is_text_or_code():
    cells = TUTORIAL.read_text(encoding="utf-8").split("# %%")[1:]
    kinds = [cell.startswith(" [markdown]\n") for cell in cells]
    for cell, is_text in zip(cells, kinds, strict=True):
        lines = [line for line in cell.splitlines()[1:] if line]
        assert all(line.startswith("# ") for line in lines) if is_text else not lines[0].startswith("# ")
