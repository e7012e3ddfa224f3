"""Adaptors: how the features of a scan become a prediction, named apart from whose features they are.

How features are pooled and what is put on top can move a score more than the encoder does, so an adaptor is a factor of
the board next to the encoder: the same stored features under each of them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from tapct.encoders import EncoderCard
from tapct.errors import TaskError, nearest
from tapct.features import CaseFeatures, StoredFeatures
from tapct.features.channels import Channels, scan_patches
from tapct.kinds import ATTENTION_HEADS, STEPPED_HEADS, TABLE_HEADS
from tapct.names import TABLE, fault
from tapct.probes.patches import mask_shares
from tapct.volumes import Grid, Mask

Head = Literal[
    "abmil", "linear", "knn", "prototype", "ridge", "attention", "cox", "cosine", "nearest", "vote", "generated"
]
Pooling = Literal["cls", "mean", "max", "mean+max", "mask", "none"]
"""How the features of a scan become one vector; "none" is that of a table alone, which reads none of them."""

BagName = Literal["cls", "patch"]

BAGS: dict[BagName, str] = {
    "cls": "the class tokens of a scan's windows",
    "patch": "the patch features of a scan, all patches of its map that do not lie in the padding",
}
"""What attention may look at."""

_CHANNELS = 16
"""That are pooled at a time: a map is never whole in float64."""

HEADS: dict[Head, str] = {
    "abmil": "gated attention over a scan's instances, the paper's; trained by steps",
    "linear": "logistic regression on pooled features, solved",
    "knn": "share of positives among the nearest training cases, by cosine similarity",
    "prototype": "the nearer of the two class means",
    "ridge": "ridge regression on pooled features, solved",
    "attention": "gated attention as of abmil, on numbers; trained by steps",
    "cox": "proportional hazards on pooled features, with a ridge penalty, solved",
    "cosine": "the cosine of pooled features as they are, between scans; nothing is trained",
    "nearest": "the report of the nearest training scan, by cosine similarity",
    "generated": "tokens of the scan into a frozen language model, which writes; trained by steps",
    "vote": "of the reports of the nearest training scans, the one whose findings differ least from theirs",
}

OWN = "own"
"""Stands for how an encoder's features are pooled by itself, where a table follows: `linear:own&table=age`."""

NO_TABLE: dict[Head, str] = {
    **dict.fromkeys(
        ("knn", "prototype"), "it weighs no columns, so that a year of age would count as any feature does"
    ),
    **dict.fromkeys(("abmil", "attention", "generated"), "it sees the instances of a scan one by one"),
    **dict.fromkeys(("cosine", "nearest", "vote"), "nothing is trained that could weigh a column next to a feature"),
}
"""Why heads take no table."""


