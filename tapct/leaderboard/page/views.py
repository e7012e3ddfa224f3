"""What the templates show, as plain values: numbers are formatted here, words stand in the templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal

from tapct import kinds
from tapct.leaderboard import marks
from tapct.leaderboard.adaptors import VarianceSource
from tapct.leaderboard.board import Board, ListedRecord, Model, Task, families
from tapct.leaderboard.exports import ordered, share_reached
from tapct.leaderboard.page.beaten import beaten
from tapct.leaderboard.page.in_common import in_common
from tapct.leaderboard.page.sections import MANY, SPLIT, DrawnTask, Figure, PageTable, pictures
from tapct.leaderboard.tables import patch_in_words
from tapct.records import CardRecord, GitState, Protocol, Recorded
from tapct.similarity.found import Similarity
from tapct.statistics.inputs import is_solved
from tapct.statistics.reported import reported

_SHRINKING = {"antialias": "averaged", "linear": "interpolated, not averaged"}
"""What an `in_plane_filter` does."""


@dataclass(frozen=True, kw_only=True)
class ResultCell:
    """A model on a task under a protocol.

    Attributes:
        value: The number; None where there is none.
        low: Lower end of its interval.
        high: Upper end.
        reason: Why something is missing.
        ranks: Best and worst rank that the model may have.
        letters: Its tie groups.
        bar: Where the ranks lie among all: start and end, as percentages from the left.
        best: Whether it may be the best.
        task_reason: Whether the reason is the whole task's, and so said of it and not of every cell.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    ranks: tuple[int, int] | None = None
    letters: str = ""
    bar: tuple[int, int] | None = None
    best: bool = False
    task_reason: bool = False


def cell(board: Board, model: Model, task: Task, protocol: Protocol) -> ResultCell:
    """Returns what a model has on a task under a protocol."""
    one = task.summary(model.name, protocol)
    if one is None:
        return ResultCell(reason=board.why_missing(model, task))
    ranks, comparison = task.rank_interval(model.name, protocol), task.summaries[protocol].comparison
    among = len(comparison.rank_intervals)
    return ResultCell(
        value=one.estimate.value,
        low=one.estimate.low,
        high=one.estimate.high,
        reason=one.estimate.reason or (None if ranks else comparison.reason),
        ranks=ranks,
        letters=task.letters(model.name, protocol),
        bar=(round(100 * (ranks[0] - 1) / among), round(100 * ranks[1] / among)) if ranks else None,
        best=bool(ranks and ranks[0] == 1 and ranks[1] < among),
        task_reason=no_intervals(task, protocol) is not None,
    )


def no_intervals(task: Task, protocol: Protocol = "native") -> str | None:
    """Returns why no number of a task has an interval, where that is one reason for all; else None."""
    reasons = {one.estimate.reason for one in task.summaries[protocol].models if one.estimate.low is None}
    without = [one.estimate.low is None for one in task.summaries[protocol].models]
    return next(iter(reasons)) if all(without) and len(reasons) == 1 else None


