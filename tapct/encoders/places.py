"""Exported encoders, which are named by where they are: FOLDER, or NAME=FOLDER under a name of one's own."""

import re
from pathlib import Path
from typing import NamedTuple

CARD_FILE = "card.json"
"""What makes a folder an exported encoder."""

SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names that folders of results may have."""


class EncoderFolder(NamedTuple):
    """The folder of an exported encoder.

    Attributes:
        folder: The folder.
        name: What its results are called, where that was given; else its card says.
    """

    folder: Path
    name: str | None

    @property
    def absolute(self) -> str:
        """What any process finds it by."""
        folder = str(self.folder.absolute())
        return folder if self.name is None else f"{self.name}={folder}"


def exported(name: str) -> EncoderFolder | None:
    """Returns the folder that a name of an encoder is of; None of any other name."""
    if (Path(name) / CARD_FILE).is_file():
        return EncoderFolder(Path(name), None)
    given, equals, folder = name.partition("=")
    if equals and SAFE.fullmatch(given) and (Path(folder).expanduser() / CARD_FILE).is_file():
        return EncoderFolder(Path(folder).expanduser(), given)
    return None
