"""CPU seconds and memory of `tapct status` and `tapct run --dry-run` of thousands of experiments.

    python -m benchmarks.sweep_scale [--patients 300] [--folder DIR] [--json out.json]

Every encoder that is installed on every task with every perturbation and share of the training patients, nine in ten
of them done. The records are simulated, of three seeds; a task's experiments share the cases' numbers, not the files.
(From the checkout's root: the simulated records are those of the tests.)
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tapct.sweep.commands import Sweep
from tapct.sweep.experiment import Experiment
from tapct.sweep.lock import LOCK_FILE, Attempt
from tests.leaderboard.results import record

VARIED = {"fractions": [0.01, 0.1, 0.25, 1], "draws": 3, "perturbations": "all"}
STATUS = ("status", "--results")
DRY_RUN = ("run", "-e", "all", "-t", "all", "--fractions", "0.01,0.1,0.25,1", "--perturbations", "all", "--dry-run")


def fill(results: Path, patients: int) -> list[Experiment]:
    """Writes the files of each experiment, but of every tenth."""
    experiments = Sweep(encoders="all", tasks="all", results=str(results), **VARIED).experiments()
    ended = Attempt(1, "node", 1, "2026-11-28T10:00:00+00:00", None, "2026-11-28T11:00:00+00:00")
    texts: dict[str, tuple[str, str]] = {}
    for number, experiment in enumerate(experiments):
        if number % 10 == 9:
            continue
        if experiment.task not in texts:
            one = record("tap-b-3d", experiment.task, patients=patients)
            texts = {experiment.task: (one.to_json(), one.fingerprint)}
        text, fingerprint = texts[experiment.task]
        experiment.folder.mkdir(parents=True)
        about = {"settings": experiment.settings(), "fingerprint": fingerprint, "wall_s": 900.0}
        (experiment.folder / "record.json").write_text(text, encoding="utf-8")
        (experiment.folder / "cell.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        (experiment.folder / LOCK_FILE).write_text(json.dumps(asdict(ended)), encoding="utf-8")
    return experiments


MEASURED = """
import resource, sys
from pathlib import Path
from tapct.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(l for l in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if l.startswith("VmHWM"))
print(used.ru_utime + used.ru_stime, int(peak.split()[1]) / 1024, file=sys.stderr)
"""
"""Peak memory is the kernel's VmHWM: `ru_maxrss` begins with what the parent had."""


def measure(*arguments: str, environment: dict[str, str]) -> dict[str, float]:
    """Runs a command and returns what it took, Python's start and imports included."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    cpu_s, peak_mib = ran.stderr.split()[-2:]
    return {"cpu_s": round(float(cpu_s), 2), "peak_mib": round(float(peak_mib))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where the results are written (some GB); removed at the end")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        experiments = fill(folder / "results", arguments.patients)
        sizes = [path.stat().st_size for path in folder.glob("results/*/*/record.json")]
        found = {
            "cells": len(experiments),
            "records": len(sizes),
            "mean_record_kib": round(sum(sizes) / len(sizes) / 1024),
        }
        own = {"RESULTS_ROOT": str(folder / "results"), "TAPCT_CACHE": str(folder / "cache")}
        found["status"] = measure(*STATUS, str(folder / "results"), environment=own)
        found["dry_run"] = measure(*DRY_RUN, environment=own)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    print(json.dumps(found, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
