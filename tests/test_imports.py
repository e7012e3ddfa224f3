"""What commands must not import: each of these packages costs seconds or a hundred MB, and none is used there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tapct.features.store import TensorStore
from tapct.records import write_record
from tests.leaderboard.results import record

SCRIPT = """
import json, sys
from tapct.cli import main

def run(arguments):
    sys.argv = ["tapct", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code or 0

report = []
for arguments in json.load(sys.stdin):
    report.append([run(arguments), sorted({name.partition(".")[0] for name in sys.modules})])

from tapct.tasks.quickstart import Quickstart
from tapct.features import FeatureBank, TensorStore
from tapct.tasks.checks import require_valid
from tests.small import CubicMillimetres

part = Quickstart(Quickstart.shipped_root, "train")
require_valid([part])
bank = FeatureBank(CubicMillimetres("random"), TensorStore("bank"))
bank.fill([part])
report.append([bank.extracted - 1, sorted({name.partition(".")[0] for name in sys.modules})])
print(json.dumps(report))
"""

EVA = {"eva", "lightning", "torchmetrics", "torchvision", "timm", "onnxruntime"}
NETWORKS = {"monai", "transformers"}
ANALYSIS = {"matplotlib", "sklearn", "pandas", "skimage", "SimpleITK", "tensorboard"}
FILES = {"nibabel", "pydicom", "pyarrow", "safetensors", "scipy"}
HEAVY = EVA | NETWORKS | ANALYSIS


def commands(folder: Path) -> dict[str, tuple[list[str], set[str]]]:
    """The commands, in an order in which none imports what a later one must not, with what they must not import."""
    results, store = str(folder / "results"), str(folder / "features")
    return {
        "--help": (["--help"], HEAVY | FILES | {"torch", "numpy", "pydantic"}),
        "status": (["status", "--results", results], HEAVY | FILES - {"pyarrow"} | {"torch"}),
        "list encoders": (["list", "encoders"], HEAVY),
        "list tasks": (["list", "tasks"], HEAVY),
        "cache ls": (["cache", "ls", "--folder", store], HEAVY),
        "doctor": (["doctor", "--task", "quickstart"], HEAVY),
        "leaderboard": (["leaderboard", results, "-o", str(folder / "site")], HEAVY - {"matplotlib"}),
    }


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> dict[str, set[str]]:
    """The packages that were there after each command, all run by one process."""
    folder = tmp_path_factory.mktemp("user")
    write_record(record("tap-s-3d", "amos22"), folder / "results" / "amos22" / "tap-s-3d")
    about = {"kind": "features", "card": "tap-s-3d", "task": "amos22", "case": "1"}
    TensorStore(folder / "features").save("0" * 64, {"map": torch.zeros(1)}, about)
    asked = commands(folder)
    ours = {"PYTHONPATH": str(Path(__file__).parents[1]), "TAPCT_CACHE": str(folder / "cache")}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([arguments for arguments, _ in asked.values()]),
        env=os.environ | ours,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert [status for status, _ in report] == [0] * len(report), run.stdout + run.stderr
    return dict(zip([*asked, "the feature bank"], (set(found) for _, found in report), strict=True))


@pytest.mark.parametrize("command", commands(Path()))
def test_a_command_imports_only_what_it_uses(command, imported):
    _, never = commands(Path())[command]
    assert not never & imported[command]


def test_scans_are_read_checked_and_encoded_without_eva(imported):
    assert not (HEAVY - {"matplotlib"}) & imported["the feature bank"]
