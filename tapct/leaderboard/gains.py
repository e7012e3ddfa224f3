"""What an encoder adds to a table, and a table to an encoder: a head on both against the same head on either alone.

The first is the question that a clinician asks of a network: what does it say that age and stage do not? The second is
that of who uses a network and knows the age. The two are compared patient by patient, by heads that the same cases
trained, so that what makes some patients hard for both cancels.
"""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tapct.leaderboard.board import Board, Task
from tapct.leaderboard.text import as_csv
from tapct.names import adaptor_parts, reads_no_features
from tapct.records.record import Recorded
from tapct.statistics.inputs import from_records
from tapct.statistics.intervals import Estimate, estimate
from tapct.statistics.resampling import resample
from tapct.statistics.summary import RESAMPLES

FILE = "gains.csv"

_Key = tuple[str, str]
"""A model and an adaptor."""

_Columns = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class GainOver:
    """A table alone, or an encoder alone, and what both together are above it.

    Attributes:
        alone: The metric of it alone.
        gain: How much better both are, with its interval over patients: above 0 is better, whatever the metric.
    """

    alone: Estimate
    gain: Estimate


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a model and a table add to each other.

    Attributes:
        model: The model.
        adaptor: Of the features with the table.
        table: The columns of the table.
        together: The metric of both.
        over_table: The table alone; None where nobody ran it.
        over_encoder: The features alone under the same head, pooled alike; None where nobody ran it.
    """

    model: str
    adaptor: str
    table: str
    together: Estimate
    over_table: GainOver | None
    over_encoder: GainOver | None


def tables_alone(records: Mapping[_Key, Recorded]) -> dict[tuple[str, _Columns], _Key]:
    """Returns the experiment of each head on each table alone: no features are read, so any model's is that of all."""
    found: dict[tuple[str, _Columns], _Key] = {}
    for model, adaptor in sorted(records):
        if reads_no_features(adaptor):
            head, _, table = adaptor_parts(adaptor)
            found.setdefault((head, columns_of(table)), (model, adaptor))
    return found


def columns_of(table: str) -> _Columns:
    """Returns the columns of a table, whatever their order."""
    return frozenset(table.split("+"))


def gains(records: Mapping[_Key, Recorded], metric: str, resamples: int = RESAMPLES) -> list[Gain]:
    """Returns what each model and each table add to each other, where either was run alone as well.

    Args:
        records: By model and adaptor, of one task.
        metric: The metric.
        resamples: Resamples of the patients.

    Raises:
        RecordError: If records do not compare.
    """
    tables, encoders = tables_alone(records), _encoders_alone(records)
    rows = []
    for key in records:
        head, pooling, table = adaptor_parts(key[1])
        if pooling and table:
            base = tables.get((head, columns_of(table)))
            encoder = encoders.get((key[0], head, _pooling(records[key], pooling)))
            rows += [(key, base, encoder)] if base or encoder else []
    needed = list(dict.fromkeys(key for row in rows for key in row if key))
    if not needed:
        return []
    names = [f"{model} with {adaptor}" for model, adaptor in needed]
    inputs = from_records([records[key] for key in needed], metric, names=names, vary={"adaptor"})
    found, place = resample(inputs, resamples), {key: row for row, key in enumerate(needed)}
    said = functools.partial(estimate, patients=inputs.num_patients, undefined=inputs.undefined)

    def part(key: _Key, alone: _Key | None) -> GainOver | None:
        if alone is None:
            return None
        value, bootstrap, without = found.difference(place[key], place[alone])
        gain = said(inputs.sign * value, inputs.sign * bootstrap, inputs.sign * without)
        return GainOver(alone=said(*found.mean(place[alone])), gain=gain)

    return [
        Gain(
            model=key[0],
            adaptor=key[1],
            table=adaptor_parts(key[1])[2],
            together=said(*found.mean(place[key])),
            over_table=part(key, base),
            over_encoder=part(key, encoder),
        )
        for key, base, encoder in rows
    ]


def of_task(task: Task, models: Collection[str] | None = None) -> list[Gain]:
    """Returns the gains of a task, by table, model and adaptor.

    Args:
        task: The task, with its records under every adaptor.
        models: Those that are of interest; None for all.
    """
    records = {
        key: record
        for key, record in task.crossed.items()
        if models is None or key[0] in models or reads_no_features(key[1])
    }
    if not records:
        return []
    found = gains(records, task.metric, task.summaries["native"].bootstrap.shape[-1])
    return sorted(found, key=lambda gain: (gain.table, gain.model, gain.adaptor))


def to_csv(board: Board) -> str | None:
    """Returns a line per model, adaptor and table of the tasks of a board; None where there is none."""
    boards = [board, *(own.board for own in board.own)]
    found = [_row(task, one) for each in boards for task in each.tasks for one in of_task(task)]
    return as_csv(found) if found else None


def _row(task: Task, one: Gain) -> dict[str, Any]:
    table, encoder = one.over_table, one.over_encoder
    return {
        "task": task.name,
        "metric": task.metric,
        "unit": task.of_metric.unit_of(task.target_unit) or "",
        **{"model": one.model, "adaptor": one.adaptor, "table": one.table},
        **_ends("both", one.together),
        **_ends("table_alone", None if table is None else table.alone),
        **_ends("gain_over_table", None if table is None else table.gain),
        **_ends("encoder_alone", None if encoder is None else encoder.alone),
        **_ends("gain_over_encoder", None if encoder is None else encoder.gain),
    }


def _ends(name: str, of: Estimate | None) -> dict[str, float | None]:
    value, low, high = (None, None, None) if of is None else (of.value, of.low, of.high)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _encoders_alone(records: Mapping[_Key, Recorded]) -> dict[tuple[str, str, str | None], _Key]:
    """Returns the experiment of each model without a table, by head and by how its features are pooled."""
    found: dict[tuple[str, str, str | None], _Key] = {}
    for model, adaptor in sorted(records):
        head, pooling, table = adaptor_parts(adaptor)
        if not table:
            found.setdefault((model, head, _pooling(records[model, adaptor], pooling)), (model, adaptor))
    return found


def _pooling(record: Recorded, asked: str) -> str | None:
    """Returns how the features of a record are pooled: as its adaptor says, or as the encoder has them by itself."""
    return record.probe.pooling or asked or None
