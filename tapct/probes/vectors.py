"""Stored features of cases as one vector each. Nothing is encoded."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tapct.errors import FeatureError, nearest
from tapct.features import FeatureBank
from tapct.probes.adaptors import Adaptor, Pooling
from tapct.probes.derived import Derived

if TYPE_CHECKING:
    from tapct.encoders import EncoderCard

POOLINGS = ("cls", "mean", "max", "mean+max", "mask")


def pooling_of(card: "EncoderCard", asked: str | None) -> Pooling:
    """Returns how the features of an encoder become one vector.

    Args:
        card: Its card.
        asked: One of `POOLINGS`; None is the encoder's own choice.

    Raises:
        FeatureError: If there is no such pooling.
    """
    if asked is not None and asked not in POOLINGS:
        raise FeatureError(f"there is no pooling '{asked}'. {nearest(asked, POOLINGS)}")
    return Adaptor.parse("linear" if asked is None else f"linear:{asked}").pooling_of(card)


def stored_vectors(bank: FeatureBank, cases: Sequence[tuple[Any, int]], how: Pooling) -> np.ndarray:
    """Returns the (N, P) float64 features of cases, one vector each; those that are stored as such need no map.

    Args:
        bank: Whose store has their features.
        cases: The part of the task that each is of, and its index there.
        how: How features are pooled.

    Raises:
        FeatureError: If features are missing.
        TaskError: If they are pooled over masks, and the task has none.
    """
    own = copy.copy(bank)
    own.with_maps = False  # those that vectors are made of are asked for one by one
    parts = list({id(part): part for part, _ in cases}.values())
    if how == "mask":
        for part in parts:
            part.require_masks()
    derived = Derived(bank.encoder, own)
    own.fill(parts, derived.lacks_vector(how))
    found = [derived.vector(part, own.case(part, index), how) for part, index in cases]
    return np.stack([vector.cpu().numpy() for vector in found])
