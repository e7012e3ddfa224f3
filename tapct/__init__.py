"""TAP-CT Bench: how good is this CT foundation model?"""

from tapct.encoders import list_encoders, load_encoder

__all__ = ["list_encoders", "load_encoder"]
