"""The paper's cells and ours: side by side, never paired.

The paper's splits are unpublished. A difference between its number and ours is also one of cases, heads and code, and
its interval is that of ours, shifted: nothing here tests, pairs or ranks.

Of a cell of the paper is a record of the same encoder with its published weights, on the same grid, with the same
adaptor, on the same task with all its classes, all training patients and no perturbation. How its protocol differs from
what ships, or from what the paper says, is said next to its number.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tapct import kinds
from tapct.encoders import encoder_class
from tapct.leaderboard import marks
from tapct.leaderboard.compared import ListedRecord, NamedRecord
from tapct.leaderboard.marks import Marked
from tapct.leaderboard.official import ranked_adaptor, shipped, why_own
from tapct.leaderboard.overlap import known_overlap
from tapct.leaderboard.paper import AVERAGE, PaperRow, read_paper
from tapct.records import Recorded
from tapct.records.paths import base_name
from tapct.statistics.inputs import adaptor_of, from_records
from tapct.statistics.intervals import Estimate
from tapct.statistics.summary import ModelSummary, TaskSummary, summarise_task

METRICS: Mapping[str, str] = {"DSC": "dice_paper", "AUC": "MicroAUROC", "AP": "MicroAP"}
"""Our metric of each of the paper's. Dice is on the encoder's own grid. The paper names the AUC of RSNA 2023 and the AP
of RSNA 2022 micro-averaged; its other tasks have one label, of which all averages are the same."""


def family_of(metric: str) -> str:
    """Returns the kind of the tasks that the paper reports a metric on."""
    return next(name for name in kinds.KINDS if METRICS[metric] in kinds.kind(name).by_name)


SPLITS_DIFFER = (
    "The paper's splits are unpublished: its numbers are of other cases than ours. Intervals are of ours only, over "
    "patients, also those of differences. There is no pairing, no test and no rank."
)


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A record of a cell of the paper.

    Attributes:
        model: What it is called on the board.
        metric: The metric, by its name in the record.
        estimate: Mean over seeds, with its interval over patients.
        seed_spread: Standard deviation over the seeds (n - 1); None with one seed.
        seeds: Number of seeds; None of an average over tasks.
        patients: Number of patients; likewise.
        difference: Ours minus the paper's, with ours' interval; None where the paper has no number.
        ranked: What the task is ranked by here, where that is another number: the native grid, another adaptor.
        ranked_as: What that is: "native", or the adaptor; empty without.
        said: How its protocol differs from the shipped one, or from the paper's.
        marks: What must stand next to the number.
        path: The file, as the page names it; empty of an average.
        record: Fingerprint of the record; likewise.
    """

    model: str
    metric: str
    estimate: Estimate
    seed_spread: float | None = None
    seeds: int | None = None
    patients: int | None = None
    difference: Estimate | None
    ranked: Estimate | None = None
    ranked_as: str = ""
    said: tuple[str, ...] = ()
    marks: tuple[Marked, ...] = ()
    path: str = ""
    record: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """A cell of the paper, with ours.

    Attributes:
        row: The paper's.
        ours: Records of it, those of the shipped protocol first; none where it was not run.
    """

    row: PaperRow
    ours: tuple[Ours, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """The paper's Tables 2 to 5, and ours.

    Attributes:
        cells: All of them, in the paper's order.
        other: How many records of its encoders and tasks are of none of its cells, by the reason.
    """

    cells: tuple[PaperCell, ...]
    other: Mapping[str, int]

    @property
    def any_ours(self) -> bool:
        """Whether any cell was run."""
        return any(cell.ours for cell in self.cells)

    def of_table(self, table: int) -> list[PaperCell]:
        """Returns the cells of a table."""
        return [cell for cell in self.cells if cell.row.table == table]


@dataclass(frozen=True)
class Known:
    """What is known of the records already.

    Attributes:
        experiments: By task and model, the records that are ranked.
        summaries: By task and metric, their statistics.
        resamples: Resamples of the patients.
    """

    experiments: Mapping[str, Mapping[str, ListedRecord]]
    summaries: Mapping[tuple[str, str], TaskSummary]
    resamples: int

    def number(self, name: str, entry: ListedRecord, metric: str) -> tuple[TaskSummary, ModelSummary]:
        """Returns the statistics of a record under a metric, and those of its task that they are among."""
        task = entry.record.task.name
        summary = self.summaries.get((task, metric)) if self.experiments.get(task, {}).get(name) is entry else None
        if summary is None:
            summary = summarise_task(from_records([entry.record], metric, names=[name]), self.resamples)
        return summary, next(model for model in summary.models if model.name == name)


def reproduce(found: Mapping[str, Sequence[NamedRecord]], known: Known) -> Reproduction:
    """Returns the paper's cells with the records that are of them.

    Args:
        found: By task, its records that have a number, of all training patients and unperturbed scans.
        known: What is known of them already.
    """
    rows = read_paper()
    by_setup: dict[tuple[str, str], list[PaperRow]] = defaultdict(list)
    for row in rows:
        if row.task != AVERAGE:
            by_setup[row.setup.encoder, row.task].append(row)
    of_row: dict[PaperRow, list[NamedRecord]] = defaultdict(list)
    other: Counter[str] = Counter()
    for task, named in found.items():
        seen: set[str] = set()
        for name, entry in named:
            candidates = by_setup.get((entry.record.encoder.card.name, task), [])
            if not candidates or entry.record.fingerprint in seen:
                continue
            seen.add(entry.record.fingerprint)
            own = cells_of(entry.record, candidates)
            if isinstance(own, str):
                other[own] += 1
            else:
                for row in own:
                    of_row[row].append((name, entry))
    made: dict[PaperRow, tuple[Ours, ...]] = {row: _ours(row, named, known) for row, named in of_row.items()}
    cells = (PaperCell(row=row, ours=made.get(row, ()) or _average(row, rows, made)) for row in rows)
    return Reproduction(cells=tuple(cells), other=dict(sorted(other.items())))


def cells_of(record: Recorded, candidates: Sequence[PaperRow]) -> list[PaperRow] | str:
    """Returns the paper's cells that a record is of, or why it is of none.

    Args:
        record: A record.
        candidates: The paper's rows of its encoder and task.
    """
    cls, card, identity = encoder_class(record.encoder.card.name), record.encoder.card, record.encoder.identity
    ships = cls.card
    task = shipped(record.task.name)
    assert task is not None  # all tasks of the paper ship
    if record.encoder.is_random:
        return "random weights"
    if ships.weights.file is None or record.encoder.weights_name != base_name(ships.weights.file):
        return "weights of another file than the published one"
    if identity is not None and identity.cls != f"{cls.__module__}.{cls.__qualname__}":
        return "an encoder of the same name, and another class"  # such as one that was pretrained here
    if record.probe.head_from is not None:
        return "heads that were trained elsewhere"
    if tuple(record.task.classes) != task.classes:
        return "other classes than the task's"
    layers = ("feature_stride", "feature_dim", "embedding_dim", "has_cls")
    if any(getattr(card, key) != getattr(ships, key) for key in layers):
        return "features of another layer"
    windows = {ships.window_size, *(row.setup.window_size for row in candidates)}
    if card.window_size not in windows or card.pad_hu != ships.pad_hu:
        return "windows or padding that neither the paper nor the encoder's card has"
    if card.in_plane_filter != ships.in_plane_filter:
        return f"slices resampled with the filter {card.in_plane_filter}, and not {ships.in_plane_filter}"
    grid = card.in_plane_size, card.spacing_mm
    of_grid = [row for row in candidates if (row.setup.in_plane_size, row.setup.spacing_mm) == grid]
    if not of_grid:
        return "a grid that the paper does not have for this task"
    adaptor = adaptor_of(record)
    return [row for row in of_grid if row.adaptor == adaptor] or "an adaptor that is not the paper's"


def _ours(row: PaperRow, named: Sequence[NamedRecord], known: Known) -> tuple[Ours, ...]:
    """Returns the records of a cell of the paper, those of the shipped protocol first."""
    found = [_one(row, name, entry, known) for name, entry in named]
    return tuple(sorted(found, key=lambda one: (len(one.said), one.path)))


def _one(row: PaperRow, name: str, entry: ListedRecord, known: Known) -> Ours:
    record, metric = entry.record, METRICS[row.metric]
    summary, number = known.number(name, entry, metric)
    seen = known_overlap(row.task, record.encoder.card.pretraining_data)
    said = tuple(_differs(row, entry))
    ranked = _ranked(row, name, entry, known)
    ranked_as = "native" if row.metric == "DSC" else ranked_adaptor(row.task)
    found = [*marks.of_number(summary, number, record, seen, entry.older_protocol)]
    found += [Marked(marks.NOT_IN_PAPER)] if row.mean is None else []
    found += [Marked(marks.OTHER_PROTOCOL, "; ".join(said))] if said else []
    return Ours(
        model=name,
        metric=metric,
        estimate=number.estimate,
        seed_spread=number.seed_spread,
        seeds=len(number.seeds),
        patients=summary.num_patients,
        difference=_minus(number.estimate, row.mean),
        ranked=ranked,
        ranked_as=(ranked_as or "") if ranked else "",
        said=said,
        marks=marks.ordered(found),
        path=entry.path,
        record=record.fingerprint,
    )


def _differs(row: PaperRow, entry: ListedRecord) -> Iterator[str]:
    """Yields how a record's protocol differs from the shipped one, and its windows from the paper's."""
    if (why := why_own(entry.record)) is not None:
        yield why
    own, paper = entry.record.encoder.card.window_size, row.setup.window_size
    if own != paper:
        yield f"window {_by(own)}, in the paper {_by(paper)}"


def _by(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:g}" for size in sizes)


def _ranked(row: PaperRow, name: str, entry: ListedRecord, known: Known) -> Estimate | None:
    """Returns the number that the task is ranked by here, where it is another one and there."""
    if row.metric == "DSC":
        return known.number(name, entry, "dice_native")[1].estimate
    if row.adaptor == ranked_adaptor(row.task) or row.adaptor == "abmil:patch":
        return None
    ranked = known.experiments.get(row.task, {}).get(name)
    return None if ranked is None else known.number(name, ranked, METRICS[row.metric])[1].estimate


def _minus(ours: Estimate, paper: float | None) -> Estimate | None:
    """Returns ours minus the paper's, with ours' interval."""
    if paper is None or ours.value is None:
        return None
    low, high = (None if end is None else end - paper for end in (ours.low, ours.high))
    return Estimate(ours.value - paper, low, high, ours.reason)


def _average(row: PaperRow, rows: Sequence[PaperRow], made: Mapping[PaperRow, Sequence[Ours]]) -> tuple[Ours, ...]:
    """Returns our mean over the tasks that a mean of the paper is over, where each of them has one number of ours."""
    if row.task != AVERAGE:
        return ()
    of_model = [one for one in rows if (one.table, one.model) == (row.table, row.model) and one.task != AVERAGE]
    parts = [made.get(one, ()) for one in of_model if one.mean is not None]
    values = [own[0].estimate.value for own in parts if len(own) == 1]
    defined = [value for value in values if value is not None]
    if len(defined) < len(parts):
        return ()
    estimate = Estimate(fmean(defined), None, None, "a mean over tasks")
    said = tuple(dict.fromkeys(word for (own,) in parts for word in own.said))
    return (
        Ours(
            model=row.model,
            metric=METRICS[row.metric],
            estimate=estimate,
            difference=_minus(estimate, row.mean),
            said=said,
            marks=(Marked(marks.OTHER_PROTOCOL, "; ".join(said)),) if said else (),
        ),
    )
