"""Writes the shipped splits that are eva's: what the classes of the installed eva list on a whole release.

    python -m tools.splits.eva_splits OUT [--nodules LUNA25_Public_Training_Development_Data.csv]

eva's classes take their lists by place in the folder, so each is given a folder with the file names of its whole
release (empty files: nothing is read), and is asked. Which scans of WORD are in which of its folders is from VoCo's
Downstream/monai/Word/dataset/dataset.json (https://github.com/Luffy03/Large-Scale-Medical, commit 1ad538b, Apache-2.0).
"""

import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

import jsonargparse

from tapct._utils.files import write_atomically
from tapct.tasks.eva_task import EvaSplit, EvaTask, split_of
from tapct.tasks.luna25 import COLUMNS
from tapct.tasks.nodules import read_nodules
from tapct.tasks.splits import SplitTable
from tools.splits import TASKS

WORD_VAL = (1, 7, 15, 25, 31, 35, 39, 45, 48, 66, 75, 80, 83, 85, 98, 112, 137, 139, 141, 149)
WORD_TEST = (
    *(14, 16, 17, 19, 21, 23, 24, 33, 34, 37, 43, 50, 52, 54, 57),
    *(60, 69, 74, 76, 77, 88, 92, 97, 99, 103, 110, 120, 124, 129, 131),
)
"""Without labels; the other 100 of 1 to 150 are in imagesTr."""

_ONE_A_SCAN = "The release names no patients: each scan counts as one."


@dataclass(frozen=True)
class Release:
    """A release that eva has lists of.

    Attributes:
        eva: eva's class, below eva.vision.data.datasets.
        scans: Names of the scans as eva looks for them, relative to the root; {} is the case.
        masks: Likewise.
        cases: The cases of the whole release, as they stand for {}.
        table: Name of the table.
        file: Of eva's, that has the lists.
        case_of: Case of a file, as eva names it.
    """

    eva: str
    scans: str
    masks: str
    cases: tuple[str, ...]
    table: str
    file: str
    case_of: Callable[[str], str] = EvaTask.case_of

    def write(self, root: Path) -> None:
        """Writes the release's file names, as empty files."""
        for case in self.cases:
            for name in (self.scans, self.masks):
                path = root / name.format(case)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()

    def lists(self, root: Path) -> dict[EvaSplit, list[str]]:
        """Returns what eva's class lists, on a folder that `write` wrote."""

        class Task(EvaTask):
            """To ask its class."""

            eva_class = f"eva.vision.data.datasets.{self.eva}"

        parts: tuple[EvaSplit, EvaSplit] = ("train", "val")
        return {part: [self.case_of(name) for name in Task.eva_files(root, part)] for part in parts}


def _numbered(pattern: str, *ranges: range) -> tuple[str, ...]:
    return tuple(pattern.format(number) for numbers in ranges for number in numbers)


def _shipped(task: str) -> tuple[str, ...]:
    table = SplitTable.read(TASKS / "splits" / f"{task}.csv")
    return tuple(sorted(case for cases in table.cases.values() for case in cases))


