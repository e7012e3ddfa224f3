"""The board as tables: CSV, JSON, Markdown and LaTeX, all from the same rows."""

import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from tapct import numeric
from tapct.leaderboard.adaptors import AdaptorGrid
from tapct.leaderboard.board import FAMILIES, METRICS, PROTOCOLS, Board, Family, Model, Task
from tapct.leaderboard.intervals import Estimate
from tapct.leaderboard.paper import PAPER, PaperRow
from tapct.records import Protocol, Record

ALL_TASKS = "(mean rank)"
"""Stands for the task in rows of the mean rank."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A number of the leaderboard; or the lack of it, with the reason.

    Attributes:
        source: `record`, or `paper` for a reference that is not ranked.
        model: The model.
        task: The task; `(mean rank)` where the number is a mean rank over the tasks of the family.
        family: segmentation, classification, or all.
        protocol: native or paper; empty where it makes no difference.
        metric: The metric, by its name in a record or in the paper.
        value: The number: the mean over seeds.
        low: Lower end of its 95 % interval over patients; of a mean rank, of the ranks that are left open.
        high: Upper end.
        rank_low: Best rank that the model may have.
        rank_high: Worst rank that it may have.
        tie_groups: Letters of the groups it is in; models that share one cannot be told apart.
        seed_spread: Standard deviation over the seeds, or over the paper's three runs.
        seeds: Number of seeds.
        patients: Number of patients.
        cases: Number of cases.
        reason: Why something is missing, or where a reference is from.
        notice: What must stand beside the number.
        older_protocol: How the number, or a part of a mean rank, was made otherwise than today's; empty if it was not.
        overlap: Pretraining data, as the card names them, that hold scans of the task.
        adaptor: What stands on the features (classification).
        cell_z_mm: Distance between feature cells along z (segmentation), the median over the cases.
        cell_y_mm: Along y.
        cell_x_mm: Along x.
        cell_size_dice: Dice of the cell-size reference, native grid: a reference and no bound.
        share_reached: The number as a share of it.
        flags: Ids of the record's red flags.
        weights_sha256: Hash of the weights.
        record: Fingerprint of the record.
    """

    source: str
    model: str
    task: str
    family: Family
    protocol: str = ""
    metric: str = ""
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
    record: str = ""


def rows(board: Board) -> list[Row]:
    """Returns the mean ranks, then every cell, then the paper's numbers."""
    return [*_mean_ranks(board), *_cells(board), *(_reference(board, row) for row in board.references)]


def _mean_ranks(board: Board) -> Iterator[Row]:
    for (family, protocol), models in board.overall.items():
        for model in board.models:
            if model.name in models:
                rank = models[model.name].mean_rank
                yield Row(
                    source="record",
                    model=model.name,
                    task=ALL_TASKS,
                    family=family,
                    protocol=protocol,
                    metric="mean_rank",
                    notice=board.notice(family),
                    older_protocol=board.older_protocol(model, family),
                    **_numbers(rank),
                )


def _cells(board: Board) -> Iterator[Row]:
    for task in board.tasks:
        for protocol in PROTOCOLS if task.by_protocol else PROTOCOLS[:1]:
            for model in board.models if task.summaries else ():
                yield _cell(board, model, task, protocol)


def _cell(board: Board, model: Model, task: Task, protocol: Protocol) -> Row:
    summary, one = task.summaries[protocol], task.summary(model.name, protocol)
    base: dict[str, Any] = {
        "source": "record",
        "model": model.name,
        "task": task.name,
        "family": task.family,
        "protocol": protocol if task.by_protocol else "",
        "metric": summary.metric,
        "overlap": "; ".join(model.overlap(task.name)),
        "adaptor": task.adaptor or "",
    }
    if one is None:
        return Row(**base, reason=board.why_missing(model, task))
    record = model.entries[task.name].record
    low, high = task.rank_interval(model.name, protocol) or (None, None)
    return Row(
        **base,
        **_numbers(one.estimate),
        rank_low=low,
        rank_high=high,
        tie_groups=task.letters(model.name, protocol),
        seed_spread=one.seed_spread,
        seeds=len(one.seeds),
        patients=summary.num_patients,
        cases=summary.num_cases,
        notice=summary.notice or "",
        older_protocol=model.older_protocol(task.name),
        **(_cell_size(record, one.estimate.value) if protocol == "native" else {}),
        flags=" ".join(flag.id for flag in record.flags),
        weights_sha256=record.encoder.weights_sha256 or "",
        record=record.fingerprint,
    )


