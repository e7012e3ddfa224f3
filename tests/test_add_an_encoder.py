"""docs/add-an-encoder.md, run as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import tapct

GUIDE = (Path(__file__).parents[1] / "docs" / "add-an-encoder.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The guide's package, built and installed into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "my_encoder.py").write_text(block("python"))
    (source / "pyproject.toml").write_text(block("toml"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=120)
    return target


def test_the_file_has_at_most_40_lines():
    assert len(block("python").splitlines()) <= 40


def test_the_installed_encoder_is_listed_and_encodes(installed, monkeypatch):
    assert "my-segnet" not in tapct.list_encoders()
    monkeypatch.syspath_prepend(str(installed))
    assert "my-segnet" in tapct.list_encoders()
    encoder = tapct.load_encoder("my-segnet", "random")
    assert encoder.card.num_params == sum(p.numel() for p in encoder.parameters())
    features = encoder(torch.randn(1, 1, 32, 32, 32) * 500)
    assert (features.map.shape, features.embedding.shape) == ((1, 128, 4, 4, 4), (1, 128))


def test_it_is_named_by_class_path_without_registration(installed, monkeypatch):
    import jsonargparse

    from tapct.encoders import Encoder

    monkeypatch.syspath_prepend(str(installed))
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("encoder", type=str | Encoder)
    choice = yaml.safe_load(block("yaml"))["model"]["init_args"]["encoder"]
    encoder = parser.instantiate_classes(parser.parse_object({"encoder": choice})).encoder
    assert encoder.card.name == "my-segnet"
    assert torch.isfinite(encoder(torch.full((1, 1, 32, 32, 32), -1000.0)).map).all()
