"""The scans of a release that several tasks are made of: each is encoded once for all of them."""

from functools import cached_property
from pathlib import Path
from typing import Any

from typing_extensions import override

from tapct.source_code import code_of
from tapct.tasks.dataset import CTDataset


class ReleaseScans(CTDataset):
    """Scans of a release.

    A class that derives from this one finds and reads them, and the tasks of the release derive from that class. What
    is stored of a scan hangs on its files, its name, that class and its code: on no task, split or label.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuses a task that reads scans in its own way: they would pass for those of the release.

        Raises:
            TypeError: If it does.
        """
        super().__init_subclass__(**keywords)
        release = cls._release()
        for name in ("read_scan", "scan_paths", "scan_cache_key"):
            if getattr(cls, name) is not getattr(release, name):
                raise TypeError(f"{cls.__name__} has a {name} of its own, and reads the scans of {release.__name__}")

    @classmethod
    def _release(cls) -> type["ReleaseScans"]:
        """Returns the class of the release, which stands directly on this one."""
        return next(one for one in cls.__mro__ if ReleaseScans in one.__bases__)

    @override
    def scan_paths(self, case: str) -> list[Path]:
        return [self.ct_path(case)]

    @override
    def scan_cache_key(self, case: str) -> list[Any]:
        return [*self._scan_code, case, *self._perturbing]

    @cached_property
    def _scan_code(self) -> list[Any]:
        release = self._release()
        code = code_of(release.__module__, CTDataset.__module__)
        return [f"{release.__module__}.{release.__qualname__}", code.sha256, code.libraries]
