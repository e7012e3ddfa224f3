"""What is taken for HU and what is not: real scans, blocks of them, drawn ones, and each with a mistake made."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tapct.errors import VolumeError
from tapct.volumes import read_ct
from tapct.volumes.plausibility import implausible_hu, raise_padding
from tapct.volumes.read import ct_volume
from tests.volumes.real_scans import ABDOMEN_CT, CHEST_CT, SHARED, needs_shared

REAL = [
    *("crlm/CRLM-CT-1004_1.5x5mm.nii.gz", "elastix/3DCT_lung_baseline_small.nii.gz"),
    *("lidc/LIDC-IDRI-0314_2mm.nii.gz", "lidc/LIDC-IDRI-0314_nodule_128x128x64.nii.gz"),
    *("totalsegmentator/s9004/ct.nii.gz", *(f"sts/STS_{n}/CT.nii.gz" for n in ("002", "008", "012", "024", "025"))),
]

Change = Callable[[np.ndarray], np.ndarray]


@cache
def real(name: str) -> np.ndarray:
    """A scan of ours or of the shared ones, coarser than it is."""
    path = {"abdomen": ABDOMEN_CT, "chest": CHEST_CT}.get(name) or SHARED / name
    return read_ct(path).hu[::2, ::3, ::3]


def window(low: float, high: float, to_low: float, to_high: float, *, whole: bool = True) -> Change:
    def apply(hu: np.ndarray) -> np.ndarray:
        scaled = (np.clip(hu, low, high) - low) / (high - low) * (to_high - to_low) + to_low
        return np.rint(scaled) if whole else scaled

    return apply


def outside_the_circle(value: float, change: Change = np.asarray) -> Change:
    """Pads what lies outside the round field of view, as scanners do."""

    def apply(hu: np.ndarray) -> np.ndarray:
        y, x = (np.linspace(-1, 1, n) for n in hu.shape[1:])
        return np.where(np.hypot(y[:, None], x) > 1, value, change(hu))

    return apply


MISTAKES: dict[str, tuple[Change, str]] = {
    "intercept lost": (lambda hu: hu + 1024, "lack their RescaleIntercept"),
    "intercept -1000 lost": (lambda hu: hu + 1000, "lack their RescaleIntercept"),
    "intercept lost, unsigned": (lambda hu: np.maximum(hu + 1024, 0), "lack their RescaleIntercept"),
    "intercept lost, padded": (outside_the_circle(-2000, lambda hu: hu + 1024), "lack their RescaleIntercept"),
    "intercept lost, padded as air": (outside_the_circle(-1024, lambda hu: hu + 1024), "lack their RescaleIntercept"),
    "intercept lost, padded at -1200": (outside_the_circle(-1200, lambda hu: hu + 1024), "lack their RescaleIntercept"),
    "intercept lost, padded at -1500": (outside_the_circle(-1500, lambda hu: hu + 1024), "lack their RescaleIntercept"),
    "intercept lost, padded with 0": (outside_the_circle(0, lambda hu: hu + 1024), "lack their RescaleIntercept"),
    "intercept twice": (lambda hu: hu - 1024, "applied twice"),
    "intercept twice, clipped before": (lambda hu: np.maximum(hu, -1024) - 1024, "applied twice"),
    "intercept twice, padded": (outside_the_circle(-3072, lambda hu: hu - 1024), "applied twice"),
    "ten times HU": (lambda hu: np.clip(hu, -1024, 3071) * 10, "ten times HU"),
    "slope 2 twice": (lambda hu: hu * 2, "applied twice"),
    "sign": (lambda hu: -hu, "sign"),
    "MONOCHROME1": (lambda hu: 3071 - (hu + 1024), "dark for bright"),
    "clipped at 0": (lambda hu: np.clip(hu, 0, 4095), "window"),
    "int8": (window(-160, 240, -128, 127), "8 bits"),
    "int8, wide": (window(-1000, 1000, -128, 127), "window|8 bits"),
    "int8, symmetric": (lambda hu: np.rint(np.clip(hu / 1000, -1, 1) * 127), "8 bits"),
    "uint8": (window(-160, 240, 0, 255), "8 bits"),
    "uint8, wide": (window(-1000, 1000, 0, 255), "window|8 bits"),
    "[-1, 1]": (window(-1000, 1000, -1, 1, whole=False), "normalised"),
    "[0, 1]": (window(-1000, 400, 0, 1, whole=False), "normalised"),
    "HU / 1000": (lambda hu: hu / 1000, "normalised"),
    "z-scores": (lambda hu: (hu - hu.mean()) / hu.std(), "z-scores"),
    "soft tissue window": (lambda hu: np.clip(hu, -160, 240), "cut off air"),
    "clipped above air": (lambda hu: np.clip(hu, -500, 1300), "cut off air"),
    "mask": (lambda hu: (hu > 0).astype(np.uint8), "normalised"),
    "label map": (lambda hu: np.digitize(hu, [-500, -200, 0, 100, 300]), "z-scores|mask"),
    "zeros": (np.zeros_like, "all the same"),
    "one value of air": (lambda hu: np.full_like(hu, -1000), "all the same"),
    "air": (lambda hu: np.random.default_rng(0).normal(-1000, 20, hu.shape), "nothing but air"),
    "padding alone": (lambda hu: np.where(hu > 0, -2000, -3024), "padding"),
}
"""What goes wrong on the way, and what the message must say."""


HARMLESS: dict[str, Change] = {
    "as it is": np.asarray,
    "as whole numbers": lambda hu: np.rint(hu).astype(np.int16),
    "noisy": lambda hu: hu + np.random.default_rng(0).normal(0, 30, hu.shape),
    "low dose, clipped": lambda hu: np.maximum(hu + np.random.default_rng(0).normal(0, 60, hu.shape), -1024),
    "zero 50 HU too high": lambda hu: hu + 50,
    "zero 50 HU too low": lambda hu: hu - 50,
    "clipped at 1000": lambda hu: np.clip(hu, -1000, 1000),
    "clipped at 400": lambda hu: np.clip(hu, -1000, 400),
    "one value of air": lambda hu: np.where(hu < -900, -1024, hu),
    "metal": lambda hu: np.where(hu > 1000, 30_710, hu),
    **{
        f"padded with {value}": outside_the_circle(value)
        for value in (0, -1024, -1200, -1500, -2000, -2048, -3024, -8192, -32768)
    },
}
"""What happens to good scans."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_what_it_looks_like(mistake):
    change, message = MISTAKES[mistake]
    for name in ("abdomen", "chest"):
        with pytest.raises(VolumeError, match=rf"{name} has values from .* and is not a CT in HU: .*({message})"):
            ct_volume(change(real(name)), np.diag([-1, -1, 1, 1]), name)


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_a_good_scan_is_taken(change):
    assert [implausible_hu(change(real(name))) for name in ("abdomen", "chest")] == [None, None]


