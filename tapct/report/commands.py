"""What `tapct overlay`, `tapct report` and `tapct describe` do."""

import os
import sys
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
    encoders: str | None = None,
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
        encoders: Encoders of the records that are not installed, by comma: package.module:Class, or the folder of an
            exported one.

    Returns:
        The exit status.
    """
    from tapct.encoders.registry import places_of
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
        places=places_of(encoders),
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


def describe(name: str, out: str | None = None) -> int:
    """Says what an encoder is given: axes, spacing, HU window, padding, cells, each with its source.

    Args:
        name: Name of an encoder (`tapct list encoders`), with options such as tap-b-3d+in_plane_size=512.
        out: Write a page instead, HTML, with slices of a shipped scan as the network receives them. Nothing is
            downloaded: what it receives does not depend on weights.

    Returns:
        The exit status: 1 if what the network receives contradicts what is declared.
    """
    from tapct._utils import terminal
    from tapct.encoders.options import load_spec
    from tapct.report import input_sheet

    encoder = load_spec(name, deferred=True)
    if out is None:
        terminal.output().print(input_sheet.as_table(encoder))
        return 0
    found = input_sheet.write_sheet(encoder, Path(out))
    print(out)
    wrong = [finding for finding in found if finding.contradicts]
    for finding in wrong:
        print(f"{encoder.card.name}: {finding.name}: {finding.text}", file=sys.stderr)
    return int(bool(wrong))
