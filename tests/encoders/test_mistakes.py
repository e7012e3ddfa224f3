"""Each usual mistake with an encoder's input, by what the network receives of oblique scans of uneven spacing."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from tapct.encoders import HuWindow, InputSheet, load_encoder
from tapct.encoders.identity import identity
from tapct.encoders.input_sheet import rows
from tapct.encoders.mistake_names import MISTAKE_NAMES, MISTAKE_WORDS, NO_EFFECT
from tapct.encoders.mistakes import BROAD_HU, MISTAKES, SOFT_TISSUE_HU
from tapct.encoders.options import load_spec, parse_options
from tapct.encoders.received import received
from tapct.encoders.verified import verification_of
from tapct.errors import EncoderError
from tapct.features import encoder_grid, extract
from tapct.report.input_sheet import write_sheet
from tapct.volumes import Grid, LinearMap, read_ct
from tests.small import CubicMillimetres, Small3D, Standardised, small_card

SPACING_MM = (3.0, 0.75, 1.25)  # z, y, x
SHAPE = (13, 90, 70)

TURNS = {
    "mirrored": lambda spl: spl[:, :, ::-1],
    "mirrored-alone": lambda spl: spl[:, :, ::-1],
    "upside-down": lambda spl: spl[::-1],
    "lps-for-ras": lambda spl: spl[:, ::-1, ::-1],
    "transposed": lambda spl: spl.transpose(0, 2, 1),
    "xyz-for-zyx": lambda spl: spl.transpose(2, 1, 0),
}


class Watching(CubicMillimetres):
    """An encoder that keeps what its network receives; its features are means of blocks of what that was."""

    card = small_card(
        name="watching",
        display_name="Watching",
        in_plane_size=32,
        window_size=(8, 32, 32),
        feature_stride=(2, 2, 2),
        feature_dim=1,
        embedding_dim=1,
        has_cls=False,
        num_params=0,
        pad_hu=-1000.0,
    )

    def _encode(self, windows_hu):
        seen.append(windows_hu[:, 0].clone())
        return super()._encode(windows_hu)


class Resampled(Watching):
    card = replace(Watching.card, name="resampled", in_plane_size=None, spacing_mm=(4.0, 2.0, 2.5))


class Windowed(Watching):
    """Likewise, of a network with a HU window that becomes -1 to 1."""

    card = replace(Watching.card, name="windowed")
    low, high = -1000.0, 600.0

    def input_sheet(self):
        return InputSheet(hu_window=HuWindow(self.low, self.high, "ours: a test"))

    def _encode(self, windows_hu):
        unit = (windows_hu.clamp(self.low, self.high) - self.low) / (self.high - self.low)
        return super()._encode(2 * unit - 1)


class Narrow(Windowed):
    low, high = -175.0, 250.0


seen: list[torch.Tensor] = []


@pytest.fixture(autouse=True)
def _nothing_seen():
    seen.clear()


def made(cls, mistake=None, **options):
    return cls("random", mistake=mistake, **options)


@pytest.fixture(scope="module")
def spl():
    """Smooth anatomy without a symmetry, (z, y, x)."""
    coarse = torch.randn(1, 1, 5, 8, 7, generator=torch.Generator().manual_seed(0))
    return (400 * F.interpolate(coarse, size=SHAPE, mode="trilinear")[0, 0]).numpy()


def written(spl, codes, folder):
    """The same oblique scan as a scanner stores it whose axes run so, read from its file."""
    turned = np.array([[0.98, 0.15, -0.1], [-0.14, 0.98, 0.12], [0.12, -0.1, 0.985]])
    u, _, v = np.linalg.svd(turned)
    lps = np.diag([-1.0, -1.0, 1.0])  # columns x, y, z of the array run to L, P, S
    affine = np.eye(4)
    affine[:3, :3] = lps @ (u @ v) @ np.diag(SPACING_MM[::-1])
    affine[:3, 3] = 30, -20, 10
    image = nib.Nifti1Image(spl.transpose(2, 1, 0).astype(np.float32), affine)
    path = folder / f"{codes}.nii.gz"
    nib.save(image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes))), path)
    ct = read_ct(path)
    assert ct.hu.shape == SHAPE
    np.testing.assert_allclose(ct.grid.spacing_mm, SPACING_MM, rtol=1e-5)
    return ct


@pytest.fixture(params=["LAS", "RPI", "SPL", "ALI"])
def stored(request, spl, tmp_path):
    """An oblique scan, stored in several ways."""
    return written(spl, request.param, tmp_path)


@pytest.fixture(scope="module")
def scan(spl, tmp_path_factory):
    """The same, stored in one way."""
    return written(spl, "RPI", tmp_path_factory.mktemp("scan"))


def run(encoder, ct):
    seen.clear()
    return extract(encoder, torch.from_numpy(ct.hu), ct.grid)


def along_first(windows, size):
    """Puts windows together that tile the first axis alone, the last one shifted inside; probes came before them."""
    step = windows[-1].shape[1]
    starts = [*range(0, size - step, step), size - step]
    whole = torch.full((size, *windows[-1].shape[2:]), torch.nan)
    for start, window in zip(starts, windows[-len(starts) :], strict=True):
        whole[start : start + step] = window[0]
    return whole


def resized(array, size=32):
    """Slices resized by PyTorch's own antialiased interpolation."""
    slices = torch.from_numpy(np.ascontiguousarray(array))[None]
    return F.interpolate(slices, size=(size, size), mode="bilinear", antialias=True)[0]


