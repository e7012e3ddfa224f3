"""Red flags: what must be looked at before the numbers of a record are believed.

A flag is no verdict. It says what was found, what that would mean, and what to check. Some show in a record by itself
(`own_flags`), some only beside the other cells of its task (`cross_flags`).
"""

import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapct import numeric
from tapct.encoders.weights import NONE, RANDOM
from tapct.errors import RecordError
from tapct.leaderboard import TaskInputs, from_records, summarise_task
from tapct.leaderboard.inputs import Metric
from tapct.leaderboard.intervals import Estimate, estimate
from tapct.leaderboard.resampling import draw_patients, evaluate
from tapct.records import CaseResult, ClassMetric, Flag, Record, RunRecord, read_records
from tapct.records.cases import CLASS_METRICS

MESSAGES = {
    "chance-level": "What knows nothing of the cases does as well. Check the labels, the learning rates "
    "and that the encoder sees what it was trained on (unit, orientation, window)",
    "constant-features": "Channels that are the same everywhere tell nothing. Check the encoder's preprocessing and "
    "that its weights were loaded",
    "repeated-features": "Different cases have the same features, to the bit. Check that the encoder reads its input, "
    "and the data for copies",
    "non-finite-features": "The head saw NaN or infinite values. Check the encoder's precision and its preprocessing",
    "cases-missing": "The reported numbers are of fewer cases than the split has, and do not compare. Check what was "
    "left out",
    "metric-on-fewer-cases": "A metric is undefined for some cases and is the mean of the others only. Read it with "
    "the number of cases beside it",
    "undefined-labels": "Labels without both a positive and a negative case are left out of the means over labels. "
    "Check the split",
    "seeds-without-effect": "Runs of different seeds gave the same numbers, to the bit. Check that the seed reaches "
    "the head, and that the head trains",
    "loss-never-fell": "The training loss ended no lower than it began. Check the learning rates and the features",
    "not-converged": "The training loss was still falling at the end, or a head was not solved: more steps would "
    "change the numbers. Raise max_steps, or the learning rates",
    "head-unchanged": "The head that is reported has the weights that it started from. Check the learning rates, and "
    "that there were steps",
    "zero-head": "All weights of the head are zero: it predicts from its bias alone. Check the weight decay and the "
    "features",
    "best-at-first-look": "Every run did best at the first look at the selection cases, so that training on made it "
    "worse. Check the learning rates",
    "learning-rate-at-edge": "Every run chose the lowest or the highest learning rate of the grid, so that the best "
    "one may lie beyond it. Widen the grid",
    "penalty-at-edge": "Every run chose the weakest or the strongest penalty of the grid. At the strongest, the head "
    "says nothing of the features. Check that they hold anything that carries over from patient to patient",
    "equal-to-another-encoder": "Another encoder's cell has the same numbers or the same head, to the bit. Check that "
    "the cell ran the encoder that it names",
    "setting-without-effect": "A cell of other settings has the same numbers or the same head, to the bit, though the "
    "settings must matter. Check that they reached the run",
    "features-from-pack": "Nobody extracted these features from scans here: what the record says of encoder and cases "
    "is what the pack's maker says. Check who made it, and compare with a cell that was run on the scans",
    "no-better-than-random-weights": "The same network with random weights cannot be told from it, or is better. Check "
    "that the weights were loaded, and the preprocessing",
}
"""Every flag: its id, which stays the same, and what it means and what to check."""

CROSS = frozenset({"equal-to-another-encoder", "setting-without-effect", "no-better-than-random-weights"})
"""Flags that show only beside other cells."""

DEAD_SHARE = 0.1
"""Share of constant channels from which on they are flagged; a few are dead in any network with ReLU."""

CARD_SETTINGS = ("name", "window_size", "spacing_mm", "in_plane_size", "pad_hu")
PROBE_SETTINGS = ("seed", "feature_dtype")
TASK_SETTINGS = ("options", "train_fraction", "perturbation")
"""Settings any change of which must change numbers; a learning rate that was not chosen need not."""

SHUFFLES = 4
"""How often the predictions of each run are dealt out at random to see what chance gives."""

STEPPED = "abmil"
"""The adaptor whose heads are trained by steps, and that of records from before there were others."""

