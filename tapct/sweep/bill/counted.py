"""Counts what windows of the encoders here take, for `counted.json`: `python -m tapct.sweep.bill.counted`."""

import functools
import json

import torch

from tapct._utils.files import write_atomically
from tapct.encoders import list_encoders
from tapct.errors import TapctError
from tapct.features.extract import Tiling
from tapct.sweep.bill.cost import SHIPPED, Costs
from tapct.sweep.bill.remembered import Remembered
from tapct.sweep.bill.settings import Data, Encoding
from tapct.sweep.bill.sizes import scans_of
from tapct.volumes import Grid, Size

OPTIONS = {"curia": ("in_plane_size=224+window_size=1x224x224",)}
"""Of encoders, those of the paper's suites with which windows take something else."""


def windows_of(name: str, costs: Costs, options: str = "") -> dict[Size, Encoding]:
    """Returns the windows of an encoder that the shipped tasks have where their scans are not there."""
    found: dict[Size, Encoding] = {}
    for task, fit_windows in (("lits17", False), ("luna16", True), ("luna25", True)):
        encoding = Encoding(name, options, None, "auto", 0.0, fit_windows, "bf16")
        tiling = Tiling.of(costs.encoder(encoding), _typical_grid(task), encoding.overlap, fit_windows)
        found.setdefault(tiling.window, encoding)
    return found


@functools.cache
def _typical_grid(task: str) -> Grid:
    data = Data(task, None, None, "{}", 1.0, 0, None, None)
    return scans_of(data, Remembered("sizes")).scans[0].grid


def encodings() -> list[tuple[str, str]]:
    """Returns the encoders here and their options that are counted."""
    return [(name, options) for name in list_encoders() for options in ("", *OPTIONS.get(name, ()))]


def main() -> None:
    """Counts what has changed since the file was written, and writes it."""
    costs, counted = Costs(Remembered("costs", SHIPPED), torch.device("cpu")), {}
    for name, options in encodings():
        try:
            for window, encoding in windows_of(name, costs, options).items():
                count = costs.count(encoding, window)
                if not count.why:  # why there is none holds for the code of today, and this file for an architecture
                    counted[costs.counted_key(encoding, window)] = [count.tflop, count.map_shape, count.why]
                print(f"{name} {tuple(window)}: {count.tflop} TFLOP {count.why}")
        except TapctError as error:
            print(f"{name}: {error}")
    write_atomically(SHIPPED, json.dumps(counted, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
