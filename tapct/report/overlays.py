"""Overlays of several models on cases that a rule picks, so that nobody picks the pictures."""

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from tapct._utils.files import write_atomically
from tapct.errors import RecordError, nearest
from tapct.names import file_in
from tapct.probes.predictions import LocatedRecord, Prediction, predict
from tapct.viz.overlay import draw_overlay

RULES = ("best", "median", "worst")


def draw_overlays(
    records: Sequence[Path],
    folder: Path,
    cases: Sequence[str] = RULES,
    judge: str = "mean",
    *,
    data_root: str | None = None,
    window: str = "soft-tissue",
    slices: int = 3,
    device: str = "cpu",
    weights: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Draws a picture a case: the scan, the truth, and the prediction of each record's first run.

    Args:
        records: Records of one segmentation task.
        folder: Where to write `CASE.png` and `cases.csv`.
        cases: Rules (`RULES`) and names of cases.
        judge: What the rules go by; see `ranked`.
        data_root: Folder that holds one folder per task; None for a task that ships with its data.
        window: One of `tapct.viz.canvas.WINDOWS_HU`.
        slices: Slices of each case.
        device: Where to compute.
        weights: Files of weights that are not the published ones, by encoder.
        places: Where encoders are that are not installed, by encoder.

    Yields:
        The files, as they are written.

    Raises:
        RecordError: If the records do not go together, or their predictions cannot be made again.
    """
    found = [LocatedRecord.at(path) for path in records]
    _check_together(found)
    chosen = choose(found, cases, judge)
    names = _names(found)
    predicted = {
        name: predict(
            one,
            list(chosen),
            data_root,
            torch.device(device),
            (weights or {}).get(one.record.encoder.card.name),
            places,
        )
        for name, one in zip(names, found, strict=True)
    }
    task, notice = found[0].record.task, found[0].record.notice
    for case, why in chosen.items():
        models = {name: of[case] for name, of in predicted.items()}
        one = next(iter(models.values()))
        path = file_in(folder, case, ".png")
        title = f"{task.name}, case {case}{f' ({why})' if why else ''}"
        columns = {_heading(name, p): p.labels for name, p in models.items()}
        draw_overlay(
            *(path, one.scan.hu, one.scan.grid, one.truth, columns, list(task.classes), title),
            notice=notice,
            slices=slices,
            window=window,
        )
        yield path
    path = folder / "cases.csv"
    write_atomically(path, _table(chosen, predicted))
    yield path


def choose(found: Sequence[LocatedRecord], cases: Sequence[str], judge: str) -> dict[str, str]:
    """Returns the cases to draw, in the order asked for, each with the rule that picked it (empty for a name).

    Raises:
        RecordError: If a name is neither a rule nor a case that all records report.
    """
    order = ranked(found, judge)
    picks = {"best": order[-1], "median": order[(len(order) - 1) // 2], "worst": order[0]}
    chosen: dict[str, str] = {}
    for name in cases:
        if name in picks:
            rules = chosen.get(picks[name], "")
            chosen[picks[name]] = f"{rules}, {name}" if rules else name
        elif all(name in one.cases() for one in found):
            chosen.setdefault(name, "")
        else:
            known = [*RULES, *found[0].cases()]
            raise RecordError(f"'{name}' is neither a rule nor a case that all records report. {nearest(name, known)}")
    return chosen


def ranked(found: Sequence[LocatedRecord], judge: str = "mean") -> list[str]:
    """Returns the cases from the worst to the best.

    A case's score is its Dice on the scan's grid: the mean over the classes that it defines, then over the runs of a
    record, then over the records ("mean"), or of the first record alone ("first"). Equal ones go by name. A case that
    some record leaves undefined or does not report has no place.

    Raises:
        RecordError: If `judge` is neither, or no case is left.
    """
    if judge not in ("mean", "first"):
        raise RecordError(f"cases are judged by the 'mean' of the records or by the 'first', not by '{judge}'")
    tables = [_scores(one) for one in (found if judge == "mean" else found[:1])]
    shared = set.intersection(*(set(table) for table in tables), *(set(one.cases()) for one in found))
    if not shared:
        raise RecordError("the records report no case in common that has a Dice")
    return sorted(shared, key=lambda case: (statistics.mean(table[case] for table in tables), case))


def _scores(found: LocatedRecord) -> dict[str, float]:
    """Returns the mean Dice of each case over the runs, where every run has one."""
    scores: dict[str, list[float]] = {}
    for run in found.record.runs:
        for case in run.cases[found.split]:
            defined = [v for v in (case.by_class("dice_native") or {}).values() if v is not None]
            if defined:
                scores.setdefault(case.case, []).append(statistics.mean(defined))
    return {case: statistics.mean(of) for case, of in scores.items() if len(of) == len(found.record.runs)}


def _check_together(found: Sequence[LocatedRecord]) -> None:
    def what(one: LocatedRecord) -> list[object]:
        task = one.record.task
        return [task.name, task.version, task.classes, task.options]

    if other := next((one for one in found if what(one) != what(found[0])), None):
        raise RecordError(f"{found[0].path} and {other.path} are of other tasks, versions or options: draw them apart")


def _names(found: Sequence[LocatedRecord]) -> list[str]:
    """Returns what stands above each column; two of one name are told apart by their folders."""
    names = [one.model for one in found]
    return [
        name if names.count(name) == 1 else f"{name}\n{one.path.absolute().parent.name}"
        for name, one in zip(names, found, strict=True)
    ]


def _heading(name: str, prediction: Prediction) -> str:
    return name if prediction.dice is None else f"{name}\nDice {prediction.dice:.3f}"


def _table(chosen: dict[str, str], predicted: dict[str, dict[str, Prediction]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "rule", "model", "dice"])
    for case, why in chosen.items():
        for name, of in predicted.items():
            dice = of[case].dice
            writer.writerow([case, why, name.replace("\n", " "), "" if dice is None else f"{dice:.6f}"])
    return text.getvalue()
