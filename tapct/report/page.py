"""One record as a page: what it claims, what it rests on, and what to look at before believing it."""

import base64
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tapct._utils.files import write_atomically
from tapct.errors import RecordError
from tapct.kinds import kind
from tapct.leaderboard.assembly import alone
from tapct.leaderboard.page import sections
from tapct.leaderboard.page.sections import SPLIT, DrawnTask, PageTable
from tapct.probes.predictions import LocatedRecord
from tapct.records import ClassMetric, Record, SteppedSelection
from tapct.report import charts
from tapct.report.html import page
from tapct.statistics import Estimate, from_records, summarise_task

TRAIN_LOSS = "train/AverageLoss"
"""What eva calls the training loss in the log of a run."""

PICTURES = 6
"""Overlays that are put into a page at most; each is about half a megabyte."""

RESAMPLES = 2
"""Of what is drawn of a kind, which shows no interval."""

CLASS_METRICS: dict[ClassMetric, tuple[str, float | None]] = {
    "dice_native": ("Dice", 1.0),
    "nsd_native": ("Normalised surface Dice", 1.0),
    "hd95_mm_native": ("HD95, mm", None),
}
"""What is drawn by class: the axis and its end."""


class Chart(NamedTuple):
    """A chart and what it is called."""

    title: str
    svg: Markup
    note: str = ""


def write_report(path: Path, out: Path | None = None) -> Path:
    """Writes the page of a record: one file, which needs no network, the same bytes for the same record.

    Next to what is in the record, it shows the training loss and the overlays, where these lie with its runs.

    Args:
        path: The record, or the folder that holds it.
        out: Where to write; by default `report.html` next to the record.

    Returns:
        Where it was written.

    Raises:
        RecordError: If the record is not there or not valid, or the page cannot be written.
    """
    found = LocatedRecord.at(path)
    out = found.path.parent / "report.html" if out is None else out
    try:
        write_atomically(out, render(found))
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror or error}") from error
    return out


def render(found: LocatedRecord) -> str:
    """Returns the page of a record."""
    record = found.record
    return page(
        "report.html",
        {"number": _number},
        record=record,
        found=found,
        headline=_headline(found),
        metrics=_metrics(found),
        results=list(_results(found)),
        of_kind=_of_kind(found),
        curves=list(_curves(found)),
        pictures=_pictures(found),
        notes=_notes(found),
        settings=_settings(record),
        execution=dict(_by_path(record.execution.content())),
    )


def _settings(record: Record) -> dict[str, dict[str, Any]]:
    """Returns what was set, by part of the record; the input sheet is a part of its own."""
    flat = {name: dict(_by_path(getattr(record, name).content())) for name in ("encoder", "task", "probe")}
    encoder, sheet = record.encoder, record.encoder.input_sheet
    flat["encoder"] = {k: v for k, v in flat["encoder"].items() if not k.startswith(("input_sheet.", "verification."))}
    flat["encoder"]["weights"] = encoder.weights_name
    known = encoder.verification
    flat["encoder"]["next to its authors' code"] = "not recorded" if known is None else known.text
    if sheet is not None:
        rows: dict[str, Any] = {row.shown_name: f"{row.text} ({row.source})" for row in sheet.rows}
        flat["input"] = rows | {"received, sha256": sheet.received_sha256 or sheet.not_received}
    return flat


def _headline(found: LocatedRecord) -> tuple[str, Estimate] | None:
    """Returns the ranked metric with its interval over patients; None before every run has ended."""
    if not found.record.complete or found.record.task.metric is None:
        return None
    metric = found.record.task.metric
    (model,) = summarise_task(from_records([found.record], metric, split=found.split)).models
    return found.record.task.with_unit(metric), model.estimate


def _metrics(found: LocatedRecord) -> dict[str, list[float | None]]:
    """Returns what eva logged of the reported split: by metric, the number of each run."""
    runs = [run.metrics.get(found.split, {}) for run in found.record.runs]
    names = sorted({name for run in runs for name in run})
    return {found.record.task.with_unit(name): [run.get(name) for run in runs] for name in names}


