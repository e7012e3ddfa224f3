"""The pictures of input sheets as the page has them: each once, and used wherever it is shown."""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from markupsafe import Markup

from tapct.encoders.input_sheet import SOURCES
from tapct.leaderboard.input_sheets import Sheet, different_pictures

if TYPE_CHECKING:
    from tapct.viz.received import SlicePicture


class Pictures:
    """The pictures of a page."""

    def __init__(self, sheets: Mapping[str, Sheet]) -> None:
        """Numbers them."""
        self._ids = {picture: f"slice-{n}" for n, picture in enumerate(different_pictures(sheets.values()))}

    def definitions(self) -> Markup:
        """Returns all of them, which are not seen where they stand."""
        images = (self._image(picture, name) for picture, name in self._ids.items())
        return Markup(f'<svg class="defs" aria-hidden="true"><defs>{"".join(images)}</defs></svg>' if self._ids else "")

    def use(self, picture: "SlicePicture") -> Markup:
        """Returns a picture where it is seen; letters and title stand around it."""
        left, right, top, bottom = picture.letters
        label = Markup.escape(f"{picture.title}: left is {left}, right {right}, top {top}, bottom {bottom}")
        box = f"0 0 {picture.width_mm:.1f} {picture.height_mm:.1f}"
        return Markup(f'<svg role="img" aria-label="{label}" viewBox="{box}"><use href="#{self._ids[picture]}"/></svg>')

    def _image(self, picture: "SlicePicture", name: str) -> str:
        size = f'width="{picture.width_mm:.1f}" height="{picture.height_mm:.1f}"'
        data = base64.b64encode(picture.webp).decode()
        return f'<image id="{name}" {size} preserveAspectRatio="none" href="data:image/webp;base64,{data}"/>'


def source_parts(source: str) -> tuple[str, str]:
    """Returns of what kind a source is, and the rest of it; a kind that is none of `SOURCES` is not a kind."""
    kind, colon, where = source.partition(": ")
    return (kind, where) if colon and kind in SOURCES else ("", source)