def _cell_size(record: Record, value: float | None) -> dict[str, Any]:
    size = record.cell_size
    if size is None:
        return {}
    lengths = zip(("cell_z_mm", "cell_y_mm", "cell_x_mm"), size.size_mm, strict=True)
    return {**dict(lengths), "cell_size_dice": size.dice, "share_reached": share_reached(record, value)}


def share_reached(record: Record, value: float | None) -> float | None:
    """Returns a Dice on the native grid as a share of the cell-size reference; None where either is missing or 0."""
    reference = None if record.cell_size is None else record.cell_size.dice
    return value / reference if value is not None and reference else None


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "reason": estimate.reason or ""}


def _reference(board: Board, row: PaperRow) -> Row:
    family = next(task.family for task in board.tasks if task.name == row.task)
    where = ", ".join(filter(None, (f"Table {row.table}", row.settings, *sorted(row.notes))))
    return Row(
        source="paper",
        model=row.model,
        task=row.task,
        family=family,
        protocol="paper" if family == "segmentation" else "",
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
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(numeric.rounded(asdict(row)) for row in rows(board))
    return text.getvalue()


ADAPTORS_FILE = "adaptors.csv"


def adaptors_to_csv(board: Board) -> str | None:
    """Returns a line per model and adaptor of the tasks that were run with several; None without any."""
    found = [row for task in board.tasks if task.grid for row in _adaptor_rows(task, task.grid)]
    if not found:
        return None
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(numeric.rounded, found))
    return text.getvalue()


def _adaptor_rows(task: Task, grid: AdaptorGrid) -> Iterator[dict[str, Any]]:
    for model, adaptor in itertools.product(grid.models, grid.adaptors):
        one = grid.cells.get((model, adaptor))
        number = one.estimate if one else Estimate(None, None, None, "not run")
        yield {
            **{"task": task.name, "metric": grid.metric, "model": model, "adaptor": adaptor},
            **{"ranked": adaptor == grid.ranked, **_numbers(number)},
            **{"seed_spread": one.seed_spread if one else None, "patients": grid.num_patients},
            "notice": " ".join(filter(None, [grid.notice, *grid.warnings])),
        }


def _adaptors(task: Task, grid: AdaptorGrid) -> dict[str, Any]:
    """Returns a task's grid and the components of its variance, as JSON has them."""
    models, adaptors = grid.crossed
    components = [asdict(component) for component in grid.components]
    variance = {"models": models, "adaptors": adaptors, "reason": grid.reason, "components": components}
    return {"task": task.name, "cells": [*_adaptor_rows(task, grid)], "variance": variance}


def to_json(board: Board) -> str:
    """Returns the rows, with the differences between all pairs of models, the adaptors and what was left out."""
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
        "rows": [asdict(row) for row in rows(board)],
        "differences": differences,
        "adaptors": [_adaptors(task, task.grid) for task in board.tasks if task.grid],
        "left_out": [asdict(out) for out in board.left_out],
    }
    return json.dumps(numeric.rounded(content), indent=1, ensure_ascii=False) + "\n"