def _results(found: LocatedRecord) -> Iterator[Chart]:
    record = found.record
    for metric, (label, end) in CLASS_METRICS.items():
        if table := record.class_table(found.split, metric):
            yield Chart(f"{label} by class", charts.class_bars(f"classes {metric}", table, label, end))
    for metric, (label, _) in CLASS_METRICS.items():
        if len(cases := _by_case(found, metric)) > 1:
            title = f"{label} of {len(cases)} cases"
            yield Chart(title, charts.case_strip(f"cases {metric}", cases, label), "Each case: its mean over classes.")
    pairs = [
        (probability, target)
        for run in record.runs
        for case in run.cases[found.split]
        for name, probability in (case.probabilities or {}).items()
        if (target := (case.target or {})[name]) is not None
    ]
    if pairs:
        yield Chart("Calibration", charts.reliability("reliability", pairs), "All runs, cases and classes together.")
        losses = {case: [found.cases(run)[case].loss for run in record.runs] for case in found.cases()}
        yield Chart("Loss of each case", charts.case_strip("cases loss", losses, "loss"))


def _of_kind(found: LocatedRecord) -> list[tuple[str, Any]]:
    """Returns what the page of a leaderboard draws of the task's kind, each with what it is: a picture or a table.

    Of the kinds without an outcome it is the tables alone: their pictures are drawn here, run by run.
    """
    task = found.record.task
    if not found.record.complete or found.split != SPLIT or task.kind is None:
        return []
    of_task, model = alone(found.record, RESAMPLES)
    drawn = sections.pictures(DrawnTask(of=of_task, drawn=[model]))
    named = [("table" if isinstance(one, PageTable) else "picture", one) for one in drawn]
    return [pair for pair in named if pair[0] == "table" or kind(task.kind).outcome]


def _by_case(found: LocatedRecord, metric: ClassMetric) -> dict[str, list[float]]:
    """Returns, for each case, the mean over its defined classes of each run that defines any."""
    cases: dict[str, list[float]] = {}
    for run in found.record.runs:
        for case in run.cases[found.split]:
            if defined := [v for v in (case.by_class(metric) or {}).values() if v is not None]:
                cases.setdefault(case.case, []).append(statistics.mean(defined))
    return cases


def _curves(found: LocatedRecord) -> Iterator[Chart]:
    """Yields the training loss, and the looks at the selection cases that learning rate and step were chosen by."""
    record = found.record
    losses = {f"run {run.run}": loss for run in record.runs if (loss := _train_loss(found.run_folder(run)))}
    if losses:
        together = (
            "" if len(losses) == len(record.runs) > 1 else " It is the mean of the heads that train side by side."
        )
        note = f"From the TensorBoard log of the session.{together}"
        yield Chart("Training loss", charts.curves("loss", losses, "training loss"), note)
    looks: dict[str, list[tuple[float, float]]] = {}
    chosen: list[tuple[float, float]] = []
    for run in record.runs:
        if not isinstance(run.selection, SteppedSelection):  # solved: no rates, no steps
            continue
        if run.selection.score is not None:
            chosen.append((run.selection.step, run.selection.score))
        for candidate in run.selection.candidates:
            rate = candidate.learning_rate
            points: list[tuple[float, float]] = [(step, score) for step, score in candidate.scores if score is not None]
            if points:
                looks[f"run {run.run}{'' if rate is None else f', rate {rate:g}'}"] = points
    if looks:
        label = f"{record.task.with_unit(record.task.metric or 'score')}, selection cases"
        note = "Large dots: the heads that are reported. Nothing is chosen on the reported cases."
        yield Chart("Choice of learning rate and step", charts.curves("selection", looks, label, chosen), note)


def _train_loss(folder: Path) -> list[tuple[float, float]]:
    """Returns the training loss of a run by step, from its TensorBoard files; empty where there are none."""
    points = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == TRAIN_LOSS:
                    loss = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
                    if math.isfinite(loss):
                        points[event.step + 1] = float(loss)
    return sorted(points.items())


def _notes(found: LocatedRecord) -> dict[str, list[str]]:
    """Returns the cases of which there is something to know, by what that is."""
    notes: dict[str, list[str]] = {}
    for case in found.cases().values():
        for note in case.notes:
            notes.setdefault(note, []).append(case.case)
    return notes


def _pictures(found: LocatedRecord) -> dict[str, Markup]:
    """Returns the overlays of the runs as data, by what they are."""
    paths = [path for run in found.record.runs for path in sorted(found.run_folder(run).glob("overlays/*.png"))]
    return {
        f"{path.stem}, {path.parent.parent.name}": Markup(base64.b64encode(path.read_bytes()).decode())
        for path in paths[:PICTURES]
    }


def _by_path(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields every setting by its path, as text."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _by_path(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            yield from _by_path({str(index): one for index, one in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    match value:
        case None:
            return "–"
        case list() | tuple():
            return ", ".join(map(_text, value)) or "none"
        case dict():
            return "none"
        case bool():
            return "yes" if value else "no"
    return str(value)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
