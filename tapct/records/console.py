"""A record on the screen."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tapct.records.record import Record
from tapct.records.store import read_record


def print_summary(path: Path) -> None:
    """Prints the table of a record, where the record is, and the pictures beside it."""
    record = read_record(path)
    console = Console()
    for split in sorted({split for run in record.runs for split in run.cases}):
        has_dice = record.dice_table(split, "native")
        console.print(dice_table(record, split) if has_dice else metric_table(record, split))
    if record.notice:
        console.print(f"[bold]{record.notice}[/bold]", highlight=False)
    console.print(f"record:  {path.resolve()}", soft_wrap=True, highlight=False)
    for picture in sorted(path.parent.glob("run_*/overlays/*.png")):
        console.print(f"overlay: {picture.resolve()}", soft_wrap=True, highlight=False)


def metric_table(record: Record, split: str) -> Table:
    """Returns the metrics of a record over its runs."""
    table = Table(title=_title(record, split), title_justify="left", box=box.SIMPLE)
    table.add_column("metric")
    table.add_column("mean ± standard deviation over runs", justify="right")
    for name in record.runs[0].metrics[split]:
        table.add_row(name, _spread([run.metrics[split].get(name) for run in record.runs]))
    return table


def dice_table(record: Record, split: str) -> Table:
    """Returns Dice per class over the runs of a record, on both grids."""
    table = Table(
        title=_title(record, split),
        title_justify="left",
        box=box.SIMPLE,
        caption="mean ± standard deviation over runs; – = the class is in no case, nor predicted",
        caption_justify="left",
    )
    table.add_column("class")
    table.add_column("native grid", justify="right")
    table.add_column("encoder grid", justify="right")
    native, paper = record.dice_table(split, "native"), record.dice_table(split, "paper")
    for name in native:
        table.add_row(name, _spread(native[name]), _spread(paper[name]))
    table.add_section()
    for metric, label in (("", "mean over cases"), ("_class_mean", "mean over classes")):
        columns = [
            _spread([run.metrics[split].get(f"dice_{grid}{metric}") for run in record.runs])
            for grid in ("native", "paper")
        ]
        table.add_row(f"[bold]{label}[/bold]", *columns)
    return table


def _title(record: Record, split: str) -> str:
    cases = len(record.runs[0].cases[split])
    return (
        f"{record.task['name']}, {cases} {split} case{'s' if cases != 1 else ''}, "
        f"{record.encoder['card']['display_name']} (weights: {record.encoder['weights']}), {len(record.runs)} runs"
    )


def _spread(values: Sequence[float | None]) -> str:
    defined = [v for v in values if v is not None]
    if not defined:
        return "–"
    deviation = f" ± {statistics.stdev(defined):.3f}" if len(defined) > 1 else ""
    return f"{statistics.mean(defined):.3f}{deviation}"
