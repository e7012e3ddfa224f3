"""Makes the splits of the nodule tasks.

    python -m tools.splits.luna_splits --task luna16 -o luna16.csv
    python -m tools.splits.luna_splits --task luna25 --nodules LUNA25_Public_Training_Development_Data.csv \
        -o luna25.csv

The paper splits both by patient, but its splits are unpublished, and neither release has one. These are ours:
`tapct.tasks.splits.stratified` deals patients out, those with any malignant nodule apart from the others. All
nodules of a patient, in all scans and at all dates, are on one side.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import jsonargparse

from tapct._utils.files import write_atomically
from tapct.errors import TapctError
from tapct.tasks import luna16, luna25
from tapct.tasks.nodules import Nodule, read_nodules
from tapct.tasks.splits import SplitTable, stratified

PROVENANCE = {
    "luna16": """\
Nodules of LUNA16 by their name in tasks/labels/luna16_nodules.csv, which says where labels and patients are from:
LIDC-IDRI (CC BY 3.0), Armato SG III et al., The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2015.LO9QL9SX.""",
    "luna25": """\
Nodules of LUNA25 by AnnotationID. Patients and labels: LUNA25_Public_Training_Development_Data.csv (CC BY 4.0,
https://creativecommons.org/licenses/by/4.0/), Peeters D et al., The LUNA25 Challenge: Public Training and
Development set, Annotation Data, version 1.0.0, https://zenodo.org/records/14673658. Changed: columns left out.""",
}
OURS = """\
The split is ours, not the paper's (unpublished): by patient, patients with any malignant nodule dealt out apart from
the others, seed '{seed}'. Made by tools/splits/luna_splits.py."""


def split(nodules: Mapping[str, Nodule], seed: str, where: str) -> SplitTable:
    """Returns the split of a list of nodules.

    Args:
        nodules: Case to nodule.
        seed: Task and version.
        where: What they were read from, for errors.
    """
    strata = {nodule.patient: "benign" for nodule in nodules.values()}
    strata |= {nodule.patient: "malignant" for nodule in nodules.values() if nodule.malignant}
    return stratified({case: nodule.patient for case, nodule in nodules.items()}, strata, seed, where)


def to_csv(task: Literal["luna16", "luna25"], path: Path) -> str:
    """Returns the split file of a task.

    Args:
        task: Name of the task.
        path: Its list of nodules.
    """
    module = {"luna16": luna16, "luna25": luna25}[task]
    seed = f"{task} v1"  # of the split: a new version of the task for other reasons keeps it
    table = split(read_nodules(path, module.COLUMNS), seed, str(path))
    return table.to_csv(*PROVENANCE[task].splitlines(), *OURS.format(seed=seed).splitlines())


def main() -> None:
    """Runs the script."""
    parser = jsonargparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--task", type=Literal["luna16", "luna25"], required=True, help="whose split")
    parser.add_argument("--nodules", type=Path, default=luna16.LIST, help="the release's list; LUNA16's ships with us")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the CSV to write")
    arguments = parser.parse_args()
    try:
        write_atomically(arguments.output, to_csv(arguments.task, arguments.nodules))
    except (TapctError, OSError) as error:
        sys.exit(f"luna_splits: {error}")


if __name__ == "__main__":
    main()