def _word(folders: str, numbers: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{folders}/word_{number:04d}" for number in numbers)


RELEASES: dict[str, Release] = {
    "btcv": Release(
        "BTCV",
        "imagesTr/img{}.nii.gz",
        "labelsTr/label{}.nii.gz",
        _numbered("{:04d}", range(1, 11), range(21, 41)),
        "btcv",
        "segmentation/btcv.py",
    ),
    "flare22": Release(
        "FLARE22",
        "FLARE22Train/images/FLARE22_Tr_{}_0000.nii.gz",
        "FLARE22Train/labels/FLARE22_Tr_{}.nii.gz",
        _numbered("{:04d}", range(1, 51)),
        "flare22",
        "segmentation/flare22.py",
    ),
    "word": Release(
        "WORD",
        "WORD-V0.1.0/images{}.nii.gz",
        "WORD-V0.1.0/labels{}.nii.gz",
        _word("Tr", tuple(n for n in range(1, 151) if n not in {*WORD_VAL, *WORD_TEST})) + _word("Val", WORD_VAL),
        "word",
        "segmentation/word.py",
    ),
    "lits17": Release(
        "LiTS17",
        "volume-{}.nii",
        "segmentation-{}.nii",
        _numbered("{}", range(131)),
        "lits17-eva",
        "segmentation/lits17.py",
    ),
    "kits23": Release(
        "KiTS23",
        "case_{}/imaging.nii.gz",
        "case_{}/segmentation.nii.gz",
        _numbered("{:05d}", range(300), range(400, 589)),
        "kits23-eva",
        "segmentation/kits23.py",
        lambda name: PurePath(name).parent.name,
    ),
    "msd_pancreas": Release(
        "MSDTask7Pancreas",
        "imagesTr/{}_0000.nii.gz",
        "labelsTr/{}.nii.gz",
        _shipped("msd_pancreas"),
        "msd_pancreas-eva",
        "segmentation/metadata/_msd_task7_pancreas.py",
    ),
}
"""By task."""

_LUNA25 = (
    "Nodules of LUNA25 by AnnotationID; patients and labels: the list that splits/luna25.csv names (CC BY 4.0).",
    "The split that LUNA25 in kaiko-eva would make (src/eva/vision/data/datasets/classification/luna25.py: six, two",
    "and two tenths of the patients, dealt out by the label of each one's first nodule, seed 42) and never does: the",
    "class cannot be instantiated, and lists all nodules for every part. eva's val selects, its test is reported.",
)


def segmentation_table(task: str) -> str:
    """Returns the table of a segmentation task, from the installed eva."""
    release = RELEASES[task]
    with tempfile.TemporaryDirectory() as folder:
        release.write(Path(folder))
        lists = {part: {case: case for case in cases} for part, cases in release.lists(Path(folder)).items()}
    table = split_of(lists, f"{task} v1", "", release.eva)
    return table.to_csv(
        f"The lists of {release.eva} in kaiko-eva {importlib.metadata.version('kaiko-eva')}",
        f"(src/eva/vision/data/datasets/{release.file}): test is its val; train and val are its train.",
        f'val: the tenth of its train whose SHA-256 of "{task} v1:<case>" comes first.',
        _ONE_A_SCAN,
        "Made by: python -m tools.splits.eva_splits",
    )


def luna25_table(nodules: Path) -> str:
    """Returns the table of LUNA25, from the installed eva.

    Args:
        nodules: The release's list.
    """
    from eva.vision.data.datasets import LUNA25 as EvaLUNA25

    class Listed(EvaLUNA25):
        """eva's class with what it lacks."""

        def filename(self, index: int) -> str:
            return str(self._candidates["AnnotationID"][index])

    known = read_nodules(nodules, COLUMNS)
    lists: dict[EvaSplit, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "LUNA25_Public_Training_Development_Data.csv").symlink_to(nodules.resolve())
        for part in ("train", "val", "test"):
            dataset = Listed(folder, part)
            dataset.configure()
            cases = [dataset.filename(index) for index in dataset._get_split_indices()]
            lists[part] = {case: known[case].patient for case in cases}
    table = split_of(lists, "luna25 v1", "", str(nodules))
    return table.to_csv(*_LUNA25, "Made by: python -m tools.splits.eva_splits")


def main(out: Path, nodules: Path | None = None) -> None:
    """Writes the tables.

    Args:
        out: Folder for the tables.
        nodules: LUNA25's list; without it, LUNA25's table is left as it is.
    """
    tables = {release.table: segmentation_table(task) for task, release in RELEASES.items()}
    if nodules is not None:
        tables["luna25-eva"] = luna25_table(nodules)
    for name, table in tables.items():
        write_atomically(out / f"{name}.csv", table)
        print(f"{name}.csv: {SplitTable.read(out / f'{name}.csv').counts}")


if __name__ == "__main__":
    jsonargparse.auto_cli(main)
