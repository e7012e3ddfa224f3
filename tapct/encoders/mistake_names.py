"""The names of the usual mistakes with an encoder's input (see `tapct.encoders.mistakes`, which imports torch)."""

from typing import Literal, get_args

MistakeName = Literal[
    "mirrored",
    "mirrored-alone",
    "upside-down",
    "lps-for-ras",
    "transposed",
    "xyz-for-zyx",
    "spacing-1mm",
    "hu-window",
    "padding-after-normalising",
    "other-filter",
]
"""The mistakes. What one does never changes under its name, so that results stay comparable."""

MISTAKE_NAMES: tuple[MistakeName, ...] = get_args(MistakeName)

MISTAKE_WORDS: dict[MistakeName, str] = {
    "mirrored": "left and right changed over, in scan and labels alike",
    "mirrored-alone": "left and right changed over, in the scan and not in its labels",
    "upside-down": "slices in reverse order, feet for head, in scan and labels alike",
    "lps-for-ras": "left for right and front for back (LPS taken for RAS), in scan and labels alike",
    "transposed": "rows for columns, in scan and labels alike",
    "xyz-for-zyx": "an (x, y, z) array given for (z, y, x), in scan and labels alike",
    "spacing-1mm": "every voxel taken for 1 mm, whatever the header says",
    "hu-window": "HU clipped to another window, and scaled as the right one is",
    "padding-after-normalising": "padded with 0 after normalising, and not with air before",
    "other-filter": "slices shrunk by the other filter: interpolated where they are to be averaged, or averaged",
}
"""What each does, for a reader of a table."""

OPTION = "mistake"
"""Name of the encoder's option."""

SHOWS_IN_MAPS: dict[MistakeName, MistakeName] = {"mirrored-alone": "mirrored"}
"""Mistakes that differ from another, named second, only in where the map is taken to lie."""

NO_EFFECT = "the mistake changes nothing in this scan: "
"""How the note of a case begins of which the network receives the same as without the mistake."""
