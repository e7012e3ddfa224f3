"""Whether the weights of an encoder are here, or can be had; nothing is downloaded to know it."""

from tapct.checks import Check
from tapct.encoders import Encoder
from tapct.encoders.base import Encoder as EncoderBase
from tapct.encoders.download import HOSTS, cached
from tapct.errors import TapctError
from tapct.sweep.bill.settings import Encoding


def with_weights(encoding: Encoding) -> Encoder | None:
    """Returns an encoder, not built, whose weights are here; None where they would have to be fetched first.

    Raises:
        TapctError: If the encoder is unknown, or its weights were named and are not there.
    """
    encoder = encoding.load(encoding.weights)
    if not encoder.awaits_weights:
        return encoder
    file = cached(encoder.card)
    return None if file is None else encoding.load(str(file))


def weights_check(encoding: Encoding) -> Check:
    """Returns what is known of the weights of an encoder."""
    name = f"weights {encoding.encoder}"
    try:
        encoder = with_weights(encoding)
        if encoder is not None:
            return Check("ok", name, f"{encoder.weights_source}")
        card = encoding.load(None).card
    except TapctError as error:
        return Check("fail", name, str(error), "see the message")
    weights, by_hand = card.weights, "or give a file: -w ENCODER=PATH (ENCODER_WEIGHTS), ENCODER=random for random ones"
    if type(encoding.load(None)).published_weights is not EncoderBase.published_weights:
        return Check("warn", name, "are looked for, in a way of its own, when a cell runs", by_hand)
    if weights.file is None or (weights.repository or "").partition("/")[0] not in HOSTS:
        return Check("fail", name, "no file that could be downloaded is known", by_hand.removeprefix("or "))
    if weights.gated:
        page = f"https://{weights.repository}"
        return Check("warn", name, f"{page} is gated", f"accept its terms there, and `hf auth login`; {by_hand}")
    return Check("warn", name, "are not here yet: the first cell downloads them", by_hand)
