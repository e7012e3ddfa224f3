"""An adapter and its authors' code on the same scans, with the same weights: how far apart they are, by stage."""

import contextlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import nn

from tapct._utils import terminal
from tapct.encoders import Encoder, Features
from tapct.encoders import weights as weights_lib
from tapct.encoders.authors import Authors, NotComparableError, require
from tapct.encoders.axes import from_axes
from tapct.encoders.options import label
from tapct.encoders.received import received
from tapct.encoders.verified import AdapterComparison, Stage, who
from tapct.errors import EncoderError
from tapct.features.extract import encoder_grid
from tapct.features.received import HEIGHTS
from tapct.source_code import version_of
from tapct.volumes import Volume, resample_image

STAGES = ("voxels", "map", "embedding")
BEYOND_HU = 2700.0
"""How far from 0 the second scan reaches, so that every clip shows."""

_SMALL = 0.02
"""Weights of the second draw, as a share: activations so small that the epsilon of each norm shows."""
_AIR_HU = -1000.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, eq=False)
class BothInputs:
    """A scan as both networks receive it.

    Attributes:
        ours: By the adapter, (B, C, ...) along its network's axes.
        theirs: By the authors' code, along the same.
        given: What the authors give their network, which may turn it first.
        axes: Of `given`.
        windows_hu: The scan itself, (B, 1, D, H, W).
        spacing_mm: Of its voxels, (z, y, x).
    """

    ours: torch.Tensor
    theirs: torch.Tensor
    given: torch.Tensor
    axes: str
    windows_hu: torch.Tensor
    spacing_mm: tuple[float, float, float]