def to_markdown(board: Board) -> str:
    """Returns one table per family, under the native protocol."""
    lines = ["# Leaderboard", ""]
    for family in FAMILIES[1:]:
        tasks = board.family(family)
        if not tasks:
            continue
        lines += [f"## {family.capitalize()}", "", *(f"> {_markdown_text(text)}" for text in _notices(board, tasks))]
        heads = ["model", "mean rank", *(f"{t.title}, {METRICS[t.metric]}" for t in tasks)]
        lines += ["", *(_markdown_row(row) for row in (heads, ["---", *["---:"] * (len(tasks) + 1)]))]
        for model in ordered(board, family):
            cells = [_markdown_text(model.name), mean_rank(board, family, model), *(cell(t, model) for t in tasks)]
            lines.append(_markdown_row(cells))
        lines.append("")
    lines.append(_legend(board))
    return "\n".join(lines) + "\n"


LEGEND = (
    "Mean over seeds, 95 % interval over patients, [ranks that are left open] and tie groups: models that share a "
    "letter cannot be told apart. Native grid. A dash: no number; leaderboard.csv says why."
)


OLDER = "†"
"""Stands behind a number of an older protocol."""


def _legend(board: Board) -> str:
    older = board.older_protocols
    return LEGEND + (f" {OLDER} Older protocol: {older}." if older else "")


def ordered(board: Board, family: Family, protocol: Protocol = "native") -> list[Model]:
    """Returns the models by their mean rank in a family, those without one last."""
    found = board.overall[family, protocol]
    ranks = [found[model.name].mean_rank.value if model.name in found else None for model in board.models]
    return [board.models[place] for place in numeric.best_first(ranks, sign=-1)]


def mean_rank(board: Board, family: Family, model: Model) -> str:
    """Returns a mean rank with its interval, a dash where there is none."""
    found = board.overall[family, "native"].get(model.name)
    if found is None or found.mean_rank.value is None:
        return "–"
    return _with_interval(found.mean_rank, 1) + (f" {OLDER}" if board.older_protocol(model, family) else "")


def cell(task: Task, model: Model) -> str:
    """Returns a number with its interval, ranks and tie groups, a dash where there is none."""
    one = task.summary(model.name, "native")
    if one is None or one.estimate.value is None:
        return "–"
    text = _with_interval(one.estimate, 3)
    ranks = task.rank_interval(model.name, "native")
    text += f" [{ranks[0]}–{ranks[1]}] {task.letters(model.name, 'native')}" if ranks else ""
    return text + (f" {OLDER}" if model.older_protocol(task.name) else "")


def _with_interval(found: Estimate, decimals: int) -> str:
    """Returns a number that there is, with its interval if it has one."""
    numbers = (found.value, found.low, found.high)
    value, low, high = ("" if number is None else numeric.fixed(number, decimals) for number in numbers)
    return f"{value} ({low}–{high})" if low else value


def _notices(board: Board, tasks: list[Task]) -> list[str]:
    return [f"{task.title}: {board.notices[task.name]}" for task in tasks if task.name in board.notices]


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_text(text: str) -> str:
    """Returns text that Markdown shows as it is."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in r"\`*_[]|~" else c for c in plain)


_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "–": "--",
    OLDER: r"\textdagger{}",
}


def _tex_text(text: str) -> str:
    """Returns text that LaTeX shows as it is."""
    return "".join(_TEX.get(c, c) for c in " ".join(text.split()))


def to_latex(board: Board) -> str:
    """Returns one booktabs table per family, under the native protocol."""
    parts = ["% Needs the package booktabs."]
    for family in FAMILIES[1:]:
        tasks = board.family(family)
        if not tasks:
            continue
        heads = ["Model", "Mean rank", *(f"{t.title} ({METRICS[t.metric]})" for t in tasks)]
        body = [
            [model.name, mean_rank(board, family, model), *(cell(t, model) for t in tasks)]
            for model in ordered(board, family)
        ]
        caption = " ".join([f"{family.capitalize()}.", *_notices(board, tasks), _legend(board)])
        parts += [
            r"\begin{table}",
            rf"\caption{{{_tex_text(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(tasks) + 1)}}}",
            r"\toprule",
            _tex_row(heads),
            r"\midrule",
            *map(_tex_row, body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _tex_row(cells: list[str]) -> str:
    return " & ".join(map(_tex_text, cells)) + r" \\"
