"""What a record says of its encoder's input: the rows of its sheet, and the hash of what its network receives."""

import functools
from dataclasses import replace
from typing import Any

from tapct.encoders import Encoder
from tapct.encoders.input_sheet import rows
from tapct.features.received import received_of
from tapct.records.encoder import RECORDED_NAMES
from tapct.tasks.quickstart import shipped_scan
from tapct.volumes import Volume

NEVER_CALLED = "its network is never called"


def recorded_sheet(encoder: Encoder) -> dict[str, Any]:
    """Returns what `tapct.records.encoder.InputSheetRecord` holds of an encoder; its network need not be built."""
    said = (row._replace(name=RECORDED_NAMES.get(row.name, row.name)) for row in rows(encoder))
    sheet: dict[str, Any] = {"rows": [row._asdict() for row in said]}
    try:
        found = received_of(encoder, _scan())
    except Exception as error:  # noqa: BLE001 whatever building a third-party network needs: no experiment fails for its sheet
        return sheet | {"not_received": f"{type(error).__name__}: {error}"}
    return sheet | ({"not_received": NEVER_CALLED} if found is None else {"received_sha256": found.sha256})


def _scan() -> Volume:
    """Returns the scan that input sheets show: a copy, with which an encoder may do as it likes."""
    scan = _read_once()
    return replace(scan, hu=scan.hu.copy(), affine=scan.affine.copy())


@functools.cache
def _read_once() -> Volume:
    return shipped_scan()
