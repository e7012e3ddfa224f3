"""What running processes need of a store, so that nobody removes it under them.

Each process has a file of its own in `leases/` of the store, with the keys that it needs, and holds its lock while it
lives: the kernel ends a lease with its process. Who takes a lease and who removes entries go one at a time (`alone`):
what is found in the store after a lease was taken stays there.
"""

import atexit
import contextlib
import json
import math
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from loguru import logger

from tapct._utils import locks, system
from tapct.errors import FeatureError, LockError

FOLDER = "leases"
_SUFFIX = ".lease"


@dataclass
class _Lease:
    """A lease of this process."""

    path: Path
    file: FileIO
    held: contextlib.ExitStack
    features: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)


_mine: dict[Path, _Lease] = {}
"""By the folder of the store."""


def take(store: Path, features: Iterable[str], others: Iterable[str] = ()) -> None:
    """Keeps entries of a store from being removed until this process lets go or ends.

    Where the folder cannot be written or refuses locks, there is no lease, and that is said: such a store is only read.

    Args:
        store: Folder of the store.
        features: Keys of the features of cases.
        others: Keys of embeddings alone, labels and the like.
    """
    store = store.absolute()
    try:
        with alone(store):
            for _ in _living(store):
                pass  # those that died are swept out
            lease = _mine.get(store) or _new(store)
            lease.features |= set(features)
            lease.others |= set(others)
            lease.file.truncate(0)
            lease.file.write(json.dumps(sorted(lease.features | lease.others)).encode())
    except OSError as error:
        logger.info(f"nobody else sees that the features in {store} are in use, for it is only read: {error}")


def taken() -> dict[Path, list[str]]:
    """Returns the keys of features that this process has taken, by the folder of their store."""
    return {store: sorted(lease.features) for store, lease in _mine.items()}


def let_go() -> None:
    """Ends the leases of this process."""
    while _mine:
        _, lease = _mine.popitem()
        with contextlib.suppress(OSError):  # who comes next sweeps it out
            lease.path.unlink()
        lease.held.close()


@contextlib.contextmanager
def needed(store: Path) -> Iterator[frozenset[str]]:
    """Yields the keys that running processes need, this one too; until it is left, no process begins to need others.

    Raises:
        FeatureError: If the folder cannot be written, or its file system refuses locks: nothing may be removed then.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone(store))
            keys = frozenset(key for file in _living(store) for key in json.loads(file.read_bytes()))
        except OSError as error:
            raise FeatureError(f"cannot tell what of {store} is in use: {error}. Nothing was removed") from error
        yield keys


@contextlib.contextmanager
def alone(store: Path) -> Iterator[None]:
    """Holds off whoever takes leases in a store, or removes entries.

    Raises:
        OSError: If the folder cannot be written, or its file system refuses locks.
    """
    with locks.hold(store / FOLDER / "lock", math.inf):
        yield


def seen(store: Path) -> frozenset[str] | None:
    """Returns the keys that running processes need, as far as who only looks can tell; None where locks are refused."""
    keys: set[str] = set()
    for path in (store / FOLDER).glob(f"*{_SUFFIX}"):
        try:
            with path.open("rb", buffering=0) as file:
                keys |= set(json.loads(file.read())) if locks.is_held(file, path) else set()
        except (FileNotFoundError, ValueError):  # let go of, or being written, at this moment
            continue
        except LockError:
            return None
    return frozenset(keys)


def _new(store: Path) -> _Lease:
    path, held = store / FOLDER / f"{uuid.uuid4().hex}{_SUFFIX}", contextlib.ExitStack()
    file = held.enter_context(locks.hold(path, 0))
    assert file is not None  # nobody else knows its name
    _mine[store] = _Lease(path, file, held)
    return _mine[store]


def _living(store: Path) -> Iterator[Path]:
    """Yields the files of leases whose processes run, and removes those of others; only inside `alone`."""
    for path in (store / FOLDER).glob(f"*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # let go of a moment ago
            with path.open("rb", buffering=0) as file:
                is_held = locks.is_held(file, path)
            if is_held:
                yield path
            else:
                path.unlink()


atexit.register(let_go)
# A forked process does not hold what its parent does; see `tapct._utils.locks`.
system.in_forked(_mine.clear)