@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
@pytest.mark.parametrize("path", [ABDOMEN_CT, CHEST_CT], ids=["abdomen", "chest"])
def test_padding_that_was_resampled_with_the_scan_is_taken(path, padding):
    """Its border is anything between padding and air, and within it is one value to a rounding."""
    padded = torch.from_numpy(outside_the_circle(padding)(read_ct(path).hu[::8]).astype(np.float32))
    size = [round(0.75 * n) for n in padded.shape[1:]]
    hu = torch.nn.functional.interpolate(padded[:, None], size=size, mode="bilinear").numpy()[:, 0]
    assert ((padding + 1 < hu) & (hu < -1500)).any()
    scan = ct_volume(hu, np.diag([1.0, 1, 1, 1]), "resampled")
    assert scan.hu.min() >= -1500
    assert f"mostly at {padding}" in scan.notes[0]


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_real_scans_are_told_from_the_same_with_a_mistake(name):
    hu = real(name)
    assert {key: implausible_hu(change(hu)) for key, change in HARMLESS.items()} == dict.fromkeys(HARMLESS)
    assert [key for key, (change, _) in MISTAKES.items() if implausible_hu(change(hu)) is None] == []


def blocks(hu: np.ndarray, edge: int) -> list[np.ndarray]:
    """Blocks that hold some tissue, side by side."""
    depth, height, width = (range(0, max(1, n - edge + 1), edge) for n in hu.shape)
    cut = [hu[z : z + edge, y : y + edge, x : x + edge] for z in depth for y in height for x in width]
    return [block for block in cut if ((block >= -200) & (block <= 200)).mean() > 0.001]


@pytest.mark.parametrize("edge", [32, 64])
def test_blocks_of_lung_liver_bone_or_mostly_air_are_taken(edge):
    scans = [read_ct(path).hu for path in (ABDOMEN_CT, CHEST_CT)]
    if SHARED.is_dir():
        scans += [read_ct(SHARED / "lidc/LIDC-IDRI-0314_nodule_128x128x64.nii.gz").hu]
    reasons = [implausible_hu(block) for hu in scans for block in blocks(hu, edge)]
    assert len(reasons) > 20
    assert set(reasons) == {None}


# --- drawn scans -----------------------------------------------------------------------------------------


