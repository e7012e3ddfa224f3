"""Fetching published weights: once, resumable, atomic, checked."""

import hashlib
import http
import math
import os
import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tapct import locks, terminal
from tapct.encoders.card import EncoderCard
from tapct.errors import WeightsError
from tapct.files import cache_folder

CHUNK_BYTES = 1 << 20


HOSTS = ("huggingface.co", "zenodo.org")
"""Where files can be fetched from."""


def cached(card: EncoderCard) -> Path | None:
    """Returns the published weights file of an encoder where it was fetched before; nothing is fetched or checked."""
    weights = card.weights
    host, _, repository = (weights.repository or "").partition("/")
    if weights.file is None:
        return None
    if host == "huggingface.co":
        found = try_to_load_from_cache(repository, weights.file, revision=weights.revision)
        return Path(found) if isinstance(found, str) else None
    path = _cache_path(card)
    return path if path.is_file() else None


def _cache_path(card: EncoderCard) -> Path:
    return cache_folder() / "weights" / card.name / Path(card.weights.file or "").name


def fetch(card: EncoderCard) -> Path:
    """Returns the published weights file of an encoder, downloading it if it is not in the cache.

    Raises:
        WeightsError: If nothing is published where it could be fetched from, the server cannot be reached,
            the file is gated, or its checksum is wrong. The message says where to put the file by hand.
    """
    weights = card.weights
    host, _, rest = (weights.repository or "").partition("/")
    if weights.file is None or host not in HOSTS:
        where = f" It is published as {weights.repository}." if weights.repository else ""
        raise WeightsError(f"{card.name}: no file that could be downloaded is known.{where} {_by_hand(card)}")
    if host == "huggingface.co":
        path = _from_hub(card, rest)
    else:
        address = f"{_zenodo()}/{rest}/files/{weights.file}?download=1"
        path = _cache_path(card)
        download(address, path, by_hand=_by_hand(card))
    check(path, "sha256", weights.sha256)
    check(path, "md5", weights.md5)
    return path


def _zenodo() -> str:
    return os.environ.get("TAPCT_ZENODO", "https://zenodo.org")  # a mirror, or a test's server


def _by_hand(card: EncoderCard) -> str:
    file = Path(card.weights.file).name if card.weights.file else "the file"
    return (
        f"Get {file} on a machine that can, and give its path (ENCODER_WEIGHTS=/path/to/{file}, or weights=), "
        "or use 'random' for seeded random weights."
    )


def _from_hub(card: EncoderCard, repository: str) -> Path:
    """Downloads from the Hugging Face hub; its client resumes, locks, and writes atomically."""
    weights = card.weights
    page = f"https://huggingface.co/{repository}"
    assert weights.file is not None
    try:
        return Path(hf_hub_download(repository, weights.file, revision=weights.revision))
    except GatedRepoError as error:
        why = f"{page} is gated: accept its terms there while logged in, then run `hf auth login`, or set HF_TOKEN"
        raise WeightsError(f"{card.name}: {why}. {_by_hand(card)}") from error
    except (RepositoryNotFoundError, EntryNotFoundError, RevisionNotFoundError) as error:
        # A cache miss while offline is an EntryNotFoundError as well.
        offline = isinstance(error, LocalEntryNotFoundError)
        why = f"{page} cannot be reached" if offline else f"{page} has no {weights.file} (or it is private)"
        raise WeightsError(f"{card.name}: {why}. {_by_hand(card)}") from error
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{card.name}: {page} cannot be reached ({reason}). {_by_hand(card)}") from error


def download(address: str, path: Path, *, by_hand: str = "") -> Path:
    """Downloads a file, going on where an interrupted download stopped.

    Args:
        address: The URL.
        path: Where the complete file is put; until then it grows beside it as `.part`.
        by_hand: What to tell the user if it cannot be done.

    Raises:
        WeightsError: If the server cannot be reached, refuses, or sends less than it promised.
        LockError: If the file system refuses locks, so that two processes would write the same file.
    """
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    with locks.hold(path.with_name(f".{path.name}.lock"), math.inf):
        if path.is_file():  # another process was first
            return path
        try:
            _append(address, part)
        except (urllib.error.URLError, OSError) as error:
            raise WeightsError(f"cannot download {address}: {error}. {by_hand}") from error
        part.replace(path)
    return path


def _append(address: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        opened = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if not have or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # Nothing comes after what is there: it is whole (cut off before its rename), or part of another file.
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        return _append(address, part)
    with opened as answer:
        resumed = answer.status == 206
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with (
            terminal.progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), transient=False) as progress,
            part.open("ab" if resumed else "wb") as file,
        ):
            task = progress.add_task(part.stem, total=total, completed=start)
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                progress.advance(task, len(chunk))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"{part.stat().st_size} of {total} bytes arrived; the next attempt resumes there")


def check(path: Path, algorithm: str, wanted: str | None) -> None:
    """Checks a file against its published checksum, where one is known.

    Raises:
        WeightsError: If they differ.
    """
    if wanted is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != wanted:
        raise WeightsError(
            f"{path} is not the published file: {algorithm} {found}, not {wanted}. Delete it and try again."
        )
