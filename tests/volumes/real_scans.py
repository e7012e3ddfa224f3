"""Where the real scans lie that the readers are tested on."""

from pathlib import Path

import pytest

import tapct.errors

QUICKSTART = Path(tapct.errors.__file__).parent / "tasks" / "quickstart_data"
ABDOMEN_CT = QUICKSTART / "abdomen" / "ct.nii.gz"
ABDOMEN_ORGANS = QUICKSTART / "abdomen" / "organs.nii.gz"
CHEST_CT = QUICKSTART / "chest" / "ct_dicom"
CHEST_ORGANS = QUICKSTART / "chest" / "organs.nii.gz"

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the small real scans are not at {SHARED}")
