"""What `tapct verify-encoder` does."""

import contextlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tapct.arguments import OUT, WEIGHTS
from tapct.errors import EncoderError

if TYPE_CHECKING:
    from tapct.encoders import Encoder
    from tapct.encoders.verified import AdapterComparison
    from tapct.verification.compare import BothInputs

NOT_COMPARED = 3
"""The exit status where the authors' code cannot be run: neither good (0) nor bad (1)."""


def verify_encoder(
    name: str,
    /,
    *,
    weights: Annotated[str | None, WEIGHTS] = None,
    out: Annotated[str | None, OUT] = None,
    code: str | None = None,
    code_revision: str | None = None,
    trust_remote_code: bool = False,
) -> int:
    """Runs an encoder's authors' own code next to the adapter: are voxels, map and embedding the same?

    Both get the middle of a shipped scan, noise from -2700 to 2700 HU, and the same weights: two random draws, and the
    published ones where they are on this machine. Nothing is downloaded.

    Args:
        name: The name of an encoder (`tapct list encoders`), with options such as colipri+orientation=SAR.
        weights: The file of the published weights. The default is the one in the cache, if there is one; "random"
            leaves them out.
        out: Draw what both networks receive: a PNG, or an HTML page.
        code: A git clone of the authors' repository, where their code is in no registry.
        code_revision: The full commit of that clone that you have read; only what is in that commit is run.
        trust_remote_code: Let that commit's Python run on this machine, with all that you may do.

    Returns:
        The exit status: 1 where they differ by more than rounding, 3 where the authors' code cannot be run.
    """
    from tapct.encoders.authors import NotComparableError

    if out is not None and Path(out).suffix.lower() not in (".png", ".html"):
        raise EncoderError(f"-o takes a .png or an .html, not {out}")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):  # whatever the authors' code says
            warnings.simplefilter("ignore")
            encoder, found, inputs = _compared(name, weights, code, code_revision, trust_remote_code)
    except NotComparableError as error:
        print(f"tapct: {error}", file=sys.stderr)
        return NOT_COMPARED
    return _shown(encoder, found, inputs, None if out is None else Path(out))


def _compared(
    name: str, weights: str | None, code: str | None, revision: str | None, trusted: bool
) -> "tuple[Encoder, AdapterComparison, BothInputs]":
    from tapct.encoders.authors import counterpart_of, require
    from tapct.encoders.options import load_spec, parse_spec
    from tapct.tasks.quickstart import shipped_scan
    from tapct.verification.compare import checked_out, compare

    spec = parse_spec(name)
    asked = load_spec(spec._replace(random=False).behind(spec.encoder), spec.weights(weights), deferred=True)
    kind = counterpart_of(asked)
    require(kind, asked.card.name)
    published = _published(asked)
    with checked_out(kind, name, None if code is None else Path(code), revision, trusted=trusted) as folder:
        encoder = load_spec(spec._replace(random=True).behind(spec.encoder))
        found, inputs = compare(encoder, kind, shipped_scan(), published=published, code=folder, revision=revision)
    return encoder, found, inputs


def _published(encoder: "Encoder") -> Path | None:
    """Returns the file of the published weights where it was named or is here; None for random ones alone."""
    from tapct.encoders.download import cached
    from tapct.encoders.weights import NONE, RANDOM
    from tapct.errors import WeightsError

    if not encoder.awaits_weights:
        return None if encoder.weights_source in (RANDOM, NONE) else Path(encoder.weights_source)
    if not encoder.fetches_itself:
        return cached(encoder.card)
    try:
        return encoder.published_weights()
    except WeightsError:  # they are in packages that are not installed
        return None


def _shown(encoder: "Encoder", found: "AdapterComparison", inputs: "BothInputs", out: Path | None) -> int:
    """Prints, draws and keeps what was found; returns the exit status."""
    from rich import box
    from rich.table import Table

    from tapct._utils import terminal
    from tapct.encoders import verified
    from tapct.verification import picture

    table = Table("stage", "largest difference", box=box.SIMPLE, title=f"{encoder.full_name} next to {found.source}")
    for stage in found.stages:
        table.add_row(stage.name, stage.said)
    terminal.output().print(table)
    verified.write(found)
    if out is not None:
        picture.write(encoder, found, inputs, out)
        print(out)
    known = verified.verification_of(encoder, found.weights_sha256)
    weights = "random weights alone" if found.weights_sha256 is None else "random weights, and the published ones"
    print(f"Compared with {weights}; relative to a stage's largest value; not compared: {found.left_out}.")
    print(f"{encoder.full_name}: {known.text}")
    return int(found.fault is not None)
