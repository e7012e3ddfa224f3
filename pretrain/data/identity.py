"""Which store a run was trained on: what of it decides the samples, and nothing else.

The digest of a store covers, volume by volume in the order of the samples: id, shape, foreground range and checksum of
the stored file. Paths, times, patients, notes and the code that read a scan may change, and a run resumes all the same.

Checkpoints of before this digest hold the hash of the whole index file. Whether their store is today's is known where
the index is still that very file, or where `prepare` noted the digest of that file before it wrote another one
(`STORE/digests.json`); else it is not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.data.store import Store
from pretrain.errors import PretrainError
from pretrain.files import write

NOTED = "digests.json"
_ADOPT = "To train on with the store as it is now, which is noted in the run, give --run.adopt_store=true once"


@dataclass(frozen=True)
class StoreIdentity:
    """A store, as far as it decides samples.

    Attributes:
        digest: Of what decides the samples: two stores with the same digest give the same ones.
        volumes: Number of volumes.
        index_sha256: Hash of the index file, by which checkpoints of before digests know their store.
    """

    digest: str
    volumes: int
    index_sha256: str

    @classmethod
    def of(cls, store: Store) -> "StoreIdentity":
        """Returns that of a store: `pretrain.data.index` has the digest at hand."""
        return cls(store.digest, len(store), store.index_sha256)

    def is_of(self, store: Store) -> bool:
        """Whether a store gives the same samples."""
        return store.digest == self.digest


def note_digest(folder: Path) -> None:
    """Keeps the digest of a store's index, so that checkpoints that hold the hash of its file can be told later.

    Does nothing where there is no index yet, or an empty one.
    """
    index = folder / "index.jsonl"
    if not index.exists() or not index.stat().st_size:
        return
    store = Store(folder)
    noted = _noted(folder)
    if store.index_sha256 not in noted:
        noted[store.index_sha256] = StoreIdentity.of(store).digest
        write(folder / NOTED, json.dumps(noted, indent=1) + "\n")


def stores_of(state: Mapping[str, Any], store: Store) -> list[dict[str, Any]]:
    """Returns the stores that a run was trained on, oldest first: "step" it began with it, "digest", "volumes".

    Args:
        state: A checkpoint.
        store: The store now, which may know the digests of its earlier indexes.

    Returns:
        The stores; of a checkpoint of before digests, one, whose digest is None where it cannot be told.
    """
    if "stores" in state:
        return list(state["stores"])
    before = state["store_digest"]
    digest = store.digest if before == store.index_sha256 else _noted(store.folder).get(before)
    return [{"step": 0, "digest": digest, "volumes": None}]


def why_another_store(stores: list[dict[str, Any]], now: StoreIdentity, location: Path | str) -> str | None:
    """Says why a run cannot resume with a store; None if it can."""
    last = stores[-1]
    if last["digest"] == now.digest:
        return None
    if last["digest"] is None:
        return (
            f"it is of before checkpoints held what decides the samples, and {location}/index.jsonl was written anew "
            f"since: whether its volumes are the same cannot be told. {_ADOPT}"
        )
    number = "" if last["volumes"] is None else f" ({last['volumes']} then, {now.volumes} now)"
    return f"the volumes of the store {location} are others than before{number}. {_ADOPT}"


def trained_on(stores: list[dict[str, Any]], now: StoreIdentity, step: int) -> list[dict[str, Any]]:
    """Returns the stores of a run that resumes at a step with a store: one more where that is another one."""
    if stores[-1]["digest"] == now.digest:
        return [*stores[:-1], stores[-1] | {"volumes": now.volumes}]
    return [*stores, {"step": step, "digest": now.digest, "volumes": now.volumes}]


def _noted(folder: Path) -> dict[str, str]:
    path = folder / NOTED
    if not path.exists():
        return {}
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PretrainError(
            f"{path} is damaged ({error}). Delete it; only checkpoints of before 2026-11-29 need it"
        ) from error
    return dict(noted)
