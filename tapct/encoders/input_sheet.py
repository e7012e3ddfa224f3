"""The input sheet of an encoder: what its network is given, and where each of it was read.

What the built encoder knows is taken from it; what it cannot know (the HU window, say, which its `_encode` applies), it
may declare in `Encoder.input_sheet`, with sources.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import torch

from tapct.encoders.mistakes import in_words
from tapct.errors import EncoderError

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder

SOURCES = ("authors", "paper", "third party", "ours")
"""What a source begins with: the authors' code or files, the paper, somebody else's reading, this project's choice."""

NOT_DECLARED = "not declared"

_MOST_NAMES = 12
"""Of scan statistics that a sheet names."""

_FILTERS = {
    "antialias": "linear, averaged over the new voxel where it is larger",
    "linear": "linear between neighbours, along no axis averaged",
}


@dataclass(frozen=True)
class Declared:
    """Something about an input that its adapter says.

    Attributes:
        text: What.
        source: Where it was read, such as "authors: configs/infer.yaml"; see `SOURCES`.
    """

    text: str
    source: str

    def __post_init__(self) -> None:
        _check_source(self.source)


@dataclass(frozen=True)
class HuWindow:
    """The HU that a network can tell apart; what lies beyond an end is as that end.

    Attributes:
        low_hu: The lowest; minus infinity where nothing is clipped.
        high_hu: The highest.
        source: As in `Declared`.
    """

    low_hu: float
    high_hu: float
    source: str

    def __post_init__(self) -> None:
        _check_source(self.source)
        if not self.low_hu < self.high_hu:
            raise EncoderError(f"the HU window {self.low_hu:g} to {self.high_hu:g} of an input sheet must rise")

    @property
    def text(self) -> str:
        """What a table says of it."""
        low, high = (math.isfinite(end) for end in (self.low_hu, self.high_hu))
        if not (low or high):
            return "not clipped"
        if low and high:
            return f"{self.low_hu:g} to {self.high_hu:g} HU"
        return f"from {self.low_hu:g} HU" if low else f"up to {self.high_hu:g} HU"


@dataclass(frozen=True, kw_only=True)
class InputSheet:
    """What an adapter declares about its input. All may be left out, and is then shown as not declared.

    Plain strings are sources of what the built encoder says itself; they begin as `SOURCES` say.

    Attributes:
        orientation: Source of `axes`.
        grid: Source of the card's spacing, or size in the plane.
        resizing: How the authors resample.
        hu_window: Which HU the network can tell apart.
        normalisation: What becomes of the HU.
        padding: Source of the card's `pad_hu`.
        window: Source of the card's window.
        patches: Source of the stride, and of where a patch is centred.
        embedding: What the embedding of a window is.
        region: What part of a scan is described; None where it is all that lies in a window.
    """

    orientation: str | None = None
    grid: str | None = None
    resizing: Declared | None = None
    hu_window: HuWindow | None = None
    normalisation: Declared | None = None
    padding: str | None = None
    window: str | None = None
    patches: str | None = None
    embedding: Declared | None = None
    region: Declared | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), str):
                _check_source(value)


class InputRow(NamedTuple):
    """A row of a sheet.

    Attributes:
        name: Of what.
        text: What it is.
        source: Where it was read; `NOT_DECLARED` where the adapter does not say.
    """

    name: str
    text: str
    source: str


