"""Whether values can be Hounsfield units at all."""

import torch


def not_hu(blocks: torch.Tensor) -> str | None:
    """Returns why values cannot be Hounsfield units, None where they can.

    All of them within [0, 1] are normalised ones, unless each block is of one value: plain 0 is what resampling tools
    fill with, and water.

    Args:
        blocks: (B, ...) windows, or one scan as (1, ...).
    """
    low, high = torch.stack(blocks.flatten(1).aminmax(dim=1)).cpu()
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):  # the extremes carry both NaN and infinity
        return "the values are NaN or infinite in some voxels. Find the step that made them (often a resampling)"
    if low.min() >= 0 and high.max() <= 1 and bool((low < high).any()):
        return (
            f"all values lie in [{low.min():g}, {high.max():g}]. That is not Hounsfield units; give the scan as it is, "
            "the encoder normalises it itself"
        )
    return None
