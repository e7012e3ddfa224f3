"""A record on the screen."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from tapct._utils import terminal
from tapct.records.case import ClassMetric
from tapct.records.record import PatchSize, Record
from tapct.records.store import read_record


def print_summary(path: Path) -> None:
    """Prints the table of what a record reports, its flags, where the record is, and the pictures next to it."""
    record = read_record(path)
    console = terminal.output()
    split = _reported(record)  # of the selection cases, which chose the head, the record has what there is to say
    has_dice = record.summaries(split, "dice_native")
    console.print(class_table(record, split) if has_dice else metric_table(record, split))
    if record.cell_size is not None:
        console.print(patch_size_line(record.cell_size, record), highlight=False)
    if record.older_protocol:
        console.print(f"[bold]older protocol: {record.older_protocol}[/bold]", highlight=False)
    if record.notice:
        console.print(f"[bold]{record.notice}[/bold]", highlight=False)
    for flag in record.flags:
        console.print(f"[bold yellow]red flag {flag.id}[/bold yellow]: {escape(flag.detail)}. {escape(flag.message)}")
    console.print(f"record:  {path.resolve()}", soft_wrap=True, highlight=False)
    for picture in sorted(path.parent.glob("run_*/overlays/*.png")):
        console.print(f"overlay: {picture.resolve()}", soft_wrap=True, highlight=False)


def patch_size_line(patches: PatchSize, record: Record) -> str:
    """Returns the size of the patches in words, what perfect ones would reach and the share of it reached."""
    size = " x ".join(f"{edge:.1f}" for edge in patches.size_mm)
    if patches.dice is None:
        return f"patches: {size} mm (z, y, x)"
    headlines = [summary.headline for summary in record.summaries(_reported(record), "dice_native")]
    share = "" if patches.dice == 0 else f", of which {statistics.mean(headlines) / patches.dice:.0%} is reached"
    return (
        f"patches: {size} mm (z, y, x); with perfect patches of this size Dice is {patches.dice:.3f}{share} "
        "(a reference, not a bound)"
    )


def _reported(record: Record) -> str:
    return "test" if any("test" in run.cases for run in record.runs) else "val"


def metric_table(record: Record, split: str) -> Table:
    """Returns the metrics of a record over its runs."""
    table = Table(title=_title(record, split), title_justify="left", box=box.SIMPLE)
    table.add_column("metric")
    table.add_column("mean ± standard deviation over runs", justify="right")
    names = dict.fromkeys(
        name for run in record.runs for name in run.metrics.get(split, {})
    )  # one may be undefined in a run
    for name in names:
        values = [run.metrics.get(split, {}).get(name) for run in record.runs]
        table.add_row(record.task.with_unit(name), _spread(values))
    return table


def class_table(record: Record, split: str) -> Table:
    """Returns Dice, NSD and HD95 per class over the runs of a record."""
    table = Table(
        title=_title(record, split),
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
        caption="mean ± standard deviation over runs; undefined entries are left out\n"
        "– = class in no case, nor predicted (HD95: or in one of the two only)",
        caption_justify="left",
    )
    table.add_column("class", no_wrap=True)
    columns = _columns(record, split)
    for title in columns.values():
        table.add_column(title, justify="right")
    rows = {metric: record.class_table(split, metric) for metric in columns}
    for name in rows["dice_native"]:
        table.add_row(name, *(_spread(rows[metric][name], _digits(metric)) for metric in columns))
    table.add_section()
    summaries = {metric: record.summaries(split, metric) for metric in columns}
    for label, pick in (("cases", lambda s: s.headline), ("classes", lambda s: s.class_mean)):
        means = (_spread([_defined(pick(s)) for s in summaries[metric]], _digits(metric)) for metric in columns)
        table.add_row(f"[bold]mean over {label}[/bold]", *means)
    left_out = (f"{sum(s.undefined_entries for s in of)} of {sum(s.entries for s in of)}" for of in summaries.values())
    table.add_row("undefined entries", *left_out)
    return table


def _columns(record: Record, split: str) -> dict[ClassMetric, str]:
    tolerance = record.probe.nsd_tolerance_mm
    titles: dict[ClassMetric, str] = {
        "dice_native": "Dice,\nnative grid",
        "dice_paper": "Dice,\nencoder grid",
        "nsd_native": f"NSD, {tolerance} mm,\nnative grid",
        "hd95_mm_native": "HD95, mm,\nnative grid",
    }
    return {metric: title for metric, title in titles.items() if record.summaries(split, metric)}


def _digits(metric: ClassMetric) -> int:
    return 1 if metric == "hd95_mm_native" else 3


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _title(record: Record, split: str) -> str:
    cases = max(len(run.cases.get(split, [])) for run in record.runs)
    return (
        f"{record.task.name}, {_counted(cases, f'{split} case')}, {record.encoder.full_name} "
        f"(weights: {record.encoder.weights_name}), {_counted(len(record.runs), 'run')}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _spread(values: Sequence[float | None], digits: int = 3) -> str:
    defined = [v for v in values if v is not None]
    if not defined:
        return "–"
    deviation = f" ± {statistics.stdev(defined):.{digits}f}" if len(defined) > 1 else ""
    return f"{statistics.mean(defined):.{digits}f}{deviation}"
