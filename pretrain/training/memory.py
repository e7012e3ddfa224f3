"""What a process that trains on a CPU does with the memory that it frees.

glibc hands blocks of more than 32 MiB back to the system as soon as they are freed, and the end of its heap when more
than 64 MiB are free there (mallopt(3)). A training step needs all of it again the next moment, and the system clears
every page anew, which costs up to a tenth of the step.
"""

import ctypes

# From malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# The end of the heap is never handed back, and no block lies outside the heap.
_KEEP = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}
# What glibc comes to by itself in a process that frees large blocks; it cannot be told to find out again.
_HAND_BACK = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}


def keep_freed_memory(keep: bool = True) -> bool:
    """Tells the C library to keep, for this process, what is freed, or to hand it back again.

    Args:
        keep: Which of the two.

    Returns:
        Whether it did; False where the C library is not glibc, and all stays as it was.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(parameter, value) for parameter, value in (_KEEP if keep else _HAND_BACK).items())
