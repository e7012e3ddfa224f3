"""Stored entries as they are read: each must be there, whole, and what it is taken for."""

from collections.abc import Mapping

from loguru import logger

from tapct.errors import FeatureError
from tapct.features.keeping import embeddings_key
from tapct.features.keys import KeyedCase
from tapct.features.store import StoredEntry, TensorStore


class StoredEntries:
    """The entries of a store, for reading."""

    def __init__(self, store: TensorStore) -> None:
        self.store = store
        self._damaged: set[str] = set()

    def find(self, key: str, of: str) -> StoredEntry | None:
        """Returns an entry; None where it is not there or damaged, which is said once.

        Args:
            key: Its key.
            of: What it is of, in the message.
        """
        try:
            return self.store.load(key)
        except FeatureError as error:
            if key not in self._damaged:
                logger.warning(f"{of}: {error}")
            self._damaged.add(key)
            return None

    def features(self, keyed: KeyedCase, *, with_map: bool) -> StoredEntry:
        """Returns the entry of a case's features, or that of its embeddings alone where those are enough.

        Raises:
            FeatureError: If it is not there any more, damaged, or there is another in its place.
        """
        alone = embeddings_key(keyed.features_key)
        if not with_map and self.find(alone, keyed.title) is not None:
            return self.of_case(keyed, "embeddings", alone)
        return self.of_case(keyed, "features", keyed.features_key)

    def of_case(self, keyed: KeyedCase, kind: str, key: str) -> StoredEntry:
        """Returns the entry of a kind ("features", "embeddings", "labels") of a case, which must be there.

        Raises:
            FeatureError: As `features`.
        """
        entry = self.store.load(key)
        if entry is None:
            raise FeatureError(f"the features of {keyed.case} are no longer in {self.store.folder}; run again")
        return self.require(entry, {"kind": kind, "task": keyed.dataset.spec.folder, "case": keyed.case}, key)

    def require(self, entry: StoredEntry, wanted: Mapping[str, str], key: str) -> StoredEntry:
        """Returns an entry that says of itself that it is what is wanted.

        Raises:
            FeatureError: If it says something else.
        """
        found = {name: entry.about.get(name) for name in wanted}
        if found != wanted:
            raise FeatureError(
                f"{self.store.path(key)} holds the {found['kind']} of case {found['case']} of {found['task']}, not the "
                f"{wanted['kind']} of case {wanted['case']} of {wanted['task']}. `tapct cache rm --broken` removes it"
            )
        return entry