RowKind = Literal["pretrained", "control"]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What the main table is made of.

    Attributes:
        families: Families that have tasks, "all" first where there are several.
        mean_ranks: Those that have a column of mean ranks: of one task, a mean is none.
        groups: The models by kind, best first: kind, title, models.
        ranked: Whether any model has a rank.
        unranked: Why none has.
        intervals: Whether any number has an interval.
        sized: Whether any number has the size of its patches.
        by_protocol: Whether protocols make a difference.
        sorted_by: The column that the models are in the order of: "rank", a task, or "model".
    """

    families: tuple[str, ...]
    mean_ranks: tuple[str, ...]
    groups: tuple[tuple[RowKind, str, list[Model]], ...]
    ranked: bool
    unranked: str
    intervals: bool
    sized: bool
    by_protocol: bool
    sorted_by: str


def overview(board: Board) -> Overview:
    """Returns what the main table is made of."""
    run = board.family("all")
    present = [family for family in families()[1:] if board.family(family)]
    summaries = [task.summaries["native"] for task in run]
    mean_ranks = [
        family
        for family in (families() if len(present) > 1 else families()[:1])
        if len(board.models) > 1
        and len(board.in_suite(family)) > 1
        and any(model.mean_rank.value is not None for model in board.overall[family, "native"].values())
    ]
    sorted_by = "rank" if "all" in mean_ranks else run[0].name if len(run) == 1 else "model"
    models = [*board.models] if sorted_by == "model" else ordered(board, "all")
    kinds: tuple[tuple[RowKind, str, list[Model]], ...] = (
        ("pretrained", "Pretrained encoders", [model for model in models if not model.is_control]),
        ("control", "Controls", [model for model in models if model.is_control]),
    )
    reasons = dict.fromkeys(s.comparison.reason for s in summaries if s.comparison.reason)
    return Overview(
        families=(*(families()[:1] if len(present) > 1 else ()), *present),
        mean_ranks=tuple(mean_ranks),
        groups=tuple(kind for kind in kinds if kind[2]),
        ranked=any(summary.comparison.rank_intervals for summary in summaries),
        unranked="one model" if len(board.models) == 1 else "; ".join(filter(None, reasons)),
        intervals=any(one.estimate.low is not None for summary in summaries for one in summary.models),
        sized=any(entry.record.cell_size for model in board.models for entry in model.entries.values()),
        by_protocol=any(task.by_protocol for task in run),
        sorted_by=sorted_by,
    )


def crossed(board: Board) -> list[tuple[Board, Task]]:
    """Returns the tasks that were run with several adaptors, with the board that they are on."""
    return [(each, task) for each in (board, *(own.board for own in board.own)) for task in each.tasks if task.grid]


def any_told_apart(table: Sequence[Sequence[tuple[int, int] | None]]) -> bool:
    """Returns whether any two models of a pairwise table differ."""
    return any(any(pair) for line in table for pair in line if pair)


def pairwise_table(board: Board, family: str, models: Sequence[Model]) -> list[list[tuple[int, int] | None]]:
    """Returns on how many tasks of the suite the model of a row is better, and worse, than that of a column.

    None for itself. See `OverallModel.better_on`: no model is counted that has no mean rank.
    """
    better_on = {name: model.better_on for name, model in board.overall[family, "native"].items()}

    def better(one: Model, other: Model) -> int:
        return better_on.get(one.name, {}).get(other.name, 0)

    return [
        [None if row is column else (better(row, column), better(column, row)) for column in models] for row in models
    ]


@dataclass(frozen=True, kw_only=True)
class PatchSizeView:
    """The patches of a model on a segmentation task.

    Attributes:
        size: Their size (z, y, x) in mm, in words.
        reference: Dice of the patch-size reference.
        reached: Share of it that the model reached, in per cent.
    """

    size: str
    reference: float | None
    reached: float | None


def cell_size(entry: ListedRecord, value: float | None) -> PatchSizeView | None:
    """Returns what stands next to a Dice on the native grid; None where the record does not say it."""
    record = entry.record
    if record.cell_size is None:
        return None
    share = share_reached(record, value)
    return PatchSizeView(
        size=patch_in_words(record.cell_size.size_mm),
        reference=record.cell_size.dice,
        reached=None if share is None else 100 * share,
    )


SOURCE_WORDS: Mapping[VarianceSource, str] = {
    "encoder": "whose features they are, whatever adaptor stands on them",
    "adaptor": "what stands on the features, whosever they are",
    "encoder x adaptor": "which adaptor suits which encoder: what orders them anew from one adaptor to the next",
    "seed": "the head's random start; none of solved heads",
    "patients": "which patients are reported; largely the same for all cells, so it is not what tells them apart",
}
"""What each source of variance is."""


def any_sized(models: Sequence[Model], task: Task) -> bool:
    """Returns whether the size of a patch is known of a model on a task."""
    return any(model.entries[task.name].record.cell_size is not None for model in models)


def any_marks(board: Board, task: Task) -> bool:
    """Returns whether any number of a task has a mark."""
    return any(board.marks(model, task) for model in board.models)


task_marks = marks.of_task
"""What must stand next to every number of a task."""


def run_metric(entry: ListedRecord, key: str) -> float | None:
    """Returns the mean over runs of a metric of the reported cases; None unless every run has it."""
    values = [of_run.get(key) for of_run in run_metrics(entry.record)]
    defined = [value for value in values if value is not None]
    return fmean(defined) if len(defined) == len(values) else None


def run_metrics(record: Recorded) -> list[Mapping[str, float | None]]:
    """Returns the metrics of the reported cases of each run, as it has them.

    Of a record that lacks a count of its kind, which every run has, all are computed of its cases: it is from before
    the count was made, and a name may have meant something else then (of means over labels, which labels are in them).
    Of an older protocol, next to whose numbers that is said, they stay.
    """
    recorded = [run.metrics.get(SPLIT, {}) for run in record.runs]
    of = None if record.task.kind is None else kinds.kind(record.task.kind)
    if of is None or record.older_protocol is not None:
        return [*recorded]
    counts = {metric.name for metric in of.metrics if metric.is_count}
    if all(counts <= of_run.keys() for of_run in recorded):
        return [*recorded]
    return [of.numbers(cases) for cases in reported(record, SPLIT).runs]


def task_metrics(task: Task) -> list[tuple[str, str, int]]:
    """Returns the metrics of a run that stand next to the ranked one: name, title with its unit, decimals."""
    beside = [one for one in task.kind.metrics if one.shown and one.name != task.metric]
    titles = [", ".join(filter(None, (one.column or one.title, one.unit_of(task.target_unit)))) for one in beside]
    return [(one.name, title, one.digits) for one, title in zip(beside, titles, strict=True)]


def best_at(task: Task) -> str:
    """Returns in which order the best of a task comes first."""
    return "ascending" if task.of_metric.lower_is_better else "descending"


def section(task: Task, models: Sequence[Model], alike: Similarity | None = None) -> list[Figure | PageTable]:
    """Returns what is drawn of a task: of many models, the best; and what its encoders have in common, if known."""
    shown = DrawnTask(of=task, drawn=models[:MANY], left_out=max(len(models) - MANY, 0))
    table = beaten(task, models)
    common = [] if alike is None else [in_common(task, alike)]
    return [*([] if table is None else [table]), *pictures(shown), *common]


def is_table(one: Figure | PageTable) -> bool:
    """Returns whether it is a table."""
    return isinstance(one, PageTable)


def preprocessing(card: CardRecord) -> list[tuple[str, str]]:
    """Returns what is done to a scan before the encoder sees it, as terms with their values."""

    def sizes(values: Sequence[float]) -> str:
        return " × ".join(f"{value:g}" for value in values)

    spacing, in_plane = card.spacing_mm, card.in_plane_size
    return [
        ("Spacing (z, y, x)", "the scan's own" if spacing is None else f"{sizes(spacing)} mm"),
        ("Slices", "the scan's own size" if in_plane is None else f"resized to {in_plane} × {in_plane}"),
        ("Where scans shrink", _SHRINKING[card.in_plane_filter]),
        ("Window (z, y, x)", f"{sizes(card.window_size)} voxels, padded with {card.pad_hu:g} HU"),
        ("One feature per", f"{sizes(card.feature_stride)} voxels"),
        ("Features", f"{card.feature_dim} channels; embedding {card.embedding_dim}"),
        ("Embedding", "class token" if card.has_cls else "pooled features"),
    ]


def provenance(entry: ListedRecord) -> dict[str, str]:
    """Returns where a record was made, in short."""
    record, execution = entry.record, entry.record.execution
    git, seconds = execution.git or GitState(), execution.seconds
    return {
        "Weights": weights_in_words(record),
        "Code": (git.commit or "unknown")[:7] + (" with changes" if git.dirty else ""),
        "Device": execution.device or "unknown",
        "Date": (execution.written_at or "unknown")[:10],
        "Seeds": str(len(record.runs)),
        "Steps": "none: solved" if is_solved(record) else str(record.probe.steps or "unknown"),
        "Minutes": f"{sum(seconds.values()) / 60:.1f}" if seconds else "unknown",
        "Record": record.fingerprint[:12],
    }


def weights_in_words(record: Recorded) -> str:
    """Returns the name of the weights' file, without the folders of somebody's machine, and their hash."""
    sha256 = record.encoder.weights_sha256
    return ", ".join([record.encoder.weights_name, *([f"sha256 {sha256[:12]}"] if sha256 else [])])


def split_provenance(model: Model) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Returns what all records of a model share, and by task what they do not."""
    found = {task: provenance(entry) for task, entry in model.entries.items()}
    one = next(iter(found.values()))
    shared = {k: v for k, v in one.items() if k != "Record" and all(each[k] == v for each in found.values())}
    return shared, {task: {k: v for k, v in each.items() if k not in shared} for task, each in found.items()}


def snapshot(board: Board) -> dict[str, Any]:
    """Returns what the page's head says: the date of the newest record, commits, and counts."""
    records = [entry.record for model in board.models for entry in model.entries.values()]
    commits = {git.commit[:7] for r in records if (git := r.execution.git) and git.commit}
    shown = board.family("all")
    return {
        "date": max(((r.execution.written_at or "")[:10] for r in records), default=""),
        "commits": sorted(commits),
        "models": len(board.models),
        "tasks": len(shown),
        "patients": sum(task.summaries["native"].num_patients for task in shown),
        "records": len(records),
    }


def family_spans(tasks: Sequence[Task]) -> list[tuple[str, int]]:
    """Returns the families in the order of the tasks, with the number of tasks of each."""
    edges = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(tasks)) if a.family != b.family), len(tasks)]
    return [(tasks[start].family, stop - start) for start, stop in pairwise(edges) if stop > start]
