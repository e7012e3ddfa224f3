"""What other systems lack: Windows and macOS are not at hand, but what they have not can be taken away."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tapct._utils import locks, system
from tapct.records.provenance import peak_memory_bytes
from tapct.sweep.local import slots
from tapct.tasks.quickstart import Quickstart
from tests.leaderboard.results import record, write

CT = str(Path(Quickstart.shipped_root) / "abdomen" / "ct.nii.gz")
SETTINGS = {"MAX_STEPS": "1", "N_RUNS": "1", "ENCODER": "intensity", "ORT_DISABLE_TELEMETRY": "1"}


def elsewhere(folder: Path, *commands: list[str], packages: Sequence[str] = ()) -> tuple[list, str]:
    """Runs commands as on Windows; returns their exit statuses, or messages, and all that was printed.

    All of our modules are imported there, or all those of some packages.
    """
    places = {name: str(folder / name.lower()) for name in ("TAPCT_CACHE", "OUTPUT_ROOT", "RESULTS_ROOT")}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.elsewhere", *packages],
        input=json.dumps(commands),
        env={**os.environ, **places, **SETTINGS, "COLUMNS": "200"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1]), ran.stdout


def test_what_needs_no_eva_imports_and_its_commands_run(tmp_path):
    results = tmp_path / "results_root"
    write(results, "tap-s-3d", record("tap-s-3d", "amos22", patients=4, seeds=2))
    statuses, printed = elsewhere(
        tmp_path,
        ["tapct", "status"],
        ["tapct", "run", "-e", "intensity", "-t", "quickstart"],
        packages=("tapct._utils", "tapct.features", "tapct.records", "tapct.sweep"),
    )
    fine, refused = statuses
    assert fine == 0, printed
    assert "1 done" in printed
    assert "experiments cannot be run on Windows" in refused


@pytest.mark.thorough
def test_all_modules_import_and_encoders_are_doctored_embedded_and_ranked(tmp_path):
    results = tmp_path / "results_root"
    write(results, "tap-s-3d", record("tap-s-3d", "amos22", patients=4, seeds=2))
    statuses, printed = elsewhere(
        tmp_path,
        ["tapct", "doctor", "--encoder", "intensity"],
        ["tapct", "embed", CT, "-e", "intensity", "-o", str(tmp_path / "embedded")],
        ["tapct", "leaderboard", str(results), "-o", str(tmp_path / "site")],
        ["tapct", "status"],
        ["tapct", "run", "-e", "intensity", "-t", "quickstart"],
    )
    *fine, refused = statuses
    assert fine == [0, 0, 0, 0], printed
    assert "experiments cannot be run on Windows" in refused
    assert (tmp_path / "site" / "index.html").is_file()
    assert (tmp_path / "embedded" / "abdomen" / "ct.safetensors").is_file()


@pytest.mark.slow
def test_eva_fits(tmp_path):
    statuses, printed = elsewhere(tmp_path, ["eva", "fit", "--config", "eva_configs/quickstart.yaml"])
    assert statuses == [0], printed
    (written,) = (tmp_path / "output_root").rglob("record.json")
    assert "host" not in json.loads(written.read_text(encoding="utf-8"))["execution"]["peak_memory_bytes"]


def test_where_nobody_says_which_cores_are_ours_all_are(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert system.cores() == 6
    assert slots(2, "cpu") == [{"OMP_NUM_THREADS": "3"}] * 2


def test_memory_is_counted_in_what_the_system_counts(monkeypatch):
    import resource

    import torch

    cpu = torch.device("cpu")
    peak = resource.struct_rusage((0.0, 0.0, 4096, *[0] * 13))
    monkeypatch.setattr(resource, "getrusage", lambda who: peak)
    for platform, expected in (("linux", 4096 * 1024), ("darwin", 4096)):
        monkeypatch.setattr(sys, "platform", platform)
        assert peak_memory_bytes(cpu) == {"host": expected}
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_bytes(cpu) == {}


def test_without_fcntl_who_looks_still_sees_who_holds(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locks.hold(path, 0) as held, path.open("rb", buffering=0) as file:
        assert held is not None
        assert locks.is_held(file, path)
    with path.open("rb", buffering=0) as file:
        assert not locks.is_held(file, path)
    with locks.hold(path, 0) as held:
        assert held is not None, "who looked has let go"
