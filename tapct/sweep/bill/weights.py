"""Whether the weights of an encoder are here, or can be had; nothing is downloaded to know it."""

from tapct.checks import Check
from tapct.encoders import Encoder
from tapct.encoders.download import HUB, TERMS, cached, offline, unknown
from tapct.encoders.licence import terms
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
    by_hand = "or give a file: -w ENCODER=PATH (ENCODER_WEIGHTS), ENCODER=random for random ones"
    fetch = f"`tapct download -e {card.name}` fetches them now"
    if encoding.load(None).fetches_itself:
        return Check("warn", name, "are looked for, in a way of its own, before the first experiment runs", by_hand)
    if (why := unknown(card)) is not None:
        return Check("fail", name, why, by_hand.removeprefix("or "))
    page = f"https://{card.weights.repository}"
    under = f" ({terms(card.weights)})" + (f"; {page} is gated: {TERMS}" if card.weights.gated else "")
    if (variable := offline()) is not None and page.startswith(HUB):
        found = f"are not here, and you have set {variable}{under}"
        return Check("fail", name, found, f"unset {variable}, and {fetch}; {by_hand}")
    return Check(
        "warn",
        name,
        f"are not here yet: they are fetched before the first experiment runs{under}",
        f"{fetch}; {by_hand}",
    )
