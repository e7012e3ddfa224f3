"""Fetching published weights: once, resumable, atomic, checked; the network's failures are one message each."""

import contextlib
import hashlib
import http
import math
import os
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tapct._utils import locks, terminal
from tapct._utils.files import cache_folder
from tapct.encoders import network
from tapct.encoders.card import EncoderCard, Weights
from tapct.encoders.eva_names import in_folders
from tapct.encoders.licence import terms
from tapct.errors import WeightsError

TERMS = "accept its terms there while logged in, then run `hf auth login`, or set HF_TOKEN"
"""What a gated file takes."""

HUB = "https://huggingface.co/"

HOSTS = ("huggingface.co", "zenodo.org")
"""Where files can be fetched from."""


@dataclass(frozen=True)
class PublishedFile:
    """A published file of weights that is not an encoder's.

    Attributes:
        name: What it is of.
        weights: Where it is.
        by_hand: A sentence on how to give the file where it cannot be fetched.
    """

    name: str
    weights: Weights
    by_hand: str


Published = EncoderCard | PublishedFile


def cached(card: Published) -> Path | None:
    """Returns a published file, or that of an encoder, where it was fetched before; nothing is fetched or checked."""
    weights = card.weights
    host, _, repository = (weights.repository or "").partition("/")
    if weights.file is None:
        return None
    if host == "huggingface.co":
        name, kind = _on_hub(repository)
        found = try_to_load_from_cache(name, weights.file, revision=weights.revision, repo_type=kind)
        return Path(found) if isinstance(found, str) else None
    path = _cache_path(card)
    return path if path.is_file() else None


def _cache_path(card: Published) -> Path:
    return cache_folder() / "weights" / in_folders(card.name) / Path(card.weights.file or "").name


def fetch(card: Published, *, name_s: float = network.NAME_S, answer_s: float = network.ANSWER_S) -> Path:
    """Returns a published file, or that of an encoder's weights, downloading it if it is not in the cache.

    Args:
        card: The file, or the card of the encoder.
        name_s: How long the name of a server or proxy may take to be resolved.
        answer_s: How long a server or proxy may take to answer.

    Raises:
        UnreachableError: If the server, or the proxy before it, gives no answer.
        WeightsError: If nothing is published where it could be fetched from, the file is gated or not there, or its
            checksum is wrong. Every message says where to put the file by hand.
    """
    weights = card.weights
    if (why := unknown(card)) is not None:
        raise WeightsError(_sentences(f"{card.name}: {why}", _by_hand(card)))
    host, _, rest = (weights.repository or "").partition("/")
    if host == "huggingface.co":
        path = _from_hub(card, rest, name_s, answer_s)
    else:
        path = _cache_path(card)
        if not path.is_file():
            _tell_terms(card)
        try:
            download(f"{_zenodo()}/{rest}/files/{weights.file}?download=1", path, name_s=name_s, answer_s=answer_s)
        except WeightsError as error:
            raise type(error)(_sentences(f"{card.name}: {error}", _by_hand(card))) from error
    check_sums(path, weights)
    return path


def _tell_terms(card: Published) -> None:
    """Says, before anything is downloaded, from where and under which terms."""
    words = f"{card.name}: {published_at(card)}, {terms(card.weights)}"
    terminal.notices().print(words, markup=False, soft_wrap=True, highlight=False)


def published_at(card: Published) -> str:
    """Returns where the weights of an encoder are published, in words."""
    repository = card.weights.repository or "nowhere"
    where = f"https://{repository}" if repository.partition("/")[0] in HOSTS else repository
    return f"{where}, {card.weights.file}" if card.weights.file else where


def unknown(card: Published) -> str | None:
    """Returns why there is no file of an encoder that could be downloaded; None where there is one."""
    weights = card.weights
    if weights.file is not None and (weights.repository or "").partition("/")[0] in HOSTS:
        return None
    where = f". It is published as {weights.repository}" if weights.repository else ""
    return f"no file that could be downloaded is known{where}"


def offline() -> str | None:
    """Returns the variable by which the user keeps the hub's client from the network; None where none does."""
    if not constants.is_offline_mode():
        return None
    # The client takes the first of the two that is set, when it is imported.
    other = os.environ.get("TRANSFORMERS_OFFLINE") and not os.environ.get("HF_HUB_OFFLINE")
    return "TRANSFORMERS_OFFLINE" if other else "HF_HUB_OFFLINE"


def gate(card: Published) -> str:
    """Returns what has to be done once before a gated file can be had; nothing of one that is not."""
    return f"It is gated: {TERMS}" if card.weights.gated else ""


def _zenodo() -> str:
    return os.environ.get("TAPCT_ZENODO", "https://zenodo.org")  # a mirror, or a test's server


def _by_hand(card: Published) -> str:
    if isinstance(card, PublishedFile):
        return card.by_hand
    file = Path(card.weights.file).name if card.weights.file else "the file"
    get = "Get" if unknown(card) else f"Run `tapct download -e {card.name}` where there is a network, or get"
    return (
        f"{get} {file} on a machine that can, and give its path (ENCODER_WEIGHTS=/path/to/{file}, or weights=), "
        "or use 'random' for seeded random weights."
    )


def _sentences(*sentences: str) -> str:
    return " ".join(one if one.endswith((".", "?")) else f"{one}." for one in sentences if one)


