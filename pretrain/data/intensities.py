"""The intensities of a store: its fingerprint on the disk, and how far it is from a normalisation."""

import json
from dataclasses import asdict
from pathlib import Path

from pretrain.data.fingerprint import Fingerprint
from pretrain.data.store import Store
from pretrain.errors import PretrainError
from pretrain.files import write

PAPER_MEAN_HU, PAPER_STD_HU = -86.8086, 322.6347
"""Mean and standard deviation of the foreground of the paper's dataset (Appendix B)."""
FAR_MEAN, FAR_STD = 0.25, 1.25
"""Beyond these a store counts as far from a normalisation, by our choice: the distance of the means in standard
deviations, and the ratio of the standard deviations (either way round)."""
FINGERPRINT = "fingerprint.json"


def write_fingerprint(store: Path, fingerprint: Fingerprint) -> None:
    """Writes a store's fingerprint."""
    write(store / FINGERPRINT, json.dumps(asdict(fingerprint), indent=1) + "\n")


def read_fingerprint(store: Store) -> Fingerprint:
    """Reads a store's fingerprint.

    Raises:
        PretrainError: There is none, or it is of other volumes: the preparation did not come to its end.
    """
    path = f"{store.location}/{FINGERPRINT}"
    again = "Run `python -m pretrain.prepare` on the store again"
    try:
        found = Fingerprint(**json.loads((store.folder / FINGERPRINT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise PretrainError(f"{path} cannot be read ({error}). {again}") from error
    if found.volumes != len(store):
        raise PretrainError(f"{path} is of {found.volumes} volumes, and the store has {len(store)}. {again}")
    return found


def is_far(found: Fingerprint, mean_hu: float, std_hu: float) -> bool:
    """Whether a foreground is far from a normalisation (`FAR_MEAN`, `FAR_STD`)."""
    ratio = found.std_hu / std_hu
    return abs(found.mean_hu - mean_hu) > FAR_MEAN * std_hu or max(ratio, 1 / ratio) > FAR_STD


def distance_in_words(found: Fingerprint) -> str:
    """Compares a foreground with the paper's."""
    shift = (found.mean_hu - PAPER_MEAN_HU) / PAPER_STD_HU
    words = f"mean {shift:+.2f} standard deviations, standard deviation {found.std_hu / PAPER_STD_HU:.2f} times"
    return f"{words}; far: consider --data.intensities=store" if is_far(found, PAPER_MEAN_HU, PAPER_STD_HU) else words
