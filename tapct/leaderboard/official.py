"""What a result of our own protocol looks like: the shipped task, its split, and the config that ships for it.

A record that agrees is *comparable*, whatever the other records of its folder are; any other goes to a section of its
own. Free is what each encoder needs for itself: the rates, the dtype of stored features, the card's options, the seed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tapct import kinds
from tapct.errors import RecordError
from tapct.records import Recorded
from tapct.statistics.inputs import external, is_solved, ranked_by
from tapct.statistics.reported import reported
from tapct.sweep.experiment import SHIPPED_CONFIGS, configs_by_task
from tapct.tasks import list_tasks, task_class
from tapct.tasks.registry import why_unusable

UNSAID: Mapping[str, Any] = {
    "window_overlap": 0.0,
    "fit_windows": False,
    "scale_features": True,
    "start_bias": "prior",
    "nsd_tolerance_mm": 2.0,
    "apart_mm": 10.0,
    "select": "best",
    "optimizer": {"class": "AdamW", "weight_decay": 0.01},
    "lr_scheduler": ["CosineAnnealingLR"],
    "n_runs": 3,
    "accumulate_grad_batches": 4,
    "batch_size": 1,
    "learning_rates": None,
    "gradient_clip_val": None,
}
"""What holds where a config says nothing: the defaults of the probes, the trainer and the data."""

OF_ADAMW: Mapping[str, Any] = {"betas": [0.9, 0.999], "eps": 1e-8, "amsgrad": False, "maximize": False}
"""What no config sets of the optimizer, and holds where a record says it: PyTorch's defaults."""

