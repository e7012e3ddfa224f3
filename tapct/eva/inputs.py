"""What eva's loaders hand to an encoder: refused where it can be seen that it is not a CT in HU, or lies otherwise."""

import torch

from tapct.encoders import EncoderCard
from tapct.encoders.hounsfield import not_hu
from tapct.errors import EncoderError
from tapct.volumes import Size
from tapct.volumes.plausibility import implausible_hu, raise_padding

SLICE_SIZES = (512, 768, 1024)
"""Pixels along a square slice as scanners reconstruct them: two axes of one such size are those of the slices."""

LARGEST_ENLARGEMENT = 2
"""Slices of less than half the pixels that an encoder was trained with are taken for crops."""

LEAST_AIR_HU = -900
HEAP = 0.01
"""Share of voxels that hold exactly the lowest value, from which it is where a window was cut off."""

_UNSCALED = (
    "It scales Hounsfield units itself: drop ScaleIntensityRange (in eva's 2D configs ResizeAndClamp, ResizeAndCrop) "
    "from the transforms of every data set in the config, and RandScaleIntensity and RandShiftIntensity with it"
)


def check_layout(scans: torch.Tensor, name: str) -> None:
    """Checks that a batch is (B, 1, T, H, W), as eva has scans after `EnsureChannelFirst`.

    T counts slices towards the head, H rows towards the back, W columns towards the left: SPL, as eva's readers turn
    every NIfTI. Axes in another order show only where slices have a scanner's size.

    Args:
        scans: The batch.
        name: Of the encoder, for errors.

    Raises:
        EncoderError: If it cannot be such a batch.
    """
    got = f"{name} takes scans as (B, 1, slices, rows, columns), but got {tuple(scans.shape)}"
    if scans.ndim == 4:
        raise EncoderError(f"{got}: slices one by one. 2D encoders take whole scans too: use eva's 3D data sets")
    if scans.ndim == 5 and scans.shape[1] != 1 and scans.shape[2] == 1:
        raise EncoderError(
            f"{got}: the channel comes after the slices. Let eva.vision.data.transforms.EnsureChannelFirst with "
            "channel_dim: 1 be the first of the transforms"
        )
    if scans.ndim != 5 or scans.shape[1] != 1 or scans.numel() == 0:
        raise EncoderError(f"{got}: a CT has one channel")
    depth, height, width = scans.shape[2:]
    if depth in SLICE_SIZES and depth in (height, width) and height != width:
        raise EncoderError(
            f"{got}, in which the slices are not along the third axis: two axes of {depth} are those of a slice. eva's "
            "own readers give (slices, rows, columns); MONAI's LoadImage gives (x, y, z). Turn them to SPL"
        )
    if scans.dtype is not torch.float32 and scans.is_floating_point():
        raise EncoderError(
            f"{name} takes scans in float32, but got {scans.dtype}, which rounds HU. Set the trainer's precision to "
            "32-true or bf16-mixed; the encoder has its own"
        )


def check_size(size: Size, card: EncoderCard) -> None:
    """Refuses what would be enlarged beyond recognition to the in-plane size of an encoder.

    Raises:
        EncoderError: If slices have less than half the pixels that the card wants.
    """
    wanted = card.in_plane_size
    if wanted is not None and LARGEST_ENLARGEMENT * min(size.y, size.x) < wanted:
        raise EncoderError(
            f"{card.name} was trained on whole slices of {wanted} x {wanted} pixels, but got {size.y} x {size.x}: "
            "crops, which it would enlarge. Drop RandCropByLabelClasses, RandSpatialCrop, CropForeground and the "
            "inferer from the config: the encoder tiles whole scans itself. Crops at the encoder's own pixel size go "
            "with windows: true"
        )


def readable_hu(scan: torch.Tensor, name: str) -> torch.Tensor:
    """Returns a whole scan (D, H, W) as our own readers give it: judged, padding raised to air.

    Raises:
        EncoderError: If it cannot be the HU of a CT.
    """
    problem = not_hu(scan[None]) or _scaled(scan) or _all_above_water(scan)
    array = scan.cpu().numpy()
    if problem is None and (found := implausible_hu(array)) is not None:
        problem = f"the scan {found}"
    if problem is not None:
        raise EncoderError(f"{name}: {problem}. {_UNSCALED}")
    raised, notes = raise_padding(array)
    return torch.from_numpy(raised).to(scan.device) if notes else scan


def check_windows(windows: torch.Tensor, name: str) -> None:
    """Refuses windows (B, 1, D, H, W) of which one cannot be HU; one of plain air, or of plain anything, can.

    Raises:
        EncoderError: If the values were scaled, or a window was cut out of the HU.
    """
    for window in windows[:, 0]:
        problem = not_hu(window[None]) or _scaled(window) or _clipped(window)
        if problem is not None:
            raise EncoderError(f"{name}: {problem}. {_UNSCALED}")


def _scaled(values: torch.Tensor) -> str | None:
    low, high = (float(value) for value in values.aminmax())
    if low < high and low >= -1 and high <= 1:
        return f"all values lie in [{low:g}, {high:g}]: they were scaled"
    return None


def _all_above_water(values: torch.Tensor) -> str | None:
    low, high = (float(value) for value in values.aminmax())
    if low >= 0:
        return f"values lie in [{low:g}, {high:g}], none below 0, where air and fat lie: greys (8 bits), or a window"
    return None


def _clipped(values: torch.Tensor) -> str | None:
    low, high = (float(value) for value in values.aminmax())
    heap = float((values == low).float().mean())
    if low < high and low > LEAST_AIR_HU and heap >= HEAP:
        return f"values lie in [{low:g}, {high:g}], {heap:.0%} of them at {low:g}: all below was cut off"
    return None
