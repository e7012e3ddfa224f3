"""What all commands of pretraining share: how they end, and what they say of a mistake."""

import sys
from collections.abc import Callable
from enum import IntEnum

from tapct.errors import TapctError


class ExitStatus(IntEnum):
    """How a command ended (docs/pretraining.md has the table)."""

    DONE = 0
    """All is done, and all is well."""
    ERROR = 1
    """An error, which is named. Nothing is lost: fix it and run the same command again."""
    USAGE = 2
    """The command line is wrong; nothing was done. (argparse's own.)"""
    ATTENTION = 3
    """All is done, and something of it wants looking at: scans in quarantine, a fault that did not come again."""
    STOPPED = 75
    """Asked to stop; the same command resumes. (EX_TEMPFAIL of sysexits.h: not done, no error.)"""


def run(work: Callable[[], ExitStatus]) -> ExitStatus:
    """Does a command's work; an error that is expected is printed in one message."""
    try:
        return work()
    except (TapctError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return ExitStatus.ERROR
