"""Options of encoders as text, and what a built encoder says was set: also of classes that keep nothing of it."""

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch

from tapct.encoders import Encoder
from tapct.encoders.exported import CARD_FILE, CONFIG_FILE
from tapct.encoders.identity import identity
from tapct.encoders.options import load_spec, parse_options, parse_spec, spell_options
from tapct.errors import EncoderError
from tests.small import Small3D


class Deep(Small3D):
    """Keeps its option under no name: only its network would show it."""

    def __init__(self, weights=None, *, layers: int = 2, **options: Any) -> None:
        super().__init__(weights, **options)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("tap-b-3d", ("tap-b-3d", False, "")),
        ("tap-s-2.5d@random", ("tap-s-2.5d", True, "")),
        ("curia@random+pad_hu=-1000+precision=fp32", ("curia", True, "pad_hu=-1000+precision=fp32")),
        ("curia+pad_hu=-1000@random", ("curia", True, "pad_hu=-1000")),
        (" curia @random + pad_hu=-1000 ", ("curia", True, "pad_hu=-1000")),
    ],
)
def test_a_name_is_taken_apart(text, spec):
    assert parse_spec(text) == spec


def test_a_built_encoder_says_what_was_set_however_it_was_given():
    assert Small3D("random").options == {}
    assert Small3D("random", precision="auto", in_plane_size=64, deferred=True).options == {}
    found = Small3D("random", window_size=[12, 64, 64], precision="fp32").options
    assert spell_options(found) == "precision=fp32+window_size=12x64x64"
    assert Small3D("random", in_plane_size=None).full_name == "Small 3D, in-plane size native"


def test_an_option_that_a_class_keeps_nowhere_tells_its_features_apart():
    plain, same, deep = (Deep("random", deferred=True, **given) for given in ({}, {"layers": 2}, {"layers": 3}))
    cpu = torch.device("cpu")
    assert identity(plain, cpu) == identity(same, cpu)
    assert identity(plain, cpu) != identity(deep, cpu)
    assert identity(deep, cpu)["settings"]["layers"] == 3
    assert deep.describe_options() == {"layers": 3}


def test_an_exported_folder_takes_options_whatever_its_path(tmp_path):
    folder = tmp_path / "run+lr=0.1@random"
    folder.mkdir()
    (folder / CARD_FILE).write_text(json.dumps(asdict(Small3D.card)))
    intensities = {"clip_hu": [-1000, 1000], "mean_hu": 0.0, "std_hu": 1.0}
    (folder / CONFIG_FILE).write_text(json.dumps({"architecture": {}, "intensities": intensities}))
    assert parse_spec(f"{folder}@random+in_plane_size=96") == (str(folder), True, "in_plane_size=96")
    encoder = load_spec(f"{folder}+in_plane_size=96@random", deferred=True)
    assert (encoder.card.in_plane_size, encoder.options) == (96, {"in_plane_size": 96})
    assert parse_options(str(folder), {"in_plane_size": 64}) == {}
    with pytest.raises(EncoderError, match="Did you mean 'in_plane_size'"):
        parse_options(str(folder), "in_plane=96")


@pytest.mark.parametrize(
    ("text", "weights", "options", "words"),
    [
        ("tap-t-3d@random", "/w.safetensors", None, "leave one of the two out"),
        ("tap-t-3d+in_plane_size=112", None, {"in_plane_size": 448}, "is named next to it as well"),
        ("tap-t-3d@random@random", None, None, "once"),
    ],
)
def test_what_is_named_twice_is_refused(text, weights, options, words):
    with pytest.raises(EncoderError, match=words):
        load_spec(text, weights, options, deferred=True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pad_hu", math.nan),
        ("pad_hu", math.inf),
        ("spacing_mm", [1.0, math.nan, 1.0]),
        ("spacing_mm", [1.0, math.inf, 1.0]),
        ("window_size", [0, 16, 16]),
        ("window_size", [-16, 16, 16]),
        (512, 512),
    ],
)
def test_what_no_scan_can_be_prepared_with_is_refused(option, value):
    with pytest.raises(EncoderError, match=str(option)):
        parse_options("tap-t-3d", {option: value})


def test_a_name_on_the_command_line_is_the_encoder_with_its_options():
    encoder: Encoder = load_spec("tap-t-3d@random+in_plane_size=112", None, {"precision": "fp32"}, deferred=True)
    assert encoder.options == {"in_plane_size": 112, "precision": "fp32"}
    assert encoder.weights_source == "random"


def test_a_choice_among_numbers_is_typed_as_it_is_spelt():
    assert parse_options("coralbay", "stride=16") == {"stride": 16}
    assert parse_options("coralbay", "stride=32") == {}
    with pytest.raises(EncoderError, match="Known: 16, 32"):
        parse_options("coralbay", "stride=8")
