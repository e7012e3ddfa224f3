"""Finding the files of a release by name."""

import itertools
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePath

from tapct.errors import TaskError


class ReleaseFiles:
    """Finds files and folders of a release by name, wherever a mirror has put them (it may even make each a folder).

    Two of one scan are an error that names both: neither is taken by chance.
    """

    def __init__(self, root: Path, patterns: Iterable[str], tops: Iterable[str] = ("", "*/")) -> None:
        """Initializes the index.

        Args:
            root: Folder of the task.
            patterns: Globs of what is looked for, from the release's top folder; macOS's `._*` files are passed over.
            tops: Globs of what may be the top folder, each ending in a slash: the task's folder itself, or the one in
                it that the archive made. "**/" is any.
        """
        self._root = root
        self._patterns = tuple(patterns)
        self._tops = tuple(tops)

    @cached_property
    def _found(self) -> dict[str, list[Path]]:
        """Paths by the last parts of their names, as many as their pattern has."""
        found: dict[str, list[Path]] = {}
        for top, pattern in itertools.product(self._tops, self._patterns):
            for path in sorted(self._root.glob(top + pattern)):
                if not path.name.startswith("._"):
                    found.setdefault("/".join(path.parts[-len(PurePath(pattern).parts) :]), []).append(path)
        return found

    def find(self, *names: str) -> Path:
        """Returns what has one of these names, from the release's top folder, else where the first belongs.

        Raises:
            TaskError: There are several.
        """
        return self._single([path for name in names for path in self._found.get(name, [])], names[0])

    def only(self, name: str) -> Path:
        """Returns the only thing that the patterns find, else where `name` belongs.

        Raises:
            TaskError: There are several.
        """
        return self._single([path for paths in self._found.values() for path in paths], name)

    def _single(self, found: list[Path], name: str) -> Path:
        if len(found) > 1:
            # A folder that a mirror has made round a file has its name; links may lead to one file.
            files = [path for path in found if not (path / path.name).exists()]
            found = list({path.resolve(): path for path in reversed(files)}.values())
        if len(found) > 1:
            listed = ", ".join(sorted(str(path.relative_to(self._root)) for path in found))
            what = f"{self._root} holds {found[0].name} {len(found)} times: {listed}"
            raise TaskError(f"{what}. Leave the one to be used")
        return found[0] if found else self._root / name


def nifti(*stems: str) -> tuple[str, ...]:
    """Returns the names that a NIfTI file may have, packed or not."""
    return tuple(stem + end for stem in stems for end in (".nii.gz", ".nii"))
