"""Does it change a score to train twice as long? The shipped configs, with their own steps, on real CT in small.

    python benchmarks/convergence.py SCAN... [--config segmentation/lits17.yaml] [--factor 1] [--json out.json]

Each scan is a patient; they are dealt out to training, selection and report in their order. Blocks of them are written
in the layout of LiTS17 (its two classes stand for fat and bone, by thresholds on smoothed HU) and of FDG-PET-CT (its
one label says whether more than a share of a block is bone), so that `eva fit` runs the shipped configs as they are:
rates, schedule, batches, looks at the selection cases. Each runs with its own MAX_STEPS and with twice as many, three
seeds side by side. --factor 0.1 takes a tenth of the steps, to see what too few look like. A handful of scans, and no
benchmark score.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import torch
import yaml
from feature_scaling import tissue
from rich.console import Console
from rich.table import Table

from tapct.records import Record, environment, read_record
from tapct.tasks.fdg_pet_ct import RELEASE
from tapct.volumes import Volume, read_ct

CONFIGS = Path(__file__).parents[1] / "eva_configs"
PARTS = ("train", "val", "train", "test", "train", "train")
"""Which part the scans fall to, over and over."""

FAT, BONE = 2, 4
"""Classes of `feature_scaling.tissue`."""

SLAB, SLABS = 8, 4
"""Slices of a segmentation case, and how many of a scan there are at most."""

BLOCK, BONE_SHARE = 12, 0.05
"""Slices of a classification case (a quarter of them each), and the share of bone from which on it is positive."""

LEAST_TISSUE = 0.1
"""Share of a block over -200 HU below which it is left out: air, which nothing can be asked about."""

Part = tuple[int, str, str]
"""A scan's number, its part of the split, and the name of a case of it."""


