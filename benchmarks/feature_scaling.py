"""What should stand between features and a stepped head: nothing, a scale, a centre, a bias that knows the classes?

    python benchmarks/feature_scaling.py SCAN... [--encoder tap-t-3d] [--json out.json]

Two tasks whose truth is in the scans themselves, so that every CT can be used, each scan a patient; scans are split in
their order into parts, of which each is reported once (by heads that never saw it):

tissue  segmentation of air, lung, fat, soft tissue and bone by thresholds on HU, smoothed
crops   classification of 50 mm crops: is lung in it, is bone, is fat (more than a share); the bag is the class tokens

For each way of scaling and each rate: the loss on the training scans and the metric on the reported ones, after
few and after many steps. A handful of scans, and no benchmark score.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from eva.vision.models.networks import ABMIL
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import tapct
from tapct.encoders import Encoder
from tapct.features import CaseFeatures, extract
from tapct.metrics import confusion_matrix, dice_per_class
from tapct.probes.dense import dice_ce_loss, predict_labels
from tapct.probes.scaling import Moments, log_prior
from tapct.volumes import LinearMap, Volume, crop_mm, read_ct, resample_labels

CLASSES = ("air", "lung", "fat", "soft tissue", "bone")
BOUNDS_HU = (-950, -300, -20, 180)
SCALES = ("raw", "deviation", "magnitude", "centred")
CROP_MM, CROPS = 50.0, 24
PRESENT = {1: 0.3, 4: 0.05, 2: 0.2}
"""Share of a crop from which on a tissue counts as present, by class."""


def tissue(ct: Volume) -> torch.Tensor:
    """Returns (D, H, W) classes by thresholds on HU that were smoothed over 3 mm."""
    sigma = [3.0 / edge for edge in ct.spacing_mm]
    return torch.from_numpy(np.digitize(ndimage.gaussian_filter(ct.hu, sigma), BOUNDS_HU).astype(np.uint8))


def scaled(cases: list[torch.Tensor], train: list[int], how: str) -> list[torch.Tensor]:
    """Returns (C, N) features of all cases, scaled by what the training ones say."""
    if how == "raw":
        return cases
    moments = Moments.over(cases[i] for i in train)
    deviation = moments.scale().divisor
    if how == "magnitude":
        deviation = (moments.mean**2 + moments.squares / moments.values).sqrt().clamp_min(1e-12)
    centre = moments.mean if how == "centred" else torch.zeros(1, dtype=torch.float64)
    return [((case.double() - centre[:, None]) / deviation[:, None]).float() for case in cases]


def folds(number: int, parts: int) -> list[tuple[list[int], list[int]]]:
    """Returns (training, reported) scans, each reported once."""
    return [
        ([i for i in range(number) if i % parts != f], [i for i in range(number) if i % parts == f])
        for f in range(parts)
    ]


class Dense:
    """Segmentation of tissue, on the encoder's grid."""

    def __init__(self, scans: list[Volume], features: list[CaseFeatures]) -> None:
        self.features = features
        self.inputs = [f.map.flatten(1) for f in features]
        self.labels = [
            resample_labels(tissue(ct), ct.grid, f.encoder_grid) for ct, f in zip(scans, features, strict=True)
        ]
        self.maps = [LinearMap.between(f.feature_grid, f.encoder_grid) for f in features]
        self.groups = list(range(len(scans)))

    def head(self, train: list[int], prior: bool) -> nn.Module:
        head = nn.Conv3d(len(self.inputs[0]), len(CLASSES), 1)
        counts = sum(torch.bincount(self.labels[i].flatten().long(), minlength=len(CLASSES)) for i in train)
        with torch.no_grad():
            head.bias.copy_(log_prior(counts) if prior else torch.zeros(len(CLASSES)))
        return head

    def logits(self, head: nn.Module, inputs: list[torch.Tensor], case: int) -> torch.Tensor:
        return head(inputs[case].view(-1, *self.features[case].map.shape[1:]))

    def loss(self, head: nn.Module, inputs: list[torch.Tensor], batch: list[int]) -> torch.Tensor:
        return torch.stack(
            [dice_ce_loss(self.logits(head, inputs, i), self.labels[i], self.maps[i]) for i in batch]
        ).mean()

    def score(self, head: nn.Module, inputs: list[torch.Tensor], cases: list[int]) -> float:
        values = []
        for i in cases:
            predicted = predict_labels(self.logits(head, inputs, i), self.maps[i])
            values.append(
                np.nanmean(dice_per_class(confusion_matrix(predicted, self.labels[i], len(CLASSES)).numpy())[1:])
            )
        return float(np.mean(values))


