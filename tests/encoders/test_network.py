"""Weights on networks as they are: real proxies on loopback that refuse or say nothing, and names that nobody knows."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest

from tapct.encoders import Weights, network
from tapct.encoders.download import fetch
from tapct.encoders.network import UnreachableError
from tests.small import small_card

HUB, ZENODO = "huggingface.co/group/model", "zenodo.org/records/1"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy_and_empty_caches(tmp_path, monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TAPCT_ZENODO", raising=False)
    for module in ("huggingface_hub.constants", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()  # its client keeps the proxies of when it was made
    yield
    huggingface_hub.close_session()


def card(repository, **changes):
    return small_card(weights=Weights(repository=repository, file="w.safetensors", **changes))


class Refusing(BaseHTTPRequestHandler):
    """A proxy that lets nobody through without a password."""

    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.asked.append(self.path)
        self.send_response(407)
        self.send_header("Proxy-Authenticate", 'Basic realm="hospital"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_CONNECT


@pytest.fixture
def refusing():
    handler = type("OneProxy", (Refusing,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        handler.port = listening.server_port
        yield handler
        listening.shutdown()


@pytest.fixture
def silent():
    """The port of a proxy that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("repository", [HUB, ZENODO])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_wants_a_password_is_asked_once_and_named_without_the_password(
    repository, variable, refusing, monkeypatch, capfd
):
    # A host of its own: threads that earlier tests left behind may ask the hub through this proxy as well.
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "https://mirror.test/{repo_id}/{filename}"
    )
    monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{refusing.port}")
    with pytest.raises(UnreachableError) as error:
        fetch(card(repository))
    message = str(error.value)
    assert f"the proxy 127.0.0.1:{refusing.port} asks for a user name and a password (407)" in message
    assert message.count("https://") == 1
    assert "secret" not in message
    assert "ENCODER_WEIGHTS=/path/to/w.safetensors" in message
    assert refusing.asked.count("mirror.test:443" if repository == HUB else "zenodo.org:443") == 1
    assert only_the_terms(capfd.readouterr(), repository)


def test_it_says_407_to_plain_http_too(refusing, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{refusing.port}")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://mirror.test/{repo_id}/{filename}"
    )
    monkeypatch.setenv("TAPCT_ZENODO", "http://mirror.test")
    for repository in (HUB, ZENODO):
        with pytest.raises(UnreachableError, match=r"the proxy 127.0.0.1:\d+ asks for a user name and a password"):
            fetch(card(repository))


@pytest.mark.parametrize("repository", [HUB, ZENODO])
def test_a_proxy_that_never_answers_is_left_in_time(repository, silent, monkeypatch, capfd):
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent}")
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=rf"the proxy 127.0.0.1:{silent} (has not answered|does not answer)"):
        fetch(card(repository), answer_s=0.5)
    assert time.monotonic() - started < 15, "no second try"
    assert only_the_terms(capfd.readouterr(), repository)


def test_a_gated_file_is_called_gated_where_nothing_answers(silent, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent}")
    with pytest.raises(UnreachableError, match=r"It is gated: accept its terms there"):
        fetch(card(HUB, gated=True), answer_s=0.2)


def only_the_terms(told, repository) -> bool:
    """Whether nothing was printed but the one line that stands before every download."""
    return told.out == "" and told.err == f"small-3d: https://{repository}, w.safetensors, no licence is stated\n"


def no_such_name(*_, **__):
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize("repository", [HUB, ZENODO])
def test_without_dns_there_is_one_message_at_once(repository, monkeypatch, capfd):
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(UnreachableError) as error:
        fetch(card(repository))
    host = repository.partition("/")[0]
    assert f"the name {host} cannot be resolved (Temporary failure in name resolution)" in str(error.value)
    assert str(error.value).count(f"https://{host}") == 1
    assert only_the_terms(capfd.readouterr(), repository)


def test_a_name_server_that_never_answers_is_left_in_time(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and no_such_name())
    with pytest.raises(UnreachableError, match=r"cannot be resolved: no DNS server answered within 0.1 s"):
        fetch(card(HUB), name_s=0.1)
    over.set()


def test_the_name_of_a_proxy_is_resolved_and_not_that_of_the_server(silent, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.test:3128")
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(UnreachableError, match=r"the name of the proxy proxy.test:3128 cannot be resolved") as error:
        fetch(card(HUB))
    assert "secret" not in str(error.value)


def test_a_file_that_was_fetched_before_is_used_where_nothing_answers(tmp_path, monkeypatch):
    there = tmp_path / "hub" / "models--group--model"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text("a" * 40)
    kept = there / "snapshots" / ("a" * 40) / "w.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    assert fetch(card(HUB)) == kept


@pytest.mark.parametrize("proxy", ["carrier-pigeon://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    for repository in (HUB, ZENODO):
        with pytest.raises(UnreachableError, match=r"the proxy 127.0.0.1:9"):
            fetch(card(repository))


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "huggingface.co"),
        ({"HTTPS_PROXY": "http://a:b@p.test:3128/"}, "the proxy p.test:3128"),
        ({"https_proxy": "p.test:3128"}, "the proxy p.test:3128"),
        ({"HTTP_PROXY": "http://p.test"}, "huggingface.co"),
        ({"ALL_PROXY": "http://p.test", "NO_PROXY": ".co"}, "huggingface.co"),
    ],
)
def test_what_is_connected_to_first(environment, words, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert network.first_hop("https://huggingface.co/group/model").words == words