def save(path: Path, spl: np.ndarray, affine: np.ndarray) -> None:
    """Writes an SPL array as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(spl.T.astype(np.int16), affine[:, [2, 1, 0, 3]]), path)


def blocks(ct: Volume, slices: int, cuts: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields HU, tissue and affine of blocks that tile a scan, cut into `cuts` along y and x."""
    classes, (depth, height, width) = tissue(ct).numpy(), ct.shape
    for z, y, x in np.ndindex(depth // slices, cuts, cuts):
        first = np.array([z * slices, y * (height // cuts), x * (width // cuts)])
        where = tuple(slice(f, f + n) for f, n in zip(first, (slices, height // cuts, width // cuts), strict=True))
        affine = ct.affine.copy()
        affine[:3, 3] = ct.index_to_world(first[None])[0]
        if (ct.hu[where] > -200).mean() >= LEAST_TISSUE:
            yield ct.hu[where], classes[where], affine


def write_lits17(root: Path, scans: list[Volume]) -> list[Part]:
    cases: list[Part] = []
    for number, ct in enumerate(scans):
        found = list(blocks(ct, SLAB, 1))
        for hu, classes, affine in found[:: max(1, len(found) // SLABS)][:SLABS]:
            case = f"volume-{1000 + len(cases)}"
            save(root / f"{case}.nii.gz", hu, affine)
            save(root / f"segmentation-{1000 + len(cases)}.nii.gz", (classes == FAT) + 2 * (classes == BONE), affine)
            cases.append((number, PARTS[number % len(PARTS)], case))
    return cases


def write_fdg_pet_ct(root: Path, scans: list[Volume]) -> list[Part]:
    cases: list[Part] = []
    rows = []
    for number, ct in enumerate(scans):
        for place, (hu, classes, affine) in enumerate(blocks(ct, BLOCK, 2)):
            patient, positive = f"PETCT_{number}", (classes == BONE).mean() > BONE_SHARE
            save(root / patient / f"block {place}" / "CT.nii.gz", hu, affine)
            where = f"./{RELEASE}/{patient}/block {place}/CT"
            rows.append(f"{patient},{where},{'MELANOMA' if positive else 'NEGATIVE'}")
            cases.append((number, PARTS[number % len(PARTS)], f"{patient}/block {place}"))
    table = root / "Clinical Metadata FDG PET_CT Lesions.csv"
    table.write_text("\n".join(["Subject ID,File Location,diagnosis", *rows, ""]), encoding="utf-8")
    return cases


WRITERS = {"segmentation/lits17.yaml": write_lits17, "classification/fdg_pet_ct.yaml": write_fdg_pet_ct}


def fitted(config: str, folder: Path, steps: int, encoder: str, in_plane: int | None) -> Record:
    """Runs a shipped config as a user would, and returns its record."""
    task = Path(config).stem
    variables = {
        "DATA_ROOT": folder,
        "SPLIT_FILE": folder / f"{task}.csv",
        "OUTPUT_ROOT": folder / f"logs-{steps}",
        "TAPCT_FEATURES": folder / "features",
        "ENCODER": encoder,
        "MAX_STEPS": steps,
        "NUM_WORKERS": 0,
    }
    command = [sys.executable, "-m", "eva", "fit", "--config", str(CONFIGS / config)]
    if in_plane is not None:
        command.append(f"--model.init_args.encoder_options={{in_plane_size: {in_plane}}}")
    if "segmentation" in config:
        # What stands for organs lies anywhere.
        command += ["--model.init_args.overlays=0", "--data.init_args.accept_orientation=[all]"]
    subprocess.run(command, check=True, env={**os.environ, **{k: str(v) for k, v in variables.items()}})
    (path,) = (folder / f"logs-{steps}").glob(f"{task}/*/record.json")
    return read_record(path)


def row(config: str, steps: int, record: Record) -> dict:
    """Returns what a record says of its runs."""
    scores = [run.metrics["test"][record.task["metric"]] for run in record.runs]
    chosen = [[(run.selection or {}).get(key) for key in ("learning_rate", "step")] for run in record.runs]
    return {
        "config": config,
        "steps": steps,
        "cases": record.task["cases"],
        "scores": scores,
        "chosen": chosen,
        "mean": statistics.fmean(scores),
        "spread": statistics.stdev(scores),
        "flags": [flag.id for flag in record.flags],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, help="one a patient, eleven or more")
    parser.add_argument("--config", choices=WRITERS, action="append", help="default: both")
    parser.add_argument("--encoder", default="tap-t-3d")
    parser.add_argument("--in-plane", type=int, help="voxels in the plane that the encoder sees, if not its card's")
    parser.add_argument("--factor", type=float, default=1.0, help="of the config's own number of steps")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    scans, rows = [read_ct(path) for path in args.scans], []
    for config in args.config or WRITERS:
        loaded = yaml.safe_load((CONFIGS / config).read_text(encoding="utf-8"))
        default = loaded["trainer"]["init_args"]["max_steps"]  # ${oc.env:MAX_STEPS, 500}
        own = max(1, round(args.factor * int(default.removesuffix("}").split(",")[1])))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            cases = WRITERS[config](folder / Path(config).stem, scans)
            lines = [f"{case},{number},{part}" for number, part, case in cases]
            split = folder / f"{Path(config).stem}.csv"
            split.write_text("\n".join(["case,patient,split", *lines, ""]), encoding="utf-8")
            for steps in (own, 2 * own):
                rows.append(row(config, steps, fitted(config, folder, steps, args.encoder, args.in_plane)))
                print(json.dumps(rows[-1]), flush=True)
    table = Table("config", "steps", "score of each seed", "mean", "spread", "rate and step chosen", "flags")
    for one in rows:
        scores = ", ".join(f"{score:.4f}" for score in one["scores"])
        chosen = ", ".join(f"{rate:g} at {step}" for rate, step in one["chosen"])
        flags = ", ".join(one["flags"]) or "none"
        numbers = (f"{one['mean']:.4f}", f"{one['spread']:.4f}")
        table.add_row(one["config"], str(one["steps"]), scores, *numbers, chosen, flags)
    Console(width=160).print(table)
    for short, long in zip(rows[::2], rows[1::2], strict=True):
        moved = long["mean"] - short["mean"]
        print(f"{short['config']}: {short['steps']} to {long['steps']} steps move the mean by {moved:+.4f}")
    if args.json:
        made = {**environment(torch.device("cpu"))}
        args.json.write_text(json.dumps({"made": made, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
