"""What a run begins with instead of fresh weights (`init.from`): the backbone of a DINOv2 in 2D, or of an own run.

The file's network is brought to the run's sizes, the same way whether it is 2D or 3D:

* The patch embedding of three channels becomes that of one: grey images hold the same value in all three, so their
  kernels are summed.
* A kernel goes onto a patch of another size by the pseudo-inverse of linear resizing, axis by axis (FlexiViT, Beyer et
  al., 2023): where the patch grows, the new kernel gives on a resized patch what the old one gave on the patch itself.
  In depth, from one slice to many, this is the kernel over their number in each slice, so that a volume that is
  constant in depth embeds as its slice does in 2D.
* Positions are interpolated in the plane as for windows (`tapct.vit.positions`), and repeated in depth.

So a window one patch deep gives what the 2D network gives; deeper ones nearly so, since the class token then meets
each patch as often as the window has layers. Registers that the file lacks stay fresh, and so do both heads.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.config import Config
from pretrain.errors import PretrainError
from pretrain.ssl.model import Pretrainer
from tapct.encoders.weights import file_sha256, from_dinov2, load_strict, read_state_dict
from tapct.errors import WeightsError
from tapct.vit import VisionTransformer
from tapct.vit.positions import patch_grid, positions_on_grid

TAKEN = (
    "Taken are DINOv2 as Hugging Face has it (a folder with config.json and model.safetensors, or that file), as "
    "torch.hub has it (dinov2_vits14_pretrain.pth, dinov2_vits14_reg4_pretrain.pth, ...), and folders of "
    "`python -m pretrain.export`"
)

_OTHERS = (
    (r"(^|\.)rope|\.mlp\.(gate|up)_proj\.", "DINOv3, whose positions are rotary"),
    (r"\.mlp\.(w12|weights_in)\.", "a DINOv2 with SwiGLU (giant), which no model.size here has"),
    (r"^(student|teacher)\.(backbone|dino_head)\.", "a checkpoint of pretrain: export it, and give the folder"),
    (r"^(student|teacher)\.", "a checkpoint of DINOv2's training, with student or teacher"),
    (r"^blocks\.\d+\.\d+\.", "a DINOv2 whose blocks are saved in chunks, as for FSDP"),
    (r"^(dinov2|module|backbone|encoder|model)\.(?!layer\.)", "a backbone inside another network"),
    (r"^(vit|visual|vision_model|text_model)\.", "a ViT or CLIP, not a DINOv2"),
)
"""How names of other layouts look, and what has them."""


@dataclass(frozen=True)
class WarmStart:
    """Where a run's first weights came from.

    Attributes:
        source: The file.
        sha256: Of its bytes.
        layout: "transformers", "torch.hub" or "pretrain.export".
        brought: What was changed to fit, in words.
    """

    source: str
    sha256: str
    layout: str
    brought: tuple[str, ...]

    def __str__(self) -> str:
        brought = f": {'; '.join(self.brought)}" if self.brought else ""
        return f"{self.source} ({self.layout}, sha256 {self.sha256[:12]}){brought}"


@dataclass(frozen=True)
class _Source:
    """A backbone as it was read: under the names of `tapct.vit`, with the sizes that the weights do not say."""

    file: Path
    layout: str
    weights: dict[str, Tensor]
    grid: tuple[int, ...]
    heads: int | None

    @property
    def kernel(self) -> Tensor:
        return self.weights["patch_embed.proj.weight"]


def warm_start(model: Pretrainer, config: Config) -> WarmStart | None:
    """Gives the backbones of student and teacher the weights that the settings name.

    Args:
        model: With fresh weights.
        config: The settings, with the crops of the first phase.

    Returns:
        Where they came from; None where the settings name nothing, and all stays fresh.

    Raises:
        PretrainError: The file is missing, of another layout, or of a network of other sizes.
    """
    if config.init.source is None:
        return None
    try:
        source = _read(config.init.source)
        backbone = model.student.backbone
        weights, brought = _fitted(source, backbone)
        load_strict(backbone, weights, where=f"the run's backbone (init.from = {source.file})")
    except WeightsError as error:
        raise PretrainError(f"init.from: {error}") from error
    model.teacher.backbone.load_state_dict(backbone.state_dict())
    return WarmStart(str(source.file), file_sha256(source.file), source.layout, tuple(brought))


def _read(path: Path) -> _Source:
    """Reads a backbone, and refuses what is none."""
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise PretrainError(f"init.from = {path}: there is no file {file}. {TAKEN}")
    state = read_state_dict(file)
    described = _described(file.with_name("config.json")) if file.suffix == ".safetensors" else {}
    own = described.get("architecture")
    if "patch_embed.proj.weight" in state:
        layout = "pretrain.export" if isinstance(own, dict) else "torch.hub"
    elif "embeddings.patch_embeddings.projection.weight" in state:
        layout = "transformers"
    else:
        raise PretrainError(f"init.from = {file} is {_other(state)}. {TAKEN}")
    if any(re.search(pattern, name) for name in state for pattern, _ in _OTHERS):
        raise PretrainError(f"init.from = {file} is {_other(state)}. {TAKEN}")
    weights = from_dinov2(state)
    if layout == "pretrain.export":
        assert isinstance(own, dict)
        try:
            grid = patch_grid(own["window_size"], own["patch_size"])
            return _Source(file, layout, weights, grid, own["num_heads"])
        except (KeyError, TypeError, ValueError) as error:
            raise PretrainError(f"init.from: config.json next to {file} lacks the network's sizes ({error})") from error
    return _Source(file, layout, weights, _square(weights, file), described.get("num_attention_heads"))


def _described(path: Path) -> dict[str, Any]:
    """Returns what the file next to the weights says of the network; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PretrainError(f"init.from: {path} is not JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def _other(state: dict[str, Any]) -> str:
    """Says what a file of another layout is, as far as its names tell."""
    inside = [name for name in ("student", "teacher", "model") if isinstance(state.get(name), dict)]
    names = [*state, *(key for name in inside for key in (f"{name}.", *state[name]))]
    for pattern, what in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            return what
    return f"of a layout that is not known (its names: {', '.join(list(state)[:4])} ...)"


def _square(weights: dict[str, Tensor], file: Path) -> tuple[int, int]:
    positions = weights.get("pos_embed")
    side = 0 if positions is None else math.isqrt(positions.shape[1] - 1)
    if positions is None or positions.shape[1] != 1 + side**2:
        shape = "none" if positions is None else tuple(positions.shape)
        raise PretrainError(f"init.from = {file}: its positions ({shape}) are not those of a square image. {TAKEN}")
    return side, side


def _fitted(source: _Source, backbone: VisionTransformer) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the weights in the sizes of the run's backbone, and what was changed, in words."""
    wanted = backbone.state_dict()
    _check_sizes(source, backbone)
    weights, brought = {name: value.float() for name, value in source.weights.items()}, []
    kernel, patch = source.kernel.float(), backbone.patch_size
    if kernel.shape[1] != backbone.in_channels:
        brought.append(f"{kernel.shape[1]} input channels summed")
        kernel = kernel.sum(dim=1, keepdim=True)
    if tuple(kernel.shape[2:]) != patch:
        brought.append(f"patch {tuple(kernel.shape[2:])} to {patch}")
        kernel = resized_kernel(kernel, patch)
    if source.grid != backbone.grid:
        brought.append(f"positions {source.grid} to {backbone.grid}")
    weights["patch_embed.proj.weight"] = kernel
    weights["pos_embed"] = _positions(weights["pos_embed"], source.grid, backbone.grid)
    for name in ("register_tokens", "mask_token"):
        if name in wanted and name not in weights:
            brought.append(f"{name} fresh")
            weights[name] = wanted[name]
    return weights, brought


def _check_sizes(source: _Source, backbone: VisionTransformer) -> None:
    depth = len({name.split(".")[1] for name in source.weights if name.startswith("blocks.")})
    width = source.kernel.shape[0]
    heads = backbone.blocks[0].attn.num_heads  # type: ignore[union-attr]
    if (width, depth) != (backbone.embed_dim, len(backbone.blocks)) or source.heads not in (None, heads):
        theirs = f"{width} wide with {depth} blocks" + (f" of {source.heads} heads" if source.heads else "")
        raise PretrainError(
            f"init.from = {source.file} is {theirs}, and the run's model is {backbone.embed_dim} wide with "
            f"{len(backbone.blocks)} blocks of {heads} heads. Choose the model.size that it has, or another file"
        )
    if len(source.grid) > len(backbone.grid):
        raise PretrainError(f"init.from = {source.file} is a 3D network, and the run is 2D. Take one in 2D")


def _positions(positions: Tensor, native: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """Returns positions on a grid: interpolated in as many axes as they have, and repeated in depth."""
    flat = positions_on_grid(positions, native, grid[len(grid) - len(native) :])
    if len(native) == len(grid):
        return flat
    return torch.cat((flat[:, :1], flat[:, 1:].repeat(1, grid[0], 1)), dim=1)


def resized_kernel(kernel: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Brings the kernel of a patch embedding onto patches of another size.

    Args:
        kernel: ``(C, channels, [D,] H, W)``.
        patch: The size that is wanted; with one more axis than the kernel has, it grows a depth from one slice.

    Returns:
        ``(C, channels, *patch)`` float32. On patches that are resized linearly to a larger size it gives what the
        old kernel gave before; to a smaller one, what is nearest for patches of white noise.
    """
    if kernel.ndim - 2 < len(patch):
        kernel = kernel.unsqueeze(2)
    for axis, (length, size) in enumerate(zip(kernel.shape[2:], patch, strict=True), start=2):
        if length != size:
            onto = torch.linalg.pinv(_resizing(length, size).T)
            kernel = torch.tensordot(kernel.double(), onto, dims=([axis], [1])).movedim(-1, axis)
    return kernel.float()


def _resizing(length: int, size: int) -> Tensor:
    """(size, length) float64: what linear resizing, averaged where it shrinks, makes of a row of voxels."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * length / size - 0.5
    weights = (1 - (torch.arange(length) - centre[:, None]).abs() / max(1, length / size)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
