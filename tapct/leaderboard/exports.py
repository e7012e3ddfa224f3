"""The board as data: CSV and JSON, from the same rows."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tapct import kinds, numeric
from tapct.leaderboard import imported, marks, mistakes, shortcuts
from tapct.leaderboard.board import Board, Model, Task
from tapct.leaderboard.compared import PROTOCOLS
from tapct.leaderboard.eva_results import NOT_RANKED, as_rows
from tapct.leaderboard.marks import Marked
from tapct.leaderboard.paper import AVERAGE, PAPER, PaperRow
from tapct.leaderboard.reproduction import METRICS, SPLITS_DIFFER, Ours, Reproduction, family_of
from tapct.leaderboard.text import as_csv, plain
from tapct.records import Protocol, Recorded
from tapct.statistics.intervals import Estimate

ALL_TASKS = "(mean rank)"
"""Stands for the task in rows of the mean rank."""


@dataclass(frozen=True, kw_only=True)
class ExportedRow:
    """A number of the leaderboard; or the lack of it, with the reason.

    Attributes:
        source: `record`, or `paper` for a reference that is not ranked.
        own_because: Why the record is in a section of its own; empty where it compares with the shipped protocol.
        model: The model.
        task: The task; `(mean rank)` where the number is a mean rank over the tasks of the family.
        family: The kind of task, or all.
        protocol: native or paper; empty where it makes no difference.
        metric: The metric, by its name in a record or in the paper.
        unit: Its unit; empty where it has none.
        lower_is_better: Whether a lower number is better.
        value: The number: the mean over seeds.
        low: Lower end of its 95 % interval over patients; of a mean rank, of the ranks that are left open.
        high: Upper end.
        rank_low: Best rank that the model may have.
        rank_high: Worst rank that it may have.
        tie_groups: Letters of the groups it is in, with blanks between; models that share one cannot be told apart.
        seed_spread: Standard deviation over the seeds, or over the paper's three runs.
        seeds: Number of seeds.
        patients: Number of patients.
        cases: Number of cases.
        reason: Why something is missing, or where a reference is from.
        marks: Ids of the warnings that stand next to the number (`tapct.leaderboard.marks`).
        notice: What must stand next to the number, in words.
        older_protocol: How the number, or a part of a mean rank, was made otherwise than today's; empty if it was not.
        overlap: Pretraining data, as the card names them, that hold scans of the task.
        adaptor: What stands on the features (classification).
        cell_z_mm: Distance between patches along z (segmentation), the median over the cases.
        cell_y_mm: Along y.
        cell_x_mm: Along x.
        cell_size_dice: Dice of the patch-size reference, native grid: a reference, not a bound.
        share_reached: The number as a share of it.
        flags: Ids of the record's red flags.
        weights_sha256: Hash of the weights.
        weights_licence: Their licence, as the card states it; empty where it does not, and of random weights.
        non_commercial: Whether it is not for commercial use; None of what has no licence.
        record: Fingerprint of the record.
    """

    source: str
    own_because: str = ""
    model: str
    task: str
    family: str
    protocol: str = ""
    metric: str = ""
    unit: str = ""
    lower_is_better: bool | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    tie_groups: str = ""
    seed_spread: float | None = None
    seeds: int | None = None
    patients: int | None = None
    cases: int | None = None
    reason: str = ""
    marks: str = ""
    notice: str = ""
    older_protocol: str = ""
    overlap: str = ""
    adaptor: str = ""
    cell_z_mm: float | None = None
    cell_y_mm: float | None = None
    cell_x_mm: float | None = None
    cell_size_dice: float | None = None
    share_reached: float | None = None
    flags: str = ""
    weights_sha256: str = ""
    weights_licence: str = ""
    non_commercial: bool | None = None
    record: str = ""


def rows(board: Board) -> list[ExportedRow]:
    """Returns the mean ranks, then every experiment, then what is in sections of its own, then the paper's numbers."""
    own = (replace(row, own_because=own.why) for own in board.own for row in _experiments(own.board))
    return [*_mean_ranks(board), *_experiments(board), *own, *map(_reference, board.references)]


def _mean_ranks(board: Board) -> Iterator[ExportedRow]:
    for (family, protocol), models in board.overall.items():
        for model in board.models:
            if model.name in models:
                rank = models[model.name].mean_rank
                yield ExportedRow(
                    source="record",
                    model=model.name,
                    task=ALL_TASKS,
                    family=family,
                    protocol=protocol,
                    metric="mean_rank",
                    **_warnings(board.rank_marks(model, family)),
                    **_licence(model),
                    **_numbers(rank),
                )


def _experiments(board: Board) -> Iterator[ExportedRow]:
    for task in board.tasks:
        for protocol in PROTOCOLS if task.by_protocol else PROTOCOLS[:1]:
            for model in board.models if task.summaries else ():
                yield _experiment(board, model, task, protocol)


