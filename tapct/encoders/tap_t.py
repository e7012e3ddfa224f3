"""TAP-T-3D, the small encoder that ships with the project; what it learned, and from what, is in its README."""

from pathlib import Path
from typing import Any

from tapct.encoders.exported import Exported, read_card
from tapct.encoders.places import EncoderFolder

FOLDER = Path(__file__).parent / "tap_t_3d"
"""What `python -m pretrain.export` wrote, in bf16."""


class TapT3D(Exported):
    """A ViT-Ti that this package pretrained on eight openly licensed scans, on two CPU cores."""

    card = read_card(EncoderFolder(FOLDER, None))

    def __init__(self, weights: str | Path | None = None, **options: Any) -> None:
        """Builds the network and loads its weights; see `Exported`."""
        super().__init__(FOLDER, weights, **options)
