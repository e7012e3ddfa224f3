"""Predictions of models that were trained elsewhere next to the ranked ones: the same cases and statistics, no rank.

A model that was trained on a task from end to end says how far a frozen encoder with a light probe is from what the
task allows. It is another question than which encoder is better, so that nothing ranks the two together.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tapct import kinds, numeric
from tapct.errors import RecordError
from tapct.leaderboard.text import LONGEST_NAME, plain
from tapct.records import Predictions, Recorded
from tapct.statistics.inputs import from_records, ranked_by
from tapct.statistics.intervals import Estimate, estimate
from tapct.statistics.resampling import resample
from tapct.statistics.summary import RESAMPLES

FILE = "imported.csv"
TITLE = "Trained references"
NOT_RANKED = (
    "Predictions of models that were trained elsewhere, imported and scored here on the same cases by the same "
    "metrics: for reference, never ranked. They are no frozen encoders; what trained them is told by who imported them."
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Imported predictions of a task.

    Attributes:
        name: What the model is called.
        task: The task.
        title: The task's name in tables.
        metric: The metric that the task is ranked by, native grid.
        unit: Its unit, if it has one.
        predictions: What was imported.
        about: What the model is, in the words of who imported it.
        trained_on: What trained it, likewise.
        sha256: Of each run's predictions, the hash.
        value: Its number.
        models: By name of a ranked model of the task, that model minus the reference, with its interval over patients;
            best model first.
        reason: Why nothing is compared with it; None where something is.
    """

    name: str
    task: str
    title: str
    metric: str
    unit: str | None
    predictions: Predictions
    about: str | None
    trained_on: str | None
    sha256: tuple[str, ...]
    value: Estimate
    models: Mapping[str, Estimate]
    reason: str | None

    @property
    def digits(self) -> int:
        """Decimals of its numbers."""
        return kinds.metric(self.metric).digits

    @property
    def heading(self) -> str:
        """The metric as a reader calls it, with its unit."""
        return kinds.metric(self.metric).heading(self.unit)


Ranked = Mapping[str, Mapping[str, Recorded]]
"""By task, the records of its ranked models by name."""


def references(
    records: Sequence[Recorded], ranked: Ranked, titles: Mapping[str, str], resamples: int = RESAMPLES
) -> tuple[Reference, ...]:
    """Returns the imported predictions among records, by task and name, next to the ranked models.

    Args:
        records: Records, of which those of imported predictions are taken.
        ranked: What they are compared with.
        titles: What tasks are called in tables.
        resamples: Resamples of the patients.

    Raises:
        RecordError: If two are of one name on one task.
    """
    found: dict[tuple[str, str], Recorded] = {}
    for record in records:
        if record.imported is None:
            continue
        key = record.task.name, record.encoder.card.display_name
        if key in found and found[key].fingerprint != record.fingerprint:
            raise RecordError(f"two records are imported predictions of {key[1]} on {key[0]}: remove one of them")
        found[key] = record
    return tuple(
        _reference(record, ranked.get(task, {}), titles.get(task, plain(task, LONGEST_NAME)), resamples)
        for (task, _), record in sorted(found.items())
    )


def _reference(record: Recorded, ranked: Mapping[str, Recorded], title: str, resamples: int) -> Reference:
    metric = ranked_by(record)
    if metric is None or record.imported is None:
        raise RecordError(f"{record.encoder.card.display_name}: its task has no metric that it is ranked by")
    value, models, reason = _numbers(record, ranked, metric, resamples)
    return Reference(
        name=plain(record.encoder.card.display_name, LONGEST_NAME),
        task=record.task.name,
        title=title,
        metric=metric,
        unit=kinds.metric(metric).unit_of(record.task.unit),
        predictions=record.imported.predictions,
        about=record.imported.about,
        trained_on=record.imported.trained_on,
        sha256=tuple(run.probe_sha256 for run in record.runs),
        value=value,
        models=models,
        reason=reason,
    )


def _numbers(
    record: Recorded, ranked: Mapping[str, Recorded], metric: str, resamples: int
) -> tuple[Estimate, dict[str, Estimate], str | None]:
    """Returns the number of imported predictions, what ranked models differ from it by, and why none is compared."""
    reason = None if ranked else "no model is ranked on this task"
    compared = [record]
    for name, other in ranked.items():
        try:
            from_records([record, other], metric, names=["the imported predictions", name], vary={"imported"})
        except RecordError as error:
            reason = str(error)
        else:
            compared.append(other)
    names = ["", *(name for name, other in ranked.items() if any(other is one for one in compared))]
    inputs = from_records(compared, metric, names=names, vary={"imported"})
    found = resample(inputs, resamples)
    said = functools.partial(estimate, patients=inputs.num_patients, undefined=inputs.undefined)
    own = found.mean(0)
    values = [found.mean(row)[0] for row in range(1, len(names))]
    order = [int(place) for place in numeric.best_first(values, inputs.sign)]
    models = {names[1 + place]: said(*found.difference(1 + place, 0)) for place in order}
    return said(*own), models, None if models else reason


def as_rows(found: Sequence[Reference]) -> list[dict[str, Any]]:
    """Returns a row for each reference and ranked model; one alone for a reference that compares with none."""
    rows = []
    for one in found:
        about: dict[str, Any] = {
            **{"task": one.task, "metric": one.metric, "unit": one.unit or "", "reference": one.name},
            **{"predictions": one.predictions, "about": one.about or "", "trained_on": one.trained_on or ""},
            "predictions_sha256": " ".join(one.sha256),
            **_ends("value", one.value),
        }
        none = Estimate(None, None, None, one.reason)
        for model, apart in one.models.items() or [("", none)]:
            rows.append(
                {**about, "model": model, **_ends("model_minus_reference", apart), "reason": apart.reason or ""}
            )
    return rows


def _ends(name: str, of: Estimate) -> dict[str, float | None]:
    return {name: of.value, f"{name}_low": of.low, f"{name}_high": of.high}