@pytest.mark.parametrize("mistake", TURNS)
def test_a_turned_scan_is_resized_padded_and_tiled_as_it_lies(mistake, stored):
    run(made(Watching, mistake), stored)
    turned = TURNS[mistake](stored.hu)
    padded = -(-len(turned) // 2) * 2
    found = along_first(seen, padded)
    expected = torch.full_like(found, -1000.0)  # padding stands behind the last slice of what was handed over
    expected[: len(turned)] = resized(turned)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def upsampled(features, grid):
    return LinearMap.between(features.feature_grid, grid)(features.map)[0].numpy()


def likeness(one, other):
    inside = tuple(slice(2, -2) for _ in range(3))
    return np.corrcoef(one[inside].ravel(), other[inside].ravel())[0, 1]


@pytest.mark.parametrize("cls", [Watching, Resampled])
@pytest.mark.parametrize("mistake", [None, *TURNS])
def test_the_map_lies_on_the_labels_unless_they_were_left_alone(mistake, cls, stored):
    """Features are means of voxels, so that the map back on the scan shows where it is taken to lie."""
    features = run(made(cls, mistake), stored)
    back = upsampled(features, stored.grid)
    if mistake == "mirrored-alone":
        assert likeness(back, stored.hu[:, :, ::-1]) > 0.9
        assert likeness(back, stored.hu) < 0.5
    else:
        assert likeness(back, stored.hu) > 0.9
    assert features.encoder_grid.shape == encoder_grid(stored.grid, cls.card, made(cls, mistake).way).shape


def test_spacing_taken_as_1_mm_is_what_a_header_of_1_mm_gives(scan):
    wrong = run(made(Resampled, "spacing-1mm"), scan)
    found = list(seen)
    seen.clear()
    believed = extract(made(Resampled), torch.from_numpy(scan.hu), Grid.of(SHAPE, np.eye(4)))
    assert len(found) == len(seen) > 0
    for one, other in zip(found, seen, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02)
    torch.testing.assert_close(wrong.embeddings, believed.embeddings)
    assert wrong.encoder_grid.spacing_mm == pytest.approx([12.0, 1.5, 3.125])
    believed_at = believed.feature_grid.coordinates_in(Grid.of(SHAPE, np.eye(4)))
    for at, expected in zip(wrong.feature_grid.coordinates_in(scan.grid), believed_at, strict=True):
        np.testing.assert_allclose(at, expected, atol=1e-3)  # each patch is on the voxels that it is made of


def test_turned_axes_keep_the_spacing_that_the_header_says_of_each(scan):
    features = run(made(Resampled, "xyz-for-zyx"), scan)
    right = run(made(Resampled), scan)
    assert features.encoder_grid.shape == right.encoder_grid.shape
    assert features.encoder_grid.spacing_mm == pytest.approx((4.0, 2.0, 2.5))
    assert run(made(Watching, "xyz-for-zyx"), scan).encoder_grid.shape == (32, 32, SHAPE[2])


@pytest.mark.parametrize(("cls", "window"), [(Windowed, SOFT_TISSUE_HU), (Narrow, BROAD_HU)])
def test_another_hu_window_gives_the_values_of_the_right_one(cls, window, scan):
    run(made(cls, "hu-window"), scan)
    found = along_first(seen, 14)[: SHAPE[0]]
    low, high = window
    expected = 2 * (resized(scan.hu).clamp(low, high) - low) / (high - low) - 1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    assert float(found.min()) >= -1 - 1e-6
    assert float(found.max()) <= 1 + 1e-6


def test_a_network_without_a_window_gets_clipped_hu_and_their_statistics(scan):
    encoder = made(Standardised, "hu-window")
    windows = torch.from_numpy(scan.hu)[None, None, :12, :32, :32].contiguous()
    clipped = windows.clamp(*SOFT_TISSUE_HU)
    expected = Standardised("random")(clipped)
    torch.testing.assert_close(encoder(windows).map, expected.map)


def test_padding_after_normalising_is_0_in_what_the_network_receives(scan):
    run(made(Windowed, "padding-after-normalising"), scan)
    found = along_first(seen, 14)
    assert float(found[SHAPE[0] :].abs().max()) < 1e-5
    right = 2 * (resized(scan.hu).clamp(-1000, 600) + 1000) / 1600 - 1
    torch.testing.assert_close(found[: SHAPE[0]], right, rtol=0, atol=2e-3)
    run(made(Windowed), scan)
    assert float(along_first(seen, 14)[SHAPE[0] :].max()) == -1


def test_padding_after_a_z_score_is_the_mean_of_the_scan(scan):
    encoder = made(Standardised, "padding-after-normalising")
    features = run(encoder, scan)
    assert any(features.padding)
    patches = features.encoder_grid.shape.z // 2 + 1
    assert float(features.map[:, patches:].abs().max()) < 1e-4
    assert float(run(made(Standardised), scan).map[:, patches:].abs().min()) > 1


@pytest.mark.parametrize("cls", [Watching, Resampled])
def test_the_other_filter_is_the_option_of_the_same_name(cls, scan):
    run(made(cls, "other-filter"), scan)
    wrong = torch.cat(seen)
    run(made(cls, in_plane_filter="linear"), scan)
    assert torch.equal(wrong, torch.cat(seen))
    run(made(cls), scan)
    assert not torch.equal(wrong, torch.cat(seen))


@pytest.mark.parametrize("mistake", [m for m in MISTAKE_NAMES if m != "spacing-1mm"])
def test_every_mistake_changes_what_the_shipped_encoder_says_or_says_that_it_does_not(mistake, scan):
    right, wrong = (load_encoder("tap-t-3d", "random", mistake=of) for of in (None, mistake))
    one, other = (extract(of, torch.from_numpy(scan.hu), scan.grid) for of in (right, wrong))
    assert not wrong.options.keys() ^ {"mistake"}
    if mistake == "other-filter":  # slices of 90 x 70 pixels grow to 128
        assert other.notes == (f"{NO_EFFECT}it does not shrink along any axis",)
        assert torch.equal(one.map, other.map)
        return
    assert other.notes == ()
    assert one.embeddings.shape != other.embeddings.shape or not torch.equal(one.embeddings, other.embeddings)


@pytest.mark.parametrize(
    ("mistake", "cls", "shape", "spacing_mm", "why"),
    [
        ("mirrored", Watching, (8, 40, 40), (1, 1, 1), "turned, it is the same"),
        ("transposed", Watching, (8, 40, 40), (1, 1, 1), "turned, it is the same"),
        ("spacing-1mm", Resampled, (8, 40, 40), (1, 1, 1), "its spacing is 1 mm"),
        ("padding-after-normalising", Windowed, (8, 40, 40), (1, 1, 1), "it fills its windows"),
        ("other-filter", Watching, (8, 20, 20), (1, 1, 1), "does not shrink along any axis"),
    ],
)
def test_a_scan_in_which_a_mistake_changes_nothing_says_so(mistake, cls, shape, spacing_mm, why):
    radius = [np.abs(np.arange(n) - (n - 1) / 2) for n in shape]
    hu = torch.from_numpy(sum(np.ix_(*radius)).astype(np.float32) * 10)
    grid = Grid.of(shape, np.diag([*spacing_mm, 1.0]))
    wrong, right = (extract(made(cls, of), hu, grid) for of in (mistake, None))
    assert wrong.notes[0].startswith(NO_EFFECT)
    assert why in wrong.notes[0]
    torch.testing.assert_close(wrong.map, right.map, rtol=0, atol=0.01)
    assert right.notes == ()


@pytest.mark.parametrize(
    ("encoder", "mistake", "why"),
    [
        ("curia", "upside-down", "one slice at a time"),
        ("curia", "spacing-1mm", "own spacing"),
        ("curia", "padding-after-normalising", "nothing is ever padded"),
        ("nnfoundation-vit", "other-filter", "nothing is resampled"),
        ("chance", "mirrored", "network is never called"),
    ],
)
def test_a_mistake_that_would_be_none_is_refused(encoder, mistake, why):
    with pytest.raises(EncoderError, match=f"cannot be given the mistake '{mistake}': .*{why}"):
        load_spec(f"{encoder}+mistake={mistake}", deferred=True)


class ToUnit(Windowed):
    def _encode(self, windows_hu):
        return Watching._encode(self, (windows_hu.clamp(self.low, self.high) - self.low) / (self.high - self.low))


class EachWindow(Watching):
    def _encode(self, windows_hu):
        return super()._encode(windows_hu - windows_hu.mean((1, 2, 3, 4), keepdim=True))


@pytest.mark.parametrize(
    ("cls", "why"),
    [(ToUnit, "its right padding, -1000 HU, is 0 after normalising too"), (EachWindow, "depends on those next to it")],
)
def test_padding_with_0_that_is_right_or_cannot_be_told_is_refused(cls, why):
    with pytest.raises(EncoderError, match=f"'padding-after-normalising': .*{why}"):
        made(cls, "padding-after-normalising")


@pytest.mark.parametrize("build", [lambda: parse_options("curia", "mistake=miror"), lambda: made(Watching, "miror")])
def test_an_unknown_mistake_is_an_error_with_a_suggestion(build):
    with pytest.raises(EncoderError, match="Did you mean 'mirrored'"):
        build()


@pytest.mark.parametrize("mistake", ["mirrored", "upside-down", "lps-for-ras", "transposed"])
def test_windows_alone_are_scans_of_their_own(mistake):
    windows = 300 * torch.randn(2, 1, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    encoder = made(Watching, mistake)
    found = encoder(windows)
    (handed,) = seen
    for one, other in zip(windows[:, 0].numpy(), handed.numpy(), strict=True):
        assert np.array_equal(TURNS[mistake](one), other)
    torch.testing.assert_close(found.map, F.avg_pool3d(windows, 2), rtol=0, atol=1e-3)
    torch.testing.assert_close(received(encoder, windows)[:, 0], handed)
    alone = made(Watching, "mirrored-alone")(windows)
    torch.testing.assert_close(alone.map, F.avg_pool3d(windows.flip(-1), 2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("mistake", ["spacing-1mm", "padding-after-normalising", "other-filter"])
def test_what_is_not_of_windows_is_refused_there(mistake):
    encoder = made(type("Both", (Windowed,), {"card": replace(Resampled.card, name="both")}), mistake)
    with pytest.raises(EncoderError, match="give whole scans"):
        encoder(torch.zeros(1, 1, 8, 32, 32))


def test_a_mistake_is_a_setting_of_keys_and_the_right_input_is_none():
    right, wrong = Small3D("random"), Small3D("random", mistake="mirrored")
    ours, theirs = (identity(of, torch.device("cpu")) for of in (right, wrong))
    assert "mistake" not in ours["settings"]
    assert theirs["settings"] == {**ours["settings"], "mistake": "mirrored"}
    assert {key for key in ours if ours[key] != theirs[key]} == {"settings"}
    assert wrong.describe_options() == {"mistake": "mirrored"}
    assert wrong.full_name == "Small 3D, mistake mirrored"
    assert Small3D("random", mistake=None).options == {}


def test_every_mistake_has_its_words():
    assert set(MISTAKES) == set(MISTAKE_NAMES) == set(MISTAKE_WORDS)


def test_a_wrong_input_is_never_verified():
    found = verification_of(load_spec("colipri+mistake=mirrored", deferred=True))
    assert found.status == "none"
    assert "wrong on purpose (mistake=mirrored)" in found.why


def test_the_sheet_says_the_mistake_and_what_is_received_is_no_fault_of_the_adapter(tmp_path):
    encoder = load_spec("tap-t-3d+mistake=mirrored", "random", deferred=True)
    (row,) = [row for row in rows(encoder) if row.name == "Mistake"]
    assert row.text == "mirrored: left and right changed over, in scan and labels alike"
    found = {finding.name: finding for finding in write_sheet(encoder, tmp_path / "sheet.html")}
    assert found["Orientation"].text == "the array is likest to SPR, not to SPL as declared"
    assert not any(finding.contradicts for finding in found.values())
    assert "The input is wrong on purpose" in (tmp_path / "sheet.html").read_text(encoding="utf-8")
    window = load_spec("tap-t-3d+mistake=hu-window", "random", deferred=True)
    assert any("not -1008 to 822 HU" in one.text for one in write_sheet(window, tmp_path / "window.html"))
