"""What `tapct submit` and `tapct verify` do."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tapct import checks
from tapct.arguments import ENCODERS, OUT, WEIGHTS, WHOLE
from tapct.checks import Check
from tapct.errors import RecordError

if TYPE_CHECKING:
    import torch


def submit(
    record: str,
    /,
    *,
    out: Annotated[str, OUT],
    demonstration: bool = False,
    encoders: Annotated[str | None, ENCODERS] = None,
) -> int:
    """Puts a result together as one folder that a pull request can carry.

    Args:
        record: The record.json of a finished experiment, with its runs next to it; or the folder that it is in.
        out: The folder of submissions. The result is written to OUT/TASK/ENCODER-FINGERPRINT.
        demonstration: Allow a demonstration, such as the quickstart, to try this out.
        encoders: The encoder, where it is not installed, as package.module:Class, or as the folder of an exported one.

    Returns:
        The exit status: 1 if a maintainer's check would refuse it; nothing is left then.
    """
    from tapct.encoders.registry import places_of
    from tapct.probes.predictions import LocatedRecord
    from tapct.submission import folder

    places = places_of(encoders)
    place = folder.submit(LocatedRecord.at(Path(record)), Path(out), demonstration=demonstration)
    found = list(_checks(place, places))
    checks.print_table(found)
    if checks.exit_status(found):
        shutil.rmtree(place)
        with contextlib.suppress(OSError):  # others of the task are there
            place.parent.rmdir()
        print("Nothing was written: see what to do.")
        return 1
    print(f"{place} is ready. What to do next:")
    print("1. Look at its README.md: a reviewer sees that. The other files hold the names of cases and patients.")
    print(f"2. Copy {place.parent.name}/{place.name} into your fork of the results repository; open a pull request.")
    print("3. Its CI runs `tapct verify`; somebody who has the scans adds --recompute 3.")
    return 0


def verify(
    folders: list[str],
    /,
    *,
    recompute: Annotated[int, WHOLE] = 0,
    data_root: str | None = None,
    weights: Annotated[str | None, WEIGHTS] = None,
    salt: str = "",
    encoders: Annotated[str | None, ENCODERS] = None,
    json: bool = False,
) -> int:
    """Checks submitted results: what each says of itself, and with --recompute what comes out of the scans again.

    Args:
        folders: Submissions, or folders with submissions in them.
        recompute: The number of cases of each submission to encode again and to compare.
        data_root: The folder that holds one folder per task, for --recompute. A task that ships with its data needs
            none.
        weights: The file of the encoder's weights, for --recompute. The default are the published weights.
        salt: A word that chooses, together with the record's fingerprint, which cases are encoded again.
        encoders: Comma-separated encoders that are not installed, each as package.module:Class, or as the folder of an
            exported one. No code is run that a record names.
        json: Print JSON instead of tables.

    Returns:
        The exit status: 1 if a check fails.
    """
    from tapct.encoders.registry import places_of
    from tapct.submission.folder import submissions_below

    known = places_of(encoders)
    if recompute < 0:
        raise RecordError(f"--recompute takes a number of cases, not {recompute}")
    places = [place for folder in folders for place in submissions_below(Path(folder))]
    found: dict[str, list[Check]] = {}
    for place in dict.fromkeys(places):
        found[str(place)] = list(_checks(place, known, recompute, data_root, weights, salt))
        if not json:
            checks.print_table(found[str(place)], title=str(place))
    if json:
        checks.print_json({place: checks.as_json(of) for place, of in found.items()})
    else:
        failed = sum(checks.exit_status(of) for of in found.values())
        print(f"{len(found) - failed} of {len(found)} submissions hold")
    return checks.exit_status(check for of in found.values() for check in of)


def _checks(
    place: Path,
    known: dict[str, str],
    count: int = 0,
    data_root: str | None = None,
    weights: str | None = None,
    salt: str = "",
) -> Iterator[Check]:
    from tapct.submission import again, rules
    from tapct.submission.folder import Submission

    try:
        submission = Submission.read(place)
    except RecordError as error:
        yield Check("fail", "record", str(error), "submit the record as `tapct run` or `eva fit` wrote it")
        return
    record = submission.record
    yield Check("ok", "record", f"valid, fingerprint {record.fingerprint[:12]}, {len(record.runs)} runs")
    yield from rules.verify(submission, known)
    if count:
        yield from again.recompute(
            submission, count, data_root=data_root, weights=weights, salt=salt, device=_device(), places=known
        )


def _device() -> "torch.device":
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
