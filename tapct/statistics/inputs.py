"""What the statistics of one task are computed from: arrays, made from records that really compare."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tapct import kinds
from tapct.errors import RecordError
from tapct.kinds import STEPPED_HEADS, Cases, Mean, Metric, PairRank, Statistic
from tapct.records import Protocol
from tapct.records.models import CLASS, what_is_recorded
from tapct.records.record import Recorded
from tapct.records.selection import RateScores
from tapct.statistics.models import is_setting, names_of
from tapct.statistics.reported import Reported, reported

Variable = Literal["train_fraction", "train_draw", "perturbation", "adaptor", "imported"]
"""What records of one task may be made to differ in, to see what it does."""

_OF_THE_ADAPTOR = frozenset(
    {
        *("adaptor", "select", "steps", "accumulate_grad_batches", "gradient_clip_val", "lr_scheduler", "optimizer"),
        *("number of learning rates", "looks at the selection cases", "generator", "decoding"),
    }
)
"""What differs by nature where adaptors do: a solved head has no steps, rates or validation evaluations."""

_PLAIN: dict[str, Any] = {"train_fraction": 1.0, "train_draw": 0, "perturbation": None}
"""What these are in records from before they could be set."""

_TASK = ("name", "version", "kind", "classes", "options", "split_sha256")
_PROBE = (
    *("module", "window_overlap", "fit_windows", "select", "steps", "accumulate_grad_batches", "gradient_clip_val"),
    *("lr_scheduler", "scale_features", "start_bias", "apart_mm", "reader", "generator", "decoding", "adaptor"),
)
_OF_A_PROBE = frozenset(
    {
        *(*_PROBE, "optimizer", "batch_size", "number of learning rates", "looks at the selection cases"),
        *("trained on", "runs"),
    }
)
"""What only records of our probes have: imported predictions were made otherwise, in as many runs as they were."""

_OF_WORDS = ("BLEU4", "ROUGE-L", "METEOR")
"""Metrics that another release of a library may give otherwise."""

_RATES = frozenset({"lr", "initial_lr", "base_lrs", "_last_lr"})
_HOW_COMPUTED = frozenset({"foreach", "fused", "capturable", "differentiable"})


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskInputs:
    """One metric of one task, of all models on the same cases.

    Attributes:
        task: Name of the task.
        version: What decides its cases and labels, such as the task's version and the hash of its split. With
            `task` it seeds the resamples, so every metric of a task sees the same ones.
        metric: The metric.
        models: M names.
        cases: C names.
        patients: The patient of each case, C names.
        values: (M, seeds, C) scores of cases, NaN where undefined; or, for the metrics of pairs,
            (M, seeds, C, labels) scores of pairs, of which only the order within a seed counts: logits; of records
            of an older protocol, probabilities. None for a statistic of all cases.
        samples: For a statistic, the cases of each of M models and of each seed; else None.
        targets: (C, labels) 0/1 references of the metrics of pairs, NaN where they are missing; else None.
        notice: What must stand next to every number, if anything.
        unit: The unit of the metric; None where it has none.
    """

    task: str
    version: str
    metric: str
    models: tuple[str, ...]
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    values: np.ndarray | None = None
    samples: tuple[tuple[Cases, ...], ...] | None = None
    targets: np.ndarray | None = None
    notice: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        is_statistic, is_of_pairs = (isinstance(self.of_metric.of, one) for one in (Statistic, PairRank))
        for what, given, wanted in (
            ("values", self.values is not None, not is_statistic),
            ("samples", self.samples is not None, is_statistic),
            ("targets", self.targets is not None, is_of_pairs),
        ):
            if given != wanted:
                raise ValueError(f"{self.metric} {'needs' if wanted else 'takes no'} {what}")
        if len(self.patients) != len(self.cases) or (self.targets is not None and len(self.targets) != len(self.cases)):
            raise ValueError("patients and targets must have one entry per case")
        for what, names in (("models", self.models), ("cases", self.cases)):
            if len(set(names)) != len(names):
                raise ValueError(
                    f"{what} must have different names: {sorted({n for n in names if names.count(n) > 1})}"
                )
        if self.samples is not None:
            self._check_samples(self.samples)
        if self.values is not None:
            self._check_values(self.values)

    def _check_samples(self, samples: tuple[tuple[Cases, ...], ...]) -> None:
        if len(samples) != len(self.models) or not samples or len({len(of_model) for of_model in samples}) > 1:
            raise ValueError(f"there must be samples of {len(self.models)} models, as many of each")
        if any(one.names != self.cases for of_model in samples for one in of_model):
            raise ValueError("samples must be of the cases")

    def _check_values(self, values: np.ndarray) -> None:
        labels = () if self.targets is None else self.targets.shape[1:]
        models, _, *rest = values.shape
        if (models, *rest) != (len(self.models), len(self.cases), *labels):
            expected = f"{len(self.models)} models, {len(self.cases)} cases, {labels} labels"
            raise ValueError(f"values are {values.shape} for {expected}")
        if values.size == 0 or np.isinf(values).any():
            raise ValueError("values must be there, and finite")
        if self.targets is None:
            return
        if np.isnan(values).any() or not (np.isin(self.targets, (0, 1)) | ~self.stated).all():
            raise ValueError("scores of pairs must be defined, and targets 0, 1 or NaN")

    @property
    def of_metric(self) -> Metric:
        """The metric."""
        return kinds.metric(self.metric)

    @property
    def undefined(self) -> str:
        """Why a number of this task is undefined, where it is."""
        return self.of_metric.undefined

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return self.of_metric.sign

    @cached_property
    def patient_index(self) -> np.ndarray:
        """(C,) number of each case's patient, in [0, patients)."""
        return np.unique(self.patients, return_inverse=True)[1]

    @property
    def stated(self) -> np.ndarray:
        """(C, labels) which pairs have a reference: the metrics of pairs are of these alone."""
        assert self.targets is not None
        return ~np.isnan(self.targets)

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The P pairs that have a reference: (M, seeds, P) scores, (P,) 0/1 references, (P,) number of the patient."""
        assert self.values is not None
        assert self.targets is not None
        patients = np.broadcast_to(self.patient_index[:, None], self.stated.shape)
        return self.values[:, :, self.stated], self.targets[self.stated], patients[self.stated]

    @cached_property
    def needed(self) -> dict[str, int]:
        """How many patients have what the metric needs, by what that is, such as "with a positive"."""
        if self.samples is not None:
            cases = self.samples[0][0]
        elif self.targets is not None:
            cases = Cases(self.cases, self.patients, (), {"target": self.targets})
        else:
            return {}
        found = self.of_metric.needs(cases)
        return {what: len(np.unique(self.patient_index[of_cases])) for what, of_cases in found.items()}

    @property
    def key(self) -> str:
        """What seeds the resamples: the same for all models and metrics of a task."""
        return f"{self.task}:{self.version}"

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return len(set(self.patients))


def model_name(record: Recorded) -> str:
    """Returns the name of a record's model, as a sweep has it: `curia@random`, `tap-b-3d+in_plane_size=512`."""
    return record.encoder.label


