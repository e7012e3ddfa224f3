"""`tapct download`: against a server on loopback that speaks Zenodo's protocol, and without a network."""

import json
import shutil
import socket
import sys
from importlib.metadata import EntryPoint

import pytest

from tapct.cli import main
from tapct.encoders import Weights, load_encoder, registry
from tests.encoders.test_download import server  # noqa: F401
from tests.small import CubicMillimetres, Small3D, small_card, small_encoder

ZENODO = "zenodo.org/records/1"


class OnZenodo(Small3D):
    """An encoder whose weights can be fetched."""

    card = small_card(name="on-zenodo", weights=Weights(repository=ZENODO, file="w.safetensors", licence="CC-BY-4.0"))


class Gated(Small3D):
    """One whose weights are behind a gate."""

    card = small_card(
        name="gated", weights=Weights(repository="huggingface.co/gated/model", file="w.safetensors", gated=True)
    )


class ByHand(Small3D):
    """One whose weights are on a page for readers."""

    card = small_card(name="by-hand", weights=Weights(repository="elsewhere.org/model"))


class Bare(CubicMillimetres):
    """One without parameters."""

    card = small_card(
        name="bare",
        num_params=0,
        **{"spacing_mm": (4.0, 4.0, 4.0), "in_plane_size": None, "window_size": (16, 32, 32), "has_cls": False},
        **{"feature_stride": (2, 2, 2), "feature_dim": 1, "embedding_dim": 1, "weights": Weights(needed=False)},
    )


@pytest.fixture
def tapct(monkeypatch, capsys):
    names = {"on-zenodo": OnZenodo, "gated": Gated, "by-hand": ByHand, "bare": Bare}
    points = [EntryPoint(name, f"{__name__}:{cls.__name__}", registry.GROUP) for name, cls in names.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr("tapct.encoders.commands.list_declared", list)

    def run(*arguments: str) -> tuple[int, dict[str, dict[str, str]], str]:
        monkeypatch.setattr(sys, "argv", ["tapct", "download", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, {check["name"]: check for check in json.loads(printed.out)}, printed.err

    return run


def test_all_into_a_folder_that_runs_take(tapct, server, tmp_path):  # noqa: F811
    folder = tmp_path / "carried"
    status, found, told = tapct("-e", "all", "--to", str(folder))
    assert {name: check["status"] for name, check in found.items()} == {
        **{"on-zenodo": "ok", "bare": "ok", "by-hand": "warn", "gated": "fail"},
    }
    assert status == 1
    assert found["on-zenodo"]["message"] == f"{folder}/on-zenodo/w.safetensors; licence CC-BY-4.0"
    assert "gated: accept its terms" in found["gated"]["message"]
    assert "published as elsewhere.org/model" in found["by-hand"]["message"]
    assert f"on-zenodo: https://{ZENODO}, w.safetensors, licence CC-BY-4.0" in told
    assert "gated: https://huggingface.co/gated/model, w.safetensors, no licence is stated, gated" in told
    shutil.rmtree(tmp_path / "cache")
    carried = load_encoder("on-zenodo", folder)
    assert carried.describe()["weights_sha256"] == small_encoder().describe()["weights_sha256"]
    assert load_encoder("bare", folder).weights_source == "none", "a folder for all holds nothing for it"
    assert tapct("-e", "on-zenodo", "--to", str(folder))[0] == 0
    assert server.downloads() == 1


def test_what_is_published_nowhere_is_a_failure_where_it_is_named(tapct):
    status, found, _ = tapct("-e", "by-hand,bare")
    assert (status, found["by-hand"]["status"], found["bare"]["status"]) == (1, "fail", "ok")
    assert "ENCODER_WEIGHTS" in found["by-hand"]["message"]


def test_a_dry_run_asks_nobody(tapct, server):  # noqa: F811
    status, found, _ = tapct("-e", "all", "--dry-run")
    assert {name: check["status"] for name, check in found.items()} == {
        **{"on-zenodo": "warn", "bare": "ok", "by-hand": "warn", "gated": "warn"},
    }
    assert found["on-zenodo"]["message"] == f"https://{ZENODO}, w.safetensors: would be fetched; licence CC-BY-4.0"
    assert (status, server.requests) == (0, [])


def test_a_server_without_an_answer_is_not_asked_for_each_encoder(tapct, monkeypatch, tmp_path):
    asked = []

    def no_such_name(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "TAPCT_ZENODO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path))
    status, found, _ = tapct("-e", "on-zenodo,on-zenodo+precision=fp32,no-such")
    assert (status, asked) == (1, ["zenodo.org"])
    assert "was not asked again, see on-zenodo" in found["on-zenodo+precision=fp32"]["message"]
    assert "there is no encoder 'no-such'" in found["no-such"]["message"]


def test_terms_are_told_before_a_download_and_not_of_what_is_here(tapct, server, capsys):  # noqa: F811
    def asked() -> str:
        load_encoder("on-zenodo")
        return capsys.readouterr().err

    assert asked().count(f"on-zenodo: https://{ZENODO}, w.safetensors, licence CC-BY-4.0") == 1
    assert "licence" not in asked()
    assert server.downloads() == 1


def test_random_weights_are_nothing_to_fetch(tapct, tmp_path):
    for arguments in (["--dry-run"], ["--to", str(tmp_path)]):
        status, found, _ = tapct("-e", "gated@random", *arguments)
        assert (status, found["gated@random"]["message"]) == (0, "has random weights")
