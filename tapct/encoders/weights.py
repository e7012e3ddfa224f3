"""Reading weights files, renaming their keys, and loading them strictly."""

import hashlib
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from tapct.encoders.card import EncoderCard
from tapct.errors import WeightsError

RANDOM = "random"
NONE = "none"
"""The source of the weights of an encoder without parameters."""


def source_of(weights: str | Path, card: EncoderCard) -> str | Path:
    """Returns where the weights come from: "random", or an existing file (of a folder, the published one).

    Of an encoder without parameters it is "none", also where "random" is asked for: there is nothing to draw.

    Raises:
        WeightsError: If the file does not exist, or the encoder has no parameters that it could hold.
    """
    if not card.weights.needed:
        if weights not in (NONE, RANDOM):
            raise WeightsError(
                f"{card.name} has no parameters, and takes no weights file such as {weights}. Leave it out"
            )
        return NONE
    if weights == RANDOM:
        return RANDOM
    path = Path(weights).expanduser()
    if path.is_dir() and card.weights.file is not None:
        path = path / card.weights.file
    if not path.is_file():
        raise WeightsError(f"{card.name}: there is no weights file {path}. Give a path, or '{RANDOM}'.")
    return path


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Reads a `.safetensors` file, or a `torch.save`d one without running any code of it.

    Raises:
        WeightsError: If the file is neither, is truncated, or holds something else than a dictionary.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} is not a weights file that can be read ({reason}). It may be an incomplete download, "
            "or hold pickled objects, which are refused."
        ) from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    return loaded


def load_strict(network: nn.Module, state_dict: dict[str, torch.Tensor], *, where: str) -> None:
    """Loads `state_dict` into `network`; every key and every shape must fit.

    Raises:
        WeightsError: If not, with the first few keys that are missing, unexpected or of another shape.
    """
    wanted = network.state_dict()
    problems = {
        "missing": [k for k in wanted if k not in state_dict],
        "unexpected": [k for k in state_dict if k not in wanted],
        "of another shape": [
            f"{k} {tuple(state_dict[k].shape)} instead of {tuple(wanted[k].shape)}"
            for k in wanted
            if k in state_dict and state_dict[k].shape != wanted[k].shape
        ],
    }
    if any(problems.values()):
        report = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}"
            for what, keys in problems.items()
            if keys
        )
        raise WeightsError(f"the weights do not fit {where}. {report}. {_likely_cause(problems)}")
    network.load_state_dict(state_dict, strict=True)


def _likely_cause(problems: dict[str, list[str]]) -> str:
    if not problems["missing"] and not problems["unexpected"]:
        return "The file is of the same architecture at another size, patch or window."
    if problems["missing"] and problems["unexpected"]:
        return "The file is of another architecture, or its keys carry a prefix that this encoder does not know."
    return "The file is of another architecture, or incomplete."


_TRANSFORMERS_NAMES = (
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)
"""Names of `transformers`' Dinov2WithRegisters in published files, and ours; q, k and v are joined apart."""


def _from_transformers(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for key, value in state_dict.items():
        name = key
        for theirs, ours in _TRANSFORMERS_NAMES:
            name = name.replace(theirs, ours)
        renamed[name] = value
    for query in [name for name in renamed if ".attention.attention.query." in name]:
        parts = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):
            joined = query.replace(".attention.attention.query.", ".attn.qkv.")
            renamed[joined] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def from_dinov2(state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the backbone of a checkpoint in DINOv2's layout under the names of `tapct.vit`.

    Accepts the names of DINOv2's own code and those of `transformers`; a flat state dict, or one under
    `teacher` or `model`; prefixes `module.` and `backbone.`; blocks in chunks (`blocks.0.3.`) or not. The
    pretraining heads (`dino_head.`, `ibot_head.`) are dropped on purpose.
    """
    for wrapper in ("teacher", "model"):
        if isinstance(state_dict.get(wrapper), dict):
            state_dict = state_dict[wrapper]
    names = {re.sub(r"^(module\.|backbone\.|model\.)+", "", key): key for key in state_dict}
    chunked = any(re.match(r"blocks\.\d+\.\d+\.", name) for name in names)
    renamed = {}
    for name, key in names.items():
        if name.startswith(("dino_head.", "ibot_head.")):
            continue
        renamed[re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name) if chunked else name] = state_dict[key]
    return _from_transformers(renamed) if any(name.startswith("embeddings.") for name in renamed) else renamed


def file_sha256(path: str | Path) -> str:
    """Returns the hash of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(state_dict: dict[str, torch.Tensor]) -> str:
    """Returns a hash of the names, dtypes, shapes and values of a state dict, whatever file it came from."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
