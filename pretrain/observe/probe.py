"""The online probe: does a patch of a scan find the same organ in the scans of other patients?

The k-NN of DINO (Caron et al., 2021, section 4.1) on patch features of the teacher, one scan left out at a time. There
is nothing to train and nothing to select, so it is cheap and cannot flatter. It says whether features grow more useful
during a run; it is not a benchmark score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.config import Config
from pretrain.distributed import World
from pretrain.errors import PretrainError
from tapct.errors import VolumeError
from tapct.vit import VisionTransformer
from tapct.volumes import WindowPlan, read_ct, read_labels, resample_image, resample_labels

CT_NAMES = ("ct.nii.gz", "ct.nii", "ct.mha", "ct_dicom")
LABELS_NAME = "organs.nii.gz"

WINDOWS_PER_SCAN = 16
"""Windows that are encoded of a scan, evenly spread over those with organs."""

PATCHES_PER_ORGAN = 200
"""Patches that are kept of one organ of one scan, evenly spread."""

WHOLE = 0.5
"""Share of its voxels that a patch must have of one organ to count as that organ."""

VOTE_TEMPERATURE = 0.07
"""A neighbour's vote is exp(cosine similarity / this), as in DINO's k-NN."""

_WINDOWS_PER_BATCH = 8


@dataclass(frozen=True)
class Patches:
    """Patches of one scan.

    Attributes:
        features: (n, C) float32 of length 1, on the CPU.
        organs: (n,) int64 labels, none of them background.
    """

    features: Tensor
    organs: Tensor


@dataclass(frozen=True)
class _Scan:
    """Windows of one scan, ready for the network, and the organ of each of their patches (0: none)."""

    windows: Tensor
    organs: Tensor


class OnlineProbe:
    """Scans that are not trained on, shared out over the processes; each keeps its own in memory.

    Args:
        config: Settings of the run; `run.probe.folder` has one folder a patient, with the CT (`ct.nii.gz`, `ct.mha`
            or the DICOM series `ct_dicom/`) and the labels `organs.nii.gz` on its grid.
        world: The processes.

    Raises:
        PretrainError: If there are fewer than two scans, or one cannot be read.
    """

    def __init__(self, config: Config, world: World) -> None:
        folder = config.run.probe.folder
        assert folder is not None
        self._config, self._world = config, world
        cases = _cases(folder)
        try:
            self._scans = [_read(ct, labels, config) for ct, labels in cases[world.rank :: world.size]]
        except VolumeError as error:
            raise PretrainError(f"the held-out folder run.probe.folder = {folder}: {error}") from error

    @torch.no_grad()
    def __call__(self, backbone: VisionTransformer) -> dict[str, float]:
        """Returns accuracy (mean over organs), chance, and how many organs and scans there are.

        All processes call it, and all get the same.
        """
        with torch.compiler.set_stance("force_eager"):  # its batches have shapes of their own
            own = [self._encode(scan, backbone) for scan in self._scans]
        return organ_retrieval(
            [patches for share in self._world.gather(own) for patches in share], self._config.run.probe.neighbours
        )

    def _encode(self, scan: _Scan, backbone: VisionTransformer) -> Patches:
        device = self._world.device
        bf16 = self._config.run.precision == "bf16"
        features = []
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            for windows in scan.windows.split(_WINDOWS_PER_BATCH):
                tokens = backbone(windows.to(device)).patches
                features.append(functional.normalize(tokens.float(), dim=-1).cpu())
        flat, organs = torch.cat(features).flatten(0, 1), scan.organs.flatten()
        kept = torch.cat([_spread(torch.nonzero(organs == o).flatten()) for o in organs.unique().tolist() if o])
        return Patches(flat[kept], organs[kept].long())


def organ_retrieval(scans: Sequence[Patches], neighbours: int) -> dict[str, float]:
    """Classifies the patches of each scan by their neighbours in all others.

    Args:
        scans: Patches of at least two scans.
        neighbours: Patches that vote.

    Returns:
        accuracy: mean over the organs that two scans or more share, of the share of their patches that is classified
        rightly, so that small organs count as much as large ones; chance: one over the organs to choose from;
        organs: how many are scored; scans.

    Raises:
        PretrainError: If no organ is in two scans, or there is but one organ.
    """
    right: dict[int, list[Tensor]] = {}
    chances = []
    for index, query in enumerate(scans):
        others = [scan for i, scan in enumerate(scans) if i != index]
        keys, key_organs = torch.cat([s.features for s in others]), torch.cat([s.organs for s in others])
        asked = torch.isin(query.organs, key_organs)
        if not asked.any():
            continue
        classes, key_class = key_organs.unique(return_inverse=True)
        similarity, nearest = (query.features[asked] @ keys.T).topk(min(neighbours, len(keys)))
        votes = torch.zeros(len(similarity), len(classes)).scatter_add_(
            1, key_class[nearest], torch.exp(similarity / VOTE_TEMPERATURE)
        )
        truth = query.organs[asked]
        correct = classes[votes.argmax(dim=1)] == truth
        chances.append(1 / len(classes))
        for organ in truth.unique().tolist():
            right.setdefault(organ, []).append(correct[truth == organ])
    if not right:
        raise PretrainError("the held-out scans have no organ in common; the probe needs labels that two scans share")
    if max(chances) == 1:
        raise PretrainError("the held-out scans show fewer than two organs; the probe needs labels of several")
    accuracies = [torch.cat(parts).double().mean() for parts in right.values()]
    return {
        "accuracy": float(torch.stack(accuracies).mean()),
        "chance": sum(chances) / len(chances),
        "organs": float(len(right)),
        "scans": float(len(scans)),
    }


def _cases(folder: Path) -> list[tuple[Path, Path]]:
    if not folder.is_dir():
        raise PretrainError(f"run.probe.folder = {folder} does not exist")
    cases = []
    for case in sorted(path for path in folder.iterdir() if (path / LABELS_NAME).is_file()):
        scans = [case / name for name in CT_NAMES if (case / name).exists()]
        if not scans:
            raise PretrainError(f"{case} has {LABELS_NAME} but no CT ({', '.join(CT_NAMES)})")
        cases.append((scans[0], case / LABELS_NAME))
    if len(cases) < 2:
        raise PretrainError(
            f"run.probe.folder = {folder} has {len(cases)} folders with {LABELS_NAME}; the probe needs two or more"
        )
    return cases


def _read(ct_path: Path, labels_path: Path, config: Config) -> _Scan:
    """Brings a scan to the size of the global crops in the plane, and cuts it into windows of their depth."""
    ct = read_ct(ct_path)
    labels = read_labels(labels_path, ct)
    two_d = len(config.model.patch_size) == 2
    window = ((1,) if two_d else ()) + tuple(config.crops.global_size)
    patch = ((1,) if two_d else ()) + tuple(config.model.patch_size)
    grid = ct.grid.resized((ct.shape[0], *window[1:]))
    plan = WindowPlan.of(grid.shape, window, patch)
    data = config.data
    image = resample_image(torch.from_numpy(ct.hu), ct.grid, grid)
    image = plan.pad(image, data.clip_hu[0]).clamp(*data.clip_hu)
    organs = plan.pad(resample_labels(torch.from_numpy(labels.labels.astype("int32")), ct.grid, grid), 0)
    windows, patches = [], []
    for origin in plan.origins:
        of_patches = _organ_of_patches(plan.window_at(organs, origin), patch)
        if of_patches.any():
            windows.append(plan.window_at(image, origin))
            patches.append(of_patches)
    if not windows:
        raise PretrainError(f"{labels_path} has no organ that fills half a patch of {patch} voxels")
    chosen = _spread(torch.arange(len(windows)), WINDOWS_PER_SCAN).tolist()
    batch = torch.stack([windows[i] for i in chosen]).unsqueeze(1)
    batch = (batch - data.mean_hu) / data.std_hu
    return _Scan(batch.squeeze(2) if two_d else batch, torch.stack([patches[i] for i in chosen]))


def _organ_of_patches(labels: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Returns the organ of each patch (N,), row-major; 0 where none has half of it."""
    depth, height, width = (n // p for n, p in zip(labels.shape, patch, strict=True))
    voxels = labels.reshape(depth, patch[0], height, patch[1], width, patch[2]).permute(0, 2, 4, 1, 3, 5)
    voxels = voxels.reshape(depth * height * width, -1)
    organ = voxels.mode(dim=1).values
    share = (voxels == organ.unsqueeze(1)).double().mean(dim=1)
    return torch.where(share >= WHOLE, organ, 0)


def _spread(items: Tensor, at_most: int = PATCHES_PER_ORGAN) -> Tensor:
    """Returns at most so many of the items, evenly spread over them."""
    if len(items) <= at_most:
        return items
    return items[torch.linspace(0, len(items) - 1, at_most).round().long()]
