"""Flags that show in a record by itself: features, cases, training, choice of the head."""

import statistics
from collections.abc import Sequence
from typing import Any

from tapct import numeric
from tapct.flags.messages import RaisedFlags, reported
from tapct.flags.numbers import numbers
from tapct.kinds import kind
from tapct.names import listed
from tapct.records import ClassMetric, Record, RunRecord, SteppedSelection
from tapct.records.cases import CLASS_METRICS
from tapct.records.selection import solved_selections
from tapct.statistics.inputs import is_solved

DEAD_SHARE = 0.1
"""Share of constant channels from which on they are flagged; a few are dead in any network with ReLU."""

AGREES = 0.95
"""Share of the release's own labels that its own reader gives at least: libraries and blanks change few of them.

A reader that finds nothing gives four fifths, where a fifth of the labels are positive."""

STILL_FALLING = 0.1
"""Share of the whole fall of the training loss that may be left to its last third."""


def _pack(record: Record) -> RaisedFlags:
    if record.feature_pack is not None:
        yield "features-from-pack", f"pack {record.feature_pack.sha256[:12]}"


def _features(record: Record) -> RaisedFlags:
    seen = record.execution.features
    if seen is None:
        return
    if seen.non_finite:
        yield "non-finite-features", f"{seen.non_finite} values in {seen.cases} training cases"
    dead, channels = seen.constant_channels, seen.channels
    if dead is not None and dead >= DEAD_SHARE * channels:
        yield "constant-features", f"{dead} of {channels} channels over {seen.cases} training cases"
    if seen.repeated_cases:
        yield "repeated-features", f"{seen.repeated_cases} of {seen.cases} training cases"


def _cases(record: Record) -> RaisedFlags:
    expected = record.task.cases
    for split in {split: None for run in record.runs for split in run.cases}:
        fewest = min(len(run.cases.get(split, [])) for run in record.runs)
        if fewest < expected.get(split, 0):
            yield "cases-missing", f"{fewest} of {expected[split]} {split} cases"


def _undefined(record: Record) -> RaisedFlags:
    fewer = [found for metric in CLASS_METRICS if (found := _fewest_defined(record, metric))]
    if fewer:
        yield "metric-on-fewer-cases", "; ".join(fewer)
    for run in record.runs:
        left_out = (run.metrics.get("test") or run.metrics.get("val") or {}).get("UndefinedLabels")
        if left_out:
            labels = len(reported(run)[0].target or {}) if reported(run) else 0  # a task need not name its classes
            yield "undefined-labels", f"{left_out:.0f} of {labels} labels"
            return


def _fewest_defined(record: Record, metric: ClassMetric) -> str | None:
    """Returns how many cases define a metric in the run that has the fewest, None where all do or none has it."""
    rows = [[row for case in reported(run) if (row := case.by_class(metric)) is not None] for run in record.runs]
    counts = [(sum(any(v is not None for v in row.values()) for row in of_run), len(of_run)) for of_run in rows]
    defined, cases = min(counts, default=(0, 0))
    return f"{metric} on {defined} of {cases} cases" if defined < cases else None


def _constant(record: Record) -> RaisedFlags:
    if record.task.kind is None or len(runs := [reported(run) for run in record.runs]) == 0:
        return
    for field in kind(record.task.kind).fields:
        rows = [[(case.outcome or {}).get(field.name, {}) for case in run] for run in runs]
        if not field.answer or any(len(run) < 2 or not run[0] for run in rows):
            continue
        given = [name for name in rows[0][0] if all(row[name] is not None for run in rows for row in run)]
        same = [name for name in given if all(_are_equal([row[name] for row in run]) for run in rows)]
        if same:
            yield "constant-predictions", f"{field.title} of {listed(same)}"


def _are_equal(values: Sequence[Any]) -> bool:
    return len(set(values)) == 1 or bool(numeric.equal(min(values), max(values)))


def _reader(record: Record) -> RaisedFlags:
    agreement = record.probe.reader_agreement
    if agreement is not None and agreement < AGREES:
        yield "another-reader", f"{agreement:.1%} of the labels of the training reports"


