"""Statistics of whole scans, for encoders whose networks were trained on scans normalised before they were cut."""

from collections.abc import Mapping

import torch


def mean_and_std(
    scan_hu: torch.Tensor, *, clip_hu: tuple[float, float] | None = None, unbiased: bool = False
) -> dict[str, torch.Tensor]:
    """Returns mean and standard deviation of each scan, as `Encoder.scan_statistics` gives them.

    A scan of one value has a deviation of exactly 0.

    Args:
        scan_hu: (B, 1, D, H, W) HU.
        clip_hu: Range that voxels are clipped to first; None clips nothing.
        unbiased: Whether the sum of squares is divided by the number of voxels less one, as torch's `std` does, and
            not by their number, as numpy's does.

    Returns:
        "mean" and "std" in HU, (B,) float32, computed in float64.
    """

    def rows(index: int) -> torch.Tensor:  # a slice at a time: all of a scan in float64 takes GiB
        piece = scan_hu[:, :, index]
        return (piece if clip_hu is None else piece.clamp(*clip_hu)).flatten(1).double()

    voxels, slices = scan_hu[0].numel(), range(scan_hu.shape[2])
    first = rows(0)[:, :1]  # about a value of the scan, sums of one value are exactly 0
    mean = first + torch.stack([(rows(i) - first).sum(1) for i in slices]).sum(0)[:, None] / voxels
    squares = torch.stack([(rows(i) - mean).square().sum(1) for i in slices]).sum(0)
    std = (squares / (voxels - unbiased)).sqrt()
    return {"mean": mean.squeeze(1).float(), "std": std.float()}


def problem_with(statistics: object, scans: int, *, checked: bool) -> str | None:
    """Returns why values cannot be the statistics of so many scans, None where they can.

    Args:
        statistics: By name.
        scans: How many.
        checked: Whether to leave out the look at their values, for which a GPU would have to be waited for.
    """
    if not isinstance(statistics, Mapping) or not all(isinstance(v, torch.Tensor) for v in statistics.values()):
        return f"a {type(statistics).__name__} instead of a dictionary of tensors"
    for name, value in statistics.items():
        if value.shape != (scans,) or value.dtype != torch.float32:
            return f"'{name}' as {tuple(value.shape)} {value.dtype} instead of ({scans},) float32, one of each scan"
        if not checked and not bool(torch.isfinite(value).all()):
            return f"'{name}' that is NaN or infinite: {value.tolist()}"
    return None
