"""Metrics: one Dice policy, distances between surfaces, 0/1 labels, and their face towards eva."""

from typing import TYPE_CHECKING

from tapct._utils import lazy
from tapct.metrics.dice import Summary, confusion_matrix, dice_per_class, summarise

if TYPE_CHECKING:
    from tapct.metrics.eva import (
        BalancedAccuracy,
        CalibrationError,
        MacroAP,
        MacroAPSkill,
        MacroAUROC,
        MicroAP,
        MicroAUROC,
        NativeDice,
        NativeSurface,
        PaperDice,
        RareLabels,
        UndefinedLabels,
    )
    from tapct.metrics.surface import SurfaceMetrics, surface_metrics

__all__ = [
    "BalancedAccuracy",
    "CalibrationError",
    "MacroAP",
    "MacroAPSkill",
    "MacroAUROC",
    "MicroAP",
    "MicroAUROC",
    "NativeDice",
    "NativeSurface",
    "PaperDice",
    "RareLabels",
    "Summary",
    "SurfaceMetrics",
    "UndefinedLabels",
    "confusion_matrix",
    "dice_per_class",
    "summarise",
    "surface_metrics",
]

# Records need the Dice policy alone, and neither scipy nor torchmetrics.
__getattr__ = lazy.names(__name__, __all__, "tapct.metrics.surface", "tapct.metrics.eva")
