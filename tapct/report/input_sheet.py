"""The input sheet of an encoder, as a table and as a page."""

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tapct._utils.files import write_atomically
from tapct.encoders import Encoder
from tapct.encoders.input_sheet import NOT_DECLARED, SOURCES, InputRow, rows
from tapct.encoders.mistakes import in_words
from tapct.encoders.received import BEYOND_HU, window_fits
from tapct.encoders.verified import verification_of
from tapct.errors import EncoderError
from tapct.features.extract import fitted_window
from tapct.report.html import page
from tapct.viz.received import Received, draw_received, received_of, shipped_scan, shown_values
from tapct.volumes import Size


@dataclass(frozen=True)
class Finding:
    """Something that was found by running the adapter, and not read in it.

    Attributes:
        name: What was looked at.
        text: What was found.
        contradicts: Whether it is not what the adapter says.
    """

    name: str
    text: str
    contradicts: bool = False


def as_table(encoder: Encoder) -> Table:
    """Returns the sheet for a terminal."""
    table = Table(title=f"What {encoder.full_name} is given", box=box.SIMPLE, title_justify="left")
    table.add_column("")
    table.add_column("what, and its source")
    for row in _rows(encoder):
        table.add_row(escape(row.name), Text.assemble(row.text, (f"\n{row.source}", "dim")))
    return table


def _rows(encoder: Encoder) -> Iterator[InputRow]:
    """Yields the sheet, and what is known here of the adapter next to its authors' code."""
    yield from rows(encoder)
    yield InputRow("Next to its authors' code", verification_of(encoder).text, "ours: tapct verify-encoder")


def write_sheet(encoder: Encoder, path: Path) -> list[Finding]:
    """Writes the sheet as a page: one file, which needs no network.

    Returns:
        What was found of what the network receives.

    Raises:
        EncoderError: If the encoder cannot be run, or the page not be written.
    """
    found = received_of(encoder, shipped_scan())
    said = findings(encoder, found)
    content = page(
        "input_sheet.html",
        name=encoder.full_name,
        reference=encoder.card.reference,
        rows=[(row, _kind(row)) for row in _rows(encoder)],
        findings=said,
        wrong=encoder.mistake is not None,
        picture=None if found is None else Markup(base64.b64encode(draw_received(found)).decode()),
        values="" if found is None else shown_values(found),
    )
    try:
        write_atomically(path, content)
    except OSError as error:
        raise EncoderError(f"cannot write {path}: {error.strerror or error}") from error
    return said


def findings(encoder: Encoder, found: Received | None) -> list[Finding]:
    """Returns what running the adapter up to its network says of its sheet."""
    if found is None:
        return [Finding("Network", "is never called: there is nothing that it receives")]
    channels = "" if found.same_channels else "; the channels differ, the picture shows the first"
    shape = Finding("Array", f"{' x '.join(map(str, found.shape))} (batch, channels, ...){channels}")
    said = [shape, _orientation(encoder, found), _hu_window(encoder)]
    if encoder.mistake is None:
        return said
    # It was asked for, and is no fault of the adapter.
    return [Finding("Mistake", in_words(encoder)), *(replace(one, contradicts=False) for one in said)]


def _orientation(encoder: Encoder, found: Received) -> Finding:
    turn = found.orientation
    if turn is None:
        return Finding("Orientation", "cannot be told: the array has another shape than any turned window")
    if turn.fits:
        return Finding(
            "Orientation", f"{encoder.axes}, as declared: of 48 turns of the scan, the array is likest to it"
        )
    return Finding("Orientation", f"the array is likest to {turn.found}, not to {encoder.axes} as declared", True)


def _hu_window(encoder: Encoder) -> Finding:
    declared = encoder.input_sheet().hu_window
    if declared is None:
        return Finding("HU window", "none is declared that could be held against what the network receives")
    tried = f"values from {-BEYOND_HU:g} to {BEYOND_HU:g} HU tried"
    if not window_fits(encoder, declared, fitted_window(encoder, Size(1, 1, 1))):
        return Finding("HU window", f"not {declared.text}, as declared ({tried})", True)
    if math.isinf(declared.low_hu) and math.isinf(declared.high_hu):
        return Finding("HU window", f"not clipped, as declared: every value counts ({tried})")
    return Finding("HU window", f"{declared.text}, as declared: what lies beyond changes nothing ({tried})")


def _kind(row: InputRow) -> str:
    """Returns what a source is of, for its colour."""
    kind = row.source.partition(": ")[0]
    return kind if kind in SOURCES else NOT_DECLARED