def model_names(records: Sequence[Recorded]) -> list[str]:
    """Returns the `model_name` of each record, with the settings that tell models of one name apart."""
    return names_of(records, [model_name(record) for record in records], by=is_setting)


def adaptor_of(record: Recorded) -> str | None:
    """Returns the adaptor of a record; None of a task whose features are not pooled."""
    # Adaptors were not named at first, and tasks of somebody's own need not say what kind they are.
    usual = None if record.task.kind is None else kinds.kind(record.task.kind).usual_head
    return record.probe.adaptor or usual


def is_solved(record: Recorded) -> bool:
    """Returns whether its heads are solved on pooled features: no seed decides anything of them."""
    adaptor = adaptor_of(record)
    return adaptor is not None and adaptor.partition(":")[0] not in STEPPED_HEADS  # `abmil:patch` is on another bag


def ranked_by(record: Recorded) -> str | None:
    """Returns the metric that a record's task is ranked by, on the native grid; None where the record does not say."""
    ranked = () if record.task.kind is None else kinds.kind(record.task.kind).ranked
    return ranked[0] if len(ranked) == 1 else record.task.metric


EXTERNAL = "External validation:"
"""How the notice of heads that were trained on another task or split begins."""


def ranked_metrics(record: Recorded) -> dict[Protocol, str]:
    """Returns the ranked metric under each protocol.

    Raises:
        RecordError: If its task has none.
    """
    if (metric := ranked_by(record)) is None:
        raise RecordError("a record's task has no metric that it is ranked by")
    on_paper_grid = kinds.kind(record.task.kind).on_paper_grid if record.task.kind else None
    return {"native": metric, "paper": (on_paper_grid or {}).get(metric, metric)}


