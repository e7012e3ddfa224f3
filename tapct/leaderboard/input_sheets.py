"""What the network of each model was given: as its records say, and drawn where the same is given here.

A record of a third party draws nothing and runs nothing: pictures are of encoders that are installed here under the
name of the record's, never of a class or a file that it names, with random weights; and they are shown only where what
such a network receives is what the record says.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tapct._utils import terminal
from tapct.encoders import is_installed
from tapct.encoders.options import is_spellable
from tapct.leaderboard.board import Board, Model
from tapct.leaderboard.text import plain
from tapct.records import EncoderRecord, InputSheetRecord

if TYPE_CHECKING:
    from tapct.encoders import Encoder
    from tapct.features.received import Received
    from tapct.viz.received import SlicePicture
    from tapct.volumes import Volume

_LONGEST = 300


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The input sheet of a model.

    Attributes:
        said: What most of its records say; None where none says anything.
        others: How many of its records say something else.
        pictures: Slices of the shipped scan as the network receives them; none with a reason.
        values: Which values are in them, in words.
        contradiction: A sentence on how the array lies, where that is not as the encoder declares.
        no_picture: Why there are no pictures.
        verification: How its adapter was held against its authors' code, in words; None where no record says it.
    """

    said: InputSheetRecord | None
    others: int = 0
    pictures: "tuple[SlicePicture, ...]" = ()
    values: str = ""
    contradiction: str = ""
    no_picture: str = ""
    verification: str | None = None


def sheets_of(board: Board) -> dict[str, Sheet]:
    """Returns the sheet of every model of a board and of those apart from it, by the model's anchor."""
    models = [model for each in (board, *(own.board for own in board.own)) for model in each.models]
    drawing = _Drawing()
    with_sheets = [model for model in models if any(e.record.encoder.input_sheet for e in model.entries.values())]
    found = {model.anchor: Sheet(said=None, verification=_verification(model)) for model in models}
    for model in terminal.track(with_sheets, "input sheets", len(with_sheets)):
        found[model.anchor] = _sheet(model, drawing)
    return found


def _sheet(model: Model, drawing: "_Drawing") -> Sheet:
    encoders = [entry.record.encoder for entry in model.entries.values()]
    said = [of.input_sheet for of in encoders if of.input_sheet is not None]
    most, count = Counter(said).most_common(1)[0]
    about = next(of for of in encoders if of.input_sheet == most)
    sheet = Sheet(said=most, others=len(said) - count, verification=_verification(model))
    received = drawing.received(about, most)
    if isinstance(received, str):
        return replace(sheet, no_picture=plain(received, _LONGEST))
    from tapct.viz.received import pictures, shown_values

    turn, contradiction = received.orientation, ""
    if turn is not None and not turn.fits:
        contradiction = f"The array lies otherwise than declared: its axes grow towards {', '.join(turn.found)}."
    return replace(
        sheet, pictures=tuple(pictures(received)), values=shown_values(received), contradiction=contradiction
    )


def _verification(model: Model) -> str | None:
    said = (entry.record.encoder.verification for entry in model.entries.values())
    return next((one.text for one in said if one is not None), None)


class _Drawing:
    """Finds what networks receive here of the shipped scan, which is read once."""

    def __init__(self) -> None:
        self._scan: Volume | None = None

    def received(self, about: EncoderRecord, sheet: InputSheetRecord) -> "Received | str":
        """Returns what an installed encoder gives its network, if that is what a record says; else why not."""
        if sheet.received_sha256 is None:
            return sheet.not_received or "the record does not say what the network receives"
        name, options = about.card.name, about.options or {}
        if not is_installed(name):
            return f"no encoder {name} is installed where this page was made"
        if not all(map(is_spellable, options.values())):
            return "its options hold files or arrays, which cannot be made of a record"
        try:
            found = self._of_installed(name, options)
        except Exception as error:  # noqa: BLE001 whatever options of a third-party record make of an encoder
            return f"the encoder {name} that is installed here cannot be asked ({type(error).__name__}: {error})"
        if found is None or found.sha256 != sheet.received_sha256:
            return (
                f"what the encoder {name} that is installed here gives its network is something else than what the "
                f"record says ({sheet.received_sha256[:12]}): of another release, or of other code"
            )
        return found

    def _of_installed(self, name: str, options: dict[str, object]) -> "Received | None":
        from tapct.encoders.options import parse_options
        from tapct.encoders.registry import load_encoder
        from tapct.encoders.weights import RANDOM
        from tapct.features.received import received_of
        from tapct.tasks.quickstart import shipped_scan

        encoder: Encoder = load_encoder(name, RANDOM, deferred=True, **parse_options(name, options))
        if self._scan is None:
            self._scan = shipped_scan()
        return received_of(encoder, self._scan)


def different_pictures(sheets: Iterable[Sheet]) -> "list[SlicePicture]":
    """Returns the pictures of sheets, each once: encoders of one family are given the same."""
    return list(dict.fromkeys(picture for sheet in sheets for picture in sheet.pictures))
