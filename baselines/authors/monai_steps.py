"""Preprocessing by MONAI's transforms, put together as the authors' files list them."""

from pathlib import Path
from typing import Any

import torch

MONAI = ("monai>=1.5,<2",)


def prepared(
    scan: Path, axes: str, pixdim: tuple[float, float, float] | None, low_hu: float, high_hu: float, **spacing: Any
) -> torch.Tensor:
    """Returns a scan as (1, 1, ...): loaded, turned, resampled (here to the spacing that it has), scaled to 0..1.

    Args:
        scan: The file.
        axes: For Orientationd.
        pixdim: For Spacingd, along `axes`; None leaves it out.
        low_hu: What becomes 0.
        high_hu: What becomes 1; both ends clip.
        spacing: Further arguments of Spacingd.
    """
    from monai import transforms

    steps = [
        transforms.LoadImaged(keys="image"),
        transforms.EnsureChannelFirstd(keys="image"),
        transforms.Orientationd(keys="image", axcodes=axes),
        transforms.ScaleIntensityRanged(keys="image", a_min=low_hu, a_max=high_hu, b_min=0.0, b_max=1.0, clip=True),
    ]
    if pixdim is not None:
        steps.insert(3, transforms.Spacingd(keys="image", pixdim=pixdim, mode="bilinear", **spacing))
    return transforms.Compose(steps)({"image": str(scan)})["image"].as_tensor()[None]