def external(record: Recorded) -> str | None:
    """Returns what must stand next to numbers of heads that were trained before, elsewhere; None of other heads.

    What they reach and what heads reach that were trained on the task's own training cases are never ranked together.
    """
    head_from = record.probe.head_from
    if head_from is None:
        return None
    trained = f"on {head_from.name}" if head_from.name else "nobody knows on what (a head without a record)"
    return f"{EXTERNAL} the heads were trained {trained}, not in these runs."


def require_one_encoder(models: Sequence[str], records: Sequence[Recorded]) -> None:
    """Refuses records of one model that are of different encoders, options or weights.

    Args:
        models: Name of the model of each record.
        records: The records.

    Raises:
        RecordError: If two records of a model differ in what the features depend on.
    """
    first: dict[str, dict[str, Any]] = {}
    for model, record in zip(models, records, strict=True):
        own = known = {k: v for k, v in record.encoder.content().items() if k in ("card", "weights_sha256")}
        if CLASS in (identity := what_is_recorded(record)):
            own = own | identity
        expected = first.setdefault(model, own)
        both = CLASS in expected and CLASS in own  # an older record does not say
        seen = {key: value for key, value in expected.items() if both or key in known}
        _require_equal(model, seen, f"another record of {model}", {k: v for k, v in own.items() if both or k in known})
        first[model] = expected | own