STILL_FALLING = 0.1
"""Share of the whole fall of the training loss that may be left to its last third."""

RESAMPLES = 500
"""Fewer than the leaderboard's: a flag needs to know on which side of 0 an interval ends, not where."""

METRICS_OF_PAIRS: dict[Metric, str] = {"MicroAUROC": "MacroAUROC", "MicroAP": "MacroAP"}


def with_own_checks(record: Record) -> Record:
    """Returns a record with the flags that show in it alone, and none other."""
    return record.model_copy(update={"flags": own_flags(record)})


def with_cross_checks(record: Record, results: Path) -> Record:
    """Returns a record with the flags that show beside the other cells of its task; its own ones stay.

    Args:
        record: The record that is to be published.
        results: The results folder; its records of the task are read (those that are not sound are passed over), the
            record's own among them if it is there.
    """
    others = read_records(results, record.task["name"]).sound.values() if results.is_dir() else ()
    kept = [flag for flag in record.flags if flag.id not in CROSS]
    return record.model_copy(update={"flags": [*kept, *cross_flags(record, list(others))]})


def own_flags(record: Record) -> list[Flag]:
    """Returns the flags of a record by itself."""
    checks = (_chance, _pack, _features, _cases, _undefined, _seeds, _training, _solved, _selection)
    return [_flag(*found) for check in checks for found in check(record)]


def cross_flags(record: Record, others: Sequence[Record]) -> list[Flag]:
    """Returns the flags of a record beside others; of another task or split they say nothing."""
    comparable = [other for other in others if _same_question(record, other)]
    checks = (_equal, _random_weights)
    return [_flag(*found) for check in checks for found in check(record, comparable)]


Found = Iterator[tuple[str, str]]
"""Ids of flags, and what was found."""


def _flag(name: str, detail: str) -> Flag:
    return Flag(id=name, message=MESSAGES[name], detail=detail)


def _reported(run: RunRecord) -> list[CaseResult]:
    return run.cases.get("test") or run.cases.get("val") or []


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _runs(found: Sequence[RunRecord]) -> str:
    return f"run{'s' * (len(found) > 1)} {_listed([run.run for run in found])}"


# -- Chance ------------------------------------------------------------------------------------------------


def _chance(record: Record) -> Found:
    """Compares with what knows nothing of the cases.

    Of classification that is the same scores, dealt out to the cases at random: AUROC 0.5 for one label; more over all
    pairs, where some labels are more common than others; and an average precision above the share of positives, to
    which a random order comes down only with many cases. Of voxels it is the one class, given to all of them, that has
    the best mean Dice; it is taken from the reported references, which favours it.
    """
    runs = [_reported(run) for run in record.runs]
    cases = {tuple((case.case, case.patient) for case in run) for run in runs}
    if not runs or not runs[0] or len(cases) > 1 or len({case.case for case in runs[0]}) < len(runs[0]):
        return
    at_chance = [f"{name} by {_in_words(gap)}" for name, gap in _gaps(record, runs) if _is_at_chance(gap)]
    if at_chance:
        yield "chance-level", "above chance: " + "; ".join(at_chance)


def _is_at_chance(gap: Estimate) -> bool:
    if gap.value is None:
        return False
    return bool(numeric.at_least(0, gap.value if gap.low is None else gap.low))


def _in_words(gap: Estimate) -> str:
    assert gap.value is not None
    interval = gap.reason if gap.low is None or gap.high is None else f"95 % interval {gap.low:.3f} to {gap.high:.3f}"
    return f"{gap.value:.3f} ({interval})"


def _gaps(record: Record, runs: list[list[CaseResult]]) -> Iterator[tuple[str, Estimate]]:
    """Yields metrics and how far the record is above chance."""
    if all(case.scores and case.target for run in runs for case in run):
        scores = np.array([[list((case.scores or {}).values()) for case in run] for run in runs])
        targets = np.array([list((case.target or {}).values()) for case in runs[0]])
        rng = np.random.default_rng(0)
        values = np.stack([scores, *(rng.permutation(scores, axis=1) for _ in range(SHUFFLES))])
        labels = [k for k in range(targets.shape[1]) if 0 < targets[:, k].sum() < len(targets)]
        for micro, macro in METRICS_OF_PAIRS.items():
            if labels:
                yield micro, _gap([_inputs(record, runs, micro, values, targets)])
            if labels and targets.shape[1] > 1:
                yield macro, _gap([_inputs(record, runs, micro, values[..., [k]], targets[:, [k]]) for k in labels])
    if all(case.dice and case.voxels and case.reference_voxels for run in runs for case in run):
        dice = np.array([[numeric.mean((case.by_class("dice_native") or {}).values()) for case in run] for run in runs])
        constant = np.broadcast_to(_constant_dice(runs[0]), dice.shape)
        yield "dice_native", _gap([_inputs(record, runs, "dice_native", np.stack([dice, constant]))])


