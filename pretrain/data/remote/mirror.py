"""The small files of a store on the network: fetched once a node, and the same for all its processes.

They lie in a folder whose name follows from the versions of all of them. A store that has changed has another name, so
its old files are never mixed with new ones.
"""

import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pretrain.data.identity import NOTED
from pretrain.data.index import INDEX, OFFSETS
from pretrain.data.intensities import FINGERPRINT
from pretrain.data.remote.cache import Cache
from pretrain.data.remote.files import MissingError, RefusedError, RemoteFile, RemoteFiles
from pretrain.data.store import SETTINGS
from pretrain.errors import PretrainError
from pretrain.files import cannot_write, in_bytes
from tapct._utils import locks

_NEEDED, _OPTIONAL = (SETTINGS, INDEX), (OFFSETS, FINGERPRINT, NOTED)
_RANGE_BYTES = 1 << 24
_THREADS = 8
_WAIT_S = 1800.0
"""For the process of this node that fetches the index."""
_CHANGES = 3
"""Times that a store may change while it is fetched."""


def mirror(files: RemoteFiles, cache: Cache) -> Path:
    """Returns a folder with the small files of a store as they are now.

    Raises:
        PretrainError: There is no store, or the cache has no room for its index.
        StoreError: There is no answer, or a refusal.
    """
    for _ in range(_CHANGES):
        found = _look(files)
        folder = cache.folder / "stores" / _name(files.url, found)
        if _touch(folder):
            return folder
        with locks.hold(cache.folder / "fetching", _WAIT_S) as lock:
            if lock is None:
                raise PretrainError(f"another process has been fetching the index of {files.url} for {_WAIT_S:g} s")
            if _touch(folder):
                return folder
            temporary = _fetch(files, found, cache)
            try:
                if _look(files) == found:
                    temporary.rename(folder)
                    return folder
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    raise PretrainError(f"{files.url} is being changed. Start the same command again when it is copied wholly")


def _look(files: RemoteFiles) -> dict[str, RemoteFile]:
    found = {}
    for name in _NEEDED + _OPTIONAL:
        try:
            found[name] = files.look(name)
        except MissingError as error:
            if name in _NEEDED:
                raise PretrainError(
                    f"{error}: there is no store, or it is not copied wholly. `python -m pretrain.prepare SRC -o "
                    "STORE` makes one in a folder, and any tool copies it"
                ) from error
        except RefusedError:  # what is missing is refused too where the bucket may not be listed
            if name in _NEEDED:
                raise
    return found


def _fetch(files: RemoteFiles, found: dict[str, RemoteFile], cache: Cache) -> Path:
    """Returns a new folder with the files."""
    needed = sum(file.size for file in found.values())
    if OFFSETS not in found:  # made here as the index is opened
        needed += found[INDEX].size // 8
    if found[SETTINGS].size > 1:
        files.read(SETTINGS, 0, 1)  # tells at once whether there are ranges
    try:
        with cache.room(needed) as there_is:
            if not there_is:
                raise PretrainError(
                    f"the index of {files.url} takes {in_bytes(needed)}, and data.cache_gb allows "
                    f"{in_bytes(cache.limit_bytes)}. Give more"
                )
            temporary = Path(tempfile.mkdtemp(dir=cache.folder / "stores", prefix="."))
            for name, file in found.items():
                with (temporary / name).open("wb") as made:
                    made.truncate(file.size)
        ranges = [(name, at, file.size) for name, file in found.items() for at in range(0, file.size, _RANGE_BYTES)]
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(lambda part: _fill(files, temporary, *part), ranges))
        for name in found:
            with (temporary / name).open("rb") as made:
                os.fsync(made.fileno())  # unlike blocks, they have no checksums that would tell after a loss of power
    except OSError as error:
        raise cannot_write(cache.folder, error, needed) from error
    return temporary


def _fill(files: RemoteFiles, folder: Path, name: str, offset: int, size: int) -> None:
    content = files.read(name, offset, min(_RANGE_BYTES, size - offset))
    with (folder / name).open("r+b") as file:
        file.seek(offset)
        file.write(content)


def _name(url: str, found: dict[str, RemoteFile]) -> str:
    versions = "".join(f"{name} {file.size} {file.version}\n" for name, file in found.items())
    return hashlib.blake2b(f"{url}\n{versions}".encode(), digest_size=16).hexdigest()


def _touch(folder: Path) -> bool:
    """Notes that a folder is used; False where there is none."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True
