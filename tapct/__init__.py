"""TAP-CT Bench: how good is this CT foundation model?"""

from typing import TYPE_CHECKING

from tapct._utils import lazy
from tapct.encoders import list_encoders, load_encoder

if TYPE_CHECKING:
    from tapct.packs.arrays import load_features
    from tapct.records.cases import load_results
    from tapct.records.store import read_record
    from tapct.sweep.evaluation import evaluate
    from tapct.tasks.registry import list_tasks

__all__ = [
    "evaluate",
    "list_encoders",
    "list_tasks",
    "load_encoder",
    "load_features",
    "load_results",
    "read_record",
]

__getattr__ = lazy.names(
    __name__,
    __all__,
    *("tapct.records.cases", "tapct.records.store", "tapct.tasks.registry", "tapct.sweep.evaluation"),
    "tapct.packs.arrays",
)
