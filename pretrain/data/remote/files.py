"""The files of a store on the network, read through fsspec: ranges of bytes, and versions.

What does not answer is asked again, a bounded number of times. What it means that a file cannot be had differs: one
that is missing is a fault of the store; a server that is down or refuses says nothing about any volume.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import tenacity
from fsspec.core import url_to_fs

from pretrain.errors import PretrainError, StoreError

T = TypeVar("T")

ATTEMPTS, FIRST_WAIT_S, LONGEST_WAIT_S = 6, 1.0, 16.0
"""Requests before a server counts as unreachable, and the waits between them, which double: half a minute in all."""
REQUEST_S = 60.0
"""A request that takes longer counts as failed."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_CONTENT = ("ETag", "etag", "e_tag", "md5Hash", "Content-MD5", "Digest", "generation", "VersionId", "version_id")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")
_NEVER_FIXED = (ImportError, TypeError, ValueError, AttributeError, AssertionError, NotImplementedError)
_PASSING = frozenset({408, 409, 425, 429})

log = logging.getLogger(__name__)


class MissingError(PretrainError):
    """A file is not there."""


class RefusedError(StoreError):
    """A file may not be read; object storage also answers so for what is missing, where it may not be listed."""


class _PassingError(Exception):
    """What may go away by itself."""


@dataclass(frozen=True)
class RemoteFile:
    """What is known of a file without reading it.

    Attributes:
        size: Bytes.
        version: Changes when the file does: from its ETag or the like, else from when it was written.
    """

    size: int
    version: str


class RemoteFiles:
    """The files under a URL.

    Attributes:
        url: Where they are.
    """

    def __init__(self, url: str) -> None:
        """Connects.

        Raises:
            PretrainError: What reads the protocol is not installed, or nothing does.
            StoreError: There are no credentials.
        """
        self.url = url
        try:
            # Without listings, which would keep saying what was there when they were made.
            self._files, self._root = self._ask(url, lambda: url_to_fs(url, use_listings_cache=False))
        except ImportError as error:
            raise PretrainError(f"{url} cannot be read: {error}. Run {_install(url)}") from error
        except ValueError as error:
            if isinstance(error, PretrainError):
                raise
            raise PretrainError(f"{url} cannot be read: {error}. See fsspec's list of protocols") from error
        self._limit = {"timeout": REQUEST_S} if self._files.async_impl else {}

    def look(self, path: str) -> RemoteFile:
        """Asks for size and version of a file.

        Raises:
            MissingError: It is not there.
            StoreError: There is no answer, or a refusal.
        """
        place = f"{self._root}/{path}"
        found: dict[str, Any] = self._ask(f"{self.url}/{path}", lambda: self._files.info(place, **self._limit))
        size = found.get("size")
        if size is None:
            raise PretrainError(f"{self.url}/{path}: the server does not say how long it is, so it cannot be read")
        marks = next((m for m in (_marks(found, _CONTENT), _marks(found, _TIMES)) if m), {})
        digest = hashlib.blake2b(json.dumps([size, marks], default=str).encode(), digest_size=16)
        return RemoteFile(int(size), digest.hexdigest())

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Reads a range of a file, which must hold it.

        Raises:
            MissingError: It is not there.
            StoreError: There is no answer, or a refusal.
            PretrainError: It is shorter, or the server sends other bytes than it was asked for.
        """
        place, end = f"{self._root}/{path}", offset + size
        content: bytes = self._ask(
            f"{self.url}/{path}", lambda: self._files.cat_file(place, start=offset, end=end, **self._limit)
        )
        if len(content) > size:
            raise PretrainError(
                f"{self.url}/{path}: the server sent {len(content)} bytes when asked for {size}. It does not serve "
                "ranges of bytes (python's http.server does not, object storage and nginx do)"
            )
        if len(content) < size:
            raise PretrainError(f"{self.url}/{path} is shorter than the store's index says. Copy the store again")
        return content

    def _ask(self, what: str, request: Callable[[], T]) -> T:
        """Makes a request, again where that may help.

        Raises:
            MissingError, RefusedError, StoreError: What its failure means.
        """

        def once() -> T:
            try:
                return request()
            except _NEVER_FIXED:
                raise
            except Exception as error:  # each protocol raises errors of its own
                raise _meaning(what, error) from error

        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential_jitter(initial=FIRST_WAIT_S, max=LONGEST_WAIT_S, jitter=FIRST_WAIT_S),
            retry=tenacity.retry_if_exception_type(_PassingError),
            before_sleep=lambda state: log.info("%s, asked again", state.outcome and state.outcome.exception()),
            reraise=True,
        )
        try:
            return attempts(once)
        except _PassingError as error:
            raise StoreError(
                f"{error}, {ATTEMPTS} times in a row. Is the network up, and the address right? Start the same command "
                "again when it answers"
            ) from error.__cause__


def _meaning(what: str, error: Exception) -> Exception:
    """Returns the error that says what a failed request means."""
    # fsspec's HTTP answers any failure to look at a file by "not found", and gives the reason as the cause.
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
    status = _status(cause)
    words = " ".join(str(cause).split()) or type(cause).__name__
    if status in (404, 410) or isinstance(cause, FileNotFoundError):
        return MissingError(f"{what} is not there")
    if status in (401, 403) or isinstance(cause, PermissionError) or "Credential" in type(cause).__name__:
        return RefusedError(
            f"{what} may not be read ({words}). Are the credentials where the protocol's own tools read them "
            "(docs/pretraining.md), and do they allow it? Object storage also answers so for what is not there, where "
            "listing is not allowed"
        )
    if isinstance(status, int) and 400 <= status < 500 and status not in _PASSING:
        return StoreError(f"{what} cannot be read ({words})")
    if isinstance(cause, asyncio.TimeoutError):
        words = f"no answer within {REQUEST_S:g} s"
    return _PassingError(f"{what} cannot be read ({words})")


def _status(error: BaseException) -> Any:
    """The HTTP status behind an error: of aiohttp, of botocore, of gcsfs."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(error, "status", None) or getattr(error, "code", None)


def _marks(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {name: str(found[name]) for name in names if found.get(name)}


def _install(url: str) -> str:
    protocol = urlsplit(url).scheme
    extra = _EXTRAS.get(protocol)
    return f"`pip install 'tapct-bench[{extra}]'`" if extra else f"pip to install what fsspec reads {protocol}:// with"
