"""What radiomics cost: CPU seconds of the body of each scan that ships, of a crop of 50 mm, of organs of three sizes.

`OMP_NUM_THREADS=1 python -m benchmarks.radiomics [SCAN ...]`: one core; several processes of one command share cases.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

import tapct
from tapct.encoders import Encoder
from tapct.features.extract import extract
from tapct.tasks.quickstart import Quickstart
from tapct.volumes import Mask, Volume, crop_mm, read_ct, read_labels


def seconds(encoder: Encoder, ct: Volume, mask: Mask | None = None) -> float:
    start, hu = time.process_time(), torch.from_numpy(ct.hu)
    if mask is None:
        extract(encoder, hu, ct.grid, fit_windows=max(ct.shape) < 100)
    else:
        encoder.of_mask(hu, ct.grid, mask)
    return time.process_time() - start


def main() -> None:
    encoder, size, root = tapct.load_encoder("radiomics"), tapct.load_encoder("body-size"), Quickstart.shipped_root
    abdomen = read_ct(root / "abdomen" / "ct.nii.gz")
    crop = crop_mm(abdomen, abdomen.index_to_world((np.array(abdomen.shape)[None] - 1) / 2)[0], 50.0, -1024.0)
    seconds(encoder, crop)  # imports
    for path in [*sorted(root.glob("*/ct.nii.gz")), *map(Path, sys.argv[1:])]:
        ct = read_ct(path)
        litres = float(extract(size, torch.from_numpy(ct.hu), ct.grid).embeddings[0])
        print(f"{path.parent.name}/{path.name}, {ct.shape}: body of {litres:.1f} l, {seconds(encoder, ct):.1f} s")
    print(f"a crop of 50 mm: {seconds(encoder, crop):.2f} s")
    organs = read_labels(root / "abdomen" / "organs.nii.gz")
    sizes = np.bincount(organs.labels.ravel())
    ml_of = sizes * np.prod(abdomen.spacing_mm) / 1000
    for label in [1 + int(np.abs(ml_of[1:] - wanted).argmin()) for wanted in (25, 100, 400)]:
        ml, mask = ml_of[label], Mask.of_labels(organs, abdomen.grid, {label})
        print(f"a mask of {ml:.0f} ml at 1 mm: {seconds(encoder, abdomen, mask):.1f} s")


if __name__ == "__main__":
    main()
