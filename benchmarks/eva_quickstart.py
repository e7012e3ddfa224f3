"""The quickstart's scans as eva's own data sets give theirs after `EnsureChannelFirst`: see `eva_quickstart.yaml`."""

from typing import Any

from tapct.tasks.quickstart import Quickstart


class ChannelFirst(Quickstart):
    """Scan and mask as (1, slices, rows, columns)."""

    def __getitem__(self, index: int) -> tuple[Any, Any, dict[str, Any]]:
        volume, mask, about = super().__getitem__(index)
        return volume.transpose(0, 1), mask.transpose(0, 1), {"case": about["case"]}
