"""Weights of several encoders at once: what is known of them, and getting them, here or into a folder."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tapct.checks import Check
from tapct.encoders.download import cached, check_sums, offline, published_at, unknown
from tapct.encoders.licence import terms
from tapct.encoders.network import UnreachableError
from tapct.encoders.options import load_spec
from tapct.encoders.weights import RANDOM
from tapct.errors import TapctError

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder


class Fetching:
    """Gets the weights of encoders one after the other; a server that gave no answer is not asked again."""

    def __init__(self) -> None:
        self._silent: dict[str, str] = {}

    def source(self, encoder: "Encoder") -> str | Path:
        """Returns where the weights of an encoder are, as its `weights_source` does, which fetches published ones.

        Raises:
            WeightsError: If they cannot be had.
        """
        card = encoder.card
        host = (card.weights.repository or "").partition("/")[0]
        if encoder.awaits_weights and host in self._silent and cached(card) is None:
            raise UnreachableError(f"{card.name}: {host} was not asked again, see {self._silent[host]}")
        try:
            return encoder.weights_source
        except UnreachableError:
            self._silent.setdefault(host, card.name)
            raise


def known(names: Sequence[str], folder: Path | None) -> Iterator[Check]:
    """Yields what is known of the weights of encoders, by name; nothing is fetched.

    Args:
        names: As `load_spec` takes them.
        folder: Where `fetched` would put them; None is where they are fetched to.
    """
    for name in names:
        try:
            encoder = load_spec(name, deferred=True)
        except TapctError as error:
            yield Check("fail", name, str(error), "see the message")
            continue
        card, variable = encoder.card, offline()
        if (nothing := _nothing_to_fetch(encoder)) is not None:
            yield Check("ok", name, nothing)
            continue
        here = cached(card) if encoder.awaits_weights else Path(encoder.weights_source)
        if folder is not None and card.file_in(folder).is_file():
            here = card.file_in(folder)
        if here is not None:
            yield Check("ok", name, f"{here}; {terms(card.weights)}")
        elif (why := unknown(card)) is not None and not encoder.fetches_itself:
            yield Check("warn", name, why, "get its file by hand, and name it: -w ENCODER=PATH (ENCODER_WEIGHTS)")
        else:
            how = "would be fetched" if variable is None else f"would not be fetched: you have set {variable}"
            yield Check("warn", name, f"{published_at(card)}: {how}; {terms(card.weights)}")


def fetched(names: Sequence[str], folder: Path | None, *, named: Sequence[str]) -> Iterator[Check]:
    """Fetches the weights of encoders, and yields what came of it; licence and gate are told before.

    Args:
        names: As `load_spec` takes them.
        folder: Where to copy each to, as `EncoderCard.file_in` has it; None leaves them where they are fetched to.
        named: Those of which a file that is published nowhere is a failure; of all others it is said.
    """
    fetching = Fetching()
    for name in names:
        try:
            encoder = load_spec(name, deferred=True)
            card = encoder.card
            if (nothing := _nothing_to_fetch(encoder)) is not None:
                yield Check("ok", name, nothing)
                continue
            if name not in named and encoder.awaits_weights and unknown(card) and not encoder.fetches_itself:
                yield Check("warn", name, f"{unknown(card)}", "get its file by hand, and name it (ENCODER_WEIGHTS)")
                continue
            target = None if folder is None else card.file_in(folder)
            if target is None or not target.is_file():
                source = Path(fetching.source(encoder))
                target = source if target is None else _copied(source, target)
            check_sums(target, card.weights)
            yield Check("ok", name, f"{target}; {terms(card.weights)}")
        except TapctError as error:
            yield Check("fail", name, str(error).removeprefix(f"{name}: "), "see the message")
        except OSError as error:
            yield Check("fail", name, f"{error.filename or folder}: {error.strerror or error}", "see the message")


def _nothing_to_fetch(encoder: "Encoder") -> str | None:
    """Returns why an encoder has no weights that could be fetched; None of one that has some."""
    if not encoder.card.weights.needed:
        return "has no parameters"
    return "has random weights" if not encoder.awaits_weights and encoder.weights_source == RANDOM else None


def _copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        shutil.copyfile(source, Path(folder) / "copy")
        (Path(folder) / "copy").replace(target)  # at once: a reader sees no file, or all of it
    return target
