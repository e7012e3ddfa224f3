"""Which stored features stay once every head of an experiment is trained and scored."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tapct.features import leases
from tapct.features.store import TensorStore
from tapct.names import Keep


@dataclass(frozen=True)
class Released:
    """What became of features.

    Attributes:
        entries: Entries that were removed.
        nbytes: Bytes of them.
        in_use: Keys of features that a running process needs, and that stay.
    """

    entries: int
    nbytes: int
    in_use: tuple[str, ...]


def embeddings_key(features_key: str) -> str:
    """Returns the key of the embeddings alone of a case's features."""
    return hashlib.sha256(f"embeddings of {features_key}".encode()).hexdigest()


def save_embeddings(store: TensorStore, features_key: str) -> None:
    """Stores the embeddings of features by themselves, unless they are there or the features are not.

    Raises:
        FeatureError: If the features are damaged, or nothing can be written.
    """
    key = embeddings_key(features_key)
    if key in store or (whole := store.load(features_key)) is None:
        return
    with store.lock(key):
        store.save(key, {"embeddings": whole.tensors["embeddings"]}, whole.about | {"kind": "embeddings"})


def release(store: TensorStore, features: Sequence[str], keep: Keep) -> Released:
    """Removes features, but for those that a running process needs.

    Killed in the middle, it has lost nothing: what is gone is computed again when it is needed.

    Args:
        store: Where they are.
        features: Keys of the features of cases.
        keep: What of them stays.

    Raises:
        FeatureError: If something cannot be removed or written.
    """
    there = [key for key in features if key in store or (keep == "none" and embeddings_key(key) in store)]
    if keep == "all" or not there:
        return Released(0, 0, ())
    if keep == "embeddings":
        for key in there:
            save_embeddings(store, key)
    entries, nbytes, in_use = 0, 0, []
    with leases.needed(store.folder) as needed:
        for key in there:
            if key in needed:
                in_use.append(key)
                continue
            for one in (key, *([embeddings_key(key)] if keep == "none" else [])):
                size = store.nbytes(one)
                store.remove(one)
                entries, nbytes = entries + (size > 0), nbytes + size
    return Released(entries, nbytes, tuple(in_use))