class Crops:
    """Classification of crops by what is in them."""

    def __init__(self, scans: list[Volume], encoder: Encoder) -> None:
        self.inputs, self.targets, self.groups = [], [], []
        for number, ct in enumerate(scans):
            classes, random = tissue(ct), np.random.default_rng(number)
            body = np.argwhere((classes > 0).numpy())
            for at in body[random.choice(len(body), CROPS, replace=False)]:
                crop = crop_mm(ct, ct.index_to_world(at[None])[0], CROP_MM, -1024.0)
                inside = tissue(crop)
                self.targets.append([float((inside == c).float().mean() > share) for c, share in PRESENT.items()])
                found = extract(encoder, torch.from_numpy(crop.hu), crop.grid, fit_windows=True)
                self.inputs.append(found.embeddings.T.contiguous())
                self.groups.append(number)
        self.target = torch.tensor(self.targets)

    def head(self, train: list[int], prior: bool) -> nn.Module:
        return ABMIL(len(self.inputs[0]), len(PRESENT), None, hidden_sizes_mlp=())

    def logits(self, head: nn.Module, inputs: list[torch.Tensor], cases: list[int]) -> torch.Tensor:
        return head(pad_sequence([inputs[i].T for i in cases], batch_first=True, padding_value=-torch.inf))

    def loss(self, head: nn.Module, inputs: list[torch.Tensor], batch: list[int]) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.logits(head, inputs, batch), self.target[batch])

    def score(self, head: nn.Module, inputs: list[torch.Tensor], cases: list[int]) -> float:
        logits = self.logits(head, inputs, cases)
        defined = [k for k in range(len(PRESENT)) if 0 < self.target[cases, k].mean() < 1]
        return float(np.mean([roc_auc_score(self.target[cases, k], logits[:, k].double()) for k in defined]))


def trained(
    task: Dense | Crops,
    train: list[int],
    test: list[int],
    how: str,
    prior: bool,
    rate: float,
    seed: int,
    counts: list[int],
):
    """Returns, after few and many steps, the loss on training cases and the metric on the reported ones."""
    inputs, found, batch = scaled(task.inputs, train, how), [], 4 if isinstance(task, Dense) else 64
    for steps in counts:
        torch.manual_seed(seed)
        head = task.head(train, prior)
        optimizer = torch.optim.AdamW(head.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = np.random.default_rng(seed)
        for _ in range(steps):
            optimizer.zero_grad()
            task.loss(head, inputs, order.choice(train, min(batch, len(train)), replace=False).tolist()).backward()
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            found.append((float(task.loss(head, inputs, train)), task.score(head, inputs, test)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--encoder", default="tap-t-3d")
    parser.add_argument("--weights")
    parser.add_argument("--tasks", default="tissue,crops")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.01, 0.1])
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs=2, default=[40, 200], help="few and many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    encoder = tapct.load_encoder(args.encoder, args.weights)
    scans = [read_ct(path) for path in args.scans]
    rows = []
    for name in args.tasks.split(","):
        if name == "tissue":
            task = Dense(scans, [extract(encoder, torch.from_numpy(ct.hu), ct.grid) for ct in scans])
        else:
            task = Crops(scans, encoder)
        priors = (False, True) if name == "tissue" else (False,)
        for how, prior, rate in itertools.product(SCALES, priors, args.rates):
            parts = []
            for train, test in folds(len(scans), args.folds):
                of = [[i for i, group in enumerate(task.groups) if group in part] for part in (train, test)]
                parts.append(trained(task, *of, how, prior, rate, args.seed, args.steps))
            few, many = np.mean(parts, axis=0)
            rows.append(
                {"task": name, "scale": how, "prior": prior, "rate": rate, "few": few.tolist(), "many": many.tolist()}
            )
            print(json.dumps(rows[-1]), flush=True)
    table = Table("task", "scale", "prior bias", "rate", "few steps: loss", "metric", "many steps: loss", "metric")
    for row in rows:
        numbers = (f"{v:.3f}" for v in (*row["few"], *row["many"]))
        table.add_row(row["task"], row["scale"], "yes" if row["prior"] else "no", f"{row['rate']:g}", *numbers)
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
