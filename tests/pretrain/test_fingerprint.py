import numpy as np
import pytest

from pretrain.data.fingerprint import Fingerprint, Histogram, foreground
from pretrain.errors import PretrainError
from tapct.volumes import read_ct, read_labels
from tapct.volumes.body import body_mask
from tests.conftest import QUICKSTART


def phantom():
    """An ellipse of fat and muscle with two lungs and a spine, on a hollow table, in air."""
    z, y, x = np.mgrid[:24, :160, :200].astype(np.float32)
    hu = np.full(z.shape, -1000, np.float32)
    body = ((y - 70) / 45) ** 2 + ((x - 100) / 70) ** 2 <= 1
    hu[body] = 40
    for centre in (70, 130):
        lung = ((y - 65) / 25) ** 2 + ((x - centre) / 20) ** 2 <= 1
        hu[lung] = -850
    table = (y > 125) & (y < 140) & (x > 20) & (x < 180)
    shell = table & ((y < 127) | (y > 137) | (x < 22) | (x > 177))
    hu[shell], hu[table & ~shell] = -100, -950
    return hu, body


def test_the_body_has_its_lungs_and_not_the_table():
    hu, body = phantom()
    found = body_mask(hu)
    assert (found == body).mean() > 0.999
    assert found[12, 65, 70]
    assert not found[:, 120:].any()


def test_two_thighs_are_both_body_and_a_stray_thing_is_not():
    hu = np.full((10, 100, 200), -1000, np.float32)
    hu[:, 30:70, 20:60] = hu[:, 30:70, 120:170] = 50
    hu[:, 5:9, 95:99] = 50
    found = body_mask(hu)
    assert found[5, 50, 40]
    assert found[5, 50, 140]
    assert not found[5, 7, 97]


def test_noise_alone_is_no_body():
    noise = np.random.default_rng(0).normal(-1000, 20, (16, 64, 64)).astype(np.float32)
    assert foreground(noise) is None


def test_slices_without_body_are_outside():
    hu, _ = phantom()
    hu[:5] = hu[-3:] = -1000
    assert foreground(hu).slices == (5, 21)


def test_the_body_of_real_scans_holds_the_labelled_organs():
    for case, ct in (("abdomen", "ct.nii.gz"), ("chest", "ct_dicom")):
        scan = read_ct(QUICKSTART / case / ct)
        organs = read_labels(QUICKSTART / case / "organs.nii.gz", scan).labels > 0
        body = body_mask(scan.hu)
        assert body[organs].mean() > 0.98, case
        assert body[scan.hu > 0].mean() > 0.9, case
        # Air around the patient touches the border of the slice.
        corners = body[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.mean() < 0.3, case


def test_statistics_are_those_of_all_voxels_with_equal_weight_for_every_volume():
    rng = np.random.default_rng(0)
    volumes = [rng.normal(mean, 80, size).round() for mean, size in ((40, 5000), (-400, 900), (900, 20_000))]
    result = Fingerprint.of(Histogram.of(values) for values in volumes)
    # As nnU-Net: the same number of voxels of every case, here all of each, repeated to one length.
    pooled = np.concatenate([np.tile(values, 180_000 // len(values)) for values in volumes])
    assert result.mean_hu == pytest.approx(pooled.mean(), abs=1e-6)
    assert result.std_hu == pytest.approx(pooled.std(), abs=1e-6)
    low, high = np.percentile(pooled, [0.5, 99.5], method="inverted_cdf")
    assert (result.percentile_00_5_hu, result.percentile_99_5_hu) == (low, high)
    assert (result.volumes, result.voxels) == (3, 25_900)


def test_a_histogram_survives_packing():
    histogram = Histogram.of(np.array([-1024.4, 3, 3, 30_000.6]))
    again = Histogram.unpack(histogram.pack())
    assert again.lowest_hu == -1024
    assert again.counts[[0, 1027, 31_025]].tolist() == [1, 2, 1]
    assert again.counts.sum() == 4


def test_the_lattice_gives_the_statistics_of_all_voxels():
    scan = read_ct(QUICKSTART / "chest" / "ct_dicom")
    sparse = Fingerprint.of([foreground(scan.hu).histogram])
    voxels = scan.hu[body_mask(scan.hu)]
    assert sparse.mean_hu == pytest.approx(voxels.mean(), abs=6)
    assert sparse.std_hu == pytest.approx(voxels.std(), rel=0.02)
    assert sparse.voxels > 50_000


def test_no_volume_no_fingerprint():
    with pytest.raises(PretrainError, match="at least one volume"):
        Fingerprint.of([])
