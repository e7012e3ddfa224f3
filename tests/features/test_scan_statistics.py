"""What an encoder must know of a whole scan reaches every window of it, and nothing else does."""

import numpy as np
import pytest
import torch
from torch import nn

from tapct.encoders import mean_and_std
from tapct.errors import EncoderError
from tapct.eva import DenseEncoder
from tapct.features import FeatureBank, NamedScan, TensorStore, encoder_grid, extract, extract_many
from tapct.features.embed import embed, encode
from tapct.volumes import resample_image
from tests.data.reading import Reading, write
from tests.small import CubicMillimetres, Standardised, abdomen, small_encoder


@pytest.fixture(scope="module")
def scans() -> list[NamedScan]:
    """Slabs of real CT of several windows, of one and of less than one; each has other statistics."""
    where = [(slice(70, 90), slice(None), slice(None)), (slice(40, 50), slice(0, 60), slice(10, 90))]
    where.append((slice(90, 99), slice(20, 44), slice(20, 70)))
    slabs = [abdomen(each)[0] for each in where]
    return [NamedScan(f"slab {i}", torch.from_numpy(ct.hu), ct.grid) for i, ct in enumerate(slabs)]


def of_whole(scan: NamedScan) -> tuple[np.ndarray, float, float]:
    """The scan at the encoder's grid, before any padding, with mean and deviation in float64."""
    image = resample_image(scan.hu, scan.grid, encoder_grid(scan.grid, Standardised.card)).double().numpy()
    return image, image.mean(), image.std()


