"""The bill of experiments next to what they then took: windows, disk, peak memory.

    python -m benchmarks.bill -e tap-t-3d -t quickstart --steps 40

runs each experiment in a process of its own with an empty store, and prints a line for each. Peak memory is the
process's own resident set, of which what Python and the libraries take before the heads train is measured by `eva fit
--help`.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tapct.features import TensorStore
from tapct.sweep.asked import Sweep
from tapct.sweep.bill.count import bill_of
from tapct.sweep.experiment import Order


def peak_of(command: list[str], environment: dict[str, str]) -> int:
    """Returns the peak resident set of a process, in bytes; what ran before must have been smaller."""
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-e", "--encoders", default="tap-t-3d")
    parser.add_argument("-t", "--tasks", default="quickstart")
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TAPCT_FEATURES"] = str(Path(folder) / "features")
        sweep = Sweep(
            encoders=asked.encoders, tasks=asked.tasks, results=folder, max_steps=asked.steps, accelerator="cpu"
        )
        base = peak_of([sys.executable, "-m", "eva", "fit", "--help"], dict(os.environ))
        for experiment in sweep.experiments():
            (row,) = bill_of([experiment], accelerator="cpu").rows
            order = Order(experiment).to_json()
            peak = peak_of([sys.executable, "-m", "tapct.sweep.worker", order, str(os.getpid())], dict(os.environ))
            store = TensorStore(Path(folder) / "features")
            files = [f for f in store.files() if store.about(f.key)["kind"] in ("features", "labels")]
            windows = sum(
                store.load(f.key).tensors["embeddings"].shape[0]  # type: ignore[union-attr]
                for f in files
                if store.about(f.key)["kind"] == "features"
            )
            print(
                f"{experiment.name}: windows {row.windows} said, {windows} taken; disk {row.disk_bytes:,} said, "
                f"{sum(f.nbytes for f in files):,} taken; heads {(row.head_bytes or 0) / 1e9:.2f} GB said, "
                f"{(peak - base) / 1e9:.2f} GB over the {base / 1e9:.2f} GB of eva alone taken"
            )


if __name__ == "__main__":
    main()
