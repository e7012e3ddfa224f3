"""Flags that show next to the other experiments of a task."""

from collections.abc import Sequence
from typing import Any

from tapct.errors import RecordError
from tapct.flags.messages import RaisedFlags
from tapct.flags.numbers import numbers
from tapct.names import listed
from tapct.records import Recorded
from tapct.records.encoder import NONE
from tapct.statistics import from_records, summarise_task
from tapct.statistics.inputs import is_solved, ranked_metrics

CARD_SETTINGS = ("name", "window_size", "spacing_mm", "in_plane_size", "pad_hu")
ENCODER_SETTINGS = ("weights_sha256", "precision_used")
PROBE_SETTINGS = ("seed", "feature_dtype")
TASK_SETTINGS = ("options", "train_fraction", "perturbation", "train_draw")
"""Settings any change of which must change numbers; a learning rate that was not chosen need not."""


def same_question(one: Recorded, other: Recorded) -> bool:
    """Returns whether two records are of one version and split of a task."""
    return all(getattr(one.task, key) == getattr(other.task, key) for key in ("name", "version", "split_sha256"))


def equal(record: Recorded, other: Recorded) -> RaisedFlags:
    """Looks for what two experiments that differ in a setting must not have in common."""
    changed = _changed_settings(record, other)
    found = _common(record, other, changed)
    if not changed or not found:
        return
    names = [f"{of.encoder.card.name} ({of.encoder.weights_name})" for of in (record, other)]
    if record.encoder.card.name != other.encoder.card.name:
        yield "equal-to-another-encoder", f"{found} of {names[0]} are those of {names[1]}"
    else:
        yield "setting-without-effect", f"{found} are those of {names[1]}, which differs in {listed(changed)}"


def _changed_settings(one: Recorded, other: Recorded) -> list[str]:
    """Returns the settings that must matter and differ; one that a record lacks (an older one may) is no difference."""
    first, second = (_that_matter(record) for record in (one, other))
    # All patients are the same ones, however often they are drawn; no seed decides anything of a solved head.
    without = {"task.train_draw"} if one.task.train_fraction == 1 else set()
    without |= {"probe.seed"} if is_solved(one) else set()
    return [path for path in first if path in second and path not in without and first[path] != second[path]]


def _that_matter(record: Recorded) -> dict[str, Any]:
    """Returns the settings of a record any change of which must change numbers, as far as it says them."""
    encoder, probe, task = record.encoder.content(), record.probe.content(), record.task.content()
    found = {f"encoder.card.{key}": encoder["card"][key] for key in CARD_SETTINGS}
    found |= {f"encoder.{key}": encoder[key] for key in ENCODER_SETTINGS if key in encoder}
    found |= {f"probe.{key}": probe[key] for key in PROBE_SETTINGS if key in probe}
    found |= {f"task.{key}": task[key] for key in TASK_SETTINGS if key in task}
    own = record.encoder.identity.settings if record.encoder.identity else {}
    return found | {f"encoder.{key}": value for key, value in own.items()}


def _common(one: Recorded, other: Recorded, changed: Sequence[str]) -> str | None:
    """Returns what two records have in common to the bit. Heads do not depend on the reported scans."""
    if set(numbers(one)) & set(numbers(other)):
        return "the numbers of the cases"
    heads = {run.probe_sha256 for run in one.runs} & {run.probe_sha256 for run in other.runs}
    return "the heads" if heads and set(changed) != {"task.perturbation"} else None


def random_weights(record: Recorded, other: Recorded) -> RaisedFlags:
    """Compares with the same network of random weights."""
    if record.task.metric is None or record.encoder.is_random or record.encoder.weights == NONE:
        return
    if not other.encoder.is_random or _changed_settings(record, other) != ["encoder.weights_sha256"]:
        return
    metric = ranked_metrics(record)["native"]
    try:
        summary = summarise_task(from_records([record, other], metric, names=("this", "random")))
    except RecordError:  # of other runs or training: there is nothing to compare with
        return
    if not any(difference.better == "this" for difference in summary.comparison.differences):
        values = ["undefined" if m.estimate.value is None else f"{m.estimate.value:.3f}" for m in summary.models]
        why = "".join(f", p = {difference.p_value:.2g}" for difference in summary.comparison.differences)
        reason = "" if summary.comparison.reason is None else f" ({summary.comparison.reason})"
        yield "no-better-than-random-weights", f"{metric} {values[0]}, with random weights {values[1]}{why}{reason}"
