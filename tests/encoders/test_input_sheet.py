"""The input sheet: what is declared, what is taken from the built encoder, and what its network really receives."""

import math

import pytest
import torch

from baselines.astra import Astra
from baselines.ct_fm import CTFM
from baselines.flexict import FlexiCT3D
from baselines.merlin import Merlin
from tapct.encoders import Declared, HuWindow, InputSheet, list_encoders
from tapct.encoders.input_sheet import NOT_DECLARED, rows
from tapct.encoders.options import load_spec
from tapct.encoders.received import in_spl, orientation_of, received, window_fits
from tapct.errors import EncoderError
from tapct.features.extract import fitted_window
from tapct.volumes import Size
from tests.small import CubicMillimetres, Drifting, Small3D


class Shown(Drifting):
    """An encoder whose preprocessing a test chooses."""

    declared = HuWindow(-1000.0, 400.0, "ours: a test")

    def input_sheet(self):
        return InputSheet(hu_window=self.declared)

    def _encode(self, windows_hu):
        features = self.network(self.prepared(windows_hu))
        raise AssertionError(f"the network ran, and gave {features.shape}")

    def prepared(self, windows_hu):
        return windows_hu.clamp(-1000, 400) / 1000


def sheet(encoder):
    return {row.name: row for row in rows(encoder)}


def scan(*size):
    return 400 * torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))


NETWORKLESS = ("chance", "body-size", "organ-centre", "radiomics")
SHIPPED = [
    *(name for name in list_encoders() if name not in NETWORKLESS),
    "eva:segresnet_encoder",
    "eva:radiology/voco_b",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_encoder_declares_the_hu_that_its_network_can_tell_apart(name):
    encoder = load_spec(name, deferred=True)
    declared = encoder.input_sheet().hu_window
    assert declared is not None
    assert window_fits(encoder, declared, fitted_window(encoder, Size(1, 1, 1)))
    assert not [
        row.name for row in rows(encoder) if row.source == NOT_DECLARED and row.name != "Resizing filter, authors'"
    ]
    assert not encoder.is_built
    # Nothing was asked for that is on the hub.
    assert name in ("tap-t-3d", "intensity", "random-pyramid") or encoder.awaits_weights


@pytest.mark.parametrize("ends", [(-1000, 300), (-900, 400), (-1000, 500), (-1024, 400), (-math.inf, math.inf)])
def test_a_window_that_the_network_does_not_have_is_found(ends):
    encoder = Shown("random")
    assert window_fits(encoder, Shown.declared, (8, 64, 64))
    assert window_fits(encoder, HuWindow(*ends, "ours: a lie"), (8, 64, 64)) is False


@pytest.mark.parametrize(
    ("cls", "size", "expected"),
    [
        (Merlin, (16, 32, 64), lambda hu: (hu.clamp(-1000, 1000) + 1000) / 2000),
        (Astra, (16, 32, 64), lambda hu: (hu.clamp(-1000, 200) + 1000) / 1200),
        (CTFM, (16, 32, 48), lambda hu: (hu.clamp(-1024, 2048) + 1024) / 3072),
        (FlexiCT3D, (8, 16, 24), lambda hu: (hu - hu.mean()) / hu.std()),
    ],
)
def test_what_is_received_comes_back_in_spl_whatever_the_axes(cls, size, expected):
    hu = scan(*size).clamp(-1000, 1000)
    encoder = cls(deferred=True)
    found = received(encoder, hu)
    torch.testing.assert_close(in_spl(encoder, found)[0], expected(hu)[0, 0], rtol=1e-5, atol=1e-6)
    assert orientation_of(encoder, hu, found) == (encoder.axes, True)


def test_a_built_encoder_receives_what_a_deferred_one_does():
    hu = scan(8, 64, 64)
    torch.testing.assert_close(received(Small3D("random"), hu), received(Small3D("random", deferred=True), hu))


def test_a_network_that_asks_for_values_as_it_is_built_is_built_with_them():
    class Asking(Drifting):
        def build(self):
            assert torch.linspace(0, 1, 3).numpy()[1] == 0.5
            return super().build()

    hu = scan(8, 64, 64)
    torch.testing.assert_close(received(Asking("random", deferred=True), hu), hu / 1000)


def test_an_array_that_does_not_lie_as_declared_is_found():
    class Mirrored(Shown):
        def prepared(self, windows_hu):
            return windows_hu.flip(-1)

    class Transposed(Shown):
        def prepared(self, windows_hu):
            return windows_hu.transpose(-1, -2)

    hu = scan(8, 64, 64)
    for cls, lies in ((Shown, "SPL"), (Mirrored, "SPR"), (Transposed, "SLP")):
        encoder = cls("random")
        assert orientation_of(encoder, hu, received(encoder, hu)) == (lies, lies == "SPL")


def test_of_a_network_that_is_never_called_nothing_is_received():
    assert received(load_spec("chance", deferred=True), scan(12, 224, 224)) is None


def test_what_is_computed_is_taken_from_the_encoder_as_it_is_set():
    told = sheet(load_spec("ct-fm+spacing_mm=3x2x2+precision=bf16", deferred=True))
    assert told["Spacing"] == ("Spacing", "3 x 2 x 2 mm (z, y, x)", "ours: the option spacing_mm")
    assert told["Stride"].text == "16 x 16 x 16 voxels (z, y, x): 48 x 32 x 32 mm"
    assert told["Centre of a patch"].text.startswith("voxel (0, 0, 0) of its stride")
    assert told["Data type"].text.endswith("computes in bfloat16 autocast")
    assert sheet(Merlin(deferred=True))["Axis order"].text == "z, x, y"
    assert "least_hu" in sheet(FlexiCT3D(deferred=True))["Scan statistics"].text
    assert "then the mean" in sheet(FlexiCT3D(deferred=True, embedding="cls_and_mean"))["Embedding"].text


def test_an_adapter_need_not_declare_anything():
    told = sheet(CubicMillimetres("random"))
    assert told["HU window"][1:] == (NOT_DECLARED, NOT_DECLARED)
    assert told["Spacing"] == ("Spacing", "4 x 4 x 4 mm (z, y, x)", NOT_DECLARED)


def test_a_source_says_of_what_kind_it_is():
    for wrong in (
        lambda: Declared("linear", "train.py"),
        lambda: HuWindow(-1000, 1000, "authors"),
        lambda: InputSheet(padding="somebody: said so"),
    ):
        with pytest.raises(EncoderError, match="must begin with one of 'authors: "):
            wrong()
    with pytest.raises(EncoderError, match="must rise"):
        HuWindow(1000, -1000, "ours: a slip")
