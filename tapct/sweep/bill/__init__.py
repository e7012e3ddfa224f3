"""The bill of a sweep, before it starts: what would be read, encoded, stored and held, and whether it can be."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BillOptions:
    """How a dry run shows its bill: each field is an option of `tapct run`.

    Attributes:
        card: Let a dry run estimate hours for this graphics card (a100, h100, h200, ...). The default is the device at
            hand.
        measure: Let a dry run first measure each encoder on the device at hand, for at most 20 s.
        json: Let a dry run print JSON instead of tables.
    """

    card: str | None = None
    measure: bool = False
    json: bool = False
