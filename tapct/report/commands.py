"""What `tapct overlay` and `tapct report` do."""

import os
from pathlib import Path
from typing import Literal


def overlay(
    records: list[str],
    out: str,
    cases: str = "best,median,worst",
    judge: Literal["mean", "first"] = "mean",
    data_root: str | None = None,
    window: Literal["soft-tissue", "lung", "bone", "liver"] = "soft-tissue",
    slices: int = 3,
    device: str = "auto",
    weights: str | None = None,
) -> int:
    """Draws truth and predictions of several models side by side, on cases that a rule picks.

    Args:
        records: Segmentation records of one task, each with its runs beside it, or of the folder of a sweep's cell.
        out: Folder for the PNGs and cases.csv.
        cases: By comma: best, median, worst (by Dice on the scan's grid), or names of cases.
        judge: What they are ranked by: the mean over all records, or the first record alone ("first").
        data_root: Folder that holds the task's; by default the variable DATA_ROOT, else what ships.
        window: soft-tissue, lung, bone or liver.
        slices: Slices of each case.
        device: Such as cpu or cuda; by default a GPU if there is one.
        weights: Files of weights that are not the published ones, by comma: ENCODER=PATH.

    Returns:
        The exit status.
    """
    from tapct.features.embed import device_of
    from tapct.report.overlays import draw_overlays

    pictures = draw_overlays(
        [Path(record) for record in records],
        Path(out),
        [name.strip() for name in cases.split(",") if name.strip()],
        judge,
        data_root=data_root or os.environ.get("DATA_ROOT"),
        window=window,
        slices=slices,
        device=device_of(device),
        weights=dict(part.strip().split("=", 1) for part in (weights or "").split(",") if "=" in part),
    )
    for path in pictures:
        print(path, flush=True)
    return 0


def report(record: str, out: str | None = None) -> int:
    """Writes one cell as a page: settings, provenance, red flags, results, curves, pictures.

    Args:
        record: A record.json, or the folder that holds it.
        out: The page; by default report.html beside the record.

    Returns:
        The exit status.
    """
    from tapct.report.page import write_report

    print(write_report(Path(record), None if out is None else Path(out)))
    return 0
