"""What usual mistakes with the input cost each model on each task: the paired loss against the right input.

Models with a mistake are never ranked, nor in a mean rank or a grid of adaptors. What a mistake costs here shows what
somebody else's table may hide.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tapct import kinds, numeric
from tapct.encoders.mistake_names import MISTAKE_NAMES, NO_EFFECT, OPTION
from tapct.encoders.options import label as label_of
from tapct.errors import RecordError
from tapct.leaderboard.official import why_own
from tapct.records import Recorded
from tapct.records.models import SETTING, as_text, what_is_known, what_is_recorded
from tapct.statistics import thin
from tapct.statistics.inputs import TaskInputs, adaptor_of, from_records, ranked_by
from tapct.statistics.intervals import Estimate, estimate
from tapct.statistics.resampling import resample
from tapct.statistics.summary import RESAMPLES

FILE = "mistakes.csv"
TITLE = "What each mistake costs"
READ_AS = (
    "Mean over seeds, 95 % interval over patients; lost is right minus wrong on the same patients, positive where the "
    "wrong input is worse. Models with a wrong input are in no ranking."
)

_SPLIT = "test"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A model with a mistake.

    Attributes:
        model: The model, by the name of its record of the right input.
        mistake: The mistake.
        right: The metric with the right input, with its interval over patients.
        wrong: The same with the wrong input.
        lost: What is lost, positive where the wrong input is worse; its interval is of the paired difference.
        scans: Reported scans.
        unchanged: Those of which the network receives the same as without the mistake.
    """

    model: str
    mistake: str
    right: Estimate
    wrong: Estimate
    lost: Estimate
    scans: int
    unchanged: int

    @property
    def numbers(self) -> tuple[Estimate, Estimate, Estimate]:
        """What the right input gives, the wrong one, and what is lost."""
        return self.right, self.wrong, self.lost

    @property
    def changed_in_words(self) -> str:
        """How many of the reported scans it changes."""
        return f"{self.scans - self.unchanged} of {self.scans}"


@dataclass(frozen=True, kw_only=True)
class MistakeTable:
    """One metric of one task, of models with the right input and with wrong ones.

    Attributes:
        task: Name of the task.
        metric: The metric that it is ranked by.
        unit: Its unit; None where it has none.
        adaptor: What stands on the features; None where they are not pooled.
        own_because: Why its records do not compare with the shipped protocol; None where they do.
        notices: What must stand next to every number.
        num_patients: Reported patients.
        costs: By model, mistakes in the order of their list.
    """

    task: str
    metric: str
    unit: str | None
    adaptor: str | None
    own_because: str | None
    notices: tuple[str, ...]
    num_patients: int
    costs: tuple[Cost, ...]

    @property
    def heading(self) -> str:
        """The metric as a reader calls it, with its unit."""
        return kinds.metric(self.metric).heading(self.unit)

    @property
    def digits(self) -> int:
        """Decimals of its numbers."""
        return kinds.metric(self.metric).digits

    @property
    def title(self) -> str:
        """The task, and what sets it apart from others of its name."""
        adaptor = f" with {self.adaptor}" if self.adaptor else ""
        return f"{self.task}{adaptor}" + (f", not comparable: {self.own_because}" if self.own_because else "")


def tables(
    records: Sequence[Recorded], names: Mapping[str, str], *, resamples: int = RESAMPLES
) -> tuple[MistakeTable, ...]:
    """Returns what mistakes cost, a table for each task, adaptor, and reason not to compare.

    Args:
        records: All records of results folders; a copy counts once. Those of a part of the training patients or of
            perturbed scans are left out.
        names: What models are called, by `model_of` their records; a sweep's label else.
        resamples: Resamples of the patients.
    """
    groups: dict[tuple[str, str, str], list[Recorded]] = defaultdict(list)
    for record in {record.fingerprint: record for record in records}.values():
        if record.task.train_fraction == 1 and record.task.perturbation is None and ranked_by(record) is not None:
            groups[record.task.name, adaptor_of(record) or "", why_own(record) or ""].append(record)
    found = (
        _table(of_group, adaptor or None, why or None, names, resamples)
        for (_, adaptor, why), of_group in sorted(groups.items(), key=lambda pair: pair[0])
    )
    return tuple(table for table in found if table is not None)


