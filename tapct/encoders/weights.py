"""Reading weights files, renaming their keys, and loading them strictly."""

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from tapct._utils.content import HEAD, what_it_is
from tapct.encoders.card import EncoderCard
from tapct.errors import WeightsError

_ZIP = b"PK\x03\x04"
RANDOM = "random"
NONE = "none"
"""The source of the weights of an encoder without parameters."""


def source_of(weights: str | Path, card: EncoderCard) -> str | Path:
    """Returns where the weights come from: "random", or an existing file.

    Of a folder it is the published file: `FOLDER/ENCODER/FILE`, as `tapct download --to FOLDER` puts it, else
    `FOLDER/FILE`.

    Of an encoder without parameters it is "none", also where "random" is asked for: there is nothing to draw.

    Raises:
        WeightsError: If the file does not exist, or the encoder has no parameters that it could hold.
    """
    path = Path(weights).expanduser()
    if not card.weights.needed:
        if weights not in (NONE, RANDOM) and not path.is_dir():  # a folder may hold those of other encoders
            raise WeightsError(
                f"{card.name} has no parameters, and takes no weights file such as {weights}. Leave it out"
            )
        return NONE
    if weights == RANDOM:
        return RANDOM
    if path.is_dir():
        own = card.file_in(path)
        path = own if own.is_file() or card.weights.file is None else path / card.weights.file
    if not path.is_file():
        raise WeightsError(f"{card.name}: there is no weights file {path}. Give a path, or '{RANDOM}'.")
    return path


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Reads a `.safetensors` file, or a `torch.save`d one without running any code of it.

    Raises:
        WeightsError: If the file is neither, is truncated, holds something else than a dictionary of names, or a tensor
            in it is larger than what the file has of it.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        _check_records(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} is not a weights file that can be read ({_what_it_is(path) or reason}). It may be an incomplete "
            "download, or hold pickled objects, which are refused."
        ) from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    if odd := [key for key in loaded if not isinstance(key, str)]:
        raise WeightsError(
            f"{path} holds a dictionary whose keys are not names, such as {odd[0]!r}. Is it the state of an optimizer? "
            "Save the network's state_dict()"
        )
    for name, tensor in _tensors(loaded):
        if reason := _incomplete(tensor):
            raise WeightsError(f"{path}: the tensor {name}, {tuple(tensor.shape)}, {reason}. Save the weights again")
    _check_storages(path, loaded)
    return loaded


def _what_it_is(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(HEAD)
    return None if head.startswith(_ZIP) else what_it_is(head)  # torch's own files are zip archives


def _records(path: Path) -> list[zipfile.ZipInfo]:
    """Returns the records of an archive of `torch.save`; none of a file of its older format."""
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return []
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _check_records(path: Path) -> None:
    """Refuses an archive that unpacks to more bytes than it has, before any is: torch stores what it saves as it is."""
    claimed = sum(record.file_size for record in _records(path))
    if claimed > path.stat().st_size:
        raise WeightsError(
            f"{path} is an archive of {path.stat().st_size:,} bytes that claims {claimed:,}. It was packed again, or "
            "is damaged: take the file from its origin again"
        )


def _check_storages(path: Path, loaded: dict[str, Any]) -> None:
    """Refuses an archive that has no record of the size of what was read from it.

    PyTorch 2.6 takes what lies behind a record that is too short in memory for the rest of it; newer versions refuse.
    """
    records = _records(path)
    storages = (tensor.untyped_storage() for _, tensor in _tensors(loaded))
    read = Counter({storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}.values())
    if records and (missing := read - Counter(record.file_size for record in records)):
        raise WeightsError(
            f"{path} is not a weights file that can be read (no record of it has the {max(missing):,} bytes of a "
            "tensor). It is damaged: take the file from its origin again"
        )


def _tensors(loaded: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the tensors of a checkpoint with their names, however deep they lie in it."""
    todo: list[tuple[str, Any]] = [("", loaded)]
    seen = set()
    while todo:
        name, value = todo.pop()
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [(f"{name}.{key}" if name else str(key), item) for key, item in items]


def _incomplete(tensor: torch.Tensor) -> str:
    """Says what a tensor lacks that no network's weights lack; nothing where it is whole."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "is sparse or quantised, and weights are plain numbers"
    if tensor.is_meta:
        return "was saved without its values (of the device 'meta')"
    held, claimed = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
    return f"claims {claimed:,} bytes, and the file has {held:,} of it" if claimed > held else ""


def load_strict(network: nn.Module, state_dict: dict[str, torch.Tensor], *, where: str) -> None:
    """Loads `state_dict` into `network`; every key and every shape must fit.

    Raises:
        WeightsError: If not, with the first few keys that are missing, unexpected or of another shape; or a value is
            no tensor, or holds whole numbers where the network has fractions.
    """
    wanted = network.state_dict()
    there = [k for k in wanted if k in state_dict]
    tensors = [k for k in there if isinstance(state_dict[k], torch.Tensor)]
    problems = {
        "missing": [k for k in wanted if k not in state_dict],
        "unexpected": [k for k in state_dict if k not in wanted],
        "that are not tensors": [f"{k} ({type(state_dict[k]).__name__})" for k in there if k not in tensors],
        "of another shape": [
            f"{k} {tuple(state_dict[k].shape)} instead of {tuple(wanted[k].shape)}"
            for k in tensors
            if state_dict[k].shape != wanted[k].shape
        ],
    }
    if any(problems.values()):
        report = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:4])}{' ...' if len(keys) > 4 else ''}"
            for what, keys in problems.items()
            if keys
        )
        raise WeightsError(f"the weights do not fit {where}. {report}. {_likely_cause(problems)}")
    fractions = [k for k, p in network.named_parameters() if k in wanted and p.is_floating_point()]
    whole = [k for k in fractions if not state_dict[k].is_floating_point()]
    if whole:
        raise WeightsError(
            f"the weights do not fit {where}: {len(whole)} parameters are stored as {state_dict[whole[0]].dtype}, such "
            f"as {whole[0]}. They were quantised, and what would scale them back is not in the file"
        )
    network.load_state_dict(state_dict, strict=True)


def _likely_cause(problems: dict[str, list[str]]) -> str:
    if problems["that are not tensors"]:
        return "The file is not a state dict, or one inside another."
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


def joined(state_dict: dict[str, torch.Tensor], *keys: str) -> torch.Tensor:
    """Returns matrices of a file as one, below each other.

    Raises:
        WeightsError: If one is stored as whole numbers, which next to fractions would be taken for such.
    """
    for key in keys:
        if not state_dict[key].is_floating_point():
            raise WeightsError(
                f"{key} is stored as {state_dict[key].dtype}. It was quantised, and what would scale it back is not in "
                "the file"
            )
    return torch.cat([state_dict[key] for key in keys])


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
            renamed[query.replace(".attention.attention.query.", ".attn.qkv.")] = joined(renamed, *parts)
            for part in parts:
                del renamed[part]
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