def rows(encoder: "Encoder") -> Iterator[InputRow]:
    """Yields the sheet of an encoder, as it is built and set; a deferred one need not be built.

    Raises:
        EncoderError: If its axes or scan statistics are wrong.
    """
    card, sheet, axes, options = encoder.card, encoder.input_sheet(), encoder.axes, encoder.options

    def of_card(name: str, text: str, source: str | None, option: str) -> InputRow:
        return _said(name, text, f"ours: the option {option}" if option in options else source)

    if encoder.mistake is not None:
        yield InputRow(
            "Mistake", f"{encoder.mistake}: {in_words(encoder)}", "ours: the option mistake, over all rows below"
        )
    yield _said("Axis order", ", ".join(map(_axis, axes)), sheet.orientation)
    yield _said("Orientation", f"axes grow towards {', '.join(axes)}", sheet.orientation)
    spacing = "the scan's own" if card.spacing_mm is None else f"{_times(card.spacing_mm)} mm (z, y, x)"
    yield of_card("Spacing", spacing, sheet.grid, "spacing_mm")
    size = (
        "as spacing gives it" if card.in_plane_size is None else f"{card.in_plane_size} x {card.in_plane_size} pixels"
    )
    yield of_card("In-plane size", size, sheet.grid, "in_plane_size")
    yield of_card("Resizing filter", _FILTERS[card.in_plane_filter], "ours: the card", "in_plane_filter")
    yield _declared("Resizing filter, authors'", sheet.resizing)
    yield _declared("HU window", sheet.hu_window)
    yield _declared("Normalisation", sheet.normalisation)
    yield InputRow("Scan statistics", _statistics(encoder), "ours: scan_statistics of the adapter")
    yield of_card(
        "Padding",
        f"{card.pad_hu:g} HU behind the last voxel, where a scan is smaller than its windows",
        sheet.padding,
        "pad_hu",
    )
    two_d = ": one slice" if card.window_size[0] == 1 else ""
    yield of_card("Window", f"{_times(card.window_size)} voxels (z, y, x){two_d}", sheet.window, "window_size")
    yield _said("Stride", f"{_times(card.feature_stride)} voxels (z, y, x){_millimetres(encoder)}", sheet.patches)
    yield _said("Centre of a patch", _centre(encoder), sheet.patches)
    pooled = "class token" if card.has_cls else "pooled"
    what = pooled if sheet.embedding is None else f"{pooled}: {sheet.embedding.text}"
    yield _said(
        "Embedding", f"{what}, {card.embedding_dim:,} numbers", sheet.embedding.source if sheet.embedding else None
    )
    if sheet.region is not None:
        yield InputRow("Region", sheet.region.text, sheet.region.source)
    yield _said("Map", f"{card.feature_dim:,} channels", sheet.patches)
    yield InputRow("Data type", f"float32 HU; the network computes in {_precision(encoder)}", "ours: precision")


def _said(name: str, text: str, source: str | None) -> InputRow:
    return InputRow(name, text, source or NOT_DECLARED)


def _declared(name: str, said: Declared | HuWindow | None) -> InputRow:
    return InputRow(name, NOT_DECLARED, NOT_DECLARED) if said is None else InputRow(name, said.text, said.source)


def _axis(letter: str) -> str:
    return {"S": "z", "I": "z", "P": "y", "A": "y", "L": "x", "R": "x"}[letter]


def _times(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{n:g}" for n in sizes)


def _statistics(encoder: "Encoder") -> str:
    """Returns the names of its scan statistics, found on a small scan."""
    probe = torch.linspace(-1000.0, 1000.0, 8**3).reshape(1, 1, 8, 8, 8)
    names = list(encoder.statistics_of(probe))
    if not names:
        return "none: a window says all"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more} of the whole scan, before padding"


def _millimetres(encoder: "Encoder") -> str:
    """Returns how large a patch is, where the spacing says it."""
    spacing = encoder.card.spacing_mm
    if spacing is None or encoder.card.in_plane_size is not None:
        return ""
    sizes = tuple(step * mm for step, mm in zip(encoder.card.feature_stride, spacing, strict=True))
    return f": {_times(sizes)} mm"


def _centre(encoder: "Encoder") -> str:
    centre, stride = encoder.feature_centre(), encoder.card.feature_stride
    if all(at == (n - 1) / 2 for at, n in zip(centre, stride, strict=True)):
        return f"voxel ({', '.join(f'{at:g}' for at in centre)}) of its stride: the middle"
    return f"voxel ({', '.join(f'{at:g}' for at in centre)}) of its stride, which is not the middle"


def _precision(encoder: "Encoder") -> str:
    on = {
        kind: {"fp32": "float32", "bf16": "bfloat16 autocast"}[encoder.precision_on(kind)] for kind in ("cpu", "cuda")
    }
    if on["cpu"] == on["cuda"]:
        return on["cpu"]
    return f"{on['cpu']} on a CPU, {on['cuda']} on a GPU"


def _check_source(source: str) -> None:
    kind, _, where = source.partition(": ")
    if kind not in SOURCES or not where:
        known = ", ".join(f"'{name}: ...'" for name in SOURCES)
        raise EncoderError(f"the source {source!r} of an input sheet must begin with one of {known}")
