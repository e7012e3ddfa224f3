"""How large the scans of a task are: from their headers where they are there, else what is typical of it."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from tapct._utils import terminal
from tapct._utils.files import stamp_of
from tapct.errors import TapctError, TaskError
from tapct.sweep.bill.remembered import Remembered, key_of
from tapct.sweep.bill.settings import Data
from tapct.tasks import CTDataset, list_tasks, task_class, task_datasets, task_root
from tapct.tasks.crops import CroppedDataset
from tapct.tasks.pack import Pack
from tapct.tasks.splits import SPLITS, FoldTable, read_split
from tapct.tasks.tables import read_table
from tapct.tasks.varied import varied
from tapct.volumes import Grid, crop_grid, files_of

READERS = 8
"""Processes that read headers, where there are many: a DICOM series has hundreds."""

FEW = 100
"""Cases that are not worth starting processes for."""


@dataclass(frozen=True)
class BilledScan:
    """A scan that is encoded.

    Attributes:
        case: Its case.
        grid: Where its voxels lie.
        spacing_mm: That of the grid.
        perturbation: What is done to it before it is encoded; None for nothing.
        place: Its dataset and its index there; None where it is not there.
    """

    case: str
    grid: Grid
    spacing_mm: tuple[float, float, float]
    perturbation: str | None = None
    place: tuple[CTDataset, int] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Scans:
    """The scans of an experiment.

    Attributes:
        scans: Each of them.
        typical: What is taken for typical, and from where; None where headers were read.
        parts: The datasets, by split; none where the scans are not there.
    """

    scans: Sequence[BilledScan]
    typical: str | None
    parts: Mapping[str, CTDataset] = field(default_factory=dict)


def root_of(data: Data) -> Path | None:
    """Returns the folder of an experiment's task; None where its data are not there.

    As in an experiment that runs, a task that ships with its data uses them where the data root has no folder of its
    name.
    """
    try:
        return task_root(data.task, data.root)
    except TaskError:
        return task_class(data.task).shipped_root


def scans_of(data: Data, remembered: Remembered) -> Scans:
    """Returns the scans of an experiment.

    Args:
        data: What scans are read.
        remembered: Where what headers said is remembered.

    Raises:
        TapctError: If the task is unknown, a header cannot be read, or nothing typical is known of the task.
    """
    if data.pack is not None:
        raise TaskError(f"its features come from the pack {Pack.find(data.pack).name}: nothing is encoded or stored")
    root = root_of(data)
    return _typical(data) if root is None else _of_headers(data, root, remembered)


# -- Headers ---------------------------------------------------------------------------------------------


def _of_headers(data: Data, root: Path, remembered: Remembered) -> Scans:
    whole = task_datasets(data.task, root, data.split_file, json.loads(data.options))
    parts = {name: part for name, part in varied(whole, data.fraction, data.draw, data.perturbation).items() if part}
    places = [(part, index) for part in parts.values() for index in range(len(part))]
    grids = _grids(places, remembered)
    names = {split: data.perturbation if split == "test" else None for split in SPLITS}
    # Cases of a cross-validated task train and are reported: each is encoded once.
    scans = {
        (part.cases[index], names[part.split]): BilledScan(
            part.cases[index], grid, grid.spacing_mm, names[part.split], (part, index)
        )
        for (part, index), grid in zip(places, grids, strict=True)
    }
    return Scans(list(scans.values()), None, parts)


def _grids(places: Sequence[tuple[CTDataset, int]], remembered: Remembered) -> list[Grid]:
    keys = [_key(part, part.cases[index]) for part, index in places]
    known = {key: remembered.get(key) for key in keys}
    todo = {key: place for key, place in zip(keys, places, strict=True) if known[key] is None}
    for key, found in zip(todo, _read(list(todo.values())), strict=True):
        if isinstance(found, str):
            raise TaskError(f"{found.rstrip('.')}. `tapct doctor --task {places[0][0].spec.name}` lists all such cases")
        known[key] = found
        remembered.put(key, found)
    return [Grid.of(known[key][0], np.array(known[key][1])) for key in keys]


def _key(part: CTDataset, case: str) -> str:
    stamps = [(str(file.absolute()), stamp_of(file)) for path in part.scan_paths(case) for file in files_of(path)]
    return key_of(part.reading, case, stamps)


def _read(places: Sequence[tuple[CTDataset, int]]) -> Iterator[tuple[list[int], list[list[float]]] | str]:
    if not places:
        return iter(())
    headers = _Headers(places)
    if len(places) < FEW:
        return (headers[position] for position in range(len(headers)))
    loader = DataLoader(headers, batch_size=None, num_workers=READERS)
    return terminal.track(loader, f"headers of {places[0][0].spec.name}", total=len(places))


class _Headers(Dataset):
    """Shapes and affines of cases, or why one cannot be read."""

    def __init__(self, places: Sequence[tuple[CTDataset, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> tuple[list[int], list[list[float]]] | str:
        part, index = self._places[position]
        try:
            grid = part.scan_grid(part.cases[index])
        except (TapctError, OSError) as error:
            return f"{part.spec.name}, case {part.cases[index]}: {error}"
        return list(grid.shape), grid.affine.tolist()


# -- Typical sizes ---------------------------------------------------------------------------------------


def _typical(data: Data) -> Scans:
    row = _rows().get(task_class(data.task).spec.folder) if data.task in list_tasks() else None
    if row is None:
        raise TaskError(f"the scans of {data.task} are not there, and no typical size of them is known")
    grid = Grid.of([int(row[n]) for n in ("slices", "rows", "columns")], np.diag([*_spacing(row), 1.0]))
    what, task = "scan", task_class(data.task)
    if issubclass(task, CroppedDataset):
        centre_mm = grid.affine[:3, :3] @ (np.array(grid.shape) // 2)
        edges = " x ".join(f"{edge:g}" for edge in (task.size_mm if len(set(task.size_mm)) > 1 else task.size_mm[:1]))
        grid, what = crop_grid(grid, centre_mm, task.size_mm, data.task), f"crop of {edges} mm"
    size = " x ".join(map(str, grid.shape))
    return Scans(list(_unread(data, grid)), f"{what} of {size} voxels: {row['source']}")


def _unread(data: Data, grid: Grid) -> Iterator[BilledScan]:
    """Yields as many scans as the split has, under numbers; draws of patients take others of them in turn."""
    task, spacing_mm = task_class(data.task), grid.spacing_mm
    if data.split_file is None:
        found = task.split_counts()
        assert found is not None  # else there would be no typical size
        counts = dict(zip(SPLITS, found, strict=True))
    else:
        counts = read_split(Path(data.split_file)).counts
    is_folded = data.split_file is None and isinstance(task.shipped_split(), FoldTable) and data.perturbation is None
    for split in SPLITS[1:] if is_folded else SPLITS:
        share = data.fraction if split == "train" else 1.0
        number, first = max(1, round(share * counts[split])) if counts[split] else 0, 0
        if share < 1:
            first = number * data.draw
        perturbation = data.perturbation if split == "test" else None
        cases = (f"{split} {(first + n) % counts[split]}" for n in range(number))
        yield from (BilledScan(case, grid, spacing_mm, perturbation) for case in cases)


def _spacing(row: Mapping[str, str]) -> list[float]:
    return [float(row[n]) for n in ("z_mm", "y_mm", "x_mm")]


@functools.cache
def _rows() -> dict[str, dict[str, Any]]:
    path = Path(str(files("tapct.sweep.bill"))) / "typical_sizes.csv"
    columns = ("task", "slices", "rows", "columns", "z_mm", "y_mm", "x_mm", "source")
    return {row["task"]: row for row in read_table(path, columns, what="list of sizes", comments=True)}
