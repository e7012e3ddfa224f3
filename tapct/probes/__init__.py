"""Probes: what is trained on frozen features, as eva modules, and the trainer with the protocol's defaults."""

from typing import TYPE_CHECKING, Any

from tapct._utils import lazy

if TYPE_CHECKING:
    from tapct.probes.classification import ClassificationProbe
    from tapct.probes.localisation import LocalisationProbe
    from tapct.probes.regression import RegressionProbe
    from tapct.probes.reliability import ReliabilityProbe
    from tapct.probes.report import ReportProbe
    from tapct.probes.retrieval import RetrievalProbe
    from tapct.probes.segmentation import SegmentationProbe
    from tapct.probes.survival import SurvivalProbe
    from tapct.probes.trainer import Trainer

__all__ = [
    "ClassificationProbe",
    "LocalisationProbe",
    "RegressionProbe",
    "ReliabilityProbe",
    "ReportProbe",
    "RetrievalProbe",
    "SegmentationProbe",
    "SurvivalProbe",
    "Trainer",
]

# They import eva, which takes seconds; adaptors are named without.
_names = lazy.names(
    __name__,
    __all__,
    *(
        f"{__name__}.{module}"
        for module in (
            *("classification", "localisation", "regression", "reliability", "report", "retrieval", "segmentation"),
            *("survival", "trainer"),
        )
    ),
)


def __getattr__(name: str) -> Any:
    """Returns what is exported: to a parser of configs with help for its errors."""
    found = _names(name)
    from tapct.probes import config_errors  # jsonargparse, as eva

    config_errors.name_nearest_keys()
    return found
