"""TAP-CT Bench: how good is this CT foundation model?"""

from typing import TYPE_CHECKING

from tapct import lazy
from tapct.encoders import list_encoders, load_encoder

if TYPE_CHECKING:
    from tapct.records.cases import load_results

__all__ = ["list_encoders", "load_encoder", "load_results"]

__getattr__ = lazy.names(__name__, __all__, "tapct.records.cases")
