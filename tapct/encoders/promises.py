"""Whether an encoder is what its card says: parameters, channels, stride, class token, embedding."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tapct.encoders.card import EncoderCard
from tapct.errors import EncoderError

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder, Features


def require_parameters(encoder: "Encoder") -> None:
    """Compares the card of an encoder that is built with its network.

    Raises:
        EncoderError: If the card says another number of parameters.
    """
    card, found = encoder.card, sum(p.numel() for p in encoder.network.parameters())
    if found != card.num_params:
        raise EncoderError(f"{card.name}: its card says num_params {card.num_params}, and the network has {found}")


def broken_by_features(card: EncoderCard, windows: Sequence[int], features: "Features") -> str | None:
    """Returns what of a card is not so of the features of a batch; None where all is.

    Args:
        card: The card.
        windows: Shape of the batch, (B, 1, D, H, W) in SPL order.
        features: What was made of it, the map in SPL order.
    """
    batch, _, *size = windows
    shape = tuple(features.map.shape)
    if len(shape) != 5 or shape[0] != batch:
        return f"of {batch} windows it gave a map {shape}, which is not (B, C, d, h, w)"
    if shape[1] != card.feature_dim:
        return f"its card says feature_dim {card.feature_dim}, and the map has {shape[1]} channels"
    # Of a size that is not a multiple of the stride, the last patch reaches beyond the window.
    patches = tuple(math.ceil(n / s) for n, s in zip(size, card.feature_stride, strict=True))
    if shape[2:] != patches:
        return (
            f"its card says feature_stride {card.feature_stride}, by which a window of {tuple(size)} has {patches} "
            f"patches, and the map has {shape[2:]}"
        )
    if tuple(features.embedding.shape) != (batch, card.embedding_dim):
        return (
            f"its card says embedding_dim {card.embedding_dim}, and of {batch} windows the embedding is "
            f"{tuple(features.embedding.shape)}"
        )
    if card.has_cls != (features.cls is not None):
        says, gave = ("has_cls", "none") if card.has_cls else ("has_cls=False", "one")
        return f"its card says {says}, and it gave {gave}: the third of Features is the class token, or None"
    if features.cls is not None and (features.cls.ndim != 2 or features.cls.shape[0] != batch):
        return f"of {batch} windows it gave class tokens of {tuple(features.cls.shape)}, which is not (B, E)"
    return None
