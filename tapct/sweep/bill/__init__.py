"""The bill of a sweep, before it starts: what would be read, encoded, stored and held, and whether it can be."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How a dry run shows its bill.

    Attributes:
        card: Name of the card that hours are estimated for; None for what was measured here.
        measure: Whether every encoder that was not measured on the device at hand is measured now.
        json: Whether as JSON.
    """

    card: str | None = None
    measure: bool = False
    json: bool = False
