"""Features of any CT: encoding scans with a bar, and keeping them in files that need none of our code to be read."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open

from tapct._utils import terminal
from tapct._utils.files import features_folder, write_atomically
from tapct.encoders import Encoder
from tapct.encoders.identity import identity
from tapct.encoders.promises import require_parameters
from tapct.errors import EncoderError, FeatureError, TapctError
from tapct.features.extract import CaseFeatures, are_finite, encoder_grid, extract
from tapct.features.identity import ScanHashes, key_of
from tapct.features.values import DTYPES
from tapct.volumes import Grid, Volume, WindowPlan, read_ct

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd")


@dataclass(frozen=True)
class Embedded:
    """What became of an input: `written`, `there` (from before), or `failed`, and then why.

    Where it was written, `notes` is what a user should know of how the scan was read.
    """

    source: Path
    target: Path
    status: Literal["written", "there", "failed"]
    reason: str | None = None
    notes: tuple[str, ...] = ()


def encode(encoder: Encoder, ct: Volume, device: torch.device | str = "cpu", *, overlap: float = 0.0) -> CaseFeatures:
    """Encodes a scan by sliding window, with a progress bar over its windows.

    Args:
        encoder: The encoder; it may be deferred.
        ct: The scan.
        device: Where to compute.
        overlap: Share of overlap between windows.

    Returns:
        The features, on the CPU.

    Raises:
        EncoderError: If they are not finite, or not what the encoder's card says.
    """
    with _bar(Path(ct.source).name, len(_plan(encoder, ct.grid, overlap).origins)) as advance:
        hook = encoder.register_forward_hook(lambda _, windows, __: advance(windows[0].shape[0]))
        try:
            hu = torch.from_numpy(ct.hu).to(device)
            found = extract(encoder, hu, ct.grid, name=ct.source, overlap=overlap)
        finally:
            hook.remove()
    require_parameters(encoder)
    if not are_finite(found.map, found.embeddings):
        raise EncoderError(f"{encoder.card.name} gives features that are not finite for {ct.source}")
    return CaseFeatures(
        map=found.map.cpu(),
        embeddings=found.embeddings.cpu(),
        native_grid=found.native_grid,
        encoder_grid=found.encoder_grid,
        feature_grid=found.feature_grid,
        padding=found.padding,
        notes=found.notes,
    )


def embed(
    encoder: Encoder,
    inputs: Sequence[Path],
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: str = "fp16",
    overlap: float = 0.0,
    replace: bool = False,
) -> Iterator[Embedded]:
    """Writes the features of scans, one safetensors file each; what is there already is left alone.

    The file of `a/b/ct.nii.gz` (or of the DICOM folder `a/b/ct`) is `b/ct.safetensors`: releases name their scans by
    file or by folder, and so neither is lost. It is told by content whether a file is there: encoder, weights,
    settings, code, and the bytes of every file of the scan.

    Args:
        encoder: The encoder; it may be deferred, and is built only if something is missing.
        inputs: NIfTI, MetaImage, or folders of DICOM slices.
        folder: Where to write.
        device: Where to compute.
        dtype: Of the features: "fp16", "bf16", "fp32".
        overlap: Share of overlap between windows.
        replace: Whether a file of another encoder or scan under the same name is replaced; else it is an error.

    Yields:
        What became of each input, as it is done. A scan that fails does not stop the others.

    Raises:
        FeatureError: If two inputs have the same file, or the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise FeatureError(f"features are written as {', '.join(DTYPES)}, not as '{dtype}'")
    targets = {path: target_of(path, folder) for path in inputs}
    for path, target in targets.items():
        if (other := next(p for p in targets if targets[p] == target)) != path:
            raise FeatureError(f"{other} and {path} would both be written to {target}: embed them into two folders")
    who, hashes = identity(encoder, torch.device(device)), ScanHashes(features_folder() / "hashes")
    for path, target in targets.items():
        try:
            if not path.exists():
                raise FeatureError(f"{path} does not exist")
            scan = hashes.of([path])
            key = key_of({"encoder": who, "scan": scan, "overlap": overlap, "dtype": dtype})
            if target.exists() and _is_there(target, key, scan, encoder.card.name, replace):
                yield Embedded(path, target, "there")
                continue
            ct = read_ct(path)
            features = encode(encoder, ct, device, overlap=overlap)
            if hashes.of([path]) != scan or identity(encoder, torch.device(device))["weights"] != who["weights"]:
                raise FeatureError(
                    f"{path} or the weights changed while they were read. Run again when they are at rest"
                )
            _write(target, {"key": key, "scan_sha256": scan}, encoder, features, dtype, overlap, ct.notes)
            yield Embedded(path, target, "written", notes=ct.notes)
        except TapctError as error:
            yield Embedded(path, target, "failed", str(error))


