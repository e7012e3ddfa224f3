"""Whether a header's claim can be true, asked before anything of that size is allocated."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tapct.errors import VolumeError

DEFLATE_RATIO = 1032
"""Most bytes that a byte of gzip or zlib data can stand for: a match of 258 bytes takes two bits (RFC 1951)."""


def deflated(size: int) -> int:
    """Returns the most bytes that `size` bytes of gzip or zlib data can hold."""
    return DEFLATE_RATIO * size


def check_claim(source: str | Path, shape: Sequence[int], itemsize: int, held: int, file: str = "the file") -> None:
    """Refuses an array that its file cannot hold.

    Args:
        source: The file, for the message.
        shape: Size along each axis, as the header has it.
        itemsize: Bytes of one value, as stored.
        held: Most bytes of values that the file can hold.
        file: Name of the file, where the header is in another.

    Raises:
        VolumeError: If so; also where a size is negative, or there is no voxel at all.
    """
    sizes, count = tuple(int(size) for size in shape), math.prod(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise VolumeError(f"{source} has a header of {sizes} voxels, which nothing can have. {_DAMAGED}")
    if count == 0:
        raise VolumeError(f"{source} is empty: its shape is {sizes}. Export or download it again.")
    if count * itemsize > held:
        raise VolumeError(
            f"{source} has a header of {sizes} voxels, {count * itemsize:,} bytes, but {file} can hold no more than "
            f"{max(0, held):,}. A download was interrupted: fetch it again; or the header is damaged."
        )


def check_memory(source: str | Path, shape: Sequence[int], itemsize: int) -> None:
    """Refuses a scan that memory has no room for, as stored and as float32.

    Args:
        source: The file or folder, for the message.
        shape: Voxels along each axis.
        itemsize: Bytes of one voxel, as stored.

    Raises:
        VolumeError: If less memory is free; where that cannot be known, never.
    """
    needed, free = math.prod(int(size) for size in shape) * (itemsize + 4), available_memory()
    if free is not None and needed > free:
        raise VolumeError(
            f"{source} has {tuple(int(size) for size in shape)} voxels, which take {needed / 1e9:,.1f} GB to read; "
            f"{free / 1e9:,.1f} GB of memory are free. Use a machine with more, or fewer processes at a time; if the "
            "scan is not that large, its header is damaged."
        )


@contextmanager
def memory_errors(source: str | Path) -> Iterator[None]:
    """Turns a MemoryError, where there was less than `check_memory` saw, into the error of a scan."""
    try:
        yield
    except MemoryError as error:
        raise VolumeError(
            f"{source} cannot be read: memory is full. Use a machine with more, or fewer processes at a time."
        ) from error


def available_memory(proc: Path = Path("/proc"), control_groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Returns the bytes that this process can still allocate, or None where that cannot be known.

    Args:
        proc: Where Linux says what its memory holds; elsewhere the size of the memory stands in.
        control_groups: Where it says what a container or a batch job may use.
    """
    machine = _fields(proc / "meminfo").get("MemAvailable:")
    limits = [_physical() if machine is None else machine * 1024, *_control_group_limits(proc, control_groups)]
    return min((limit for limit in limits if limit is not None), default=None)


_DAMAGED = "Its header is damaged: take the file from its origin again."


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _control_group_limits(proc: Path, control_groups: Path) -> Iterator[int]:
    """What the group of this process and those above it leave; cached files give way, so they count as free."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            top, names, total = control_groups, ("memory.max", "memory.current"), ""
        elif "memory" in controllers.split(","):
            top, names, total = control_groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            limit, used = (_text(folder / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():
                held = _fields(folder / "memory.stat")
                cached = sum(held.get(f"{total}{kind}_file", 0) for kind in ("active", "inactive"))
                yield max(0, int(limit) - int(used) + cached)
            if folder == top:
                break


def _fields(path: Path) -> dict[str, int]:
    words = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
