"""Cards that lie: found with the first batch, wherever it comes from, and by `tapct doctor` at a second size."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from tapct.cli import main
from tapct.encoders import Features
from tapct.errors import EncoderError
from tapct.features.embed import embed
from tapct.features.extract import extract
from tapct.volumes import Grid
from tests.data.abdomen import block, save
from tests.small import Drifting, Small3D, known_by_name

AIR = torch.full((2, 1, 8, 64, 64), -1000.0)


def liar(cls, **changes):
    return type("Liar", (cls,), {"card": replace(cls.card, **changes)})


LIES = {
    "channels": (liar(Drifting, feature_dim=7), "says feature_dim 7, and the map has 6 channels"),
    "stride": (
        liar(Drifting, feature_stride=(4, 16, 16)),
        r"says feature_stride \(4, 16, 16\), by which a window of \(8, 64, 64\) has \(2, 4, 4\) patches, and the map "
        r"has \(2, 8, 8\)",
    ),
    "a class token that is none": (liar(Drifting, has_cls=True), "says has_cls, and it gave none"),
    "none that is one": (liar(Small3D, has_cls=False), "says has_cls=False, and it gave one"),
    "embedding": (
        liar(Drifting, embedding_dim=12),
        r"says embedding_dim 12, and of 2 windows the embedding is \(2, 6\)",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_first_batch_finds_every_lie(lie):
    cls, message = LIES[lie]
    with pytest.raises(EncoderError, match=message):
        cls("random")(AIR)


@pytest.mark.parametrize("fit_windows", [True, False])
def test_a_scan_that_is_one_window_finds_a_wrong_stride_too(fit_windows):
    scan = torch.full((8, 64, 64), -1000.0)
    native = Grid.of((8, 64, 64), torch.eye(4).double().numpy())
    with pytest.raises(EncoderError, match="says feature_stride"):
        extract(liar(Drifting, feature_stride=(4, 16, 16))("random"), scan, native, fit_windows=fit_windows)


def test_the_first_scan_of_a_command_counts_parameters(tmp_path):
    slab = block(60)
    save(tmp_path / "ct.nii.gz", slab.hu, slab.affine)
    (done,) = embed(liar(Drifting, num_params=1_553)("random"), [tmp_path / "ct.nii.gz"], tmp_path / "out")
    assert done.status == "failed"
    assert "says num_params 1553, and the network has 1554" in done.reason


class Miscounted(Drifting):
    """Its card is of another size."""

    card = replace(Drifting.card, num_params=1_553)


class Flat(Drifting):
    """Its map has lost an axis."""

    def _encode(self, windows_hu):
        return super()._encode(windows_hu)._replace(map=self.network(windows_hu).mean(2))


class OneForAll(Drifting):
    """Its embedding is of the batch, and not of each window."""

    def _encode(self, windows_hu):
        features = super()._encode(windows_hu)
        return features._replace(embedding=features.embedding.mean(0, keepdim=True))


class FixedMap(Drifting):
    """Its map has the patches of its own window, whatever the size of the window that it gets."""

    def _encode(self, windows_hu):
        features = super()._encode(windows_hu)
        feature_map = torch.nn.functional.adaptive_avg_pool3d(features.map, (2, 8, 8))
        return Features(feature_map, features.embedding, None)


class FixedInput(Drifting):
    """A network of one size, of which its `supports` does not know."""

    def _encode(self, windows_hu):
        return super()._encode(windows_hu.view(-1, 1, 8, 64, 64))


def test_shapes_that_no_card_could_say_are_refused():
    with pytest.raises(EncoderError, match=r"gave a map \(2, 6, 8, 8\), which is not \(B, C, d, h, w\)"):
        Flat("random")(AIR)
    with pytest.raises(EncoderError, match=r"of 2 windows the embedding is \(1, 6\)"):
        OneForAll("random")(AIR)


def doctor(cls, monkeypatch, capsys) -> dict[str, str]:
    monkeypatch.setattr(sys, "argv", ["tapct", "doctor", "--encoder", "drifting@random", "--json"])
    with known_by_name("drifting", f"{__name__}:{cls}"), pytest.raises(SystemExit):
        main()
    return next(check for check in json.loads(capsys.readouterr().out) if check["name"].startswith("encoder "))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("FixedMap", "by which a window of (4, 32, 32) has (1, 4, 4) patches, and the map has (2, 8, 8)"),
        ("Miscounted", "says num_params 1553, and the network has 1554"),
        ("FixedInput", "a window of (4, 32, 32), which it says that it takes (`supports`), ends in RuntimeError"),
    ],
)
def test_the_doctor_finds_what_is_so_at_one_size_alone(cls, message, monkeypatch, capsys):
    found = doctor(cls, monkeypatch, capsys)
    assert (found["status"], message in found["message"]) == ("fail", True), found


def test_the_doctor_says_what_it_tried(monkeypatch, capsys):
    found = doctor("Drifting", monkeypatch, capsys)
    assert found["status"] == "ok"
    assert "1,554 parameters, weights random; of windows of 8x64x64 and 4x32x32" in found["message"]
