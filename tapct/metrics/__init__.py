"""Metrics: one Dice policy, and its face towards eva."""

from tapct.metrics.dice import DiceSummary, confusion_matrix, dice_per_class, summarise
from tapct.metrics.eva import MicroAP, MicroAUROC, NativeDice, PaperDice

__all__ = [
    "DiceSummary",
    "MicroAP",
    "MicroAUROC",
    "NativeDice",
    "PaperDice",
    "confusion_matrix",
    "dice_per_class",
    "summarise",
]
