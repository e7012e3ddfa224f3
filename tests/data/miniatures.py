"""Tasks in small, in their releases' layouts: real CT of a few slices, a few cases, splits of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tapct.tasks import task_class
from tapct.tasks.nodules import read_nodules
from tests.data import (
    amos22,
    fdg_pet_ct,
    ictcf,
    kits23,
    lits17,
    luna16,
    luna25,
    msd_pancreas,
    osic,
    rsna2022,
    rsna2023,
    totalsegmentator,
)
from tests.tasks.end_to_end import CONFIGS

Rows = Sequence[tuple[str, str, str]]
"""Case, patient, side."""


def write(root: Path, tasks: Sequence[str]) -> Path:
    """Writes data under `root`, which is then the DATA_ROOT, and configs.

    Each config is the shipped one but for its split, which is that of the few cases that are there, and that no
    pictures are drawn.

    Returns:
        The folder of the configs, as `tapct run --configs` takes it.
    """
    for task in tasks:
        split = root / "splits" / f"{task}.csv"
        split.parent.mkdir(parents=True, exist_ok=True)
        rows = EVERY[task](root / task_class(task).spec.folder)
        split.write_text("\n".join(["case,patient,split", *map(",".join, rows), ""]), encoding="utf-8")
        (shipped,) = CONFIGS.glob(f"*/{task}.yaml")
        text = shipped.read_text(encoding="utf-8")
        assert "${oc.env:SPLIT_FILE, null}" in text
        config = root / "configs" / shipped.parent.name / shipped.name
        config.parent.mkdir(parents=True, exist_ok=True)
        text = text.replace("${oc.env:SPLIT_FILE, null}", str(split)).replace("overlays: 3", "overlays: 0")
        config.write_text(text, encoding="utf-8")
    return root / "configs"


def _sides(train: str, val: str, test: str) -> Rows:
    return [(case, case, s) for s, cases in (("train", train), ("val", val), ("test", test)) for case in cases.split()]


def _amos22(root: Path) -> Rows:
    amos22.write(root)
    return _sides("amos_0001", "amos_0006", "amos_0008")


def _lits17(root: Path) -> Rows:
    lits17.write(root)
    return _sides("volume-0 volume-130", "volume-10", "volume-14")


def _kits23(root: Path) -> Rows:
    kits23.write(root)
    return _sides("case_00000 case_00299", "case_00400", "case_00005")


def _totalsegmentator(root: Path) -> Rows:
    totalsegmentator.write(root)
    return _sides("s0001", "s0029", "s0013")


def _msd_pancreas(root: Path) -> Rows:
    msd_pancreas.write(root)
    return _sides("pancreas_001", "pancreas_004", "pancreas_012")


def _luna16(root: Path) -> Rows:
    """Six nodules, one a scan and patient, one malignant and one not on each side."""
    nodules = read_nodules(luna16.LIST, luna16.COLUMNS)
    alone = {of.series: case for case, of in nodules.items()}  # one a scan
    rows: list[tuple[str, str, str]] = []
    for side in ("train", "val", "test"):
        for malignant in (0, 1):
            taken = {patient for _, patient, _ in rows}
            case = next(
                case
                for case in alone.values()
                if nodules[case].malignant == malignant and nodules[case].patient not in taken
            )
            rows.append((case, nodules[case].patient, side))
    luna16.write(root, [case for case, _, _ in rows])
    return rows


def _luna25(root: Path) -> Rows:
    """Six nodules of as many patients."""
    sides = ("train", "train", "val", "val", "test", "test")
    nodules = [luna25.Annotation(100570 + number, number % 2) for number in range(len(sides))]
    luna25.write(root, nodules)
    return [(one.case, str(one.patient), side) for one, side in zip(nodules, sides, strict=True)]


def _rsna2022(root: Path) -> Rows:
    """Six studies; those of odd numbers have a fracture."""
    studies = rsna2022.write_release(root)
    sides = {0: "train", 1: "train", 2: "val", 5: "val", 3: "test", 4: "test"}
    return [(studies[number], studies[number], side) for number, side in sides.items()]


def _rsna2023(root: Path) -> Rows:
    """Seven series of five patients."""
    series = rsna2023.write_release(root)
    sides = {"900001": "train", "900002": "val", "900003": "train", "900004": "test", "900005": "test"}
    return [(case, case.split("/")[0], sides[case.split("/")[0]]) for case in series]


def _fdg_pet_ct(root: Path) -> Rows:
    """Seven studies of five patients."""
    studies = list(fdg_pet_ct.write_release(root))
    sides = ("test", "test", "val", "val", "val", "train", "train")
    return [(case, case.split("/")[0], side) for case, side in zip(studies, sides, strict=True)]


def _patients(root: Path) -> Rows:
    """TotalSegmentator's tasks of a number a scan."""
    totalsegmentator.write_patients(root)
    return _sides("s0001 s0002 s0004 s0011", "s0013", "s0029 s0235")


def _osic(root: Path) -> Rows:
    cases = osic.write(root)
    return _sides(" ".join(cases[:3]), cases[3], " ".join(cases[4:]))


def _ictcf(root: Path) -> Rows:
    cases = ictcf.write(root)
    return _sides(" ".join(cases[:3]), cases[3], " ".join(cases[4:]))


SEGMENTATION: dict[str, Callable[[Path], Rows]] = {
    "amos22": _amos22,
    "lits17": _lits17,
    "kits23": _kits23,
    "totalsegmentator": _totalsegmentator,
    "msd_pancreas": _msd_pancreas,
}

CLASSIFICATION: dict[str, Callable[[Path], Rows]] = {
    "luna16": _luna16,
    "luna25": _luna25,
    "rsna2022": _rsna2022,
    "rsna2023": _rsna2023,
    "fdg_pet_ct": _fdg_pet_ct,
}

REGRESSION: dict[str, Callable[[Path], Rows]] = {
    "totalsegmentator_age": _patients,
    "totalsegmentator_organ_volume": _patients,
    "osic_fvc": _osic,
    "ictcf_lab": _ictcf,
}

TASKS = SEGMENTATION | CLASSIFICATION
"""The ten tasks of the benchmark."""

EVERY = TASKS | REGRESSION | {"totalsegmentator_sex": _patients}