def _table(
    records: Sequence[Recorded], adaptor: str | None, why: str | None, names: Mapping[str, str], resamples: int
) -> MistakeTable | None:
    """Returns the table of records of one task; None without a mistake."""
    wrong: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
    right: dict[str, list[Recorded]] = defaultdict(list)
    for record in records:
        if record.encoder.mistake is None:
            right[model_of(record)].append(record)
        else:
            wrong[model_of(record), record.encoder.mistake].append(record)
    if not wrong:
        return None
    pairs = [_pair(found, right[model]) for (model, _), found in wrong.items()]
    metric = ranked_by(pairs[0].wrong)
    assert metric is not None  # `tables` leaves others out
    inputs = next((pair.inputs for pair in pairs if pair.inputs is not None), None)
    costs = [_cost(pair, names, resamples) for pair in pairs]
    return MistakeTable(
        task=pairs[0].wrong.task.name,
        metric=metric,
        unit=kinds.metric(metric).unit_of(pairs[0].wrong.task.unit),
        adaptor=adaptor,
        own_because=why,
        notices=() if inputs is None else (*filter(None, [inputs.notice]), *thin.of_task(inputs)),
        num_patients=0 if inputs is None else inputs.num_patients,
        costs=tuple(sorted(costs, key=lambda cost: (cost.model.casefold(), cost.model, _place(cost.mistake)))),
    )


class _Pair(NamedTuple):
    """A record of a wrong input, that of the right one, and both as the statistics take them; or why there is none."""

    wrong: Recorded
    right: Recorded | None
    inputs: TaskInputs | None
    reason: str = ""


def model_of(record: Recorded) -> str:
    """Returns what tells a record's model from others, its mistake left aside: encoder, settings, source, weights."""
    who = what_is_known(record) | what_is_recorded(record)
    return as_text({key: value for key, value in who.items() if key != f"{SETTING}{OPTION}"})


def _pair(found: Sequence[Recorded], candidates: Sequence[Recorded]) -> _Pair:
    """Returns the records of a mistake with the one of its right input that it compares with, seed by seed."""
    wrong, *others = found
    if others:
        return _Pair(wrong, None, None, f"{len(found)} records are of it: move the folders of the others away")
    reason = "the right input was not run, with the same source, settings and weights"
    for right in candidates:
        if [run.seed for run in right.runs] != [run.seed for run in wrong.runs]:
            reason = "the right input was run with other seeds"
            continue
        metric = ranked_by(right)
        assert metric is not None
        try:
            inputs = from_records([right, wrong], metric, names=["the right input", "the wrong one"])
        except RecordError as error:
            reason = str(error)
        else:
            return _Pair(wrong, right, inputs)
    return _Pair(wrong, None, None, reason)


def _cost(pair: _Pair, names: Mapping[str, str], resamples: int) -> Cost:
    wrong, right, inputs, reason = pair
    of = right or wrong
    none = Estimate(None, None, None, reason)
    numbers = {"right": none, "wrong": none, "lost": none}
    if inputs is not None:
        both = resample(inputs, resamples)
        before, after = both.mean(0), both.mean(1)
        of_each = zip(map(np.asarray, before), map(np.asarray, after), strict=True)
        lost = (inputs.sign * numeric.difference(one, other) for one, other in of_each)
        numbers = {
            name: estimate(float(value), bootstrap, jackknife, inputs.num_patients, inputs.undefined)
            for name, (value, bootstrap, jackknife) in (("right", before), ("wrong", after), ("lost", lost))
        }
    notes = wrong.notes(_SPLIT)
    options = {key: value for key, value in (of.encoder.options or {}).items() if key != OPTION}
    label = label_of(of.encoder.card.name, of.encoder.is_random, options)
    return Cost(
        model=names.get(model_of(of)) or label,
        mistake=wrong.encoder.mistake or "",
        **numbers,
        scans=len(notes),
        unchanged=sum(any(note.startswith(NO_EFFECT) for note in of_case) for of_case in notes),
    )


def _place(mistake: str) -> tuple[int, str]:
    """Returns where a mistake stands among the others; one of another release last."""
    known = [*map(str, MISTAKE_NAMES)]
    return (known.index(mistake) if mistake in known else len(known)), mistake


def as_rows(found: Sequence[MistakeTable]) -> list[dict[str, Any]]:
    """Returns a row for each model, mistake and task."""
    return [
        {
            **{"task": table.task, "metric": table.metric, "unit": table.unit or "", "adaptor": table.adaptor or ""},
            **{"own_because": table.own_because or "", "model": cost.model, "mistake": cost.mistake},
            **_numbers("right", cost.right),
            **_numbers("wrong", cost.wrong),
            **_numbers("lost", cost.lost),
            **{"scans": cost.scans, "scans_unchanged": cost.unchanged, "reported_patients": table.num_patients},
            **{"reason": cost.lost.reason or "", "notice": " ".join(table.notices)},
        }
        for table in found
        for cost in table.costs
    ]


def _numbers(name: str, of: Estimate) -> dict[str, float | None]:
    return {name: of.value, f"{name}_low": of.low, f"{name}_high": of.high}
