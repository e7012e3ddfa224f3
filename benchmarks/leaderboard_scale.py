"""Seconds and memory of `tapct leaderboard` for a large results folder.

    python -m benchmarks.leaderboard_scale [--models 100] [--tasks 30] [--seeds 5] [--patients 500] [--folder DIR]

The ten shipped tasks, and copies of them that nobody ships, so that they stand in sections of their own. Numbers are
simulated: each model has its own ability, each patient its own difficulty. Every experiment has its own `cases.parquet`
of the true size; the `record.json` next to it, which is hashed and not parsed, is one file a task under many names.
(From the checkout's root: the simulated records are those of the tests.)
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.sweep_scale import MEASURED
from tapct.records import CASES_FILE, RECORD_FILE, Record
from tapct.records.cases import FINGERPRINT
from tapct.records.parquet import header_content, packed
from tests.leaderboard.results import CLASSIFICATION, SEGMENTATION, record

SHIPPED = SEGMENTATION + CLASSIFICATION


def fill(results: Path, models: int, tasks: int, seeds: int, patients: int) -> int:
    """Writes the records, and returns their bytes."""
    written = 0
    for number in range(tasks):
        shipped, copy = SHIPPED[number % len(SHIPPED)], number // len(SHIPPED)
        name = shipped if copy == 0 else f"{shipped}-{copy}"
        base = record("tap-b-3d", shipped, patients=patients, seeds=seeds, more_task={"name": name})
        text = base.to_json()
        shared = results / f"{name}.json"
        shared.parent.mkdir(parents=True, exist_ok=True)
        shared.write_text(text, encoding="utf-8")
        sha256, table, header = hashlib.sha256(text.encode()).hexdigest(), base.table(), header_content(base)
        for model in range(models):
            experiment = results / name / f"model-{model:03}"
            experiment.mkdir(parents=True)
            os.link(shared, experiment / RECORD_FILE)
            content = packed(*_of_model(table, header, base, model), sha256)
            (experiment / CASES_FILE).write_bytes(content)
            written += len(content) + len(text)
        shared.unlink()
    return written


def _of_model(table: pa.Table, header: dict, base: Record, model: int) -> tuple[pa.Table, dict]:
    """Returns the cases and the header of a model: those of the base, as good or bad as it is."""
    rng = np.random.default_rng(model)
    better = rng.normal(0, 0.03, len(table)) + 0.1 * (model % 20) / 20
    for column in ("dice_native", "dice_paper"):
        moved = np.clip(np.asarray(table[column].fill_null(np.nan)) - better, 0, 1)
        table = _with(table, column, pa.array(moved, from_pandas=True))
    if table["logit"].null_count == 0:
        signs = 2 * np.asarray(table["target"]) - 1
        logit = (np.asarray(table["logit"]) + 10 * better * signs).astype(np.float32).astype(np.float64)
        table = _with(_with(table, "logit", pa.array(logit)), "probability", pa.array(1 / (1 + np.exp(-logit))))
    name = f"Model {model:03}"
    card = header["encoder"]["card"] | {"name": f"model-{model:03}", "display_name": name}
    encoder = header["encoder"] | {"card": card, "weights_sha256": hashlib.sha256(name.encode()).hexdigest()}
    metadata = {**table.schema.metadata, FINGERPRINT: hashlib.sha256(f"{base.task.name}{name}".encode()).hexdigest()}
    return table.replace_schema_metadata(metadata), header | {"encoder": encoder}


def _with(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), table.schema.field(column), values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, default in (("models", 100), ("tasks", 30), ("seeds", 5), ("patients", 500)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="Where the records are written; by default a temporary folder.")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="leaderboard-scale-"))
    try:
        if not (folder / "results").exists():
            sizes = (arguments.models, arguments.tasks, arguments.seeds, arguments.patients)
            written = fill(folder / "results", *sizes)
            print(f"{written / 2**30:.1f} GiB of records, of which JSON is counted once an experiment", flush=True)
        start = time.perf_counter()
        command = [sys.executable, "-c", MEASURED, "leaderboard", str(folder / "results"), "-o", str(folder / "site")]
        done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
        cpu_s, peak_mib = map(float, done.stderr.splitlines()[-1].split())
        found = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_s, "peak_mib": peak_mib}
        found |= {path.name: path.stat().st_size for path in sorted((folder / "site").iterdir())}
        print(json.dumps(found, indent=1))
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
