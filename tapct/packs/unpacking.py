"""Unpacking a pack: nothing of it is used before all of it was checked."""

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch

from tapct._utils import terminal
from tapct.errors import FeatureError
from tapct.features import TensorStore, values
from tapct.features.extract import are_finite
from tapct.features.store import StoredEntry
from tapct.tasks import task_class
from tapct.tasks.pack import MANIFEST_FILE, MOST_BYTES, Manifest, Pack, PackedCase, packs_folder, parsed

_CHUNK = 2**20


def unpack(path: Path, features: Path) -> Pack:
    """Checks a pack and puts it into a feature folder, next to what was extracted here.

    Refused is whatever is not a plain file that the manifest names, of the size that it says; a file that is no
    safetensors file with the key, checksum, case and sizes that it should have; and a pack that lacks one. Nothing in a
    pack is ever executed.

    Args:
        path: The file.
        features: The feature folder.

    Returns:
        The pack, in its folder; the one that is there already if it is the same.

    Raises:
        FeatureError: If anything is wrong with it, or there is no space. Nothing is left behind.
    """
    folder = packs_folder(features)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tarfile.open(path, "r:") as archive,
            tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking.") as staging,
        ):
            members = _members(archive, path)
            manifest = _write_manifest(archive, members[MANIFEST_FILE], Path(staging), path)
            _require_members(manifest, members, path, free=shutil.disk_usage(folder).free)
            _write_entries(archive, members, manifest, Path(staging), path)
            found = Pack.read(Path(staging))
            place = folder / found.name
            if not place.exists():
                Path(staging).chmod(0o755)
                Path(staging).rename(place)
                Path(staging).mkdir()  # which the context removes
    except tarfile.TarError as error:
        raise FeatureError(f"{path} is not a feature pack: {error}. `tapct pack` writes an uncompressed tar") from error
    except OSError as error:
        raise FeatureError(f"cannot unpack {path} into {folder}: {error.strerror or error}") from error
    return Pack.read(place)


def _members(archive: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if not member.isreg() or member.issparse():
            raise FeatureError(
                f"{path} holds {member.name!r}, which is not a plain file. It was not made by `tapct pack`"
            )
        if member.name in members:
            raise FeatureError(f"{path} holds {member.name!r} twice. It was not made by `tapct pack`")
        members[member.name] = member
    if MANIFEST_FILE not in members:
        raise FeatureError(f"{path} has no {MANIFEST_FILE}: it is not a feature pack, or is cut off. Fetch it again")
    return members


def _write_manifest(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: Path) -> Manifest:
    if member.size > MOST_BYTES:
        raise FeatureError(f"{path}: a manifest of {member.size:,} bytes is none of a feature pack")
    content = _opened(archive, member, path).read()
    manifest = parsed(content, f"{MANIFEST_FILE} in {path}")
    (folder / MANIFEST_FILE).write_bytes(content)
    return manifest


def _require_members(manifest: Manifest, members: Mapping[str, tarfile.TarInfo], path: Path, *, free: int) -> None:
    store = TensorStore(".")
    wanted = {store.path(key).as_posix(): entry.nbytes for key, entry in manifest.entries.items()}
    there = {name: member.size for name, member in members.items() if name != MANIFEST_FILE}
    for name in {**wanted, **there}:
        if name not in there:
            raise FeatureError(f"{path} lacks {name}: it is cut off, or was changed. Fetch it again")
        if name not in wanted:
            raise FeatureError(f"{path} holds {name!r}, which its manifest does not name. It was changed")
        if there[name] != wanted[name]:
            raise FeatureError(
                f"{path}: {name} has {there[name]:,} bytes, and its manifest says {wanted[name]:,}. It was changed"
            )
    if (total := sum(wanted.values())) > free:
        raise FeatureError(f"{path} takes {total / 2**30:.1f} GiB, and there are {free / 2**30:.1f} GiB free")


def _write_entries(
    archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], manifest: Manifest, folder: Path, path: Path
) -> None:
    store = TensorStore(folder)
    for case in terminal.track(manifest.cases, "unpacking", total=len(manifest.cases)):
        for key in filter(None, (case.features, case.labels)):
            file = store.path(key)
            file.parent.mkdir(exist_ok=True)
            with file.open("xb") as target:
                member = members[file.relative_to(folder).as_posix()]
                shutil.copyfileobj(_opened(archive, member, path), target, _CHUNK)
            entry = store.load(key)
            assert entry is not None
            if entry.sha256 != manifest.entries[key].sha256:
                raise FeatureError(f"{path}: {file.name} is not the entry that the manifest names. It was changed")
            if problem := _problem(entry, key, case, manifest):
                raise FeatureError(f"{path}, case {case.case}: {problem}. It was not made by `tapct pack`")


def _problem(entry: StoredEntry, key: str, case: PackedCase, manifest: Manifest) -> str | None:
    """Returns what is wrong with an entry that is as its maker stored it; None where nothing is."""
    kind = "features" if key == case.features else "labels"
    wanted = {"kind": kind, "task": task_class(manifest.task["name"]).spec.folder, "case": case.case}
    if (found := {name: entry.about.get(name) for name in wanted}) != wanted:
        return f"its {kind} say that they are {found}"
    shapes = {name: tuple(tensor.shape) for name, tensor in entry.tensors.items()}
    try:
        return (_problem_of_features if kind == "features" else _problem_of_labels)(entry, manifest)
    except (KeyError, TypeError, ValueError) as error:
        return f"its {kind} lack {error} ({shapes})"


def _problem_of_features(entry: StoredEntry, manifest: Manifest) -> str | None:
    card = manifest.identity["card"]
    features, embeddings = entry.tensors["map"], entry.tensors["embeddings"]
    patches = tuple(entry.about["feature_grid"]["shape"])
    if tuple(features.shape) != (card["feature_dim"], *patches):
        return f"its map is {tuple(features.shape)}, and should be {(card['feature_dim'], *patches)}"
    if embeddings.ndim != 2 or embeddings.shape[1] != card["embedding_dim"]:
        return f"its embeddings are {tuple(embeddings.shape)}, and should be (N, {card['embedding_dim']})"
    if (problem := values.problem(entry.tensors, manifest.dtype)) is not None:
        return problem
    return None if are_finite(features, embeddings) else "its features are not finite"


def _problem_of_labels(entry: StoredEntry, manifest: Manifest) -> str | None:
    classes = len(task_class(manifest.task["name"]).spec.classes)
    for name in ("native", "encoder"):
        labels = entry.tensors[name]
        if labels.ndim != 3 or labels.dtype not in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16):
            return f"its labels are {labels.dtype} {tuple(labels.shape)}"
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            return f"it has labels from {int(labels.min())} to {int(labels.max())}, and the task has {classes} classes"
    return None


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> IO[bytes]:
    opened = archive.extractfile(member)
    if opened is None:
        raise FeatureError(f"{path}: {member.name!r} cannot be read")
    return opened
