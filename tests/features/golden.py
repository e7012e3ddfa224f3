"""Features of the scans that ship, to be compared with those of another day: `python -m tests.features.golden` writes.

Next to them stands what their keys hold of the code and libraries that computed them.
"""

import json
from pathlib import Path
from typing import Any

import torch

import tapct
from tapct.encoders import Encoder
from tapct.encoders.identity import identity
from tapct.features import extract
from tapct.features.identity import shared_code
from tapct.volumes import read_ct
from tests.conftest import QUICKSTART
from tests.small import CubicMillimetres, cropped

FILE = Path(__file__).parent / "golden.json"
ABDOMEN = QUICKSTART / "abdomen" / "ct.nii.gz"
CHEST = QUICKSTART / "chest" / "ct_dicom"
SAMPLED = 6
"""Patches, channels and windows that are kept, evenly spread."""

CASES = {
    "tap-t-3d": (lambda: tapct.load_encoder("tap-t-3d"), ABDOMEN, (slice(40, 52), slice(10, 90), slice(10, 90))),
    "intensity": (lambda: tapct.load_encoder("intensity"), CHEST, (slice(0, 12), slice(None), slice(None))),
    "cubic": (lambda: CubicMillimetres("random"), ABDOMEN, (slice(0, 40), slice(None), slice(None))),
}


def computed(name: str) -> dict[str, Any]:
    """What is kept of a case: values of the features, and the code and libraries of their key."""
    make, path, where = CASES[name]
    encoder = make()
    return {"values": _values(encoder, path, where), "key": code_in_key(encoder)}


def code_in_key(encoder: Encoder) -> dict[str, Any]:
    who, shared = identity(encoder, torch.device("cpu")), shared_code()
    return {
        "shared_sha256": shared["sha256"],
        "encoder_sha256": who["code_sha256"],
        "libraries": dict(sorted((shared["libraries"] | who["libraries"]).items())),
    }


def _values(encoder: Encoder, path: Path, where: tuple[slice, slice, slice]) -> dict[str, Any]:
    ct = cropped(read_ct(path), None, where)
    found = extract(encoder, torch.from_numpy(ct.hu), ct.grid)
    patches = found.map.flatten(1).double()
    return {
        "map": list(found.map.shape),
        "embeddings": list(found.embeddings.shape),
        "sampled": _some(_some(patches, 0), 1).flatten().tolist(),
        "of_windows": _some(_some(found.embeddings.double(), 0), 1).flatten().tolist(),
        "mean": float(patches.mean()),
        "spread": float(patches.std()),
        "place": found.feature_grid.affine.flatten().tolist(),
    }


def _some(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    return tensor.index_select(axis, torch.linspace(0, tensor.shape[axis] - 1, SAMPLED).long())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: _rounded(computed(name)) for name in CASES}, indent=1) + "\n", encoding="utf-8")
