"""Probes: what is trained on frozen features, as eva modules, and the trainer with the protocol's defaults."""

from tapct.probes.classification import ClassificationProbe
from tapct.probes.segmentation import SegmentationProbe
from tapct.probes.trainer import Trainer

__all__ = ["ClassificationProbe", "SegmentationProbe", "Trainer"]
