"""A cache of features in memory, for the runs of one process."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from tapct.features.extract import CaseFeatures


class FeatureMemory:
    """Keeps the features of the last cases, within a budget of bytes.

    A frozen encoder says the same of a case in every step and every run, so a case is encoded once a
    process while it fits. The runs of eva work on deep copies of the model; they share one memory.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._cases: OrderedDict[Hashable, CaseFeatures] = OrderedDict()

    def get(self, key: Hashable) -> CaseFeatures | None:
        """Returns the features of a case, or None where they are not (or no longer) held."""
        if key in self._cases:
            self._cases.move_to_end(key)
        return self._cases.get(key)

    def put(self, key: Hashable, features: CaseFeatures) -> None:
        """Holds the features of a case, letting go of the least recently used ones over the budget."""
        if features.nbytes > self._budget:
            return
        self._cases[key] = features
        while sum(f.nbytes for f in self._cases.values()) > self._budget:
            self._cases.popitem(last=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureMemory":
        """Returns itself: see the class."""
        return self
