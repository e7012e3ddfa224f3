"""What versions the suite was run with, and which ones packages must not have.

`lowest.txt` and `newest.txt` next to this are what `make test-lowest` and `make test-newest` install.
"""

from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files

from packaging.requirements import Requirement
from packaging.version import Version

PYTHON = ((3, 11), (3, 13))
"""The first and the last version of Python that the suite was run on."""

FORBIDDEN = {
    "kaiko-eva": "what is worked around in it is worked around for this version",
    "jsonargparse": "from 4.51 on, overrides after --config fail, and runs of eva's own modules share one head",
    "onnxruntime": "from 1.29 on, it sends telemetry on import, and eva imports it",
    "pydantic": "before 2.12, the fingerprints of older records would change",
}
"""Why a package must be within its range: elsewhere a run fails, phones home or gives another number."""


def requirements() -> list[Requirement]:
    """Returns what this package needs, without its extras."""
    wanted = [Requirement(text) for text in requires("tapct-bench") or []]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def installed(package: str) -> Version | None:
    """Returns the version of a package that is installed; None where it is not."""
    try:
        return Version(version(package))
    except PackageNotFoundError:
        return None


def newest() -> dict[str, Version]:
    """Returns the newest version of each package that the suite was run with, on this version of Python."""
    lines = (files(__name__) / "newest.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        one.name: Version(next(iter(one.specifier)).version)
        for one in pinned
        if one.marker is None or one.marker.evaluate()
    }