def _experiment(board: Board, model: Model, task: Task, protocol: Protocol) -> ExportedRow:
    summary, one = task.summaries[protocol], task.summary(model.name, protocol)
    base: dict[str, Any] = {
        "source": "record",
        "model": model.name,
        "task": task.name,
        "family": task.family,
        "protocol": protocol if task.by_protocol else "",
        "metric": summary.metric,
        "unit": summary.unit or "",
        "lower_is_better": summary.sign < 0,
        "overlap": "; ".join(model.overlap(task.name)),
        "adaptor": task.adaptor or "",
    }
    if one is None:
        return ExportedRow(**base, reason=board.why_missing(model, task))
    record = model.entries[task.name].record
    low, high = task.rank_interval(model.name, protocol) or (None, None)
    return ExportedRow(
        **base,
        **_numbers(one.estimate),
        rank_low=low,
        rank_high=high,
        tie_groups=" ".join(task.tie_groups(model.name, protocol)),
        seed_spread=one.seed_spread,
        seeds=len(one.seeds),
        patients=summary.num_patients,
        cases=summary.num_cases,
        **_warnings(board.marks(model, task)),
        **(_patch_size(record, one.estimate.value) if protocol == "native" else {}),
        flags=" ".join(flag.id for flag in record.flags),
        weights_sha256=record.encoder.weights_sha256 or "",
        **_licence(model),
        record=record.fingerprint,
    )


def _warnings(found: Sequence[Marked]) -> dict[str, Any]:
    """Returns marks as columns: the ids of all, and in words what is said of the whole number."""
    words = {one.mark: one.says for one in found}
    noticed = (marks.DEMONSTRATION, marks.NOTICED, marks.EXTERNALLY_TRAINED)
    notice = " ".join(words[mark] for mark in noticed if mark in words)
    older = words.get(marks.OLDER, "").removeprefix("older protocol: ")
    return {"marks": " ".join(one.mark.id for one in found), "notice": notice, "older_protocol": older}


def _licence(model: Model) -> dict[str, Any]:
    licence = None if model.random else model.card.weights.licence
    return {"weights_licence": licence or "", "non_commercial": model.non_commercial if licence else None}


def _patch_size(record: Recorded, value: float | None) -> dict[str, Any]:
    size = record.cell_size
    if size is None:
        return {}
    lengths = zip(("cell_z_mm", "cell_y_mm", "cell_x_mm"), size.size_mm, strict=True)
    return {**dict(lengths), "cell_size_dice": size.dice, "share_reached": share_reached(record, value)}


def share_reached(record: Recorded, value: float | None) -> float | None:
    """Returns a Dice on the native grid as a share of the patch-size reference; None where either is missing or 0."""
    reference = None if record.cell_size is None else record.cell_size.dice
    return value / reference if value is not None and reference else None


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "reason": estimate.reason or ""}


def _reference(row: PaperRow) -> ExportedRow:
    family = family_of(row.metric)
    where = ", ".join(filter(None, (f"Table {row.table}", row.settings, *sorted(row.notes))))
    return ExportedRow(
        source="paper",
        model=row.model,
        task=row.task,
        family=family,
        protocol="paper" if kinds.kind(family).on_paper_grid else "",
        metric=row.metric,
        value=row.mean,
        seed_spread=row.std,
        seeds=3 if row.std is not None else None,
        reason=where,
        notice="on the paper's own, unpublished splits: for reference, not ranked",
    )


# -- Formats -------------------------------------------------------------------------------------------


def to_csv(board: Board) -> str:
    """Returns one line per number; undefined is empty."""
    return as_csv([asdict(row) for row in rows(board)])


ADAPTORS_FILE = "adaptors.csv"


def adaptors_to_csv(board: Board) -> str | None:
    """Returns a line per model and adaptor of the tasks that were run with several; None without any."""
    found = [row for task in _crossed(board) for row in _adaptor_rows(task)]
    return as_csv(found) if found else None


def _crossed(board: Board) -> list[Task]:
    """Returns the tasks that were run with several adaptors, those of sections of their own among them."""
    return [task for each in [board, *(own.board for own in board.own)] for task in each.tasks if task.grid]


def _adaptor_rows(task: Task) -> Iterator[dict[str, Any]]:
    grid = task.grid
    assert grid is not None
    for model, adaptor in itertools.product(grid.models, grid.adaptors):
        one = grid.experiments.get((model, adaptor))
        number = one.estimate if one else Estimate(None, None, None, "not run")
        yield {
            **{"task": task.name, "metric": grid.metric, "unit": task.of_metric.unit_of(task.target_unit) or ""},
            **{"model": model, "adaptor": adaptor},
            **{"ranked": adaptor == grid.ranked, **_numbers(number)},
            **{"seed_spread": one.seed_spread if one else None, "patients": grid.num_patients},
            "notice": " ".join(filter(None, [grid.notice, *grid.warnings])),
        }


def _adaptors(task: Task) -> dict[str, Any]:
    """Returns a task's grid and the components of its variance, as JSON has them."""
    grid = task.grid
    assert grid is not None
    models, adaptors = grid.crossed
    components = [asdict(component) for component in grid.components]
    variance = {"models": models, "adaptors": adaptors, "reason": grid.reason, "components": components}
    return {"task": task.name, "cells": [*_adaptor_rows(task)], "variance": variance}


