"""What a pretrained encoder learned, on scans that it never saw, against random weights and plain voxel values.

    python benchmarks/exported_encoder.py EXPORT [--in-plane 128] [--lesions FOLDER] [--json out.json]

EXPORT is what `python -m pretrain.export` wrote. Three questions, each to the trained weights, to the same network with
random weights (three initialisations) and to the baseline "intensity", all on the same grid of the scan:

Dice    a linear probe trained on one of the quickstart's scans and reported on the other, three seeds
organs  is a patch's organ that of its 20 nearest patches in the other scan? Mean over organs
lesions FOLDER/*/CT.nii.gz with the mask SEG_ct.nii.gz: is the lesion found again in the same scan, turned by 6 degrees
        and moved by 27 mm? Share of the five best patches that hit it

Two scans and a few lesions: none of it is a benchmark score. The encoder must not have been trained on these scans.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from torch import optim
from torch.nn import functional

import tapct
from pretrain.observe.probe import Patches, organ_retrieval
from tapct.encoders import Encoder
from tapct.features import extract
from tapct.records import environment, git_state
from tapct.tasks import TaskData
from tapct.viz.feature_maps import EncodedScan
from tapct.viz.retrieval import lesion_embedding, retrieve
from tapct.volumes import LabelMap, Volume, read_ct, read_labels, resample_labels

SEEDS = (0, 1, 2)
PATCHES_PER_ORGAN = 200
TURN_DEGREES, SHIFT_MM = 6.0, (18.0, -18.0, 9.0)

Make = Callable[[int], Encoder]


def dice(encoder: Encoder, steps: int) -> list[float]:
    """Returns the mean Dice of each seed on the quickstart's reported scan."""
    from eva.core.trainers.functional import run_evaluation_session

    from tapct.probes import SegmentationProbe, Trainer

    with tempfile.TemporaryDirectory() as folder:
        probe = SegmentationProbe(
            encoder, optimizer=lambda groups: optim.AdamW(groups, lr=0.005), feature_folder=f"{folder}/features"
        )
        trainer = Trainer(
            default_root_dir=folder, max_steps=steps, n_runs=len(SEEDS), accumulate_grad_batches=1, accelerator="auto"
        )
        run_evaluation_session(trainer, probe, TaskData("quickstart"), n_runs=len(SEEDS), verbose=False)
        (record,) = Path(folder).glob("*/record.json")
        runs = json.loads(record.read_text(encoding="utf-8"))["runs"]
    return [run["metrics"]["test"]["dice_native"] for run in runs]


def encoded(encoder: Encoder, ct: Volume) -> EncodedScan:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = extract(encoder.to(device), torch.from_numpy(ct.hu).to(device), ct.grid)
    return EncodedScan(ct, features)


def patches(encoder: Encoder, ct: Volume, labels: LabelMap) -> Patches:
    """Returns the patches of a scan whose centre lies in an organ, a few of each organ."""
    scan = encoded(encoder, ct)
    organs = resample_labels(torch.from_numpy(labels.labels), ct.grid, scan.features.feature_grid).flatten().long()
    features = functional.normalize(scan.features.map.flatten(1).T.float(), dim=1)
    kept = []
    for organ in organs.unique().tolist():
        places = torch.nonzero(organs == organ).flatten()
        step = max(1, math.ceil(len(places) / PATCHES_PER_ORGAN))
        kept.append(places[::step] if organ else places[:0])
    chosen = torch.cat(kept)
    return Patches(features[chosen], organs[chosen])


def organs(encoder: Encoder) -> dict[str, float]:
    """Returns accuracy and chance of organ retrieval between the quickstart's two scans."""
    data = TaskData("quickstart")
    found = []
    for part in data.parts:
        for case in part.cases:
            ct = part.read_scan(case)
            found.append(patches(encoder, ct, part.read_labels(case, ct)))
    return organ_retrieval(found, 20)


