"""What the stated licence of weights means for whoever uses them, by the words of a card: nobody's legal advice."""

import re
from typing import Protocol

NON_COMMERCIAL = "NC"
"""Stands next to the name of an encoder whose weights are not for commercial use."""

NC_MEANS = "the stated licence of the weights forbids commercial use, or is taken to"

_WORDS = re.compile(
    r"\bNC\b|\bnon[- ]?commercial|\bresearch[- ](use[- ])?only|\bacademic[- ](use[- ])?only", re.IGNORECASE
)


class OfWeights(Protocol):
    """What says under which terms weights are: `tapct.encoders.Weights`, and what a record holds of it."""

    @property
    def licence(self) -> str | None:
        """As stated; None where it could not be established."""

    @property
    def gated(self) -> bool:
        """Whether an account or an agreement is needed."""

    @property
    def needed(self) -> bool:
        """Whether there are weights at all."""


def is_non_commercial(licence: str | None) -> bool:
    """Returns whether a licence, in a card's words, is not for commercial use; an unknown one is not known to be."""
    return licence is not None and _WORDS.search(licence) is not None


def terms(of: OfWeights) -> str:
    """Returns under which terms weights are, in a few words for a sentence."""
    found = [f"licence {of.licence}" if of.licence else "no licence is stated"]
    if is_non_commercial(of.licence) and "commercial" not in (of.licence or ""):
        found.append("non-commercial")
    return ", ".join([*found, "gated"] if of.gated else found)


def brief(of: OfWeights) -> str:
    """Returns what of it must be minded, for a table: "NC, gated", "?" where none is stated, else nothing."""
    if not of.needed:
        return ""
    licence = [NON_COMMERCIAL] if is_non_commercial(of.licence) else [] if of.licence else ["?"]
    return ", ".join([*licence, "gated"] if of.gated else licence)
