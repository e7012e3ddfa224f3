"""Label efficiency and robustness of a results folder, as tables next to the leaderboard."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tapct import kinds
from tapct.errors import RecordError
from tapct.leaderboard.official import why_own
from tapct.leaderboard.text import as_csv
from tapct.records import Recorded
from tapct.statistics.inputs import adaptor_of, model_names, ranked_by
from tapct.statistics.intervals import Estimate
from tapct.statistics.label_efficiency import label_efficiency
from tapct.statistics.robustness import Robustness, robustness
from tapct.statistics.summary import RESAMPLES

LABEL_EFFICIENCY_FILE = "label_efficiency.csv"
ROBUSTNESS_FILE = "robustness.csv"
FILES = (LABEL_EFFICIENCY_FILE, ROBUSTNESS_FILE)

_Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """What perturbed scans cost the models of a task.

    Attributes:
        task: The task.
        adaptor: The adaptor of all its records; empty where features are not pooled.
        own_because: Why they do not compare with the shipped protocol; empty where they do.
        found: The statistics.
        records: By model, as it is called there, a record of it.
    """

    task: str
    adaptor: str
    own_because: str
    found: Robustness
    records: Mapping[str, Recorded]


class Variations(NamedTuple):
    """What was varied.

    Attributes:
        files: CSV by file name, only of what some record varies.
        left_out: Why tasks are left out.
        perturbed: What perturbed scans cost, a part for each task, adaptor and reason not to compare.
    """

    files: dict[str, str]
    left_out: list[str]
    perturbed: list[Perturbed]


def tables(records: Sequence[Recorded], *, resamples: int = RESAMPLES) -> Variations:
    """Returns the tables of what was varied, each by the task's ranked metric, and under each adaptor by itself.

    Args:
        records: All records of results folders; a copy counts once.
        resamples: Resamples of the patients.
    """
    rows: dict[str, list[_Row]] = {name: [] for name in FILES}
    left_out: list[str] = []
    perturbed: list[Perturbed] = []
    groups: dict[tuple[str, str, str], list[Recorded]] = defaultdict(list)
    for record in {record.fingerprint: record for record in records}.values():  # of copies one
        if record.encoder.mistake is not None:  # what those cost is in a table of its own
            continue
        groups[record.task.name, adaptor_of(record) or "", why_own(record) or ""].append(record)
    for (task, adaptor, why), of_group in sorted(groups.items(), key=lambda pair: pair[0]):
        unperturbed = [record for record in of_group if record.task.perturbation is None]
        whole = [record for record in of_group if record.task.train_fraction == 1.0]
        try:
            if any(record.task.train_fraction != 1.0 for record in unperturbed):
                rows[LABEL_EFFICIENCY_FILE] += _label_rows(unperturbed, adaptor, why, resamples)
            if any(record.task.perturbation is not None for record in whole):
                found = robustness(whole, _ranked_metric(whole), resamples=resamples)
                of_model = dict(zip(model_names(whole), whole, strict=True))
                about = {"task": task, "adaptor": adaptor, "own_because": why}
                perturbed.append(Perturbed(**about, found=found, records=of_model))
                rows[ROBUSTNESS_FILE] += _drop_rows(whole, found, adaptor, why)
        except RecordError as error:
            left_out.append(f"{task}{f' with {adaptor}' if adaptor else ''}, what was varied: {error}")
    files = {name: as_csv(of_file) for name, of_file in rows.items() if of_file}
    return Variations(files, left_out, perturbed)


def _label_rows(records: Sequence[Recorded], adaptor: str, why: str, resamples: int) -> Iterator[_Row]:
    found, older = label_efficiency(records, _ranked_metric(records), resamples=resamples), _older_protocols(records)
    for model, points in found.curves.items():
        for point in points:
            yield {
                **_whose(records, model, adaptor, why),
                **{"fraction": point.fraction},
                **{"train_patients": point.patients, **_numbers("", point.estimate)},
                **{"draws": len(point.subsets), "draw_spread": point.subset_spread, "seed_spread": point.seed_spread},
                **{"reported_patients": found.num_patients, "reason": point.estimate.reason},
                **{"notice": _notice(found.notice, found.warnings), "older_protocol": older.get(model, "")},
            }


def _drop_rows(records: Sequence[Recorded], found: Robustness, adaptor: str, why: str) -> Iterator[_Row]:
    older = _older_protocols(records)
    for drop in found.drops:
        yield {
            **_whose(records, drop.model, adaptor, why),
            **{"perturbation": drop.perturbation},
            **_numbers("clean", drop.clean),
            **_numbers("perturbed", drop.perturbed),
            **_numbers("drop", drop.drop),
            **_numbers("rank_clean", drop.rank_clean),
            **_numbers("rank_perturbed", drop.rank_perturbed),
            **{"rank_change": drop.rank_change, "same_probes": drop.same_probes},
            **{"reported_patients": found.num_patients, "reason": drop.drop.reason},
            **{"notice": _notice(found.notice, found.warnings), "older_protocol": older.get(drop.model, "")},
        }


def _whose(records: Sequence[Recorded], model: str, adaptor: str, why: str) -> _Row:
    """Returns what a number is of."""
    task, metric = records[0].task, _ranked_metric(records)
    unit = kinds.metric(metric).unit_of(task.unit) or ""
    return {
        **{"task": task.name, "metric": metric, "unit": unit},
        **{"model": model, "adaptor": adaptor, "own_because": why},
    }


def _older_protocols(records: Sequence[Recorded]) -> dict[str, str]:
    """Returns of what older protocol a record of each model is, of those that have such."""
    named = zip(model_names(records), records, strict=True)
    return {name: record.older_protocol for name, record in named if record.older_protocol}


def _ranked_metric(records: Sequence[Recorded]) -> str:
    if (metric := ranked_by(records[0])) is None:
        raise RecordError("a record's task has no metric that it is ranked by")
    return metric


def _numbers(name: str, of: Estimate) -> _Row:
    prefix = f"{name}_" if name else ""
    return {name or "value": of.value, f"{prefix}low": of.low, f"{prefix}high": of.high}


def _notice(notice: str | None, warnings: Sequence[str]) -> str:
    return " ".join(filter(None, [notice, *warnings]))