def drawn(size: int = 32, around: int = 32) -> np.ndarray:
    """A round body of water with a ring of fat and a bone, in air: (8, around, around)."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:around, :around] - (around - 1) / 2
    radius = np.hypot(y, x) / size
    hu = np.full((8, around, around), -1000.0)
    hu[:, radius < 0.42] = -100
    hu[:, radius < 0.38] = 40
    hu[:, radius < 0.3] += random.integers(-20, 20, (8, int((radius < 0.3).sum())))
    hu[:, (abs(y - size * 0.2) < 2) & (abs(x) < 2)] = 700
    return hu


def ball(background: np.ndarray, radius: float, value: float) -> np.ndarray:
    centre = (np.array(background.shape) - 1) / 2
    distance = np.linalg.norm(np.moveaxis(np.indices(background.shape), 0, -1) - centre, axis=-1)
    return np.where(distance < radius, value, background)


def noise(mean: float, deviation: float, shape=(32, 32, 32)) -> np.ndarray:
    return np.random.default_rng(1).normal(mean, deviation, shape)


def skull() -> np.ndarray:
    hu = noise(35, 8)
    hu[:, 20:26] = noise(1300, 300, (32, 6, 32))
    return hu


GOOD = {
    "body": drawn(),
    "limb in much air": drawn(around=160),
    "nodule in lung": ball(np.rint(noise(-850, 40, (50, 50, 50))), 4, 40),
    "nodule in lung, without noise": ball(np.full((50, 50, 50), -850.0), 4, 40),
    "liver": noise(60, 15),
    "liver in the portal phase": noise(115, 10),
    "soft tissue without noise at its edges": drawn()[:, 8:24, 8:24],
    "skull and brain": skull(),
    "metal": ball(drawn(), 2, 30_710),
    "contrast in the bladder": ball(drawn(), 3, 2500),
    "dense bone": np.where(drawn() == 700, 1500, drawn()),
    "water phantom": ball(np.full((20, 32, 32), -1000.0), 9, 0) + noise(0, 5, (20, 32, 32)),
    "padded": outside_the_circle(-2000)(drawn()),
    "padded at twice air": outside_the_circle(-2048)(drawn()),
    "narrow range": np.linspace(-51, 100, 512).reshape(8, 8, 8),
}


@pytest.mark.parametrize("hu", GOOD.values(), ids=GOOD)
def test_a_drawn_scan_is_taken(hu):
    assert implausible_hu(hu) is None
    assert implausible_hu(np.rint(hu).astype(np.int16)) is None


@pytest.mark.parametrize(
    "mistake", [key for key in MISTAKES if "int8" not in key]
)  # in few steps lung looks like liver
@pytest.mark.parametrize("name", ["body", "limb in much air", "nodule in lung", "metal", "dense bone", "padded"])
def test_a_drawn_scan_with_a_mistake_is_refused(name, mistake):
    assert implausible_hu(MISTAKES[mistake][0](GOOD[name])) is not None


def test_mr_and_pet_are_no_ct():
    body = drawn() > -500
    random = np.random.default_rng(0)
    mr = np.abs(random.normal(0, 5, body.shape)) + body * random.normal(400, 100, body.shape)
    pet_bq = body * 5000 * np.exp(random.normal(0, 1, body.shape))
    assert all(implausible_hu(array) is not None for array in (mr, np.rint(mr), mr / 10, pet_bq, pet_bq / 5000))


# --- how it is looked at ---------------------------------------------------------------------------------


def test_the_order_of_the_axes_and_repetition_decide_nothing():
    """Of a large scan only a part is looked at; it must come from all columns."""
    row = np.concatenate([np.full(256, -1000), np.full(256, 40)])
    hu = np.broadcast_to(row, (16, 512, 512)) + np.random.default_rng(0).normal(0, 10, (16, 512, 512))
    assert implausible_hu(hu) is None
    assert implausible_hu(np.ascontiguousarray(hu.transpose(2, 1, 0))) is None
    assert implausible_hu(hu + 1024) is not None
    assert implausible_hu(np.asfortranarray(hu) + 1024) is not None


def test_noise_below_air_is_no_padding():
    hu = drawn() + np.random.default_rng(0).normal(0, 60, drawn().shape)
    assert hu.min() < -1150
    raised, notes = raise_padding(hu.astype(np.float32))
    np.testing.assert_array_equal(raised, hu.astype(np.float32))
    assert notes == ()


def test_a_block_of_an_array_is_judged_like_a_file(tmp_path):
    stored = (drawn() + 1024).astype(np.int16)
    with pytest.raises(VolumeError, match=r"block has values from 24 to 1724 and is not a CT in HU.*RescaleIntercept"):
        ct_volume(stored, np.diag([1.0, 1, 1, 1]), "block")
    path = Path(tmp_path / "ct.nii.gz")
    nib.save(nib.Nifti1Image(stored, np.diag([1.0, 1, 1, 1])), path)
    with pytest.raises(
        VolumeError, match=r"ct.nii.gz has values from 24 to 1724 and is not a CT in HU.*RescaleIntercept"
    ):
        read_ct(path)
