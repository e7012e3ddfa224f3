"""What the project ships for its tasks, and the lists that it was made from, which may be absent."""

from pathlib import Path

import pytest

import tapct.tasks

SPLITS = Path(tapct.tasks.__file__).parent / "splits"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


def reference() -> Path:
    """Returns the folder of the releases' own lists, or skips the test."""
    if not REFERENCE.is_dir():
        pytest.skip("../shared/reference is not here")
    return REFERENCE