def _constant_dice(cases: list[CaseResult]) -> np.ndarray:
    """Returns (cases,) mean Dice over the defined classes if all voxels are of one class, the best one for that."""
    references = [case.reference_voxels or {} for case in cases]
    by_class = []
    for name in references[0]:
        there = [reference[name] for reference in references]
        dice = [2 * n / (n + (case.voxels or 0)) for n, case in zip(there, cases, strict=True)]
        # The class itself is defined wherever it is predicted, so everywhere.
        defined = [sum(v > 0 for k, v in reference.items() if k != name) + 1 for reference in references]
        by_class.append(np.array(dice) / defined)
    return by_class[numeric.best_first([numeric.mean(of) for of in by_class])[0]]


def _inputs(
    record: Record, runs: list[list[CaseResult]], metric: Metric, values: np.ndarray, targets: np.ndarray | None = None
) -> TaskInputs:
    """Returns the record as the first model, and chance as the others."""
    return TaskInputs(
        task=record.task["name"],
        version=f"{record.task.get('version')}:{record.task.get('split_sha256')}",
        metric=metric,
        models=("this", *(f"chance {k}" for k in range(1, len(values)))),
        cases=tuple(case.case for case in runs[0]),
        patients=tuple(case.patient for case in runs[0]),
        values=values,
        targets=targets,
    )


def _gap(of_labels: list[TaskInputs]) -> Estimate:
    """Returns the metric of the record minus the mean of chance, averaged over labels, with its interval."""
    first = of_labels[0]
    patients = first.num_patients
    drawn = draw_patients(patients, RESAMPLES, f"{first.task}:{first.version}")
    counts = np.concatenate([np.ones((patients, 1)), drawn, 1 - np.eye(patients)], axis=1)
    by_model = np.mean([evaluate(inputs, counts).mean(axis=1) for inputs in of_labels], axis=0)
    value, draws, jackknife = np.split(numeric.difference(by_model[0], by_model[1:].mean(axis=0)), [1, 1 + RESAMPLES])
    return estimate(float(value[0]), draws, jackknife, patients, "it is undefined")


# -- One record --------------------------------------------------------------------------------------------


def _pack(record: Record) -> Iterator[tuple[str, str]]:
    if record.feature_pack is not None:
        yield "features-from-pack", f"pack {record.feature_pack.sha256[:12]}"


def _features(record: Record) -> Found:
    seen = record.execution.get("features")
    if not seen:
        return
    if seen["non_finite"]:
        yield "non-finite-features", f"{seen['non_finite']} values in {seen['cases']} training cases"
    dead, channels = seen["constant_channels"], seen["channels"]
    if dead is not None and dead >= DEAD_SHARE * channels:
        yield "constant-features", f"{dead} of {channels} channels over {seen['cases']} training cases"
    if seen["repeated_cases"]:
        yield "repeated-features", f"{seen['repeated_cases']} of {seen['cases']} training cases"


def _cases(record: Record) -> Found:
    expected = record.task.get("cases", {})
    for split in {split: None for run in record.runs for split in run.cases}:
        fewest = min(len(run.cases.get(split, [])) for run in record.runs)
        if fewest < expected.get(split, 0):
            yield "cases-missing", f"{fewest} of {expected[split]} {split} cases"


def _undefined(record: Record) -> Found:
    fewer = [found for metric in CLASS_METRICS if (found := _fewest_defined(record, metric))]
    if fewer:
        yield "metric-on-fewer-cases", "; ".join(fewer)
    for run in record.runs:
        left_out = (run.metrics.get("test") or run.metrics.get("val") or {}).get("UndefinedLabels")
        if left_out:
            yield "undefined-labels", f"{left_out:.0f} of {len(record.task.get('classes', []))} labels"
            return


