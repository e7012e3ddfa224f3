"""What an encoder adds to a table: a head on the table and the features against the same head on the table alone.

It is the question that a clinician asks of a network: what does it say that age and stage do not? The two are compared
patient by patient, in the same folds, so that what makes some patients hard for both cancels.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from tapct.leaderboard.inputs import from_records
from tapct.leaderboard.intervals import Estimate, estimate
from tapct.leaderboard.resampling import resample
from tapct.leaderboard.summary import RESAMPLES
from tapct.records.record import Recorded

Key = tuple[str, str]
"""A model and an adaptor."""

TABLE = "table="
"""Of an adaptor's name: what its columns stand behind (`tapct.probes.adaptors`)."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a model adds to a table.

    Attributes:
        model: The model.
        adaptor: Of the features with the table.
        table: The columns of the table.
        alone: The metric of the table alone.
        together: That of both.
        gain: The second minus the first, with its interval over patients.
    """

    model: str
    adaptor: str
    table: str
    alone: Estimate
    together: Estimate
    gain: Estimate


def split(adaptor: str) -> tuple[str, str, str]:
    """Returns the head of an adaptor, how it pools features (empty where it reads none) and its columns.

    Of `cox:mean&table=age+stage`, "cox", "mean" and "age+stage"; without a table, the last is empty.
    """
    head, _, rest = adaptor.partition(":")
    if rest.startswith(TABLE):
        return head, "", rest.removeprefix(TABLE)
    pooling, _, table = rest.partition(f"&{TABLE}")
    return head, pooling, table


def tables_alone(records: Mapping[Key, Recorded]) -> dict[tuple[str, str], Key]:
    """Returns the cell of each head on each table alone: features are not read, so that of any model is that of all."""
    found: dict[tuple[str, str], Key] = {}
    for model, adaptor in sorted(records):
        head, pooling, table = split(adaptor)
        if table and not pooling:
            found.setdefault((head, table), (model, adaptor))
    return found


def gains(records: Mapping[Key, Recorded], metric: str, resamples: int = RESAMPLES) -> list[Gain]:
    """Returns what each model adds to each table that was run alone as well.

    Args:
        records: By model and adaptor, of one task.
        metric: The metric.
        resamples: Resamples of the patients.

    Raises:
        RecordError: If records do not compare.
    """
    alone = tables_alone(records)
    pairs = []
    for key in records:
        head, pooling, table = split(key[1])
        if pooling and (head, table) in alone:
            pairs.append((key, alone[head, table]))
    needed = list(dict.fromkeys(key for pair in pairs for key in pair))
    if not needed:
        return []
    names = [f"{model} with {adaptor}" for model, adaptor in needed]
    inputs = from_records([records[key] for key in needed], metric, names=names, vary={"adaptor"})
    found, place = resample(inputs, resamples), {key: row for row, key in enumerate(needed)}
    said = functools.partial(estimate, patients=inputs.num_patients, undefined=inputs.undefined)
    return [
        Gain(
            model=key[0],
            adaptor=key[1],
            table=split(key[1])[2],
            alone=said(*found.mean(place[base])),
            together=said(*found.mean(place[key])),
            gain=said(*found.difference(place[key], place[base])),
        )
        for key, base in pairs
    ]
