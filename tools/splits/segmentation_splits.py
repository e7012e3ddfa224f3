"""Writes the shipped splits of the segmentation tasks from the public lists that they come from.

    python -m tools.splits.segmentation_splits LISTS OUT

LISTS is a folder with these files, anywhere below it; OUT is the folder for the tables.

* `voco_dataset_{CT,lits,kits,panc}.json`: `dataset_{CT,lits,kits,panc}.json` of VoCo's downstream tasks, under
  Downstream/monai/{Amos,LiTs,KiTs,Panc} of https://github.com/Luffy03/Large-Scale-Medical. For AMOS it is the CT
  part of the release's own lists.
* `totalsegmentator_v201_meta.csv`: meta.csv of the TotalSegmentator dataset, v2.0.1.
"""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jsonargparse

from tapct.errors import TaskError
from tapct.tasks.splits import SplitTable, read_exclusions, set_aside
from tools.splits import TASKS

EXCLUSIONS = TASKS / "exclusions"


@dataclass(frozen=True)
class VocoList:
    """A list of VoCo's: what it calls training becomes train and val, what it calls validation is reported.

    Attributes:
        file: Its name below LISTS.
        case: Format of the name of a case, given the number in the list.
        origin: First lines of the table's provenance.
    """

    file: str
    case: str
    origin: tuple[str, ...]


_UNPUBLISHED = "The paper's own split is unpublished. The release names no patients: each scan counts as one."


def _voco(scans: int, path: str) -> tuple[str, ...]:
    return (
        f"test: the {scans} validation scans of VoCo's list (Downstream/monai/{path} in",
        "github.com/Luffy03/Large-Scale-Medical), which eva takes up as well. train and val: its training scans.",
    )


VOCO_LISTS = {
    "amos22": VocoList(
        "voco_dataset_CT.json",
        "amos_{:04d}",
        (
            "Official: the CT scans of AMOS22's dataset.json. test: its `validation` (imagesVa), since the labels of",
            "its own test scans are not public. train and val: its `training` (imagesTr).",
        ),
    ),
    "lits17": VocoList("voco_dataset_lits.json", "volume-{}", _voco(23, "LiTs/dataset_lits.json")),
    "kits23": VocoList("voco_dataset_kits.json", "case_{:05d}", _voco(24, "KiTs/dataset_kits.json")),
    "msd_pancreas": VocoList("voco_dataset_panc.json", "pancreas_{:03d}", _voco(24, "Panc/dataset_panc.json")),
}


def voco_table(task: str, lists: Path) -> str:
    """Returns the table of a task whose split is a list of VoCo's."""
    entry = VOCO_LISTS[task]
    content = json.loads(_find(lists, entry.file).read_text(encoding="utf-8"))
    train, test = ({entry.case.format(n) for n in _numbers(content[k])} for k in ("training", "validation"))
    excluded = read_exclusions(EXCLUSIONS / f"{task}.csv")
    val = set_aside(train - excluded.keys(), f"{task} v1")
    parts = {"train": train - val, "val": val, "test": test}
    left_out = f" (without exclusions/{task}.csv)" if excluded else ""
    rule = f'val: the tenth of its training scans{left_out} whose SHA-256 of "{task} v1:<case>" comes first.'
    return _csv(parts, *entry.origin, rule, _UNPUBLISHED)


def totalsegmentator_table(lists: Path) -> str:
    """Returns the table of TotalSegmentator, whose split is official."""
    lines = _find(lists, "totalsegmentator_v201_meta.csv").read_text(encoding="utf-8-sig").splitlines()
    rows = list(csv.DictReader(lines, delimiter=";"))
    parts = {split: {row["image_id"] for row in rows if row["split"] == split} for split in ("train", "val", "test")}
    return _csv(
        parts,
        "Official: the columns image_id and split of meta.csv in the TotalSegmentator dataset v2.0.1, sorted.",
        "CC BY 4.0, J. Wasserthal et al., https://zenodo.org/records/10047292; cite Radiology: Artificial",
        "Intelligence 2023, doi 10.1148/ryai.230024. Its val selects, its test is reported.",
    )


def _find(lists: Path, name: str) -> Path:
    found = sorted(lists.rglob(name))
    if not found:
        raise TaskError(f"there is no {name} below {lists}; the head of {__name__} says where it is from")
    return found[0]


def _numbers(entries: Iterable[dict[str, str]]) -> list[int]:
    """Returns the number in each entry's name of the scan: 3 of ./imagesTr/liver_3.nii.gz."""
    return [int(re.findall(r"\d+", Path(entry["image"]).name)[0]) for entry in entries]


def _csv(parts: dict[str, set[str]], *comments: str) -> str:
    rows = [(case, case, split) for split, cases in parts.items() for case in sorted(cases, key=_natural)]
    made = "Made by: python -m tools.splits.segmentation_splits"
    return SplitTable.of(rows, "", where="the lists").to_csv(*comments, made)


def _natural(case: str) -> int:
    return int(re.findall(r"\d+", case)[0])


def main(lists: Path, out: Path) -> None:
    """Writes the tables.

    Args:
        lists: Folder with the public lists, anywhere below it.
        out: Folder for the tables.
    """
    tables = {task: voco_table(task, lists) for task in VOCO_LISTS}
    tables["totalsegmentator"] = totalsegmentator_table(lists)
    for task, table in tables.items():
        path = out / f"{task}.csv"
        path.write_text(table, encoding="utf-8")
        print(f"{path}: {SplitTable.read(path).counts}")


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=True)
