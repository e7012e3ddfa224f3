"""One session on stored features, in this process; CPU seconds as JSON. `benchmarks/probe.py --before` runs it.

    PYTHONPATH=CHECKOUT:benchmarks python -m stored_experiments FOLDER EXPERIMENT RUNS STEPS

It keeps to names that this checkout and the one that it is compared with both have, so that one file measures both.
Experiments: "store classification" and "store segmentation" make data and fill the store, and are not measured;
"segmentation"; "abmil", and where there are others, the name of any adaptor.

The classification experiment is the shipped FDG-PET-CT config's (three rates, 500 steps of 16 scans, ten looks at the
selection cases) on 800 small scans of 8 windows each with 384 features, whose label is planted in some of them.
Segmentation is the quickstart's, three seeds of one rate.
"""

import functools
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import nn, optim

from tapct.encoders import Encoder, EncoderCard, Features

CASES = {"train": 560, "val": 80, "test": 160}
FEATURES, WINDOW, WINDOWS = 384, (8, 16, 16), 2
"""Features of an encoder's experiment, voxels of a window, and windows along each axis of a scan."""


class Planted(Encoder):
    """Features of random directions of a window's voxels, some of which the labels show in."""

    card = EncoderCard(
        name="planted",
        display_name="Planted",
        window_size=WINDOW,
        spacing_mm=None,
        in_plane_size=None,
        pad_hu=-1024.0,
        feature_stride=(4, 4, 4),
        feature_dim=FEATURES,
        embedding_dim=FEATURES,
        has_cls=True,
        num_params=0,
    )

    def build(self) -> nn.Module:
        return nn.Conv3d(1, FEATURES, 4, stride=4)

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        features = self.network(windows_hu / 100).tanh()
        tokens = features.mean(dim=(2, 3, 4))
        return Features(features, tokens, tokens)


def write_classification(folder: Path) -> None:
    """Writes a data set in the layout of FDG-PET-CT-Lesions; positives are brighter in one window."""
    rng, root = np.random.default_rng(0), folder / "fdg_pet_ct"
    shape = tuple(n * WINDOWS for n in WINDOW)
    rows, split = ["Subject ID,File Location,diagnosis"], ["case,patient,split"]
    for index, part in enumerate(part for part, cases in CASES.items() for _ in range(cases)):
        positive = bool(rng.random() < 0.4)
        hu = 60 * rng.normal(size=shape) + 30 * rng.normal()
        hu[: WINDOW[0], : WINDOW[1], : WINDOW[2]] += 40 * positive
        path = root / f"PETCT_{index}" / "study" / "CT.nii.gz"
        path.parent.mkdir(parents=True)
        hu[:, :2] = -1000  # air above the patient
        nibabel.save(nibabel.Nifti1Image(hu.T.astype(np.int16), np.diag([-2.0, -2.0, 3.0, 1.0])), path)
        where = f"./FDG-PET-CT-Lesions/PETCT_{index}/study/CT"
        rows.append(f"PETCT_{index},{where},{'MELANOMA' if positive else 'NEGATIVE'}")
        split.append(f"PETCT_{index}/study,PETCT_{index},{part}")
    (root / "Clinical Metadata FDG PET_CT Lesions.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    (folder / "split.csv").write_text("\n".join([*split, ""]), encoding="utf-8")


def session(folder: Path, experiment: str, runs: int, steps: int) -> dict[str, Any]:
    """Runs a session, and returns its CPU seconds and scores."""
    from eva.core.trainers.functional import run_evaluation_session

    from tapct.probes import ClassificationProbe, SegmentationProbe, Trainer
    from tapct.tasks import TaskData

    store = {"feature_folder": f"{folder}/features"}
    if experiment == "segmentation":
        optimizer = functools.partial(optim.AdamW, lr=0.005)
        probe = SegmentationProbe("tap-t-3d", optimizer=optimizer, **store)
        data, settings, metric = TaskData("quickstart"), {"accumulate_grad_batches": 1}, "dice_native"
    else:
        more = {} if experiment == "abmil" else {"adaptor": experiment}
        probe = ClassificationProbe(Planted("random"), learning_rates=[0.0003, 0.003, 0.03], **more, **store)
        data = TaskData("fdg_pet_ct", str(folder), split_file=str(folder / "split.csv"), batch_size=4)
        settings, metric = {"accumulate_grad_batches": 4, "val_check_interval": 0.1}, "MicroAUROC"
    with tempfile.TemporaryDirectory() as logs:
        trainer = Trainer(default_root_dir=logs, max_steps=steps, n_runs=runs, accelerator="cpu", **settings)
        start = cpu_s()
        run_evaluation_session(trainer, probe, data, n_runs=runs, verbose=False)
        taken = cpu_s() - start
        (path,) = Path(logs).glob("*/record.json")
        of_runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    scores = [run["metrics"]["test"][metric] for run in of_runs]
    return {"experiment": experiment, "runs": runs, "steps": steps, "cpu_s": taken, "scores": scores}


def cpu_s() -> float:
    """Returns user and system seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    folder, experiment, runs, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    folder.mkdir(parents=True, exist_ok=True)
    if experiment.startswith("store "):
        experiment = "segmentation" if experiment.endswith("segmentation") else "abmil"
        if experiment == "abmil":
            write_classification(folder)
        runs, steps = 1, 10
    torch.set_num_threads(1)
    result = session(folder, experiment, runs, steps)
    print(json.dumps({**result, "process_cpu_s": cpu_s()}))


if __name__ == "__main__":
    main()
