"""Orientation, geometry and bookkeeping of a whole scan's features."""

import copy
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from baselines.intensity import Intensity
from tapct.errors import EncoderError
from tapct.features import FeatureMemory, NamedScan, encoder_grid, extract, extract_many
from tapct.features.extract import are_finite, fitted_window
from tapct.probes.dense import predict_labels
from tapct.volumes import Grid, LinearMap, Size, read_ct
from tests.small import CubicMillimetres, Small3D, abdomen, small_card, small_encoder

BASE = {
    "in_plane_size": None,
    "feature_stride": (32, 32, 32),
    "feature_dim": 1,
    "embedding_dim": 1,
    "has_cls": False,
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> nibabel.Nifti1Image:
    """A slab of real CT as a NIfTI image in RAS+."""
    ct, _ = abdomen((slice(70, 90), slice(8, 92), slice(4, 118)))
    ras = ct.affine[:, [2, 1, 0, 3]]  # columns x, y, z of the index (x to the left, y to the back)
    return nibabel.Nifti1Image(ct.hu.transpose(2, 1, 0), ras)


def extracted(path, encoder):
    ct = read_ct(path)
    return ct, extract(encoder, torch.from_numpy(ct.hu), ct.grid)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAI", "SPL", "ASR", "PIR", "SAL"])
@pytest.mark.parametrize("encoder_class", [Small3D, CubicMillimetres])
def test_a_scan_turned_on_disk_gives_the_same_features_and_native_prediction(codes, encoder_class, scan, tmp_path):
    encoder = small_encoder(encoder_class)
    torch.manual_seed(0)
    head = torch.nn.Conv3d(encoder.card.feature_dim, 4, 1)
    results = {}
    for name, orientation in (("plain", "RAS"), ("turned", codes)):
        start = nibabel.orientations.io_orientation(scan.affine)
        turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(tuple(orientation)))
        nibabel.save(scan.as_reoriented(turn), tmp_path / f"{name}.nii.gz")
        ct, features = extracted(tmp_path / f"{name}.nii.gz", encoder)
        to_native = LinearMap.between(features.feature_grid, features.native_grid)
        results[name] = ct, features, predict_labels(head(features.map), to_native)
    (plain_ct, plain, plain_labels), (turned_ct, turned, turned_labels) = results["plain"], results["turned"]
    assert np.array_equal(plain_ct.hu, turned_ct.hu)
    assert np.allclose(plain_ct.affine, turned_ct.affine, atol=1e-4)
    torch.testing.assert_close(plain.map, turned.map, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.embeddings, turned.embeddings, atol=1e-4, rtol=1e-4)
    assert (plain_labels == turned_labels).float().mean() > 0.9999
    assert len(plain_labels.unique()) > 1


def test_a_mirrored_scan_gives_other_features(scan, tmp_path):
    """Mirrored in the patient, not only on disk: the array changes and the affine does not."""
    encoder = small_encoder()
    nibabel.save(scan, tmp_path / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(scan.get_fdata()[::-1], scan.affine), tmp_path / "b.nii.gz")
    a, b = (extracted(tmp_path / f"{n}.nii.gz", encoder)[1] for n in "ab")
    assert (a.map - b.map).abs().max() > 0.1


def test_features_do_not_depend_on_how_many_windows_go_together():
    ct, _ = abdomen((slice(70, 95), slice(None), slice(None)))
    encoder, grid = small_encoder(), ct.grid
    one, many = (extract(encoder, torch.from_numpy(ct.hu), grid, batch=b) for b in (1, 7))
    torch.testing.assert_close(one.map, many.map, atol=1e-5, rtol=1e-5)
    assert one.embeddings.shape == (4, 48)  # 25 slices: windows of 8 at 0, 8, 16, 20 of the 28 padded ones
    assert one.padding == (3, 0, 0)


def filled(slices: slice, fill) -> NamedScan:
    """A slab of real CT (25 slices, 4 windows of 8 for Small3D) with some slices replaced."""
    ct, _ = abdomen((slice(70, 95), slice(None), slice(None)))
    hu = torch.from_numpy(ct.hu).clone()
    hu[slices] = fill(hu[slices]) if callable(fill) else fill
    return NamedScan("filled", hu, ct.grid)


