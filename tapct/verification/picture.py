"""What the adapter's network and the authors' receive of one scan, drawn one below the other."""

import base64
import io
from pathlib import Path

import torch
from markupsafe import Markup
from PIL import Image

from tapct._utils.files import write_atomically
from tapct.encoders import Encoder
from tapct.encoders.axes import from_axes
from tapct.encoders.verified import AdapterComparison
from tapct.errors import EncoderError
from tapct.features.received import Received, sha256_of
from tapct.report.html import page
from tapct.verification.compare import BothInputs
from tapct.viz.received import draw_received, shown_values


def write(encoder: Encoder, comparison: AdapterComparison, inputs: BothInputs, path: Path) -> None:
    """Draws both inputs as a PNG or, by the name of the file, as a page.

    Each is turned back by the axes that its own side declares: where the letters lie wrong on one, it is that one.

    Raises:
        EncoderError: If what was received is not an image, or the file cannot be written.
    """
    sides = {
        "the adapter": _received(inputs.ours, encoder.axes, inputs),
        "the authors": _received(inputs.given, inputs.axes, inputs),
    }
    drawn = {whose: draw_received(found, f"{whose}: ") for whose, found in sides.items()}
    if path.suffix.lower() == ".html":
        content: str | bytes = page(
            "verification.html",
            name=encoder.full_name,
            comparison=comparison,
            sides=[
                (whose, Markup(base64.b64encode(drawn[whose]).decode()), shown_values(found))
                for whose, found in sides.items()
            ],
        )
    else:
        content = _stacked(list(drawn.values()))
    try:
        write_atomically(path, content)
    except OSError as error:
        raise EncoderError(f"cannot write {path}: {error.strerror or error}") from error


def _received(found: torch.Tensor, axes: str, inputs: BothInputs) -> Received:
    whole = found.unsqueeze(2) if found.ndim == 4 else found  # of a 2D network
    if whole.ndim != 5:
        raise EncoderError(f"a network receives {tuple(found.shape)}, which is no batch of images that can be drawn")
    return Received(
        images=from_axes(whole, axes)[:, 0].numpy(),
        shape=tuple(found.shape),
        same_channels=bool((found == found[:, :1]).all()),
        spacing_mm=inputs.spacing_mm,
        orientation=None,
        grows="SPL",
        sha256=sha256_of(found),
    )


def _stacked(pictures: list[bytes]) -> bytes:
    """Returns pictures one below the other: the adapter's above, the authors' below."""
    images = [Image.open(io.BytesIO(each)).convert("RGB") for each in pictures]
    whole = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    buffer = io.BytesIO()
    whole.save(buffer, format="PNG")
    return buffer.getvalue()