def from_records(
    records: Sequence[Recorded],
    metric: str,
    *,
    split: str = "test",
    names: Sequence[str] | None = None,
    vary: Collection[Variable] = (),
) -> TaskInputs:
    """Collects a metric from the records of one task, one record per model.

    Args:
        records: The records, all of the same cases and `comparison_settings`.
        metric: The metric.
        split: The split that is reported.
        names: Names of the models; by default their `model_names`.
        vary: The settings in which the records may differ, because their effect is what is asked for.

    Raises:
        RecordError: If a record is incomplete, does not compare with the others, or has no such metric.
    """
    if not records:
        raise RecordError("there is no record to compare")
    models = tuple(names or model_names(records))
    if len(set(models)) != len(models) or len(models) != len(records):
        raise RecordError(f"{len(records)} records need as many different names, not {list(models)}; give names=...")
    free = {*vary, *(_OF_THE_ADAPTOR if "adaptor" in vary else ()), *(_OF_A_PROBE if "imported" in vary else ())}
    settings = [
        {key: value for key, value in comparison_settings(record, metric).items() if key not in free}
        for record in records
    ]
    for name, record, own in zip(models, records, settings, strict=True):
        if not record.complete:
            raise RecordError(f"{name}: {len(record.runs)} of {record.runs_planned} runs have ended; finish it first")
        _require_equal(models[0], settings[0], name, own)
    found: list[Reported] = []
    for name, record in zip(models, records, strict=True):
        try:
            one = reported(record, split)
        except RecordError as error:
            raise RecordError(f"{name}: {error}") from error
        found.append(one.ordered(found[0].classes) if found else one)
        if not found[-1].is_of_the_cases_of(found[0]):
            _require_equal(models[0], found[0].identities, name, found[-1].identities)
    if "imported" in vary:
        seeds = math.lcm(*(len(one.runs) for one in found))
        found = [one.repeated(seeds // len(one.runs)) for one in found]
    task = records[0].task
    return TaskInputs(
        task=task.name,
        version=f"{task.version}:{task.split_sha256}:{split}",
        metric=metric,
        models=models,
        cases=found[0].cases,
        patients=found[0].patients,
        **_numbers(models, found, metric),
        unit=kinds.metric(metric).unit_of(task.unit),
        notice=" ".join(filter(None, [records[0].notice, external(records[0])])) or None,
    )


def comparison_settings(record: Recorded, metric: str) -> dict[str, Any]:
    """Returns what must be the same in all records for their numbers to compare, by name.

    The task and its split; the labels that were trained on; how the head was trained: steps, batch, optimizer,
    schedule, how many learning rates and looks at the selection cases it was chosen from; how scans are cut into
    windows; the tolerance of NSD; the number of runs. Free are what each encoder needs for itself (its card's options,
    the rates, the dtype of stored features), the seeds, and the machine. A setting that a record lacks is left out, and
    so only compares with records that lack it as well.

    Raises:
        RecordError: If the record does not say what task it is of.
    """
    task, probe = record.task.content(), record.probe.content()
    missing = [key for key in _TASK if key not in task]
    if missing:
        raise RecordError(f"a record's task has no {', '.join(missing)}")
    settings = {key: task[key] for key in (*_TASK, "batch_size", "unit", "folds") if key in task}
    settings |= {key: task.get(key, plain) for key, plain in _PLAIN.items()}
    settings["ranked by"] = ranked_by(record)
    if settings["perturbation"] is not None:
        settings["perturbation"] = [settings["perturbation"], task.get("perturbation_parameters")]
    settings |= {key: _without(probe[key], _RATES) for key in _PROBE if key in probe}
    if "optimizer" in probe:
        settings["optimizer"] = _without(probe["optimizer"], _RATES | _HOW_COMPUTED)
    if "learning_rates" in probe:
        settings["number of learning rates"] = len(probe["learning_rates"] or [None])
    if head_from := probe.get("head_from"):  # trained elsewhere: external validation
        # Of a head without a record nobody knows what trained it: it compares with itself alone.
        unknown = None if "record" in head_from else head_from.get("sha256")
        settings["trained on"] = [head_from.get("name"), head_from.get("split_sha256"), unknown]
    settings["looks at the selection cases"] = _looks(record)
    if metric == "nsd_native":
        settings["nsd_tolerance_mm"] = probe.get("nsd_tolerance_mm")
    if metric in _OF_WORDS:
        settings["word_scores"] = probe.get("word_scores")
    return settings | {"notice": record.notice, "runs": len(record.runs)}


def _without(value: Any, keys: frozenset[str]) -> Any:
    """Returns settings without some keys, at any depth."""
    if isinstance(value, dict):
        return {key: _without(inner, keys) for key, inner in value.items() if key not in keys}
    if isinstance(value, list | tuple):
        return [_without(inner, keys) for inner in value]
    return value


def _looks(record: Recorded) -> list[int]:
    """Returns how often each candidate head was looked at on the selection cases; the numbers that occur."""
    candidates = [one for run in record.runs if run.selection for one in run.selection.candidates]
    return sorted({len(one.scores) if isinstance(one, RateScores) else 1 for one in candidates})


def _require_equal(first: str, expected: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Refuses a record of other settings or cases, naming the first that differs."""
    if expected == found:
        return
    key = next(k for k in [*expected, *found] if k not in expected or k not in found or expected[k] != found[k])
    ours, theirs = (repr(of.get(key, "missing"))[:200] for of in (expected, found))
    raise RecordError(f"{first} and {name} do not compare: {key} is {ours} and {theirs}")


def _numbers(models: Sequence[str], found: Sequence[Reported], metric: str) -> dict[str, Any]:
    """Returns what `TaskInputs` has of a metric."""
    of = kinds.metric(metric).of
    for name, one in zip(models, found, strict=True):
        if isinstance(of, PairRank) and (one.targets is None or np.isnan(one.scores).any()):
            raise RecordError(f"{name} has no probabilities and targets of the same labels for {metric}")
        if not isinstance(of, PairRank) and metric not in one.compared:
            raise RecordError(f"{name} has no {metric}")
    if isinstance(of, Mean):
        return {"values": np.stack([one.mean_of_cases(metric) for one in found])}
    if isinstance(of, Statistic):
        return {"samples": tuple(one.runs for one in found)}
    return {"values": np.stack([one.scores for one in found]), "targets": found[0].targets}
