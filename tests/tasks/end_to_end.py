"""A whole task through the real eva command line, in this process, on a few tiny cases."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from eva.__main__ import main

from tapct.records import Record, read_record

CONFIGS = Path(__file__).parents[2] / "eva_configs"
SMALL = {"class_path": "tests.small.Small3D", "init_args": {"weights": "random"}}


def run(
    config: str | Path,
    data_root: Path,
    split_file: Path | None,
    tmp_path: Path,
    kind: str,
    *,
    max_steps: int = 1,
    encoder: dict[str, Any] | str = SMALL,
    runs: int = 1,
    overlays: int = 0,
    **options: Any,
) -> Record:
    """Runs `eva fit --config CONFIG` with a small encoder on CPU.

    Args:
        config: Path of a shipped config under `eva_configs/`, such as "segmentation/amos22.yaml".
        data_root: Folder that holds the task's folder.
        split_file: CSV with the few cases that are there; None for the task's own split.
        tmp_path: Where the logs go.
        kind: What the record must say the task is.
        max_steps: Optimizer steps, of two cases each.
        encoder: Of `tests.small`, by class_path, or the name of one of ours.
        runs: Runs of the session.
        overlays: Cases of which a picture is drawn, where the config has any drawn.
        options: Options of the task's dataset.

    Returns:
        The record that the run left.
    """
    drawn = {"overlays": overlays} if "overlays:" in (CONFIGS / config).read_text(encoding="utf-8") else {}
    overrides = {
        "trainer": {"init_args": {"accumulate_grad_batches": 2}},
        "model": {"init_args": {"encoder": encoder, "weights": None, **drawn}},
        "data": {"init_args": {"num_workers": 0, **({"options": options} if options else {})}},
    }
    (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    configs = [str(CONFIGS / config), str(tmp_path / "overrides.yaml")]
    variables = {
        "DATA_ROOT": data_root,
        "MAX_STEPS": max_steps,
        "N_RUNS": runs,
        "ACCELERATOR": "cpu",
        "OUTPUT_ROOT": tmp_path / "logs",
        **({"SPLIT_FILE": split_file} if split_file else {}),
    }
    before = set(tmp_path.glob("logs/*/*/record.json"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, str(value))
        patch.setattr(sys, "argv", ["eva", "fit", *(word for path in configs for word in ("--config", path))])
        main()
    (path,) = set(tmp_path.glob("logs/*/*/record.json")) - before
    record = read_record(path)
    assert record.complete
    assert record.task.kind == kind
    return record


def write_split(path: Path, **cases: list[str]) -> Path:
    """Writes a split file, `write_split(path, train=[...], val=[...], test=[...])`; each case is its own patient."""
    rows = [f"{case},{case},{split}" for split, names in cases.items() for case in names]
    path.write_text("\n".join(["case,patient,split", *rows, ""]), encoding="utf-8")
    return path
