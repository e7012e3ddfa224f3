"""Makes a store of CT scans for pretraining: `python -m pretrain.prepare SRC... -o STORE`.

Every scan becomes one compressed file of int16 HU, clipped to the recipe's range. The same command again resumes where
it was stopped, whatever stopped it: nothing is ever half written, and what is there and unchanged is left alone. A scan
that cannot be read, has no body in it or too few slices is quarantined: listed with the reason, never replaced. What is
not a CT at all (label maps, PET, other DICOM) is skipped.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pretrain.command import ExitStatus, run
from pretrain.data.prepare import CLIP_HU, MIN_SLICES_OF_A_CROP, PrepareSettings, prepare
from pretrain.data.sources import find_scans
from pretrain.errors import PretrainError
from pretrain.setting_types import is_url
from tapct._utils.system import cores

_HELP = {
    "sources": "Files and folders, searched to any depth: NIfTI, MetaImage, and folders that hold a DICOM series.",
    "output": "The folder of the store. It is made if it is not there, and extended if it is.",
    "workers": "The number of processes that read and compress, each with up to 2 GB of memory. The default is the "
    "number of cores.",
    "include": "Take only paths that match this pattern, such as '*/ct.nii.gz'. It may be repeated.",
    "exclude": "Leave out paths that match this pattern, such as '*/segmentations/*'. It may be repeated.",
    "patient": "A regular expression over the path whose first group is the patient, such as 'sub-([^/]+)'. The "
    "default is DICOM's PatientID, else what the folders and names of all scans tell (pretrain/data/patients.py).",
    "min_slices": "Quarantine scans with fewer slices. The default is the depth of the deepest crop, %(default)s.",
    "clip_hu": "The range to which HU are clipped, the same in all of a store. The default is that of the paper.",
    "shard_gb": "Pack the volumes into files of so many GB, which a shared file system with many volumes needs. "
    "Without it, volumes that have files of their own keep them (pretrain/data/shards.py).",
    "verify": "Compare what is stored with its checksums, and make again what differs or was made by other code.",
}


def main(arguments: Sequence[str] | None = None) -> ExitStatus:
    """Prepares; ATTENTION if scans were quarantined."""
    given = _parser().parse_args(arguments)
    try:
        return run(lambda: _prepare(given))
    except KeyboardInterrupt:
        print("stopped; the same command again resumes from here", file=sys.stderr)
        return ExitStatus.STOPPED


def _prepare(given: argparse.Namespace) -> ExitStatus:
    for place in (*given.sources, given.output):
        if is_url(place):
            raise PretrainError(
                f"{place} is a URL: scans are read from folders, and stores are written to one. Copy the finished "
                "store with any tool, such as `aws s3 sync STORE s3://BUCKET/STORE`, and give its URL to training"
            )
    try:
        pattern = re.compile(given.patient) if given.patient else None
    except re.error as error:
        raise PretrainError(f"--patient {given.patient!r} is not a regular expression ({error})") from error
    sources = find_scans([Path(place) for place in given.sources], given.include or ["*"], given.exclude or [], pattern)
    clip_hu = (float(given.clip_hu[0]), float(given.clip_hu[1]))
    settings = PrepareSettings(
        Path(given.output), clip_hu, given.min_slices, pattern is not None, _shard_bytes(given.shard_gb)
    )
    refused = prepare(sources, settings, given.workers, verify=given.verify, console=Console())
    return ExitStatus.ATTENTION if refused else ExitStatus.DONE


def _shard_bytes(gigabytes: float | None) -> int | None:
    if gigabytes is None:
        return None
    if gigabytes <= 0:
        raise PretrainError(f"--shard-gb is {gigabytes:g}; give the size of a shard in GB, such as 4")
    return math.ceil(gigabytes * 1e9)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.prepare",
        description=(__doc__ or "") + "\nExit status: 0 all CT stored, 3 some quarantined, 1 an error, 75 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="+", metavar="SRC", help=_HELP["sources"])
    parser.add_argument("-o", "--output", required=True, metavar="STORE", help=_HELP["output"])
    parser.add_argument("--workers", type=int, default=cores(), help=_HELP["workers"])
    parser.add_argument("--include", action="append", metavar="PATTERN", help=_HELP["include"])
    parser.add_argument("--exclude", action="append", metavar="PATTERN", help=_HELP["exclude"])
    parser.add_argument("--patient", metavar="REGEX", help=_HELP["patient"])
    parser.add_argument("--min-slices", type=int, default=MIN_SLICES_OF_A_CROP, help=_HELP["min_slices"])
    parser.add_argument("--clip-hu", type=float, nargs=2, default=list(CLIP_HU), help=_HELP["clip_hu"])
    parser.add_argument("--shard-gb", type=float, metavar="GB", help=_HELP["shard_gb"])
    parser.add_argument("--verify", action="store_true", help=_HELP["verify"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
