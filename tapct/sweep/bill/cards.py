"""Cards that hours are estimated for, by their data sheets."""

from typing import NamedTuple

from tapct.errors import nearest
from tapct.sweep.experiment import SweepError

UTILISATION = 0.25
"""Share of a card's peak that estimates reckon with. Trainings of vision transformers reached 0.12 (TAP-CT itself, on
H100), 0.19 (DINOv3, H100) and 0.34 (DINOv2, A100) by their published hours; what encoding CT reaches is for `--measure`
to say."""


class Card(NamedTuple):
    """A GPU by its data sheet.

    Attributes:
        display_name: As its maker writes it.
        peak_tflops: Dense bf16, without sparsity.
    """

    display_name: str
    peak_tflops: float


CARDS = {
    "a100": Card("NVIDIA A100", 312),
    "a40": Card("NVIDIA A40", 149.7),
    "l4": Card("NVIDIA L4", 121),
    "l40s": Card("NVIDIA L40S", 362),
    "rtx4090": Card("NVIDIA GeForce RTX 4090", 165.2),
    "h100": Card("NVIDIA H100 SXM", 989),
    "h200": Card("NVIDIA H200 SXM", 989),
    "b200": Card("NVIDIA B200", 2250),
}
"""By name. Peaks are NVIDIA's data sheets' (of the RTX 4090: the Ada whitepaper, with fp32 accumulation)."""


def card_named(name: str) -> Card:
    """Returns a card.

    Raises:
        SweepError: If there is none of that name.
    """
    if name.lower() not in CARDS:
        raise SweepError(f"--card: there is no card '{name}'. {nearest(name, CARDS)}")
    return CARDS[name.lower()]
