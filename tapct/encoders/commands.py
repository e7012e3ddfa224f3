"""What `tapct download` does: published weights onto this machine, or into a folder to carry to another."""

from pathlib import Path
from typing import Annotated

from tapct import checks
from tapct.arguments import ENCODERS
from tapct.encoders.registry import list_declared, list_encoders
from tapct.errors import EncoderError

_ALL = "all"


def download(
    *,
    encoders: Annotated[str, ENCODERS],
    to: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Fetches published weights, where there is a network: on a login node, say.

    Args:
        encoders: Comma-separated names of encoders, or "all".
        to: Copy the weights to FOLDER/ENCODER/FILE, for a machine without a network: `tapct run -w FOLDER` takes them.
            By default they stay in the caches (HF_HOME, TAPCT_CACHE), where runs of this account find them.
        dry_run: Only show where they are published, under what licence, and what is here.
        json: Print JSON instead of a table.

    Returns:
        The exit status: 1 if a file that is published cannot be had.
    """
    names = list(dict.fromkeys(name.strip() for name in encoders.split(",") if name.strip()))
    if not names:
        raise EncoderError("name at least one encoder, or all")
    everything = [*list_encoders(), *list_declared()]
    chosen = list(dict.fromkeys(one for name in names for one in (everything if name == _ALL else [name])))
    folder = None if to is None else Path(to).expanduser().absolute()
    from tapct.encoders import fetching  # torch, and the hub's client

    found = list(fetching.known(chosen, folder) if dry_run else fetching.fetched(chosen, folder, named=names))
    if json:
        checks.print_json(checks.as_json(found))
    else:
        checks.print_table(found)
    return checks.exit_status(found)
