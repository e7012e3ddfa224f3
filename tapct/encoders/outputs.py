"""What an encoder says."""

from typing import NamedTuple

import torch


class Features(NamedTuple):
    """What an encoder says of a batch of windows.

    Attributes:
        map: (B, C, d, h, w) last layer of the encoder, in SPL order.
        embedding: (B, E) the class token where the model has one, else its own pooled embedding.
        cls: (B, E) the class token, or None.
    """

    map: torch.Tensor
    embedding: torch.Tensor
    cls: torch.Tensor | None