@pytest.mark.parametrize("clip_hu", [None, (-1000.0, 1000.0)])
@pytest.mark.parametrize("unbiased", [False, True])
def test_mean_and_std_are_those_of_numpy_in_double_precision(clip_hu, unbiased):
    scan = torch.empty(3, 1, 5, 7, 9).uniform_(-2700, 2700, generator=torch.Generator().manual_seed(0))
    scan[2] += 30_000  # far from zero: a sum of squares in float32 would lose the deviation
    found = mean_and_std(scan, clip_hu=clip_hu, unbiased=unbiased)
    expected = scan.double().numpy().reshape(3, -1)
    expected = expected if clip_hu is None else expected.clip(*clip_hu)
    assert found["mean"].dtype == found["std"].dtype == torch.float32
    np.testing.assert_allclose(found["mean"], expected.mean(1), rtol=1e-7)
    np.testing.assert_allclose(found["std"], expected.std(1, ddof=int(unbiased)), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("value", [-1000.0, 0.1, 1e5 / 3])
def test_a_scan_of_one_value_has_no_deviation_at_all(value):
    scan = torch.full((1, 1, 7, 11, 13), value)
    found = mean_and_std(scan)
    assert (found["mean"].item(), found["std"].item()) == (scan[0, 0, 0, 0, 0].item(), 0.0)


@pytest.mark.parametrize("fit_windows", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_window_gets_the_statistics_of_its_own_whole_scan(batch, fit_windows, scans):
    """Windows of scans that share a batch each have their own scan's; the padding is in none of them."""
    plain, encoder = small_encoder(CubicMillimetres), small_encoder(Standardised)
    options = {"fit_windows": fit_windows, "batch": batch, "overlap": 0.25}
    found = list(extract_many(encoder, scans, **options))
    assert len({len(features.embeddings) for features in found}) > 1
    for scan, features in zip(scans, found, strict=True):
        _, mean, std = of_whole(scan)
        unscaled = extract(plain, scan.hu, scan.grid, **options)  # a mean of patches: linear in what goes in
        torch.testing.assert_close(features.map, (unscaled.map - mean) / std, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(features.embeddings, (unscaled.embeddings - mean) / std, atol=2e-5, rtol=1e-5)


def test_the_statistics_are_of_the_encoders_grid_and_not_of_the_scan_on_disk(scans):
    image, _, std = of_whole(scans[0])
    seen = []

    class Noting(Standardised):
        def scan_statistics(self, scan_hu):
            seen.append(scan_hu.clone())
            return super().scan_statistics(scan_hu)

    extract(Noting("random"), scans[0].hu, scans[0].grid)
    assert [tuple(one.shape) for one in seen] == [(1, 1, *image.shape)]  # once a scan
    np.testing.assert_allclose(seen[0][0, 0].numpy(), image, rtol=1e-6)
    assert abs(scans[0].hu.double().std(correction=0).item() - std) > 1


def test_a_call_on_windows_takes_those_of_each_window():
    windows = torch.empty(3, 1, 4, 6, 8).uniform_(-1000, 800, generator=torch.Generator().manual_seed(1))
    windows[1] = windows[1] / 10 + 40
    encoder = small_encoder(Standardised)
    alone = torch.stack([(w - w.double().mean()) / w.double().std(correction=0) for w in windows])
    expected = nn.functional.avg_pool3d(alone.float(), 2)
    torch.testing.assert_close(encoder(windows).map, expected, atol=1e-5, rtol=1e-5)
    given = {"mean": torch.tensor([1.0, 2.0, 3.0]), "std": torch.tensor([10.0, 20.0, 30.0])}
    scaled = (windows - given["mean"].view(3, 1, 1, 1, 1)) / given["std"].view(3, 1, 1, 1, 1)
    found = encoder(windows, statistics=given).map
    torch.testing.assert_close(found, nn.functional.avg_pool3d(scaled, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda scan: torch.zeros(1), "gave a Tensor instead of a dictionary"),
        (lambda scan: {"mean": 0.0}, "gave a dict instead of a dictionary of tensors"),
        (lambda scan: {"mean": scan.mean()}, r"gave 'mean' as \(\) torch.float32 instead of \(1,\)"),
        (lambda scan: {"mean": scan.double().mean((1, 2, 3, 4))}, "torch.float64 instead of"),
        (lambda scan: {"std": torch.full((1,), torch.nan)}, "gave 'std' that is NaN or infinite"),
    ],
)
def test_what_cannot_be_statistics_is_an_error_that_names_encoder_and_statistic(wrong, message, scans):
    class Wrong(Standardised):
        def scan_statistics(self, scan_hu):
            return wrong(scan_hu)

    with pytest.raises(EncoderError, match=message) as error:
        extract(Wrong("random"), scans[0].hu, scans[0].grid)
    assert "standardised: scan_statistics" in str(error.value)
    with pytest.raises(EncoderError, match=r"standardised was given 'mean' as \(3,\) .* instead of \(2,\)"):
        small_encoder(Standardised)(torch.randn(2, 1, 4, 4, 4), statistics={"mean": torch.zeros(3)})


def test_embedding_files_and_pictures_have_them_too(scans, tmp_path):
    """The functions behind `tapct embed` and behind the pictures."""
    from safetensors.torch import load_file

    root = write(tmp_path / "task" / "reading")
    path = root / "c0" / "ct.mhd"
    encoder = small_encoder(Standardised)
    (one,) = embed(encoder, [path], tmp_path / "out", dtype="fp32")
    assert one.status == "written", one.reason
    ct = Reading(root, "train", root / "split.csv").read_scan("c0")
    _, mean, std = of_whole(NamedScan("c0", torch.from_numpy(ct.hu), ct.grid))
    expected = (encode(small_encoder(CubicMillimetres), ct).map - mean) / std
    for found in (load_file(one.target)["map"], encode(encoder, ct).map):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_evas_models_have_them_of_whole_scans_and_of_single_windows_each_its_own(scans):
    scan = scans[0].hu[None, None, :, :64, :64]
    spacing = {"spacing_mm": (4.0, 4.0, 4.0)}
    whole = DenseEncoder(small_encoder(Standardised), **spacing)(scan)[0]
    plain = DenseEncoder(small_encoder(CubicMillimetres), **spacing)(scan)[0]
    mean, std = scan.double().mean(), scan.double().std(correction=0)
    torch.testing.assert_close(whole, ((plain.double() - mean) / std).float(), atol=2e-5, rtol=1e-5)
    window = scan[:, :, 4:20, :32, :32]
    single = DenseEncoder(small_encoder(Standardised), windows=True, **spacing)(window)[0]
    torch.testing.assert_close(single, small_encoder(Standardised)(window).map, atol=1e-6, rtol=1e-6)


def scaled_by(factor: float) -> Standardised:
    class Scaled(Standardised):
        def scan_statistics(self, scan_hu):
            return {name: factor * value for name, value in super().scan_statistics(scan_hu).items()}

    return Scaled("random")


def test_they_are_part_of_the_key(tmp_path):
    """Of two encoders that differ in them alone, none gets the features of the other."""
    root = write(tmp_path / "task" / "reading")
    extracted = []
    for factor in (1.0, 2.0, 1.0):
        bank = FeatureBank(scaled_by(factor), TensorStore(tmp_path / "features"))
        bank.fill([Reading(root, "train", root / "split.csv")])
        extracted.append(bank.extracted)
    assert extracted == [1, 1, 0]