def _fewest_defined(record: Record, metric: ClassMetric) -> str | None:
    """Returns how many cases define a metric in the run that has the fewest, None where all do or none has it."""
    rows = [[row for case in _reported(run) if (row := case.by_class(metric)) is not None] for run in record.runs]
    counts = [(sum(any(v is not None for v in row.values()) for row in of_run), len(of_run)) for of_run in rows]
    defined, cases = min(counts, default=(0, 0))
    return f"{metric} on {defined} of {cases} cases" if defined < cases else None


def _seeds(record: Record) -> Found:
    if record.probe.get("adaptor", STEPPED) != STEPPED:  # solved: no seed decides anything
        return
    for what, of in (("heads", [run.probe_sha256 for run in record.runs]), ("numbers", _numbers(record))):
        if len(of) > 1 and len(set(of)) < len(of):
            yield "seeds-without-effect", f"{len(of)} runs have {len(set(of))} different {what}"
            return


def _training(record: Record) -> Found:
    of_run = {run["run"]: run["training"] for run in record.execution.get("runs", []) if "training" in run}
    known = [(run, of_run[run.run]) for run in record.runs if run.run in of_run]
    if flat := [(run, training["loss"]) for run, training in known if _never_fell(training["loss"])]:
        ends = (f"{loss[0]} to {loss[-1]}" for _, loss in flat)
        yield "loss-never-fell", f"{_runs([run for run, _ in flat])}: from {_listed(list(ends))}"
    if late := [run for run, training in known if _still_falls(training["loss"])]:
        yield "not-converged", f"the training loss of {_runs(late)}"
    if same := [run for run, training in known if training["start_sha256"] == run.probe_sha256]:
        yield "head-unchanged", _runs(same)
    if zero := [run for run, training in known if training["is_zero"]]:
        yield "zero-head", _runs(zero)


def _never_fell(losses: list[float | None]) -> bool:
    """Returns whether the last stretch is no lower than the first, or was not finite; of few stretches never."""
    if len(losses) < 10:
        return False
    first, last = losses[0], losses[-1]
    return first is None or last is None or bool(numeric.at_least(last, first))


def _still_falls(losses: list[float | None]) -> bool:
    """Returns whether the last third of the curve lies below the middle one by more than a tenth of the whole fall."""
    known = [loss for loss in losses if loss is not None]
    if len(known) < len(losses) or len(known) < 10 or _never_fell(losses):
        return False
    third = len(known) // 3
    middle, last = (statistics.fmean(part) for part in (known[-2 * third : -third], known[-third:]))
    return middle - last > STILL_FALLING * (known[0] - last)


def _solved(record: Record) -> Found:
    chosen = [run.selection for run in record.runs if run.selection and "setting" in run.selection]
    if any(one.get("is_solved") is False for one in chosen):
        yield "not-converged", f"a gradient of {max(one['gradient'] for one in chosen):.1g} is left"
    grid = [c["setting"] for c in chosen[0]["candidates"]] if chosen and "gradient" in chosen[0] else []
    settings = {one["setting"] for one in chosen}
    if len(grid) > 2 and (settings == {min(grid)} or settings == {max(grid)}):
        yield "penalty-at-edge", f"{settings.pop():g} of {min(grid):g} to {max(grid):g}"


def _selection(record: Record) -> Found:
    looked = [run.selection for run in record.runs if run.selection and "learning_rate" in run.selection]
    chosen = [one for one in looked if one.get("score") is not None]
    if not chosen or len(chosen) < len(record.runs):
        return
    looks = [
        next(c["scores"] for c in one["candidates"] if c["learning_rate"] == one["learning_rate"]) for one in chosen
    ]
    if all(len(of) > 2 and one["step"] == of[0][0] for one, of in zip(chosen, looks, strict=True)):
        yield "best-at-first-look", f"at step {_listed(sorted({one['step'] for one in chosen}))} in every run"
    grid = sorted({c["learning_rate"] for one in chosen for c in one["candidates"]} - {None})
    rates = {one["learning_rate"] for one in chosen}
    if len(grid) > 2 and (rates == {grid[0]} or rates == {grid[-1]}):
        yield "learning-rate-at-edge", f"{rates.pop():g} of {grid[0]:g} to {grid[-1]:g} in every run"


