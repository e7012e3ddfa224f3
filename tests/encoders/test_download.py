"""Downloads against real HTTP servers on loopback that speak the hub's and Zenodo's protocol."""

import hashlib
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import safetensors.torch
import torch

from tapct.encoders import Weights
from tapct.encoders.download import download, fetch
from tapct.errors import WeightsError
from tests.small import Small3D, small_card, small_encoder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Serves one file as Zenodo does, with ranges, and as the hub does, with its headers."""

    content = b""
    stop_after: int | None = None
    requests: list[tuple[str, str, str | None]] = []  # noqa: RUF012

    @classmethod
    def downloads(cls) -> int:
        return sum(command == "GET" and "/api/" not in path for command, path, _ in cls.requests)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.requests.append((self.command, self.path, self.headers.get("Range")))
        if "gated" in self.path:
            return self._refuse(403, "GatedRepo")
        if "nothing" in self.path:
            return self._refuse(404, "RepoNotFound")
        if not re.search(r"/(files|resolve)/", self.path):
            return self._refuse(404, "EntryNotFound")
        requested = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(requested.group(1)) if requested else 0
        if start >= len(self.content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = self.content[start:]
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if self.stop_after is None else body[: self.stop_after])

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server(tmp_path, monkeypatch):
    safetensors.torch.save_file(small_encoder().network.state_dict(), tmp_path / "published.safetensors")
    content = (tmp_path / "published.safetensors").read_bytes()
    handler = type("OneFile", (Handler,), {"content": content, "requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        handler.address = f"http://127.0.0.1:{listening.server_port}"
        monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("TAPCT_ZENODO", handler.address)
        for module in ("huggingface_hub.constants", "huggingface_hub.file_download"):
            monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", handler.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            handler.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield handler
        listening.shutdown()


def published(repository: str, **changes) -> type[Small3D]:
    weights = Weights(repository=repository, file="model.safetensors", **changes)
    return type("Published", (Small3D,), {"card": small_card(weights=weights)})


@pytest.mark.parametrize(
    "repository", ["zenodo.org/records/1", "huggingface.co/group/model", "huggingface.co/datasets/group/data"]
)
def test_published_weights_are_downloaded_once_and_load(repository, server):
    encoder = published(repository)
    assert encoder().describe()["weights_sha256"] == small_encoder().describe()["weights_sha256"]
    assert server.downloads() == 1
    assert all(path.startswith("/datasets/") == ("datasets" in repository) for _, path, _ in server.requests)
    encoder()
    assert server.downloads() == 1


def test_a_deferred_encoder_asks_for_published_weights_when_they_are_needed(server):
    encoder = published("zenodo.org/records/1")(deferred=True)
    assert encoder.awaits_weights
    assert server.requests == []
    assert encoder(torch.zeros(1, 1, 8, 64, 64)).map.shape == (1, 48, 2, 8, 8)
    assert not encoder.awaits_weights
    assert server.downloads() == 1


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    half = len(server.content) // 2
    server.stop_after = half
    address, path = f"{server.address}/records/1/files/w", tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match=rf"{half} of {len(server.content)} bytes arrived"):
        download(address, path)
    assert not path.exists()
    server.stop_after = None
    assert download(address, path).read_bytes() == server.content
    assert server.requests[-1][2] == f"bytes={half}-"


@pytest.mark.parametrize("extra", [b"", b"of another file"])
def test_what_is_left_of_a_download_that_ended_before_its_rename_is_used_or_fetched_again(extra, server, tmp_path):
    path = tmp_path / "w.safetensors"
    (tmp_path / "w.safetensors.part").write_bytes(server.content + extra)
    assert download(f"{server.address}/records/1/files/w", path).read_bytes() == server.content
    assert len(server.requests) == (2 if extra else 1)


def test_a_wrong_checksum_is_refused(server):
    with pytest.raises(WeightsError, match="not the published file"):
        published("zenodo.org/records/1", sha256="0" * 64)()
    good = hashlib.sha256(server.content).hexdigest()
    assert published("zenodo.org/records/1", sha256=good)().card.weights.sha256 == good


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("huggingface.co/gated/model", "gated: accept its terms there while logged in, then run `hf auth login`"),
        ("huggingface.co/nothing/model", "has no model.safetensors"),
        ("zenodo.org/nothing/1", "404"),
        ("elsewhere.org/model", "no file that could be downloaded is known. It is published as elsewhere.org/model"),
        (None, "no file that could be downloaded is known"),
    ],
)
def test_what_cannot_be_downloaded_says_why_and_where_to_put_the_file(repository, message, server):
    with pytest.raises(WeightsError) as error:
        published(repository)()
    assert message in str(error.value)
    assert "ENCODER_WEIGHTS=/path/to/model.safetensors" in str(error.value)


def test_without_a_network_the_cache_serves_and_else_the_error_says_so(server, monkeypatch, tmp_path):
    encoder = published("huggingface.co/group/model")
    encoder()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder()
    with pytest.raises(WeightsError, match=r"you have set HF_HUB_OFFLINE, .*ENCODER_WEIGHTS"):
        published("huggingface.co/group/other")()
    with pytest.raises(WeightsError, match=r"you have set HF_HUB_OFFLINE, .* It is gated: accept its terms"):
        published("huggingface.co/group/other", gated=True)()
    assert server.downloads() == 1
    unreachable = replace(small_card(), weights=Weights(repository="zenodo.org/records/2", file="w.pt"))
    monkeypatch.setenv("TAPCT_ZENODO", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"cannot download .*ENCODER_WEIGHTS=/path/to/w.pt"):
        fetch(unreachable)