def device_of(name: str) -> str:
    """Returns the device of a name, where "auto" is a GPU if there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def target_of(path: Path, folder: Path) -> Path:
    """Returns the file of an input: its name under the name of the folder that it is in."""
    path = Path(os.path.normpath(path.absolute()))  # "../ct.nii.gz" would go next to the folder; links keep their names
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    stem = path.name[: len(path.name) - len(suffix)]
    return folder / path.parent.name / f"{stem}.safetensors"


def about(path: Path) -> dict[str, Any]:
    """Returns what a file of `embed` says of itself.

    Raises:
        FeatureError: If it is not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["tapct"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise FeatureError(f"{path} was not written by `tapct embed`, or is damaged: {error}") from error


def _is_there(target: Path, key: str, scan: str, encoder: str, replace: bool) -> bool:
    """Returns whether a file holds these features; False where others may be replaced.

    Raises:
        FeatureError: If it is damaged or holds others, and must not be replaced.
    """
    try:
        found = about(target)
    except FeatureError:
        if replace:
            return False
        raise
    if found["key"] == key or replace:
        return found["key"] == key
    if found.get("scan_sha256", scan) != scan:
        what = "of another scan, or of this one before its files changed"
    elif found["card"]["name"] != encoder:
        what = f"by another encoder ({found['card']['name']})"
    else:
        what = f"by {encoder} with other weights, settings, code or libraries"
    raise FeatureError(f"{target} holds features {what}. Write into another folder, or give --replace")


def _write(
    target: Path,
    of: dict[str, str],
    encoder: Encoder,
    features: CaseFeatures,
    dtype: str,
    overlap: float,
    notes: tuple[str, ...],
) -> None:
    tensors = {name: getattr(features, name).to(DTYPES[dtype]).contiguous() for name in ("map", "embeddings")}
    if not are_finite(*tensors.values()):
        raise FeatureError(f"{encoder.card.name} gives features too large for {dtype}: give --dtype bf16 or fp32")
    plan = _plan(encoder, features.native_grid, overlap)
    tensors["windows"] = torch.tensor(plan.origins, dtype=torch.int32)
    tensors["affine"] = torch.from_numpy(features.feature_grid.affine)
    content = {
        **of,
        "card": {"name": encoder.card.name, "display_name": encoder.card.display_name, "has_cls": encoder.card.has_cls},
        "encoder": encoder.describe() | {"weights": Path(str(encoder.weights_source)).name},
        "window_size": list(plan.window),
        "native_grid": features.native_grid.to_json(),
        "encoder_grid": features.encoder_grid.to_json(),
        "padding": list(features.padding),
        "notes": list(notes),
    }
    data = safetensors.torch.save(tensors, {"tapct": json.dumps(content)})
    try:
        write_atomically(target, data)
    except OSError as error:
        raise FeatureError(f"cannot write {target}: {error.strerror or error}") from error


def _plan(encoder: Encoder, grid: Grid, overlap: float) -> WindowPlan:
    card, way = encoder.card, encoder.way
    if way.axes != "SPL":
        raise EncoderError(
            f"{card.name}: places of windows are written as they lie in the scan, and with the mistake "
            f"'{encoder.mistake}' they lie otherwise. `tapct run --mistakes` runs it on a task"
        )
    return WindowPlan.of(encoder_grid(grid, card, way).shape, card.window_size, card.feature_stride, overlap)


@contextmanager
def _bar(name: str, windows: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("windows"))
    with terminal.progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(name, total=windows)
        yield lambda done: progress.advance(bar, done)
