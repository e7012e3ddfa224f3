"""Curia-2 B (Raidium): Curia's network, trained anew, with HU clipped below air.

Facts: raidium/curia-2: preprocessor_config.json (`clip_below_air`, 512 pixels, eps) and curia_image_processor.py. That
the network is Curia's is a third party's assertion on the config.json of revision 645f566d.

* **Open: which processor it was trained with.** Two versions were published. The older casts to int16 and divides by
  32,767 before it clips, so that the clip at -1000 does nothing, and takes one z-score over all slices; the newer clips
  in HU and normalises each slice. Here the newer is built. `clip_below_air=False` leaves the clip out.
* The L and g models of the paper are not published under this name.
"""

import dataclasses
from pathlib import Path
from typing import Any

from baselines.curia import Curia
from tapct.encoders import EncoderCard, Weights


class Curia2(Curia):
    """Curia-2 B."""

    card: EncoderCard = dataclasses.replace(
        Curia.card,
        name="curia-2",
        display_name="Curia-2",
        weights=Weights(
            repository="huggingface.co/raidium/curia-2",
            file="model.safetensors",  # a third party names its sha256 as 403a02e2...: not enough of it to check
            licence="research-only RAIL-M",
            gated=True,  # the page asks to agree; a third party found the file open all the same
        ),
        pretraining_data=("in-house CT and MR of one hospital (as Curia; of which exams is not established)",),
        reference="Curia-2, arXiv 2604.01987, 2026 "
        "(clipped in HU, each slice normalised, as its newer processor does: which of two it was trained with is open)",
    )

    def __init__(self, weights: str | Path | None = None, *, clip_below_air: bool = True, **options: Any) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            clip_below_air: As in `Curia`; its published processor has it on.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        super().__init__(weights, clip_below_air=clip_below_air, **options)
