"""Chooses the points of `quickstart_organs`, and writes them with their split.

    python -m tools.splits.quickstart_organs --labels quickstart_organs.csv --split split.csv

Of each organ of each of the quickstart's two scans up to eight points, deep inside and far apart: of the voxels at
least half as far from its surface as the deepest, the deepest first, then again and again the one that is farthest from
those that are chosen, while that is over 8 mm. Blocks lie within the scan along z. No point was chosen by hand.
"""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonargparse
import numpy as np
from scipy import ndimage

from tapct._utils.files import write_atomically
from tapct.tasks.quickstart import ORGANS, Quickstart
from tapct.tasks.quickstart_organs import QuickstartOrgans
from tapct.tasks.splits import SPLITS
from tapct.volumes import Grid

MOST, APART_MM, DEEP = 8, 8.0, 0.5

ABOUT = """\
Points deep in eleven organs of the quickstart's two scans, by its masks, which TotalSegmentator predicted (Apache-2.0,
tapct/tasks/quickstart_data/README.md). Made by tools/splits/quickstart_organs.py, which says how.
x_mm, y_mm, z_mm: RAS+.
"""


def chosen(inside: np.ndarray, grid: Grid) -> Iterator[tuple[float, float, float]]:
    """Yields points (x, y, z) in mm, RAS+, deep in an organ and far apart, the deepest first.

    Args:
        inside: (D, H, W) booleans, the organ.
        grid: Their grid.
    """
    if not inside.any():
        return
    spacing_mm = np.array(grid.spacing_mm)
    # What lies nearest outside lies in the organ's box with a voxel round it: the rest need not be looked at.
    (extent,) = ndimage.find_objects(inside.view(np.uint8))
    box = tuple(slice(max(one.start - 1, 0), one.stop + 1) for one in extent)
    first = np.array([one.start for one in box])
    depth_mm = ndimage.distance_transform_edt(inside[box], sampling=spacing_mm)
    reach = int(np.ceil((QuickstartOrgans.size_mm[0] / 2 - spacing_mm[0] / 2) / spacing_mm[0] - 1e-6))
    fits = np.zeros(len(inside), dtype=bool)
    fits[max(reach - 1, 0) : len(inside) - reach + 1] = True
    core = inside[box] & (depth_mm >= DEEP * depth_mm.max()) & fits[box[0], None, None]
    voxels, depths = np.argwhere(core) + first, depth_mm[core]
    far_mm = np.full(len(voxels), np.inf)
    for number in range(min(MOST, len(voxels))):
        best = int(depths.argmax() if number == 0 else far_mm.argmax())
        if far_mm[best] <= APART_MM:
            return
        x, y, z = (grid.affine @ [*voxels[best], 1.0])[:3].round(1)
        yield float(x), float(y), float(z)
        far_mm = np.minimum(far_mm, np.linalg.norm((voxels - voxels[best]) * spacing_mm, axis=1))


def rows() -> Iterator[tuple[dict[str, str | float], dict[str, str]]]:
    """Yields a row of the labels and one of the split for each point."""
    for split in SPLITS:
        scans = Quickstart(Quickstart.shipped_root, split)
        for scan, patient in scans.table.cases[split].items():
            ct = scans.read_scan(scan)
            organs = scans.read_labels(scan, ct)
            for label, organ in enumerate(ORGANS, start=1):
                for number, (x, y, z) in enumerate(chosen(organs.labels == label, ct.grid), start=1):
                    case = f"{scan}-{organ.replace(' ', '-')}-{number}"
                    yield (
                        {"case": case, "scan": scan, "x_mm": x, "y_mm": y, "z_mm": z, "organ": organ},
                        {"case": case, "patient": patient, "split": split},
                    )


def written(rows: list[dict[str, str | float]] | list[dict[str, str]], about: str) -> str:
    """Returns a CSV with lines that start with # above it."""
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in about.splitlines())
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = jsonargparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="the list of points")
    parser.add_argument("--split", type=Path, required=True, help="who trains and who is reported")
    options = parser.parse_args()
    labels, split = zip(*rows(), strict=True)
    write_atomically(options.labels, written(list(labels), ABOUT))
    write_atomically(options.split, written(list(split), "As the quickstart's: the scan with more organs trains."))
    return 0


if __name__ == "__main__":
    sys.exit(main())