@contextlib.contextmanager
def checked_out(
    authors: type[Authors], name: str, folder: Path | None, revision: str | None, *, trusted: bool
) -> Iterator[Path | None]:
    """Gives a folder with the files of one commit of the authors' repository; None where no repository is needed.

    Only what is committed is run, whatever else lies in the clone.

    Raises:
        NotComparableError: If the user has not named clone and commit, or not said that it may run.
        EncoderError: If there is no such commit.
    """
    if authors.repository is None:
        if folder is not None or revision is not None:
            raise EncoderError(f"{name}: its authors' code is {authors.source}; leave --code and --code-revision out")
        yield None
        return
    if folder is None or revision is None or not trusted:
        raise NotComparableError(
            f"{name}: its authors' code is in no registry. Clone it and read it (this was written for commit "
            f"{authors.read_at}), then name clone and commit, and say that it may run:\n"
            f"  git clone https://{authors.repository}\n"
            f"  tapct verify-encoder {name} --code {authors.repository.rpartition('/')[2]} "
            f"--code-revision {authors.read_at} --trust-remote-code"
        )
    if not _COMMIT.fullmatch(revision):
        raise EncoderError(f"--code-revision must be the full commit that you have read, not '{revision}'")
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "code.tar"
        git = ["git", "-C", str(folder), "archive", "--format=tar", "-o", str(archive), revision, *authors.paths]
        asked = subprocess.run(git, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if asked.returncode:
            raise EncoderError(f"{folder} has no commit {revision}: {asked.stderr.strip() or 'is it a git clone?'}")
        code = Path(scratch) / "code"
        with tarfile.open(archive) as files:
            files.extractall(code, filter="data")
        with _importable(code):
            yield code


@contextlib.contextmanager
def _importable(code: Path) -> Iterator[None]:
    """Lets modules of a folder be imported by name, and forgets them at the end."""
    before = set(sys.modules)
    sys.path.insert(0, str(code))
    try:
        yield
    finally:
        sys.path.remove(str(code))
        for name in set(sys.modules) - before:
            held = vars(sys.modules[name])
            package = held.get("__path__")
            places = [held.get("__file__"), *(package if isinstance(package, list) else ())]
            if any(isinstance(place, str) and Path(place).is_relative_to(code) for place in places):
                del sys.modules[name]


def compare(
    encoder: Encoder,
    kind: type[Authors],
    ct: Volume,
    *,
    published: Path | None = None,
    code: Path | None = None,
    revision: str | None = None,
) -> tuple[AdapterComparison, BothInputs]:
    """Runs an adapter and its authors' code next to each other.

    Args:
        encoder: The adapter, built with random weights, on the CPU; others are loaded into it.
        kind: Its counterpart.
        ct: A real scan.
        published: The file of the published weights; None compares random ones alone.
        code: The files of the authors' repository, where the counterpart needs them.
        revision: Their commit.

    Returns:
        What was found, and the real scan as both networks receive it.

    Raises:
        EncoderError: If either of the two cannot be run.
    """
    if encoder.mistake is not None:
        raise EncoderError(
            f"{encoder.card.name} with the mistake '{encoder.mistake}' is wrong on purpose: compare it without"
        )
    versions = require(kind, encoder.card.name)
    authors = kind(encoder, code)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        shown, *few = (
            _prepared(authors, hu, spacing_mm, Path(folder) / f"scan{number}.nii")
            for number, (hu, spacing_mm) in enumerate(_scans(authors, ct))
        )
        found = defaultdict(list, voxels=[_stage("voxels", scan.ours, scan.theirs) for scan in (shown, *few)])
        network = _built(authors)
        draws = _draws(authors, network, published)
        for state in terminal.track(draws, encoder.card.name, total=2 + (published is not None)):
            ours = encoder._converted(state)
            weights_lib.load_strict(encoder.network, ours, where=f"{encoder.card.name}, as its authors save it")
            for scan in few:
                features = encoder(scan.windows_hu, checked=True), authors.encode(network, scan.given)
                for stage in _features(*features, authors.axes):
                    found[stage.name].append(stage)
    return AdapterComparison(
        encoder=label(encoder.card.name, False, encoder.describe_options()),
        who=who(encoder),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        source=kind.source if revision is None else f"{kind.source} at {revision[:12]}",
        versions={name: version_of(name) for name in ("tapct-bench", "torch")} | versions,
        # The published ones were the last.
        weights_sha256=None if published is None else weights_lib.content_sha256(encoder.network.state_dict()),
        left_out=kind.left_out,
        stages=tuple(_worst(found[stage]) for stage in STAGES),
        tolerance=kind.tolerance,
    ), shown


def _scans(authors: Authors, ct: Volume) -> Iterator[tuple[torch.Tensor, tuple[float, float, float]]]:
    """Yields scans (D, H, W) at the adapter's grid with their spacing.

    The first has the size of the card's window (of a 2D encoder three slices), and is for the stage of voxels; those
    after it the size that both networks take: the middle of the same, and noise that reaches beyond every clip.
    """
    card, size = authors.encoder.card, authors.window
    grid = encoder_grid(ct.grid, card)
    antialias = card.in_plane_filter == "antialias"
    image = resample_image(torch.from_numpy(ct.hu), ct.grid, grid, antialias=antialias)
    if card.window_size[0] == 1:
        slices = image[[int(share * (grid.shape.z - 1)) for share in HEIGHTS]]
        yield _middle(slices, (len(HEIGHTS), *card.window_size[1:])), grid.spacing_mm
    else:
        yield _middle(image, card.window_size), grid.spacing_mm
    yield _middle(image, size), grid.spacing_mm
    noise = torch.empty(size).uniform_(-BEYOND_HU, BEYOND_HU, generator=torch.Generator().manual_seed(0))
    yield noise, grid.spacing_mm


def _middle(image: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """Returns the middle of a scan, with air around it where it is smaller."""
    missing = [max(0, n - have) for n, have in zip(size, image.shape, strict=True)]
    sides = [side for n in reversed(missing) for side in (n // 2, n - n // 2)]
    image = nn.functional.pad(image, sides, value=_AIR_HU)
    starts = [(have - n) // 2 for have, n in zip(image.shape, size, strict=True)]
    return image[tuple(slice(at, at + n) for at, n in zip(starts, size, strict=True))].contiguous()


def _prepared(authors: Authors, hu: torch.Tensor, spacing_mm: tuple[float, float, float], path: Path) -> BothInputs:
    """Writes a scan as a converted DICOM lies on disk, in whole HU, and has it prepared by both sides."""
    hu, (z, y, x) = hu.round(), spacing_mm
    array = hu.numpy().astype(np.int16).transpose(2, 1, 0)  # (x, y, z) towards left, posterior, superior
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-x, -y, z, 1.0])), path)
    # Our own reader would refuse noise, and is not a part of an adapter.
    windows_hu = hu[None, None] if authors.encoder.card.window_size[0] > 1 else hu[:, None, None]
    ours = received(authors.encoder, windows_hu)
    if ours is None:
        raise NotComparableError(f"{authors.encoder.card.name} has no network that could be compared")
    given = authors.prepare(path).float()
    return BothInputs(ours, authors.received(given), given, authors.axes, windows_hu, spacing_mm)


def _built(authors: Authors) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return authors.build().requires_grad_(False).eval()


def _draws(authors: Authors, network: nn.Module, published: Path | None) -> Iterator[dict[str, Any]]:
    """Yields weights as the authors' file holds them, and their network then: two random draws, published ones."""
    initial = {key: value.clone() for key, value in network.state_dict().items()}
    for scale in (1.0, _SMALL):
        network.load_state_dict(initial)
        randomise(network, scale)
        yield authors.published(network)
    if published is not None:
        state = weights_lib.read_state_dict(published)
        authors.load(network, state)
        yield state


def randomise(network: nn.Module, scale: float) -> None:
    """Draws what initialisation leaves trivial (norms, biases, layer scales, running statistics), and scales the rest.

    Args:
        network: Changed in place; the same draw each time.
        scale: Of what is no norm's. Norms keep theirs, and running variances follow the square: what goes
            into a norm is then small, and what comes out is not.
    """
    generator = torch.Generator().manual_seed(1)

    def noise(like: torch.Tensor, deviation: float) -> torch.Tensor:
        return torch.empty(like.shape).normal_(0, deviation, generator=generator).to(like)

    for module in network.modules():
        norms = "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False):
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            if bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(noise(parameter, 0.2))
            if not norms:
                parameter.mul_(scale)
        for key, buffer in module.named_buffers(recurse=False):
            if key == "running_mean":
                buffer.copy_(noise(buffer, 0.2) * scale)
            elif key == "running_var":
                buffer.copy_((1 + noise(buffer, 0.2)).clamp_min(0.5) * scale**2)


def _features(ours: Features, theirs: Features, axes: str) -> Iterator[Stage]:
    mapped = from_axes(theirs.map, axes) if theirs.map.ndim == 5 else theirs.map
    yield _stage("map", ours.map, mapped.float())
    yield _stage("embedding", ours.embedding, theirs.embedding.float())


def _stage(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> Stage:
    if ours.shape != theirs.shape:
        return Stage(name=name, difference=None, why=f"{tuple(ours.shape)} here, {tuple(theirs.shape)} of the authors")
    largest = theirs.abs().max()
    difference = float((ours - theirs).abs().max() / largest)
    if difference != difference or not bool(torch.isfinite(largest)) or largest == 0:
        return Stage(name=name, difference=None, why="the values are 0 everywhere, NaN or infinite")
    return Stage(name=name, difference=difference)


def _worst(stages: list[Stage]) -> Stage:
    return max(stages, key=lambda stage: float("inf") if stage.difference is None else stage.difference)
