"""Adaptors: how the features of a scan become a prediction, named apart from whose features they are.

How features are pooled and what is put on top can move a score more than the encoder does, so an adaptor is a factor of
the board beside the encoder: the same stored features under each of them.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from tapct.encoders import EncoderCard
from tapct.errors import TaskError, nearest
from tapct.features import CaseFeatures
from tapct.probes.cells import mask_shares
from tapct.volumes import Grid, Mask

Head = Literal["abmil", "linear", "knn", "prototype"]
Pooling = Literal["cls", "mean", "max", "mean+max", "mask"]

HEADS: dict[Head, str] = {
    "abmil": "gated attention over a scan's instances, the paper's; trained by steps",
    "linear": "logistic regression on pooled features, solved",
    "knn": "share of positives among the nearest training cases, by cosine similarity",
    "prototype": "the nearer of the two class means",
}


@dataclass(frozen=True)
class Adaptor:
    """An adaptor as it is asked for: `HEAD`, or `HEAD:POOLING`.

    Attributes:
        head: What stands on the features.
        pooling: How the features of a scan become one vector; None is the encoder's own choice, and that of attention.
    """

    head: Head
    pooling: Pooling | None = None

    @classmethod
    def parse(cls, text: str) -> "Adaptor":
        """Reads the name of an adaptor.

        Raises:
            TaskError: If there is no such head or pooling, or attention is to be pooled as well.
        """
        head, colon, pooling = text.partition(":")
        if head not in HEADS:
            raise TaskError(f"there is no adaptor '{text}'. {nearest(head, HEADS)}")
        if not colon:
            return cls(head)
        if head == "abmil":
            raise TaskError(f"'{text}': attention pools by itself; write abmil")
        if pooling not in get_args(Pooling):
            raise TaskError(f"'{text}': features are pooled by {', '.join(get_args(Pooling))}, not by '{pooling}'")
        return cls(head, pooling)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        return self.head if self.pooling is None else f"{self.head}:{self.pooling}"

    @property
    def is_solved(self) -> bool:
        """Whether the head is solved on pooled features, not trained by steps."""
        return self.head != "abmil"

    def pooling_of(self, card: EncoderCard) -> Pooling:
        """Returns how the features of an encoder are pooled: its class tokens where it has some, else the mean.

        Raises:
            TaskError: If class tokens are asked for and it has none.
        """
        if self.pooling == "cls" and not card.has_cls:
            raise TaskError(f"{card.name} has no class token to pool by ({self.name}); use {self.head}:mean")
        return self.pooling or ("cls" if card.has_cls else "mean")


def pooled(features: CaseFeatures, how: Pooling, mask: Mask | None = None) -> torch.Tensor:
    """Returns one vector of a scan, (P,) float64.

    Args:
        features: Of the scan.
        how: "cls": mean over the class tokens of its windows. "mean", "max": over the feature cells whose centre lies
            in the scan, not in the padding. "mean+max": both, one after the other. "mask": mean over the same cells,
            each weighted by what of the mask is in it, which is the mean over the mask's voxels of their cell. Without
            weights, a lesion smaller than a cell would count for no more than the cells that its rim grazes, and with
            a threshold it might have no cell at all.
        mask: For "mask", and not empty.
    """
    if how == "cls":
        return features.embeddings.double().mean(dim=0)
    inside = _inside(features)
    found = features.map[:, inside[0], inside[1], inside[2]]
    cells = found.flatten(1)
    if how == "mask":
        assert mask is not None
        shares = mask_shares(mask, Grid.of(found.shape[1:], features.feature_grid.affine)).flatten().to(cells.device)
        held = shares.nonzero().flatten()
        return cells[:, held].double() @ shares[held]
    parts = {"mean": lambda: cells.double().mean(dim=1), "max": lambda: cells.amax(dim=1).double()}
    return torch.cat([parts[one]() for one in how.split("+")])


def _inside(features: CaseFeatures) -> tuple[slice, slice, slice]:
    """Returns the cells along each axis whose centre lies in the scan; the first one always counts."""
    where = features.feature_grid.coordinates_in(features.encoder_grid)
    z, y, x = (
        slice(0, max(1, int((at <= size - 0.5).sum())))
        for at, size in zip(where, features.encoder_grid.shape, strict=True)
    )
    return z, y, x