REPRODUCTION_FILE = "paper_and_this_run.csv"


def reproduction_to_csv(board: Board) -> str | None:
    """Returns a line per cell of the paper and record of it, also where there is none; None without any record."""
    found = board.reproduction
    return as_csv(_reproduction_rows(found)) if found and found.any_ours else None


def _reproduction_rows(found: Reproduction) -> list[dict[str, Any]]:
    return [_pair(cell.row, one) for cell in found.cells for one in cell.ours or (None,)]


def _pair(row: PaperRow, one: Ours | None) -> dict[str, Any]:
    """Returns a number of the paper and ours, if there is one, as columns."""
    setup = row.setup
    difference, ranked = (one.difference, one.ranked) if one else (None, None)
    return {
        **{"table": row.table, "paper_model": row.model, "task": row.task, "settings": row.settings or ""},
        **{"encoder": setup.encoder, "in_plane_size": setup.in_plane_size, "adaptor": row.adaptor or ""},
        **{"paper_metric": row.metric, "paper_mean": row.mean, "paper_sd": row.std},
        "paper_notes": " ".join(sorted(row.notes)),
        **{"model": one.model if one else "", "metric": one.metric if one else METRICS[row.metric]},
        **_ends("ours", one.estimate if one else None),
        **{"ours_sd_over_seeds": one.seed_spread if one else None, "seeds": one.seeds if one else None},
        "patients": one.patients if one else None,
        **_ends("difference", difference),
        **{"ranked_as": one.ranked_as if one else "", **_ends("ranked", ranked)},
        "marks": " ".join(found.mark.id for found in one.marks) if one else "",
        "protocol_differs": "; ".join(one.said) if one else "",
        "record": one.record if one else "",
        "to_do": "" if one or row.task == AVERAGE else f"tapct run --suite {row.suite}",
    }


def _ends(name: str, found: Estimate | None) -> dict[str, float | None]:
    value, low, high = (found.value, found.low, found.high) if found else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


EVA_FILE = "eva_results.csv"


def eva_to_csv(board: Board) -> str:
    """Returns what stock runs of eva's reported."""
    return as_csv(as_rows(board.eva))


def to_json(board: Board) -> str:
    """Returns the rows with the legend of their marks, differences, adaptors, the paper's cells, what was left out."""
    differences = [
        {"task": task.name, "protocol": protocol if task.by_protocol else "", **asdict(difference)}
        for task in board.tasks
        if task.summaries
        for protocol in (PROTOCOLS if task.by_protocol else PROTOCOLS[:1])
        for difference in task.summaries[protocol].comparison.differences
    ]
    content = {
        "paper": PAPER,
        "notices": board.notices,
        "suite": {"tasks": board.suite.tasks, "declared": board.suite.declared},
        "marks": {mark.id: mark.text for mark in board.legend},
        "rows": [asdict(row) for row in rows(board)],
        "differences": differences,
        "adaptors": [_adaptors(task) for task in _crossed(board)],
        "paper_and_this_run": _reproduction(board.reproduction),
        "mistakes": mistakes.as_rows(board.mistakes),
        "imported": imported.as_rows(board.imported),
        "shortcuts": shortcuts.rows(board),
        "eva": {"note": NOT_RANKED, "rows": as_rows(board.eva)} if board.eva else None,
        "left_out": [asdict(out) for out in board.left_out],
    }
    return json.dumps(_printable(numeric.rounded(content)), indent=1, ensure_ascii=False) + "\n"


def _reproduction(found: Reproduction | None) -> dict[str, Any] | None:
    """Returns the paper's cells with ours as JSON has them; None where none was run."""
    if found is None or not found.any_ours:
        return None
    return {"note": SPLITS_DIFFER, "cells": _reproduction_rows(found), "of_no_cell": found.other}


def _printable(content: Any) -> Any:
    """Returns content in which no text holds what cannot be seen."""
    match content:
        case str():
            return plain(content)
        case dict():
            return {key: _printable(value) for key, value in content.items()}
        case list() | tuple():
            return [_printable(value) for value in content]
    return content


def ordered(board: Board, family: str, protocol: Protocol = "native") -> list[Model]:
    """Returns the models by their mean rank in a family, those without one last; of a single task by their score."""
    found, tasks = board.overall[family, protocol], board.family(family)
    ranks = [found[model.name].mean_rank.value if model.name in found else None for model in board.models]
    if len(tasks) == 1 and not any(rank is not None for rank in ranks):
        return by_score(tasks[0], board.models)
    return [board.models[place] for place in numeric.best_first(ranks, sign=-1)]


def by_score(task: Task, models: Sequence[Model]) -> list[Model]:
    """Returns models by their score on a task, best first; those without one last."""
    summary = task.summaries["native"]
    values = {one.name: one.estimate.value for one in summary.models}
    return [models[place] for place in numeric.best_first([values.get(model.name) for model in models], summary.sign)]
