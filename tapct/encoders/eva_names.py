"""Names of eva's backbones with a card: `eva:radiology/voco_l`, and `eva:PATH.yaml` for a card of a user's."""

from pathlib import Path

from tapct.encoders.places import exported

PREFIX = "eva:"
"""Begins such names, and no others."""

CARD_SUFFIXES = (".yaml", ".yml")
"""End the path of a card, and the name of none."""

_IN_FOLDERS = "~"
"""Stands for ':' and '/' in the names of folders. No card's name holds it, so that both can be read back."""

FOLDER_PREFIX = PREFIX.replace(":", _IN_FOLDERS)


def is_eva(name: str) -> bool:
    """Returns whether a name is of a backbone of eva's with a card."""
    return name.startswith(PREFIX)


def card_file(name: str) -> Path | None:
    """Returns the file that a name is the path of, as in `eva:PATH.yaml`; None of any other name."""
    rest = name.removeprefix(PREFIX)
    return Path(rest).expanduser() if is_eva(name) and rest.endswith(CARD_SUFFIXES) else None


def is_named_by_place(name: str) -> bool:
    """Returns whether an encoder is named by where it is: `package.module:Class`, or an exported folder."""
    return not is_eva(name) and (":" in name or exported(name) is not None)


def encoder_name(name: str) -> str:
    """Returns the name that an encoder's card has, under which its records stand: of `eva:PATH.yaml`, `eva:NAME`.

    Of `package.module:Class` and of an exported folder it is that of the card.

    Raises:
        EncoderError: If there is no such card.
    """
    if card_file(name) is None:
        if not is_named_by_place(name):
            return name
        from tapct.encoders.registry import card_of

        return card_of(name).name
    from tapct.encoders.eva_cards import read_declared

    return PREFIX + read_declared(name).name


def in_folders(name: str) -> str:
    """Returns the name of an encoder as every file system takes it: `eva~radiology~voco_l`."""
    return name.replace(":", _IN_FOLDERS, 1).replace("/", _IN_FOLDERS) if is_eva(name) else name


def from_folders(name: str) -> str:
    """Returns the name of the encoder of which this is `in_folders`."""
    if not name.startswith(FOLDER_PREFIX):
        return name
    return PREFIX + name.removeprefix(FOLDER_PREFIX).replace(_IN_FOLDERS, "/")
