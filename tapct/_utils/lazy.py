"""Names of a package that are imported when they are first asked for (PEP 562)."""

import importlib
from collections.abc import Callable, Collection
from typing import Any


def names(package: str, exported: Collection[str], *modules: str) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package that exports names of modules whose import takes seconds.

    Args:
        package: Its `__name__`.
        exported: Its `__all__`.
        modules: Where the names are that it did not import itself, in the order in which they are searched.
    """

    def get(name: str) -> Any:
        if name in exported:
            for module in modules:
                found = vars(importlib.import_module(module))
                if name in found:
                    return found[name]
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get