# -- Beside other cells ------------------------------------------------------------------------------------


def _same_question(one: Record, other: Record) -> bool:
    return all(one.task.get(key) == other.task.get(key) for key in ("name", "version", "split_sha256"))


def _equal(record: Record, others: Sequence[Record]) -> Found:
    for other in others:
        changed = _changed_settings(record, other)
        found = _common(record, other, changed)
        if not changed or not found:
            continue
        encoders = [f"{of.encoder['card']['name']} ({of.encoder.get('weights')})" for of in (record, other)]
        if record.encoder["card"]["name"] != other.encoder["card"]["name"]:
            yield "equal-to-another-encoder", f"{found} of {encoders[0]} are those of {encoders[1]}"
        else:
            yield "setting-without-effect", f"{found} are those of {encoders[1]}, which differs in {_listed(changed)}"


def _changed_settings(one: Record, other: Record) -> list[str]:
    """Returns the settings that must matter and differ; one that a record lacks (an older one may) is no difference."""
    pairs = [
        *((f"encoder.card.{key}", one.encoder["card"], other.encoder["card"], key) for key in CARD_SETTINGS),
        *((f"encoder.{key}", one.encoder, other.encoder, key) for key in ("weights_sha256", "precision_used")),
        *((f"probe.{key}", one.probe, other.probe, key) for key in PROBE_SETTINGS),
        *((f"task.{key}", one.task, other.task, key) for key in TASK_SETTINGS),
    ]
    settings = [(of.encoder.get("identity") or {}).get("settings", {}) for of in (one, other)]
    pairs += [(f"encoder.{key}", *settings, key) for key in settings[0]]
    # All patients are the same ones, however often they are drawn.
    if one.task.get("train_fraction", 1) < 1:
        pairs.append(("task.train_draw", one.task, other.task, "train_draw"))
    # No seed decides anything of a solved head.
    solved = any("setting" in (run.selection or {}) or "gradient" in (run.selection or {}) for run in one.runs)
    pairs = [pair for pair in pairs if not (solved and pair[0] == "probe.seed")]
    return [path for path, a, b, key in pairs if key in a and key in b and _json(a[key]) != _json(b[key])]


def _common(one: Record, other: Record, changed: Sequence[str]) -> str | None:
    """Returns what two records have in common to the bit. Heads do not depend on the reported scans."""
    if set(_numbers(one)) & set(_numbers(other)):
        return "the numbers of the cases"
    heads = {run.probe_sha256 for run in one.runs} & {run.probe_sha256 for run in other.runs}
    return "the heads" if heads and set(changed) != {"task.perturbation"} else None


def _numbers(record: Record) -> list[str]:
    """Returns, for each run, a hash of what it gave for the reported cases."""
    keep = {"case", "loss", "dice", "logits", "probabilities"}
    rows = [sorted((c.model_dump(mode="json", include=keep) for c in _reported(r)), key=_case) for r in record.runs]
    return [hashlib.sha256(_json(of).encode()).hexdigest() for of in rows if of]


def _case(row: dict[str, Any]) -> str:
    return row["case"]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _random_weights(record: Record, others: Sequence[Record]) -> Found:
    metric = record.task.get("metric")
    if metric is None or record.encoder.get("weights") in (RANDOM, NONE):
        return
    only_weights = ["encoder.weights_sha256"]
    for other in others:
        if other.encoder.get("weights") != RANDOM or _changed_settings(record, other) != only_weights:
            continue
        try:
            summary = summarise_task(from_records([record, other], metric, names=("this", "random")))
        except RecordError:  # of other runs or training: there is nothing to compare with
            continue
        if not any(difference.better == "this" for difference in summary.comparison.differences):
            values = ["undefined" if m.estimate.value is None else f"{m.estimate.value:.3f}" for m in summary.models]
            why = "".join(f", p = {difference.p_value:.2g}" for difference in summary.comparison.differences)
            reason = "" if summary.comparison.reason is None else f" ({summary.comparison.reason})"
            yield "no-better-than-random-weights", f"{metric} {values[0]}, with random weights {values[1]}{why}{reason}"
            return
