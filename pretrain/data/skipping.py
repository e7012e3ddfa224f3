"""What is not a CT at all, such as the label maps and PET that lie next to scans: skipped, and nothing to fix.

Asked only of what the reader has refused, so that no CT is skipped that could be read. A scan that was meant to be a CT
and went wrong (normalised, windowed, cut short) is not skipped: somebody should look at it.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pretrain.data.matching import content_of
from pretrain.data.sources import Source
from pretrain.files import write
from tapct.errors import VolumeError
from tapct.source_code import code_of
from tapct.volumes import read_labels
from tapct.volumes.dicom_files import read_dataset

MOST_LABELS = 1000
"""More different values are not labels."""
SAME_AS_NEIGHBOUR = 0.7
"""Of voxels that are not background and whose neighbour is not: labels repeat it, the noise of a scan does not."""
_FILE = "skipped.jsonl"
_PET = re.compile(r"(?<![a-z])(pet|suv|pt)(?![a-z])", re.IGNORECASE)


def what_else(source: Source) -> str | None:
    """Says what a scan is that is not a CT; None where it may be one.

    Args:
        source: A scan that could not be read as CT.
    """
    if source.path.is_dir():
        return _other_modality(source)
    if _is_label_map(source.path):
        return "a label map: whole numbers from 0 that repeat from voxel to voxel"
    if _PET.search(source.path.name) and not re.search(r"(?<![a-z])ct", source.path.name, re.IGNORECASE):
        return "a PET, by its name"
    return None


def known_skipped(store: Path, sources: Sequence[Source]) -> dict[str, str]:
    """Returns what an earlier run skipped and nobody has changed since: path to what it is."""
    path = store / _FILE
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    known = {entry["source"]: entry for entry in entries if entry["code_sha256"] == _code_sha256()}
    return {
        str(source.path): known[str(source.path)]["what"]
        for source in sources
        if str(source.path) in known and content_of(source) == known[str(source.path)]["source_sha256"]
    }


def write_skipped(store: Path, sources: Sequence[Source], skipped: Mapping[str, str]) -> None:
    """Lists what was skipped, so that the next run need not read it."""
    entries = (
        {"source": path, "what": skipped[path], "source_sha256": content_of(source), "code_sha256": _code_sha256()}
        for source in sources
        if (path := str(source.path)) in skipped
    )
    write(store / _FILE, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))


@functools.cache
def _code_sha256() -> str:
    return code_of("pretrain.data.skipping").sha256


def _other_modality(source: Source) -> str | None:
    modalities: Counter[str] = Counter()
    for file in source.files:
        try:
            modalities[str(read_dataset(file, ["Modality"]).get("Modality") or "")] += 1
        except VolumeError:
            continue  # a README among the slices; the reader has said what is wrong with it
    if not modalities or {"CT", ""} & set(modalities):
        return None
    return f"DICOM of modality {', '.join(sorted(modalities))}"


def _is_label_map(path: Path) -> bool:
    try:
        labels = read_labels(path).labels
    except VolumeError:
        return False
    background = np.bincount(labels.ravel()[:: max(1, labels.size // 1_000_000)]).argmax()
    here, there = labels[..., :-1], labels[..., 1:]
    inside = (here != background) & (there != background)
    if not inside.any():
        return labels.min() != labels.max()  # single voxels, or nothing
    same = (here == there)[inside].mean()
    return bool(same > SAME_AS_NEIGHBOUR) and len(np.unique(labels)) <= MOST_LABELS
