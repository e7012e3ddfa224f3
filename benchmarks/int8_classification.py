"""What features in int8 change in a classification, through `eva fit`: AUROC next to that of bf16.

    python -m benchmarks.int8_classification [--cases 60] [-e tap-t-3d]

On as many nodules of LUNA16's own list and split as asked for in each part: real CT of the abdomen in the place of the
scans, a cube in the place of each nodule, with noise in every voxel of the scan, more of it where the nodule is
malignant, so that AUROC is neither 0.5 nor 1. Each adaptor is run with one seed, on the same scans in both dtypes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tapct.records import read_record
from tapct.tasks import SplitTable
from tapct.tasks.luna16 import COLUMNS, LIST
from tapct.tasks.nodules import read_nodules
from tests.data import luna16

SHIPPED = Path(LIST).parents[1] / "splits" / "luna16.csv"
NOISE_HU, MORE_HU = 40.0, 12.0
"""Deviations from scan to scan of the noise's own deviation, and what a malignant nodule adds to it."""


def write(root: Path, each: int) -> Path:
    """Writes scans and a split of so many nodules a part; returns the split."""
    listed = read_nodules(LIST, COLUMNS)
    alone = Counter(nodule.series for nodule in listed.values())
    table, rng = SplitTable.read(SHIPPED), np.random.default_rng(0)
    chosen = {s: [c for c in table.cases[s] if alone[listed[c].series] == 1][:each] for s in ("train", "val", "test")}
    luna16.write(root / "luna16", [case for cases in chosen.values() for case in cases])
    for cases in chosen.values():
        for case in cases:
            path = root / "luna16" / "subset3" / f"{listed[case].series}.mhd"
            image = sitk.ReadImage(str(path))
            deviation = 60 + rng.normal(0, NOISE_HU / 4) + MORE_HU * listed[case].malignant
            voxels = sitk.GetArrayFromImage(image)
            noisy = sitk.GetImageFromArray((voxels + rng.normal(0, deviation, voxels.shape)).astype(voxels.dtype))
            noisy.CopyInformation(image)
            sitk.WriteImage(noisy, str(path))
    return luna16.write_split(root / "split.csv", **chosen)


def auroc(root: Path, split: Path, encoder: str, adaptor: str, dtype: str) -> float:
    """Returns the AUROC of the reported nodules."""
    out = root / "logs" / adaptor / dtype
    variables = {
        "DATA_ROOT": root,
        "SPLIT_FILE": split,
        "OUTPUT_ROOT": out,
        "TAPCT_FEATURES": root / "features",
        **{"ENCODER": encoder, "ADAPTOR": adaptor, "FEATURE_DTYPE": dtype, "N_RUNS": 1, "MAX_STEPS": 100},
        **{"ACCELERATOR": "cpu", "NUM_WORKERS": 0},
    }
    config = Path(__file__).parents[1] / "eva_configs" / "classification" / "luna16.yaml"
    environment = dict(os.environ) | {name: str(value) for name, value in variables.items()}
    command = [sys.executable, "-m", "eva", "fit", "--config", str(config)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (path,) = out.rglob("record.json")
    return float(read_record(path).runs[0].metrics["test"]["MicroAUROC"])


def main() -> None:
    """Prints a line for each adaptor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60, help="nodules of each part")
    parser.add_argument("-e", "--encoder", default="tap-t-3d")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        split = write(root, asked.cases)
        for adaptor in ("linear:mean", "linear", "abmil:patch", "abmil"):
            found = {dtype: auroc(root, split, asked.encoder, adaptor, dtype) for dtype in ("bf16", "int8")}
            print(f"{adaptor}: " + ", ".join(f"{dtype} {value:.4f}" for dtype, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