def _seeds(record: Record) -> RaisedFlags:
    if is_solved(record):  # no seed decides anything
        return
    for what, of in (("heads", [run.probe_sha256 for run in record.runs]), ("numbers", numbers(record))):
        if len(of) > 1 and len(set(of)) < len(of):
            yield "seeds-without-effect", f"{len(of)} runs have {len(set(of))} different {what}"
            return


def _runs(found: Sequence[RunRecord]) -> str:
    return f"run{'s' * (len(found) > 1)} {listed([run.run for run in found])}"


def _training(record: Record) -> RaisedFlags:
    of_run = {run.run: run.training for run in record.execution.runs if run.training is not None}
    known = [(run, of_run[run.run]) for run in record.runs if run.run in of_run]
    if flat := [(run, training.loss) for run, training in known if _never_fell(training.loss)]:
        ends = (f"{loss[0]} to {loss[-1]}" for _, loss in flat)
        yield "loss-never-fell", f"{_runs([run for run, _ in flat])}: from {listed(list(ends))}"
    if late := [run for run, training in known if _still_falls(training.loss)]:
        yield "not-converged", f"the training loss of {_runs(late)}"
    if same := [run for run, training in known if training.start_sha256 == run.probe_sha256]:
        yield "head-unchanged", _runs(same)
    if zero := [run for run, training in known if training.is_zero]:
        yield "zero-head", _runs(zero)


def _never_fell(losses: Sequence[float | None]) -> bool:
    """Returns whether the last stretch is no lower than the first, or was not finite; of few stretches never."""
    if len(losses) < 10:
        return False
    first, last = losses[0], losses[-1]
    return first is None or last is None or bool(numeric.at_least(last, first))


def _still_falls(losses: Sequence[float | None]) -> bool:
    """Returns whether the last third of the curve lies below the middle one by more than a tenth of the whole fall."""
    known = [loss for loss in losses if loss is not None]
    if len(known) < len(losses) or len(known) < 10 or _never_fell(losses):
        return False
    third = len(known) // 3
    middle, last = (statistics.fmean(part) for part in (known[-2 * third : -third], known[-third:]))
    return middle - last > STILL_FALLING * (known[0] - last)


def _solved(record: Record) -> RaisedFlags:
    chosen = [one for run in record.runs for one in solved_selections(run.selection)]
    if any(one.is_solved is False for one in chosen):
        yield "not-converged", f"a gradient of {max(one.gradient or 0 for one in chosen):.1g} is left"
    if not chosen or any(one.gradient is None or one.setting is None for one in chosen):  # nothing was penalised
        return
    grid = [candidate.setting for candidate in chosen[0].candidates]
    settings = {one.setting for one in chosen}
    if len(grid) > 2 and (settings == {min(grid)} or settings == {max(grid)}):
        yield "penalty-at-edge", f"{settings.pop():g} of {min(grid):g} to {max(grid):g}"


def _selection(record: Record) -> RaisedFlags:
    looked = [run.selection for run in record.runs if isinstance(run.selection, SteppedSelection)]
    chosen = [one for one in looked if one.score is not None]
    if not chosen or len(chosen) < len(record.runs):
        return
    looks = [next((c.scores for c in one.candidates if c.learning_rate == one.learning_rate), ()) for one in chosen]
    if all(len(of) > 2 and one.step == of[0][0] for one, of in zip(chosen, looks, strict=True)):
        yield "best-at-first-look", f"at step {listed(sorted({one.step for one in chosen}))} in every run"
    grid = sorted({c.learning_rate for one in chosen for c in one.candidates if c.learning_rate is not None})
    rates = {one.learning_rate for one in chosen}
    if len(grid) > 2 and (rates == {grid[0]} or rates == {grid[-1]}):
        yield "learning-rate-at-edge", f"{rates.pop():g} of {grid[0]:g} to {grid[-1]:g} in every run"


CHECKS = (_pack, _features, _cases, _undefined, _constant, _reader, _seeds, _training, _solved, _selection)
"""The checks of a record by itself, but for chance."""
