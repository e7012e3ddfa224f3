"""The patch grid and the learned positions on it, for any input size, in 2D and in 3D.

The TAP-CT paper (section 3.1) keeps DINOv2's learned positions and interpolates them onto a 3D grid. Global
crops, local crops and whole windows have different grids, so one stored grid has to serve them all.
"""

from collections.abc import Sequence

from torch import Tensor, cat
from torch.nn import functional

_AXES = ("depth", "height", "width")


def patch_grid(size: Sequence[int], patch_size: Sequence[int], what: str = "input") -> tuple[int, ...]:
    """Counts the patches that tile an image or a volume along each axis.

    Args:
        size: Spatial size, ``([D,] H, W)``.
        patch_size: Patch size, of the same length.
        what: What has that size; opens the error message.

    Returns:
        The patch grid, ``([d,] h, w)``.

    Raises:
        ValueError: An axis is not a positive multiple of its patch.
    """
    for axis, length, patch in zip(_AXES[-len(patch_size) :], size, patch_size, strict=True):
        if length < patch or length % patch:
            raise ValueError(
                f"{what} {axis} {length} is not a positive multiple of the patch {axis} {patch} "
                f"({what} size {tuple(size)}, patch size {tuple(patch_size)})"
            )
    return tuple(length // patch for length, patch in zip(size, patch_size, strict=True))


def positions_on_grid(pos_embed: Tensor, native: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """Brings stored position embeddings onto another patch grid.

    2D follows ``transformers``' Dinov2WithRegisters: bicubic, antialiased, to a target *size*. (DINOv2's own
    training code goes by a scale factor with an offset of 0.1 and without antialiasing, which gives other
    numbers.) 3D is trilinear, for which PyTorch has no antialiasing. Neither aligns corners.

    Args:
        pos_embed: ``(1, 1 + N, C)``: the position of the CLS token, then those of the native grid, row-major.
        native: The grid that is stored, ``([d,] h, w)``, with ``N`` patches.
        grid: The grid that is wanted.

    Returns:
        ``(1, 1 + prod(grid), C)`` in the dtype of ``pos_embed``; ``pos_embed`` itself on the native grid.
    """
    # The grids are compared, not the number of patches: 2x4 and 4x2 have as many, but other positions.
    if grid == native:
        return pos_embed
    lattice = pos_embed[:, 1:].transpose(1, 2).unflatten(2, native)
    # float32 whatever the dtype: half precision loses the small differences between neighbours.
    if len(grid) == 2:
        lattice = functional.interpolate(
            lattice.float(), size=grid, mode="bicubic", align_corners=False, antialias=True
        )
    else:
        lattice = functional.interpolate(lattice.float(), size=grid, mode="trilinear", align_corners=False)
    patches = lattice.flatten(2).transpose(1, 2).to(pos_embed.dtype)
    return cat((pos_embed[:, :1], patches), dim=1)
