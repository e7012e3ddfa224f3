"""What scans may be sorted by in place of what is asked of them: who took them, how, and of whom.

Two scans are alike in a column if they are of one level, by a rule that no data set decides: texts in one spelling,
numbers in the bins below. The edges of bins lie between the values that scanners are set to, so that rounding moves no
scan from one to the next.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tapct.tasks.columns import UNKNOWN, Column, Value, in_one_spelling
from tapct.volumes import Grid
from tapct.volumes.acquisition import acquisition

INSTITUTE = Column(name="institute", title="institute", kind="text")
MANUFACTURER = Column(name="manufacturer", title="manufacturer", kind="text")
SCANNER_MODEL = Column(name="scanner_model", title="scanner model", kind="text")
KERNEL = Column(name="kernel", title="convolution kernel", kind="text")
KVP = Column(name="kvp", title="tube voltage in kV", kind="text")
SEX = Column(name="sex", title="recorded sex", kind="text")
AGE = Column(name="age", title="age", unit="years", edges=(18, 30, 40, 50, 60, 70, 80))
SLICE_THICKNESS = Column(
    name="slice_thickness", title="slice thickness", unit="mm", edges=(0.95, 1.4, 2.2, 2.8, 4.4, 6.8)
)
SPACING_Z = Column(
    name="spacing_z", title="distance between slices", unit="mm", edges=(0.43, 0.65, 0.95, 1.4, 2.2, 2.8, 4.4, 6.8)
)
SPACING_XY = Column(
    name="spacing_xy", title="distance between pixels", unit="mm", edges=(0.55, 0.65, 0.76, 0.85, 0.95, 1.2)
)
EXTENT_Z = Column(
    name="extent_z", title="extent in z", unit="mm", edges=(50, 100, 150, 200, 250, 300, 350, 400, 500, 700, 1000)
)

VOLUME = Column(
    name="volume", title="volume of the mask", unit="log10 of ml", edges=(-1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3)
)
"""Of what `TaskSpec.mask` names: `MaskedDataset` measures it. A task that names it among its shortcuts has it audited
where features are pooled over masks."""

DICOM = (MANUFACTURER, SCANNER_MODEL, KERNEL, KVP, SLICE_THICKNESS, INSTITUTE, SEX, AGE)
"""Columns that the headers of DICOM files may hold; `CTDataset.read_value` reads them."""

GEOMETRY = (SPACING_Z, SPACING_XY, EXTENT_Z)
"""Columns that every scan has, of whatever format: those of its grid."""

MATCHED = ("institute", "manufacturer", "kvp", "sex")
"""What negatives share with a query in `MatchedMAP`, where a task does not say otherwise. With all columns, next to no
scan would be left."""


def manufacturer(text: str) -> str:
    """Returns a manufacturer by the first word of its name: GE MEDICAL SYSTEMS and GE HEALTHCARE are one."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return words[0] if words else ""


def age_years(text: str) -> float | None:
    """Returns an age of DICOM, `063Y` or `018M`, in years; None of what is none."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text.strip().upper())
    return None if match is None else int(match[1]) / {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}[match[2]]


def positive_mm(text: str) -> float | None:
    """Returns a length in mm; None of what is none: headers hold 0, and texts."""
    try:
        length = float(text)
    except ValueError:
        return None
    return length if 0 < length < float("inf") else None


_OF_HEADER: Mapping[str, tuple[str, Callable[[str], Value]]] = {
    "manufacturer": ("Manufacturer", manufacturer),
    "scanner_model": ("ManufacturerModelName", str),
    "kernel": ("ConvolutionKernel", str),
    "kvp": ("KVP", str),
    "slice_thickness": ("SliceThickness", positive_mm),
    "institute": ("InstitutionName", str),
    "sex": ("PatientSex", str),
    "age": ("PatientAge", age_years),
}
"""By column of `DICOM`, the tag that holds it and how that is read."""


def of_header(scan: Path) -> dict[str, Value]:
    """Returns what the header of a scan says, by column of `DICOM`; None where it says nothing.

    Args:
        scan: A folder of DICOM slices, or one of them; of a file of another format nothing is known.

    Raises:
        VolumeError: If it cannot be read.
    """
    return of_tags(acquisition(scan))


def of_tags(said: Mapping[str, str]) -> dict[str, Value]:
    """Returns what texts of headers say, by column of `DICOM`; None where they say nothing.

    Args:
        said: By keyword of DICOM, in a header or in a table that was made of headers.
    """
    texts = {column: said.get(tag, "") for column, (tag, _) in _OF_HEADER.items()}
    return {
        column: None if in_one_spelling(text) in UNKNOWN else _OF_HEADER[column][1](text)
        for column, text in texts.items()
    }


def of_grid(grid: Grid) -> dict[str, float]:
    """Returns the values of `GEOMETRY` of a scan, in mm, rounded to a thousandth: no processor moves one into a bin."""
    z, y, x = grid.spacing_mm
    found = {"spacing_z": z, "spacing_xy": math.sqrt(y * x), "extent_z": z * grid.shape.z}
    return {name: round(value, 3) for name, value in found.items()}