_OF_STEPS = (
    *("select", "optimizer", "lr_scheduler", "max_steps", "accumulate_grad_batches", "learning_rates"),
    "gradient_clip_val",
)
_OF_ALL = ("window_overlap", "fit_windows", "scale_features")


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A task as it ships.

    Attributes:
        version: Its version.
        kind: What is predicted.
        metric: What it is ranked by.
        notice: What stands next to every number of it, if anything.
        classes: Its classes or labels.
        split_rule: What its split is called, where only the data tell which cases it has.
        split_sha256: Hash of its split; None where only the data tell.
        alternatives: Hash of each split that ships next to it, to its name.
        counts: Cases in (train, val, test); None where only the data tell.
        adaptor: What it is ranked on; None where features are not pooled.
        settings: What its config says, and where it says nothing what holds then.
        described: Names of the options that its records hold.
        unit: Of its targets.
    """

    version: int
    kind: str
    metric: str
    notice: str | None
    classes: tuple[str, ...]
    split_rule: str | None
    split_sha256: str | None
    alternatives: Mapping[str, str]
    counts: tuple[int, int, int] | None
    adaptor: str | None
    settings: Mapping[str, Any]
    described: frozenset[str]
    unit: str | None = None


@cache
def shipped(task: str) -> Shipped | None:
    """Returns a task as it ships, None of a task that does not, or for which no config does.

    Raises:
        RecordError: If the shipped configs are not there.
    """
    if task not in list_tasks():
        return None
    try:
        config = configs_by_task(SHIPPED_CONFIGS).get(task)
    except ValueError as error:
        raise RecordError(
            f"there are no configs in {SHIPPED_CONFIGS}, which tell what is comparable. They come with "
            "tapct-bench: install it again"
        ) from error
    if config is None:
        return None
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    said = {key: value for part in ("trainer", "model", "data") for key, value in content[part]["init_args"].items()}
    dataset = task_class(task)
    counts = dataset.split_counts()
    found = {**UNSAID, **{key: _unset(value) for key, value in said.items()}}
    if "optimizer" in said:
        asked = {k: v for k, v in said["optimizer"].get("init_args", {}).items() if k in UNSAID["optimizer"]}
        found["optimizer"] = {
            **UNSAID["optimizer"],
            "class": said["optimizer"]["class_path"].rsplit(".", 1)[-1],
            **asked,
        }
    if counts is not None and not counts[1]:  # nothing to select on
        found["select"] = "last"
    return Shipped(
        version=dataset.spec.version,
        kind=dataset.spec.kind,
        metric=dataset.spec.metric,
        notice=dataset.spec.notice,
        classes=dataset.spec.classes,
        split_rule=dataset.split_rule,
        split_sha256=dataset.shipped_split_sha256(),
        alternatives={table.sha256: name for name, table in dataset.alternative_splits().items()},
        counts=counts,
        adaptor=dataset.spec.adaptor,
        settings=found,
        described=frozenset(dataset.described),
        unit=dataset.spec.unit,
    )


def _unset(value: Any) -> Any:
    """Returns what a value of a config is where no variable is set: `${oc.env:NAME, default}` is the default."""
    if isinstance(value, str) and value.startswith("${oc.env:"):
        return yaml.safe_load(value.removeprefix("${oc.env:").removesuffix("}").partition(",")[2])
    return value


def why_own(record: Recorded) -> str | None:
    """Returns why a record does not stand among the comparable ones, None if it does.

    The adaptor is looked at elsewhere: a task is compared under several.
    """
    if record.imported is not None:
        return "imported predictions of a model that was trained elsewhere, which are never ranked"
    if (notice := external(record)) is not None:
        return notice
    task = shipped(record.task.name)
    if task is None:
        return why_unusable(record.task.name) or "no task of ours"
    expected, found = zip(*_compared(record, task), strict=True)
    for (what, ours), (_, theirs) in zip(expected, found, strict=True):
        if ours != theirs and what == "split_sha256" and theirs in task.alternatives:
            return f"on another split that ships: split_file {task.alternatives[theirs]}"
        if ours != theirs:
            return f"{what} is {_in_words(theirs)}, in the shipped protocol {_in_words(ours)}"
    return None


def ranked_adaptor(task: str) -> str | None:
    """Returns the adaptor that a task is ranked on; None where features are not pooled, or the task is not ours."""
    one = shipped(task)
    return one.adaptor if one else None


def is_whole(record: Recorded) -> bool:
    """Returns whether a record has as many reported cases as the shipped split."""
    task = shipped(record.task.name)
    try:
        cases = len(reported(record, "test").cases)
        return task is not None and cases == (record.task.cases.get("test") if task.counts is None else task.counts[2])
    except RecordError:  # it has none, or not the same in every run: what is left out says so
        return False


_Named = tuple[str, Any]


def _compared(record: Recorded, shipped: Shipped) -> Iterator[tuple[_Named, _Named]]:
    """Yields what is compared, as it ships and as the record has it."""
    task, probe, ours = record.task.content(), record.probe.content(), shipped.settings
    of_task = {"version": shipped.version, "classes": [*shipped.classes]}
    of_task |= {"split_sha256": shipped.split_sha256} if shipped.split_rule is None else {"split": shipped.split_rule}
    for key, value in {"kind": shipped.kind, **of_task, "batch_size": ours["batch_size"]}.items():
        found = task.get(key, "not said")
        yield (key, value), (key, [*found] if key == "classes" else found)
    yield ("metric", shipped.metric), ("metric", ranked_by(record))
    yield ("unit", shipped.unit), ("unit", record.task.unit)
    yield ("notice", shipped.notice), ("notice", record.notice)
    options, said = ours.get("options") or {}, task.get("options") or {}
    for key, value in options.items():
        yield (f"option {key}", value), (f"option {key}", said.get(key, "not said"))
    for key in sorted(said.keys() - options.keys() - shipped.described):
        yield (f"option {key}", "not an option"), (f"option {key}", said[key])
    yield ("runs", ours["n_runs"]), ("runs", len(record.runs))
    keys = (*_OF_ALL, *kinds.kind(shipped.kind).settings)
    yield from (((key, ours[key]), (key, probe.get(key, "not said"))) for key in keys)
    if not is_solved(record):
        yield from (
            ((key, _as_compared(key, ours[key])), (key, _as_compared(key, _stepped(record, key)))) for key in _OF_STEPS
        )
        said = probe.get("optimizer") or {}
        for key in (one for one in OF_ADAMW if one in said):
            found = [*said[key]] if isinstance(said[key], list | tuple) else said[key]
            yield (f"optimizer {key}", OF_ADAMW[key]), (f"optimizer {key}", found)
    if task.get("train_fraction", 1) == 1:  # else it says which patients were drawn
        yield ("train_draw", 0), ("train_draw", task.get("train_draw", 0))


def _stepped(record: Recorded, key: str) -> Any:
    """Returns a setting of the training, as a record has it."""
    probe = record.probe.content()
    match key:
        case "optimizer":
            return {k: v for k, v in (probe.get("optimizer") or {}).items() if k in UNSAID["optimizer"]} or "not said"
        case "lr_scheduler":
            ends = {"eta_min": 0, "T_max": probe.get("steps")}  # at zero, with the last step
            return [_schedule(one, ends) for one in probe.get("lr_scheduler") or []]
        case "max_steps":
            return probe.get("steps", "not said")
    return probe.get(key, "not said")


def _schedule(schedule: Mapping[str, Any], ends: Mapping[str, Any]) -> str:
    """Returns the class of a schedule, and where it ends otherwise than it should."""
    odd = [f"{key} {schedule[key]}" for key, value in ends.items() if schedule.get(key, value) != value]
    return " with ".join([str(schedule.get("class")), *odd])


def _as_compared(key: str, value: Any) -> Any:
    """Returns a setting as it is compared: of learning rates their number."""
    return len(value or [None]) if key == "learning_rates" and not isinstance(value, str) else value


def _in_words(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:60]