def zero_and_one(hu: torch.Tensor) -> torch.Tensor:
    return (hu > 0).float()


@pytest.mark.parametrize(
    "fill",
    [0.0, pytest.param(1.0, marks=pytest.mark.thorough), zero_and_one],
    ids=["zeros", "ones", "zeros and ones"],
)
@pytest.mark.parametrize("encoder_class", [Small3D, CubicMillimetres, Intensity])
def test_a_window_of_fill_passes_with_any_number_of_windows_a_batch(fill, encoder_class):
    """A window of plain 0, the fill of SimpleITK and scipy, ended extraction alone and passed next to others."""
    encoder, scan = encoder_class("random"), filled(slice(0, 16), fill)
    one, *others = (extract(encoder, scan.hu, scan.grid, batch=batch) for batch in (1, 2, 8))
    for other in others:
        torch.testing.assert_close(other.map, one.map, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other.embeddings, one.embeddings, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fit_windows", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_scans_that_share_batches_have_the_features_that_each_has_alone(batch, fit_windows):
    encoder = small_encoder()
    scans = [filled(slice(0, n), fill) for n, fill in ((0, 0.0), (25, 0.0), (9, 0.0), (16, zero_and_one))]
    scans.append(NamedScan("thin", scans[0].hu[:5], Grid.of((5, *scans[0].hu.shape[1:]), scans[0].grid.affine)))
    alone = [extract(encoder, s.hu, s.grid, fit_windows=fit_windows, batch=1) for s in scans]
    for order in ([0, 1, 2, 3, 4], [4, 1, 3, 0, 2]):
        found = extract_many(encoder, [scans[i] for i in order], fit_windows=fit_windows, batch=batch)
        for i, features in zip(order, found, strict=True):
            torch.testing.assert_close(features.map, alone[i].map, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(features.embeddings, alone[i].embeddings, atol=1e-5, rtol=1e-5)


def with_one(value):
    def spoilt(hu: torch.Tensor) -> torch.Tensor:
        hu = hu.clone()
        hu[3, 40, 50] = value
        return hu

    return spoilt


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda hu: (hu + 1024).clamp(0, 2000) / 2000, r"all values lie in \[0, .*not Hounsfield units"),
        (with_one(float("nan")), "NaN or infinite"),
        (with_one(float("inf")), "NaN or infinite"),
        (with_one(float("-inf")), "NaN or infinite"),
    ],
    ids=["normalised", "NaN", "inf", "-inf"],
)
@pytest.mark.parametrize("slices", [5, 25])  # one window with padding around the scan, and several
@pytest.mark.parametrize("batch", [1, 8])
def test_a_scan_that_cannot_be_hu_is_refused_by_name_and_takes_no_other_with_it(spoil, message, slices, batch):
    good = filled(slice(0, 0), 0.0)
    grid = Grid.of((slices, *good.hu.shape[1:]), good.grid.affine)
    bad = NamedScan("case 7", spoil(good.hu[:slices]), grid)
    encoder = small_encoder()
    found = extract_many(encoder, [good, bad, good], batch=batch)
    torch.testing.assert_close(next(found).map, extract(encoder, good.hu, good.grid).map, atol=1e-5, rtol=1e-5)
    with pytest.raises(EncoderError, match=f"small-3d cannot encode case 7: .*{message}"):
        next(found)


def test_a_feature_lies_where_its_voxels_lie_in_the_patient():
    """An encoder that averages: each feature is the mean HU of the cube that its grid says."""
    ct, _ = abdomen((slice(60, 100), slice(None), slice(None)))
    features = extract(small_encoder(CubicMillimetres), torch.from_numpy(ct.hu), ct.grid)
    assert np.allclose(features.encoder_grid.spacing_mm, 4)
    assert np.allclose(features.feature_grid.spacing_mm, 8)
    centres = []
    for z, y, x in ((2, 6, 7), (4, 5, 3)):
        centre = features.feature_grid.affine @ [z, y, x, 1]
        index = np.linalg.inv(ct.affine) @ centre
        low, high = (np.rint(index[:3] + s * 4 / 3 - 0.5 * (s < 0)).astype(int) for s in (-1, 1))
        block = ct.hu[low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1]
        centres.append((float(features.map[0, z, y, x]), float(block.mean())))
    for feature, mean in centres:
        assert feature == pytest.approx(mean, abs=60)


