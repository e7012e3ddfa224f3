"""What is computed once of all training cases, and stored under the keys of their features or labels."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from tapct.features import EncodedCase, Seen
from tapct.features.channels import Channels
from tapct.probes.adaptors import instances
from tapct.probes.scaling import ChannelScale, Moments
from tapct.probes.source import CaseSource


def channel_scale(
    source: CaseSource, trainer: pl.Trainer, seen: Seen, head_input: Callable[[EncodedCase], Channels]
) -> ChannelScale:
    """Returns the scale of the channels over the training cases.

    Args:
        source: Of the cases.
        trainer: Whose training cases and device are used.
        seen: The features that `head_input` takes.
        head_input: Gives the (C, N) features of a case that a head sees.
    """

    def compute() -> dict[str, torch.Tensor]:
        return vars(Moments.over(head_input(case) for case in source.training_cases(trainer, [seen])))

    of_patches = {} if source.most_cells is None else {"most_cells": source.most_cells}
    what = {"what": "channel moments", "seen": seen, **of_patches}
    modules = [one.__module__ for one in (Moments, head_input, instances, Channels)]
    return Moments(**_of_all(source, trainer, what, modules, compute, of_labels=False)).scale()


def class_voxels(source: CaseSource, trainer: pl.Trainer, num_classes: int) -> torch.Tensor:
    """Returns (K,) int64: how many voxels of the training cases are of each class, on the encoder's grid.

    Args:
        source: Of the cases.
        trainer: Whose training cases and device are used.
        num_classes: K.
    """

    def compute() -> dict[str, torch.Tensor]:
        counts = torch.zeros(num_classes, dtype=torch.int64)
        for case in source.training_cases(trainer):
            assert case.labels is not None
            counts += torch.bincount(case.labels.flatten().long(), minlength=num_classes).cpu()
        return {"counts": counts}

    what = {"what": "class voxels", "classes": num_classes}
    return _of_all(source, trainer, what, [__name__], compute, of_labels=True)["counts"]


def _of_all(
    source: CaseSource,
    trainer: pl.Trainer,
    what: dict[str, Any],
    modules: Sequence[str],
    compute: Callable[[], dict[str, torch.Tensor]],
    *,
    of_labels: bool,
) -> dict[str, torch.Tensor]:
    """Returns something of all training cases, stored under the keys of their features (or labels)."""
    if source.bank is None:
        return compute()
    part = trainer.datamodule.datasets.train  # type: ignore[attr-defined]
    keys = [source.bank.keys(part, index) for index in range(len(part))]
    entries = [labels if of_labels else features for features, labels in keys]
    return source.bank.derived("all training cases", {**what, "entries": entries}, modules, compute)
