"""What operating systems differ in, asked in one place. Linux is what it was made on; docs/start-here.md says the rest.

Locks on files are in `tapct._utils.locks`, free memory in `tapct.volumes.sizes`.
"""

import os
import sys
from collections.abc import Callable


def cores() -> int:
    """Returns the number of processors that this process may use: fewer than there are in a batch job, on Linux."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process has held so far; None on Windows, where Python does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def in_forked(forget: Callable[[], object]) -> None:
    """Has a function called in each process that this one forks, at once; nothing is forked on Windows."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
