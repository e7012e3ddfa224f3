"""Asking a server through the network that there is: an answer in seconds, or the one reason why there is none.

A compute node has no DNS, a hospital's proxy wants a password or swallows what it is sent. Libraries try such again and
again, each time with a traceback; here the first failure is named.
"""

import contextlib
import http
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from tapct.errors import WeightsError

NAME_S = 2.0
"""How long a name may take to be resolved. Resolvers that work need milliseconds; the system waits 20 s."""

ANSWER_S = 30.0
"""How long a server or proxy may take to answer."""

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

_Answer = TypeVar("_Answer")


class UnreachableError(WeightsError):
    """A server gave no answer; the message says why, and names what was asked once."""


class Hop(NamedTuple):
    """What is connected to on the way to a server.

    Attributes:
        host: Its name.
        port: Its port.
        words: How it is called in a message.
        is_proxy: Whether it is a proxy.
    """

    host: str
    port: int
    words: str
    is_proxy: bool


def answer(address: str, ask: Callable[[], _Answer], *, name_s: float = NAME_S, answer_s: float = ANSWER_S) -> _Answer:
    """Returns what `ask` does, which sends a request to an address with httpx2 and does not try again.

    Args:
        address: The URL.
        ask: Sends the request. It is left alone, in a thread of its own, where it takes too long.
        name_s: How long the name of the server, or of the proxy on the way to it, may take to be resolved.
        answer_s: How long `ask` may take.

    Raises:
        UnreachableError: If there is no answer.
    """
    with explained(address):
        hop = first_hop(address)
        _require_name(hop, name_s)
        try:
            return _within(answer_s, ask)
        except TimeoutError as error:
            raise UnreachableError(f"{hop.words} has not answered within {answer_s:g} s") from error


@contextlib.contextmanager
def explained(address: str) -> Iterator[None]:
    """Turns what httpx2 raises when it talks to an address into one message.

    What the hub says of a repository is left as it is.

    Raises:
        UnreachableError: If there was no answer.
        WeightsError: If the answer was a refusal.
    """
    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError):
        raise  # that is an answer
    except httpx2.HTTPError as error:
        hop, status = first_hop(address), getattr(getattr(error, "response", None), "status_code", None)
        if status is None or status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise UnreachableError(_why(error, status, hop)) from error
        raise WeightsError(f"{hop.words} answered {status} {_PHRASES.get(status, '')}".strip()) from error
    except (httpx2.InvalidURL, ImportError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        # What httpx2 says of a proxy that it cannot use: an unknown kind, or SOCKS without its package.
        proxy = first_hop(address)
        raise UnreachableError(f"{proxy.words} cannot be used ({_first_line(error)})") from error


def first_hop(address: str) -> Hop:
    """Returns what is connected to first on the way to an address: the proxy that the environment names, or itself."""
    url = urlsplit(address)
    host = url.hostname or ""
    proxies = {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named:
        return Hop(host, url.port or _PORTS.get(url.scheme, 443), host, is_proxy=False)
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    name = proxy.hostname or ""
    shown = f"{name}:{proxy.port}" if proxy.port else name  # never what stands before it, which is a password
    return Hop(name, proxy.port or _PORTS.get(proxy.scheme, 80), f"the proxy {shown}", is_proxy=True)


def _require_name(hop: Hop, limit_s: float) -> None:
    """Resolves a name, which no timeout of a connection covers."""
    what = f"the name of {hop.words}" if hop.is_proxy else f"the name {hop.host}"
    try:
        _within(limit_s, lambda: socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM))
    except TimeoutError as error:
        why = f"no DNS server answered within {limit_s:g} s"
        raise UnreachableError(f"{what} cannot be resolved: {why}. Has this machine a network?") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: no name that DNS could have
        why = getattr(error, "strerror", None) or str(error)
        raise UnreachableError(f"{what} cannot be resolved ({why}). Has this machine a network?") from error


def _within(limit_s: float, what: Callable[[], _Answer]) -> _Answer:
    """Returns what a function does.

    Raises:
        TimeoutError: If it takes longer. Its thread then continues alone, and ends with the process at the latest.
    """
    done: Future[_Answer] = Future()

    def work() -> None:
        try:
            done.set_result(what())
        except BaseException as error:  # noqa: BLE001  raised where the result is asked for
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return done.result(limit_s)


def _why(error: httpx2.HTTPError, status: int | None, hop: Hop) -> str:
    if status is not None or (isinstance(error, httpx2.ProxyError) and str(error).startswith("407")):
        return (
            f"{hop.words} asks for a user name and a password (407). Name them in "
            "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, special characters as %XX"
        )
    if isinstance(error, httpx2.TimeoutException):
        return f"{hop.words} does not answer"
    if isinstance(error, httpx2.ProxyError):
        return f"{hop.words} refuses ({_first_line(error)})"
    return f"{hop.words} cannot be reached ({_first_line(error) or type(error).__name__})"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