@dataclass(frozen=True)
class Adaptor:
    """An adaptor as it is asked for: `HEAD`, `HEAD:POOLING`, `abmil:BAG`, `attention:BAG`; with columns of a table.

    A table stands alone as `HEAD:table=COLUMN+COLUMN` and next to features as `HEAD:POOLING&table=COLUMN+COLUMN`, or
    `HEAD:own&table=COLUMN+COLUMN`.

    Attributes:
        head: What stands on the features.
        pooling: How the features of a scan become one vector; None is the encoder's own choice, and that of attention.
        bag: What attention looks at; None is the encoder's own choice, and that of pooled features.
        table: Columns of the task's table that stand next to the pooled features, or alone.
    """

    head: Head
    pooling: Pooling | None = None
    bag: BagName | None = None
    table: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Adaptor":
        """Reads the name of an adaptor.

        Raises:
            TaskError: If there is no such head, pooling or bag.
        """
        head, colon, pooling = text.partition(":")
        if head not in HEADS:
            hint = f"A table needs a head: linear:{TABLE}age+sex" if head.startswith("table") else nearest(head, HEADS)
            raise TaskError(f"there is no adaptor '{text}'. {hint}")
        if not colon:
            return cls(head)
        if TABLE in pooling and head in NO_TABLE:
            raise TaskError(
                f"'{text}': {head} takes no table: {NO_TABLE[head]}. Heads that do: {', '.join(TABLE_HEADS)}"
            )
        if head not in ATTENTION_HEADS and head in STEPPED_HEADS:
            raise TaskError(f"'{text}': {head} sees the patches of a scan as they are; write {head}")
        if head in ATTENTION_HEADS:
            if pooling not in BAGS:
                raise TaskError(
                    f"'{text}': attention pools by itself; write {head}, or name its bag: "
                    f"{', '.join(f'{head}:{bag}' for bag in BAGS)}"
                )
            return cls(head, bag=pooling)
        pooling, table = cls._with_table(text, head, pooling)
        poolings = [one for one in get_args(Pooling) if one != "none"]
        if pooling not in (*poolings, *(("none", OWN) if table else ())):
            raise TaskError(f"'{text}': features are pooled by {', '.join(poolings)}, not by '{pooling}'")
        found = cls(head, None if pooling == OWN else pooling, table=table)  # type: ignore[arg-type]
        if wrong := fault(found.name):
            raise TaskError(f"the adaptor '{text}' {wrong}, which no record can hold. Name fewer columns")
        return found

    @staticmethod
    def _with_table(text: str, head: str, pooling: str) -> tuple[str, tuple[str, ...]]:
        """Returns how features are pooled, "none" where they are not read, and the columns of the table."""
        how, ampersand, table = ("none", "&", pooling) if pooling.startswith(TABLE) else pooling.partition("&")
        if not ampersand:
            return pooling, ()
        columns = table.removeprefix(TABLE).split("+")
        if (
            not table.startswith(TABLE)
            or not all(re.fullmatch(r"\w+", name) for name in columns)
            or len(set(columns)) < len(columns)
        ):
            raise TaskError(f"'{text}': columns of a table are named once each, as in {head}:mean&{TABLE}age+sex")
        return how, tuple(columns)

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        pooling = None if self.pooling == "none" else self.pooling or (OWN if self.table else None)
        table = TABLE + "+".join(self.table) if self.table else None
        return ":".join(filter(None, (self.head, "&".join(filter(None, (pooling, table))), self.bag)))

    @property
    def is_solved(self) -> bool:
        """Whether the head is solved on pooled features, not trained by steps."""
        return self.head not in STEPPED_HEADS

    def pooling_of(self, card: EncoderCard) -> Pooling:
        """Returns how the features of an encoder are pooled: its class tokens where it has some, else the mean.

        Raises:
            TaskError: If class tokens are asked for and it has none.
        """
        if self.pooling == "cls" and not card.has_cls:
            raise TaskError(f"{card.name} has no class token to pool by ({self.name}); use {self.head}:mean")
        return self.pooling or ("cls" if card.has_cls else "mean")

    def with_bag(self, bag: BagName | Literal["auto"]) -> "Adaptor":
        """Returns the adaptor on a bag; "auto" leaves it as it is.

        Raises:
            TaskError: If there is no such bag, the adaptor has another, or has none.
        """
        if bag == "auto":
            return self
        if bag not in BAGS:
            raise TaskError(f"there is no bag '{bag}'. {nearest(bag, ['auto', *BAGS])}")
        if self.head not in ATTENTION_HEADS:
            raise TaskError(
                f"{self.name} has no bag: it pools features by itself. Leave bag={bag} out, or use "
                f"{' or '.join(ATTENTION_HEADS)}"
            )
        if self.bag not in (None, bag):
            raise TaskError(f"the adaptor is {self.name}, and the bag {bag}: name the bag in one place")
        return replace(self, bag=bag)

    def on(self, card: EncoderCard) -> "Adaptor":
        """Returns the adaptor as records name it: without a bag that is the encoder's own choice.

        Raises:
            TaskError: If class tokens are asked for and the encoder has none.
        """
        if self.bag == "cls" and not card.has_cls:
            raise TaskError(f"{card.name} has no class tokens for {self.name}: use bag=patch, which is its auto")
        return replace(self, bag=None) if self.bag == own_bag(card) else self

    def bag_of(self, card: EncoderCard) -> BagName | None:
        """Returns what heads attend to; None of an adaptor that pools."""
        if self.head not in ATTENTION_HEADS:
            return None if self.is_solved else "patch"
        return self.bag or own_bag(card)


def own_bag(card: EncoderCard) -> BagName:
    """Returns the bag of an encoder where none is named: its class tokens where it has some, else its patches."""
    return "cls" if card.has_cls else "patch"


def instances(features: CaseFeatures | StoredFeatures, bag: BagName) -> Channels:
    """Returns the instances of a scan, (C, n, ...), as they are stored.

    Patches in the padding are left out, as they are of pooled features.
    """
    return Channels(features.embeddings.T) if bag == "cls" else scan_patches(features)


def pooled(features: CaseFeatures | StoredFeatures, how: Pooling, mask: Mask | None = None) -> torch.Tensor:
    """Returns one vector of a scan, (P,) float64.

    Args:
        features: Of the scan.
        how: "cls": mean over the class tokens of its windows. "mean", "max": over the patches whose centre lies
            in the scan, not in the padding. "mean+max": both, one after the other. "mask": mean over the same patches,
            each weighted by what of the mask is in it, which is the mean over the mask's voxels of their patch. Without
            weights, a lesion smaller than a patch would count for no more than the patches that its rim grazes, and
            with a threshold it might have no patch at all. "none": nothing, next to a table.
        mask: For "mask", and not empty.
    """
    if how == "none":
        return torch.zeros(0, dtype=torch.float64, device=features.embeddings.device)
    if how == "cls":
        return features.embeddings.double().mean(dim=0)
    patches = scan_patches(features)
    if how == "mask":
        assert mask is not None
        grid = Grid.of(patches.stored.shape[1:], features.feature_grid.affine)
        shares = mask_shares(mask, grid).flatten().to(patches.stored.device)
        held = shares.nonzero().flatten()
        return torch.cat([part[:, held].double() @ shares[held] for part in patches.split(_CHANNELS)])
    parts: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "mean": lambda values: values.double().mean(dim=1),
        "max": lambda values: values.amax(dim=1).double(),
    }
    return torch.cat([parts[one](values) for one in how.split("+") for values in patches.split(_CHANNELS)])
