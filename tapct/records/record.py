"""The result record: what was run, on what, and what came out, case by case.

One JSON file per experiment (encoder x task x protocol settings). Everything that decides the result is outside
`execution`; the same settings and seed give the same `fingerprint`, on whatever day it was run.
"""

import functools
import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from tapct import kinds, numeric
from tapct.errors import RecordError
from tapct.kinds import Metric
from tapct.metrics.classification import sigmoid
from tapct.metrics.dice import Summary, summarise
from tapct.records.case import CaseResult, ClassMetric, check_cases
from tapct.records.encoder import EncoderRecord
from tapct.records.execution import Execution
from tapct.records.imported import ImportedRecord
from tapct.records.probe import ProbeRecord
from tapct.records.reading import first_fault, parsed
from tapct.records.schema import SCHEMA_VERSION, OlderSchema, fingerprint, migrated
from tapct.records.selection import Selection
from tapct.records.shortcuts import ShortcutsRecord
from tapct.records.task import TaskRecord
from tapct.records.types import (
    AtLeast1,
    Finite,
    Frozen,
    Index,
    Name,
    Positive,
    Sha256,
    Share,
    Switch,
    Text,
    Whole,
    optional,
    shown,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

RecordedSplit = Annotated[str, Field(strict=True, pattern="^(train|val|test)$")]


class Flag(Frozen):
    """Something about a record that must be looked at before its numbers are believed.

    Attributes:
        id: What it is, the same in every release; `tapct.flags` has them all.
        message: What it means and what to check.
        detail: What was found in this record.
    """

    id: str = Field(strict=True, pattern=r"^[a-z0-9-]+$", max_length=100)
    message: Text
    detail: Text


class FeaturePack(Frozen):
    """The feature pack that the features of a record come from, instead of scans (`tapct pack`).

    What the record says of encoder and cases is then what the pack says: nobody extracted them here.

    Attributes:
        sha256: Hash of the pack.
        made_with: The release of tapct-bench that made it.
        has_targets: Whether the targets come from it as well.
    """

    sha256: Sha256
    made_with: Name
    has_targets: Switch


class PatchSize(Frozen):
    """The size of a patch, and what perfect patches of it would reach (`tapct.probes.patch_size`).

    Attributes:
        size_mm: Distance between patches along (z, y, x), the median over the reported cases.
        dice: Dice of the patch-size reference, native grid, averaged as the headline is; None where it is undefined.
        by_class: Of each class without background, its mean over cases.
        cases: Reported cases that it is of.
    """

    size_mm: tuple[Positive, Positive, Positive]
    dice: Share | None
    by_class: dict[Name, Share | None]
    cases: AtLeast1


class RunHeader(Frozen):
    """One run: one seed, one trained probe.

    Attributes:
        run: Index of the run in its session.
        seed: The session's seed plus the index.
        probe_sha256: Hash of the probe's weights that were evaluated.
        selection: The learning rate and step that they were taken at, and what they were chosen from on the
            selection cases.
        metrics: Split to metric to value, as eva logs them.
    """

    run: Index
    seed: Whole
    probe_sha256: Sha256
    selection: Selection | None = None
    metrics: dict[RecordedSplit, dict[Name, Finite | None]]


class RunRecord(RunHeader):
    """One run with what came out for each case.

    Attributes:
        cases: Split to per-case results.
    """

    cases: dict[RecordedSplit, list[CaseResult]]

    @model_validator(mode="after")
    def _check(self) -> "RunRecord":
        for split, of_split in self.cases.items():
            check_cases(split, of_split)
        return self._check_probabilities()

    def _check_probabilities(self) -> "RunRecord":
        cases = [case for of_split in self.cases.values() for case in of_split if case.probabilities is not None]
        if without := [case.case for case in cases if case.logits is None]:
            if len(without) == len(cases):  # of an older protocol
                return self
            raise ValueError(f"logits and probabilities cannot be ranked together: {without[0]} has no logits")
        logits = [logit for case in cases for logit in (case.logits or {}).values()]
        probabilities = [probability for case in cases for probability in (case.probabilities or {}).values()]
        wrong = np.flatnonzero(~numeric.equal(sigmoid(logits), probabilities))
        if len(wrong):
            case, name = [(case.case, name) for case in cases for name in case.logits or {}][wrong[0]]
            z, p = logits[wrong[0]], probabilities[wrong[0]]
            raise ValueError(f"{case}: the probability of {name} is {p}, which is not the sigmoid of its logit {z}")
        return self


@functools.cache
def _metrics(kind: str | None) -> dict[str, Metric]:
    """Returns the metrics of a kind by name; of a record that says none, those of all kinds of ours."""
    return {name: one for each in ([kind] if kind else kinds.KINDS) for name, one in kinds.kind(each).by_name.items()}


class Recorded(Frozen):
    """What a record says of an experiment but for its cases.

    Attributes:
        schema_version: Version of this layout.
        older_schema: The schema that the record was first written under, if it was an older one.
        notice: What a reader must know before any number, such as that this is a demonstration.
        encoder: Name, card, weights (source and hash), precision, as built.
        task: Name, version, classes, split file and its hash, number of cases per split.
        probe: Head, loss, optimizer and schedule, as built.
        runs_planned: Runs that the session was to have.
        runs: The runs that ended, in order.
        cell_size: Of segmentation, the reported cases' patches.
        feature_pack: Where features come from a pack and not from scans, which.
        imported: Of predictions that were made elsewhere, what was imported; None of an experiment that ran here.
        shortcuts: The shortcut audit: what else the nearest scan shares, and what a linear probe reads.
        execution: Versions, device, times: what does not decide the result.
        flags: What must be looked at; like `execution` outside the fingerprint, for some show only next to other
            experiments.
    """

    schema_version: Literal[3] = SCHEMA_VERSION
    older_schema: OlderSchema | None = optional()
    notice: Text | None
    encoder: EncoderRecord
    task: TaskRecord
    probe: ProbeRecord
    runs_planned: AtLeast1
    runs: Sequence[RunHeader] = Field(min_length=1)
    cell_size: PatchSize | None = optional()
    feature_pack: FeaturePack | None = optional()
    imported: ImportedRecord | None = optional()
    shortcuts: ShortcutsRecord | None = optional()
    execution: Execution
    flags: list[Flag] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> "Recorded":
        indices = [run.run for run in self.runs]
        if indices != sorted(set(indices)):
            raise ValueError(f"runs are not in order, or one is there twice: {indices}")
        self._check_metrics()
        return self

    def _check_metrics(self) -> None:
        known = _metrics(self.task.kind)
        for place, run in enumerate(self.runs):
            for split, values in run.metrics.items():
                for name, value in values.items():
                    if name in known and (wrong := known[name].fault(value)):
                        raise ValueError(f"runs.{place}: {split}.{name} {wrong}")

    @property
    def complete(self) -> bool:
        """Whether every planned run has ended."""
        return len(self.runs) == self.runs_planned

    @property
    def older_protocol(self) -> str | None:
        """How its numbers were made otherwise than today's, for which they must be marked; None if they were not."""
        return None if self.older_schema is None else f"schema {self.older_schema}"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides or is the result; without `execution` and `flags`."""

    @abstractmethod
    def table(self) -> "pa.Table":
        """Returns its cases, with the columns of `tapct.records.cases.columns`.

        Raises:
            RecordError: If they cannot be read.
        """

    @abstractmethod
    def notes(self, split: str) -> list[tuple[str, ...]]:
        """Returns the notes of each case of a split, of the first run that has it; none where no run does.

        Raises:
            RecordError: If they cannot be read.
        """

    def to_frame(self) -> "pd.DataFrame":
        """Returns its cases as a table for pandas, one row a case, class, seed and protocol.

        See `tapct.records.cases.to_frame`.
        """
        from tapct.records.cases import to_frame

        return to_frame(self)

    def content(self) -> dict[str, Any]:
        """Returns what it says, as JSON has it: what was not said when it was made is left out."""
        found = {"schema_version": self.schema_version, **super().content()}
        return found if "flags" in found else found | {"flags": []}


class Record(Recorded):
    """One experiment: an encoder on a task, over its runs, case by case."""

    runs: list[RunRecord] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_outcomes(self) -> "Record":
        kind = None if self.task.kind is None else kinds.kind(self.task.kind)
        for place, run in enumerate(self.runs):
            for split, cases in run.cases.items():
                for case in cases:
                    if self.imported is None and case.dice is not None and len(case.dice) < 2:
                        raise ValueError(f"{case.case}: Dice must be there of both protocols, native and paper")
                    if kind is None and case.outcome is not None:
                        raise ValueError("its cases have outcomes, and its task does not say of what kind it is")
                    if kind and (wrong := kind.outcome_fault(case.outcome, self.task.classes)):
                        raise ValueError(f"runs.{place}: {split} case {case.case}: {wrong}")
        return self

    @property
    def older_protocol(self) -> str | None:
        """How its numbers were made otherwise than today's, for which they must be marked; None if they were not."""
        cases = (case for run in self.runs for of_split in run.cases.values() for case in of_split)
        if any(case.probabilities is not None and case.logits is None for case in cases):
            return "ranks from float32 probabilities"
        return super().older_protocol

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides or is the result; without `execution` and `flags`."""
        return fingerprint(self.content())

    def table(self) -> "pa.Table":
        """Returns its cases, with the columns of `tapct.records.cases.columns`."""
        from tapct.records.cases import to_table

        return to_table(self)

    def notes(self, split: str) -> list[tuple[str, ...]]:
        """Returns the notes of each case of a split, of the first run that has it; none where no run does."""
        return next(([case.notes for case in run.cases[split]] for run in self.runs if split in run.cases), [])

    def to_json(self) -> str:
        """Returns the record as JSON, with its fingerprint and whether it is complete."""
        content = self.content()
        return json.dumps({"fingerprint": self.fingerprint, "complete": self.complete, **content}, indent=1)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Record":
        """Reads and validates a record.

        Args:
            text: The JSON.
            where: The file, for the error.

        Raises:
            RecordError: If it is truncated, of a newer schema, was changed after it was written, or is not a record for
                whatever other reason: the first fault, and how many more there are, in one line.
        """
        where = shown(where, 1000)
        try:
            content = parsed(text)
            signed = {key: value for key, value in content.items() if key not in ("fingerprint", "complete")}
            record = cls.model_validate(migrated(signed))
            # Of what the file holds, not of the model: that of a later release may have fields which the file has not.
            is_whole = content.get("fingerprint") == fingerprint(content)
        except ValidationError as error:
            raise RecordError(f"{where} is not a record of schema {SCHEMA_VERSION}: {first_fault(error)}") from error
        except (ValueError, OverflowError, RecursionError) as error:
            raise RecordError(f"{where} is not a record: {shown(str(error), 500)}") from error
        if not is_whole:
            raise RecordError(f"{where} was changed after it was written: its fingerprint does not match")
        return record

    @classmethod
    def published_schema(cls) -> str:
        """Returns the JSON schema of a record's file (2020-12), as `docs/record.schema.json` holds it.

        It holds keys, types and ranges. What it cannot say, `from_json` asks as well: that names are printable, that
        cases have the same classes, that a probability is the sigmoid of its logit, and that the fingerprint fits.
        """
        schema = cls.model_json_schema()
        own = {"fingerprint": {"pattern": "^[0-9a-f]{64}$", "type": "string"}, "complete": {"type": "boolean"}}
        schema["properties"] = own | schema["properties"]
        schema["required"] = [*own, "schema_version", *schema["required"]]
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        return json.dumps(schema, indent=1, sort_keys=True) + "\n"

    def summaries(self, split: str, metric: ClassMetric) -> list[Summary]:
        """Returns, for each run, the summary of a metric over its cases; empty where the cases have none."""
        found = []
        for run in self.runs:
            rows = [row for case in run.cases.get(split, []) if (row := case.by_class(metric)) is not None]
            if rows:
                values = [[math.nan, *(math.nan if v is None else v for v in row.values())] for row in rows]
                found.append(summarise(np.array(values)))
        return found

    def class_table(self, split: str, metric: ClassMetric) -> dict[str, list[float | None]]:
        """Returns, per class, the mean of a metric over cases for each run; None where no case defines it."""
        cases = (case.by_class(metric) for run in self.runs for case in run.cases.get(split, []))
        names = list(next((row for row in cases if row is not None), {}))
        means = [summary.per_class[1:] for summary in self.summaries(split, metric)]
        return {
            name: [None if math.isnan(mean[index]) else float(mean[index]) for mean in means]
            for index, name in enumerate(names)
        }