def moved(ct: Volume) -> tuple[Volume, np.ndarray]:
    """Returns the scan of a patient who lies elsewhere and turned, on the same grid, and the transform (RAS+ mm)."""
    cos, sin = math.cos(math.radians(TURN_DEGREES)), math.sin(math.radians(TURN_DEGREES))
    middle = ct.index_to_world((np.array(ct.shape, dtype=float)[None] - 1) / 2)[0]
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    transform = np.eye(4)
    transform[:3, :3] = turn
    transform[:3, 3] = middle - turn @ middle + SHIFT_MM
    return Volume(_through(ct, transform, ct.hu, 1, -1000.0), ct.affine, "moved"), transform


def _through(ct: Volume, transform: np.ndarray, values: np.ndarray, order: int, outside: float) -> np.ndarray:
    back = np.linalg.inv(ct.affine) @ np.linalg.inv(transform) @ ct.affine
    return ndimage.affine_transform(
        values.astype(np.float32), back[:3, :3], back[:3, 3], order=order, cval=outside
    ).astype(np.float32)


def lesions(encoder: Encoder, folder: Path) -> list[float]:
    """Returns, for each lesion, the share of the five best patches that hit it in the moved scan."""
    rates = []
    for ct_path in sorted(folder.glob("*/CT.nii.gz")):
        ct = read_ct(ct_path)
        mask = read_labels(ct_path.with_name("SEG_ct.nii.gz"), ct).labels > 0
        followup, transform = moved(ct)
        there = _through(ct, transform, mask, 0, 0.0) > 0.5
        lesion = lesion_embedding(encoded(encoder, ct).features, mask)
        matches = retrieve(lesion, encoded(encoder, followup), mask=there)
        rates.append(statistics.mean(bool(match.hit) for match in matches))
    return rates


def random_weights(export: str, in_plane: int) -> Make:
    def make(seed: int) -> Encoder:
        encoder = tapct.load_encoder(export, "random", in_plane_size=in_plane, deferred=True)
        encoder.seed = seed
        encoder.load()
        return encoder

    return make


def measure(name: str, make: Make, options: argparse.Namespace, seeds: tuple[int, ...]) -> dict:
    encoders = [make(seed) for seed in seeds]
    retrieval = [organs(encoder) for encoder in encoders]
    row = {
        "encoder": name,
        "dice": [value for encoder in encoders for value in dice(encoder, options.steps)],
        "organs": [found["accuracy"] for found in retrieval],
        "organs_chance": retrieval[0]["chance"],
        "lesions": [lesions(encoder, options.lesions) for encoder in encoders] if options.lesions else None,
    }
    print(json.dumps(row), flush=True)
    return row


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="folder of an exported encoder")
    parser.add_argument("--in-plane", type=int, default=128, help="pixels that a slice is resized to")
    parser.add_argument("--steps", type=int, default=100, help="of the linear probe")
    parser.add_argument("--lesions", type=Path, help="folder with a folder per lesion")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    size = {"in_plane_size": options.in_plane}
    ways = {
        "trained": (lambda _: tapct.load_encoder(options.export, **size), (0,)),
        "random": (random_weights(options.export, options.in_plane), SEEDS),
        "intensity": (lambda _: tapct.load_encoder("intensity", **size), (0,)),
    }
    rows = [measure(name, make, options, seeds) for name, (make, seeds) in ways.items()]
    table = Table("encoder", "Dice", "organs found", "lesion patches hit")
    for row in rows:
        hits = [statistics.mean(rates) for rates in row["lesions"] or []]
        table.add_row(row["encoder"], spread(row["dice"]), spread(row["organs"]), spread(hits) if hits else "-")
    Console().print(table)
    print(f"organs: chance {rows[0]['organs_chance']:.3f}. Two scans, a demonstration: not a benchmark score")
    if options.json:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        made = {"git": git_state(), **environment(device)}
        options.json.write_text(json.dumps({"made": made, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
