"""Tiny BTCV and FLARE22 with as many scans as eva's own classes insist on; CC-CCII has it in `tests.data.eva_tasks`."""

import os
from pathlib import Path

from tests.data.abdomen import block, save
from tests.data.eva_tasks import LABELS, paths

CASES = {
    "btcv": [f"img{number:04}" for number in (*range(1, 11), *range(21, 41))],
    "flare22": [f"FLARE22_Tr_{number:04}" for number in range(1, 51)],
}


def write(root: Path, task: str) -> Path:
    """Writes three slabs of eight slices as the first cases, links to them as the others; returns the root."""
    for place, case in enumerate(CASES[task]):
        slab = block(70 + 8 * place, 8) if place < 3 else None
        for which, name in enumerate(paths(task, case)):
            if slab is not None:
                save(root / name, (slab.hu, slab.labels(LABELS[task]))[which], slab.affine, "LAS")
            else:
                os.link(root / paths(task, CASES[task][place % 3])[which], root / name)
    return root