def test_memory_holds_what_fits_and_is_shared_by_copies():
    ct, _ = abdomen((slice(70, 78), slice(None), slice(None)))
    features = extract(small_encoder(), torch.from_numpy(ct.hu), ct.grid)
    memory = FeatureMemory(2 * features.nbytes)
    for key in "abc":
        memory.put(key, features)
        memory.get("a")
    assert memory.get("b") is None, "the least recently used case goes first"
    assert memory.get("a") is memory.get("c") is features
    assert copy.deepcopy(memory) is memory
    tiny = FeatureMemory(1)
    tiny.put("a", features)
    assert tiny.get("a") is None


@pytest.mark.parametrize("axes", ["SPL", "RAS", "SRA"])
def test_features_of_strided_convolutions_lie_on_the_first_voxel_of_their_stride(axes):
    """Each feature is the voxel that two strided convolutions are centred on: brought back, a ramp is in its place."""

    class Strided(CubicMillimetres):
        card = small_card(
            **{"name": "strided", "window_size": (8, 32, 32), "in_plane_size": None, "feature_stride": (4, 4, 4)},
            **{"feature_dim": 1, "embedding_dim": 1, "has_cls": False, "num_params": 54},
        )
        patch_centre = (0.0, 0.0, 0.0)

        def build(self):
            layers = [torch.nn.Conv3d(1, 1, 3, stride=2, padding=1, bias=False) for _ in range(2)]
            for layer in layers:
                layer.weight.data.zero_()[0, 0, 1, 1, 1] = 1
            return torch.nn.Sequential(*layers)

    Strided.axes = axes
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (16, 64, 64)), indexing="ij")
    ramp = 7 * z - 3 * y + 5 * x - 400
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    features = extract(Strided("random"), ramp, Grid.of(ramp.shape, affine))
    back = LinearMap.between(features.feature_grid, features.native_grid)(features.map)[0]
    inner = (slice(4, -4), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(back[inner], ramp[inner])


def test_windows_fit_an_image_smaller_than_they_are():
    """A crop of 50 mm in a window of 128 voxels is mostly air, and so is its pooled embedding."""
    ct, _ = abdomen((slice(70, 90), slice(40, 62), slice(40, 60)))
    encoder = small_encoder(CubicMillimetres)  # windows (16, 32, 32) at 4 mm, stride 2
    hu = torch.from_numpy(ct.hu)
    padded, fitted = (extract(encoder, hu, ct.grid, fit_windows=fit) for fit in (False, True))
    assert tuple(fitted.encoder_grid.shape) == (15, 16, 15)
    assert tuple(padded.padding) == (1, 16, 17)
    assert tuple(fitted.padding) == (1, 0, 1)
    assert fitted.embeddings.shape == (1, 1)
    assert padded.embeddings.item() < fitted.embeddings.item() - 300
    patches = tuple(slice(0, n) for n in fitted.map.shape[1:])
    torch.testing.assert_close(fitted.map, padded.map[(slice(None), *patches)])


@pytest.mark.parametrize(
    ("voxels", "window"),
    [
        ((3, 9, 15), (4, 10, 16)),  # rounded up to the stride, each axis by itself
        ((4, 10, 16), (4, 10, 16)),  # as it is
        ((2, 30, 31), (2, 30, 32)),
        ((16, 32, 32), (16, 32, 32)),
        ((17, 9, 40), (16, 10, 32)),  # no more than the card's own
        ((4, 40, 16), (4, 32, 16)),
    ],
)
def test_a_fitted_window_is_the_smallest_over_the_image(voxels, window):
    seen = []

    class Watched(CubicMillimetres):  # windows (16, 32, 32), stride 2
        def _encode(self, windows_hu):
            seen.append(tuple(windows_hu.shape[2:]))
            return super()._encode(windows_hu)

    grid = Grid.of(voxels, np.diag([4.0, 4.0, 4.0, 1.0]))
    extract(Watched("random"), torch.full(voxels, -1000.0), grid, fit_windows=True)
    assert set(seen) == {window}


@pytest.mark.parametrize(("least", "window"), [(1, (2, 4, 4)), (5, (2, 4, 6)), (9, (2, 6, 6)), (2049, (16, 32, 32))])
def test_a_fitted_window_grows_no_more_than_the_network_needs(least, window):
    """Some normalise over a map's patches and need several; where no size will do, it is the card's own."""

    class Choosy(CubicMillimetres):
        least_patches = least

    assert fitted_window(Choosy("random"), Size(1, 3, 4)) == window


def test_a_fitted_window_is_what_the_network_takes_along_each_axis():
    class Deep(CubicMillimetres):
        def supports(self, size):
            return size[0] % 4 == 0 and size[1] % 10 == 0 and super().supports(size)

    class Dense(CubicMillimetres):
        card = small_card(window_size=(2, 2, 2), feature_stride=(1, 1, 1), in_plane_size=None, num_params=0)
        least_patches = 9

    assert fitted_window(Deep("random"), Size(1, 3, 4)) == (4, 10, 4)
    assert fitted_window(Dense("random"), Size(1, 1, 1)) == (2, 2, 2), "never more than the card's own"


def test_features_know_how_much_memory_they_take():
    scan = filled(slice(0, 0), 0.0)
    features = extract(small_encoder(), scan.hu, scan.grid)
    tensors = (features.map, features.embeddings.half())
    assert replace(features, embeddings=tensors[1]).nbytes == sum(t.untyped_storage().nbytes() for t in tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_one_value_in_one_tensor_that_is_not_finite_is_seen(which, value):
    tensors = [torch.zeros(3, 4), torch.ones(5)]
    assert are_finite(*tensors)
    tensors[which].view(-1)[2] = value
    assert not are_finite(*tensors)


def test_the_grid_of_an_encoder_has_its_spacing_and_then_its_size_in_the_plane():
    native = Grid.of((20, 50, 60), np.diag([3.0, 0.8, 0.7, 1.0]))
    card = small_card(spacing_mm=(1.5, 1.0, 1.0), in_plane_size=64)
    assert encoder_grid(native, card).shape == (40, 64, 64)
    assert np.allclose(encoder_grid(native, card).spacing_mm, (1.5, 40 / 64, 42 / 64))
    assert encoder_grid(native, small_card(spacing_mm=(1.5, 1.0, 1.0), in_plane_size=None)).shape == (40, 40, 42)
    assert encoder_grid(native, small_card(spacing_mm=None, in_plane_size=64)).shape == (20, 64, 64)
    assert encoder_grid(native, small_card(spacing_mm=None, in_plane_size=None)) is native


def test_a_crop_that_the_network_takes_as_it_is_is_not_padded():
    """FMCiB's 50 voxels are not a multiple of its stride."""

    class Fifty(CubicMillimetres):
        card = small_card(**{**BASE, "spacing_mm": (1.0, 1.0, 1.0), "window_size": (64, 64, 64), "num_params": 28})

        def build(self):
            return torch.nn.Conv3d(1, 1, 3, stride=32, padding=1)

        def supports(self, size):
            return size == (50, 50, 50) or super().supports(size)

    ct, _ = abdomen((slice(40, 65), slice(30, 55), slice(40, 65)))
    affine = ct.affine @ np.diag([2 / 3, 2 / 3, 2 / 3, 1])  # 25 voxels of 2 mm
    features = extract(Fifty("random"), torch.from_numpy(ct.hu), Grid.of(ct.hu.shape, affine), fit_windows=True)
    assert tuple(features.encoder_grid.shape) == (50, 50, 50)
    assert tuple(features.padding) == (0, 0, 0)
    assert tuple(features.map.shape[1:]) == (2, 2, 2) == tuple(features.feature_grid.shape)