def _from_hub(card: Published, repository: str, name_s: float, answer_s: float) -> Path:
    """Returns a file of the Hugging Face hub; its client resumes, locks, and writes atomically.

    A file in the client's cache is used where the hub gives no answer, as the client does.
    """
    weights, page = card.weights, f"{HUB}{repository}"
    here, gated = cached(card), gate(card)
    if (variable := offline()) is not None:
        if here is not None:
            return here
        why = f"you have set {variable}, so {page} is not asked for {weights.file}, which was not fetched before"
        unset = f"Unset {variable} to fetch it"
        raise network.UnreachableError(_sentences(f"{card.name}: {why}", gated, unset, _by_hand(card)))
    if here is None:
        _tell_terms(card)
    try:
        return asked_hub(repository, weights, name_s, answer_s)
    except (EntryNotFoundError, RevisionNotFoundError) as error:
        raise WeightsError(_sentences(f"{card.name}: {page} has no {weights.file}", _by_hand(card))) from error
    except (WeightsError, RepositoryNotFoundError, FileMetadataError, OSError) as error:
        if here is not None:
            return here
        if isinstance(error, GatedRepoError) or (isinstance(error, RepositoryNotFoundError) and gated):
            why, gated = f"{page} is gated: {TERMS}", ""
        elif isinstance(error, RepositoryNotFoundError):
            why = f"{page} has no {weights.file} (or it is private)"
        else:
            why = f"{page} cannot be had: {str(error).splitlines()[0]}"
        kind = network.UnreachableError if isinstance(error, network.UnreachableError) else WeightsError
        raise kind(_sentences(f"{card.name}: {why}", gated, _by_hand(card))) from error


def _on_hub(repository: str) -> tuple[str, str]:
    """Returns name and kind of a repository of the hub: that of a data set may hold weights, too."""
    return repository.removeprefix("datasets/"), "dataset" if repository.startswith("datasets/") else "model"


def asked_hub(repository: str, weights: Weights, name_s: float, answer_s: float) -> Path:
    """Returns a file that the hub's client fetches.

    Where there is no network the client tries for half a minute, so the hub is asked once before.
    """
    assert weights.file is not None
    name, kind = _on_hub(repository)
    address = hf_hub_url(name, weights.file, revision=weights.revision, repo_type=kind)

    def ask() -> object:
        return get_hf_file_metadata(address, timeout=answer_s)

    network.answer(address, ask, name_s=name_s, answer_s=answer_s)
    with network.explained(address):
        found = hf_hub_download(name, weights.file, revision=weights.revision, repo_type=kind, etag_timeout=answer_s)
    return Path(found)


def download(address: str, path: Path, *, name_s: float = network.NAME_S, answer_s: float = network.ANSWER_S) -> Path:
    """Downloads a file, resuming where an interrupted download stopped.

    Args:
        address: The URL.
        path: Where the complete file is put; until then it grows next to it as `.part`.
        name_s: How long the name of the server or proxy may take to be resolved.
        answer_s: How long each may take to answer, and to continue once it sends.

    Raises:
        UnreachableError: If the server, or the proxy before it, gives no answer.
        WeightsError: If it refuses, or sends less than it promised.
        LockError: If the file system refuses locks, so that two processes would write the same file.
    """
    if path.is_file():
        return path
    part = path.with_name(f"{path.name}.part")
    with locks.hold(path.with_name(f".{path.name}.lock"), math.inf):
        if path.is_file():  # another process was first
            return path
        try:
            with network.explained(address), httpx2.Client(timeout=answer_s, follow_redirects=True) as client:
                _append(client, address, part, name_s, answer_s)
        except (WeightsError, OSError) as error:
            kind = network.UnreachableError if isinstance(error, network.UnreachableError) else WeightsError
            raise kind(f"cannot download {address}: {error}") from error
        part.replace(path)
    return path


def _append(client: httpx2.Client, address: str, part: Path, name_s: float, answer_s: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    request = client.build_request("GET", address, headers=headers)
    answer = network.answer(address, lambda: client.send(request, stream=True), name_s=name_s, answer_s=answer_s)
    with contextlib.closing(answer):
        if have and answer.status_code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing comes after what is there: it is whole (cut off before its rename), or part of another file.
            if answer.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            return _append(client, address, part, name_s, answer_s)
        answer.raise_for_status()
        _save(answer, part, have)


def _save(answer: httpx2.Response, part: Path, have: int) -> None:
    resumed = answer.status_code == http.HTTPStatus.PARTIAL_CONTENT
    start = have if resumed else 0
    length = answer.headers.get("Content-Length")
    total = start + int(length) if length is not None else None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    try:
        with (
            terminal.progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), transient=False) as progress,
            part.open("ab" if resumed else "wb") as file,
        ):
            task = progress.add_task(part.stem, total=total, completed=start)
            for chunk in answer.iter_raw():
                file.write(chunk)
                progress.advance(task, len(chunk))
    except httpx2.TransportError as error:
        raise OSError(f"{_arrived(part, total)} ({type(error).__name__})") from error
    if total is not None and part.stat().st_size != total:
        raise OSError(_arrived(part, total))


def _arrived(part: Path, total: int | None) -> str:
    of = "the" if total is None else f"{total}"
    return f"{part.stat().st_size} of {of} bytes arrived; the next attempt resumes there"


def check_sums(path: Path, weights: Weights) -> None:
    """Checks a file against what is published of it.

    Raises:
        WeightsError: If it is another one.
    """
    check(path, "sha256", weights.sha256)
    check(path, "md5", weights.md5)


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
