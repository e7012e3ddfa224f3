"""What `tapct overlay`, `tapct report` and `tapct describe` do."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from tapct.arguments import ENCODERS, OUT, WEIGHTS, WHOLE


def overlay(
    records: list[str],
    /,
    *,
    out: Annotated[str, OUT],
    cases: str = "best,median,worst",
    judge: Literal["mean", "first"] = "mean",
    data_root: str | None = None,
    window: Literal["soft-tissue", "lung", "bone", "liver"] = "soft-tissue",
    slices: Annotated[int, WHOLE] = 3,
    device: str = "auto",
    weights: Annotated[str | None, WEIGHTS] = None,
    encoders: Annotated[str | None, ENCODERS] = None,
) -> int:
    """Draws truth and predictions of several models side by side, on cases that a rule picks.

    Args:
        records: Segmentation records of one task, each with its runs next to it, or folders of a sweep's experiments.
        out: The folder to write the PNGs and cases.csv to.
        cases: Comma-separated rules that pick cases (best, median, worst: by Dice on the scan's grid), or names of
            cases.
        judge: What cases are ranked by: the mean over all records, or the first record alone.
        data_root: The folder that holds the task's. The default is the variable DATA_ROOT, or what ships.
        window: The HU window to show.
        slices: The number of slices of each case.
        device: The device to compute on, such as cpu or cuda; auto is a GPU if there is one.
        weights: Comma-separated pairs ENCODER=PATH, for weights that are not the published ones.
        encoders: Comma-separated encoders of the records that are not installed, each as package.module:Class, or as
            the folder of an exported one.

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


def report(
    record: str,
    /,
    *,
    out: Annotated[str | None, OUT] = None,
) -> int:
    """Writes one experiment as a page: settings, provenance, red flags, results, curves, pictures.

    Args:
        record: A record.json, or the folder that holds it.
        out: The page to write. The default is report.html next to the record.

    Returns:
        The exit status.
    """
    from tapct.report.page import write_report

    print(write_report(Path(record), None if out is None else Path(out)))
    return 0


def describe(
    name: str,
    /,
    *,
    out: Annotated[str | None, OUT] = None,
) -> int:
    """Says what an encoder is given: axes, spacing, HU window, padding, patches, each with its source.

    Args:
        name: The name of an encoder (`tapct list encoders`), with options such as tap-b-3d+in_plane_size=512.
        out: Write an HTML page instead, with slices of a shipped scan as the network receives them. Nothing is
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
