"""A real experiment, run once through the command, and the records that tests make of it."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import torch
from filelock import FileLock

from tapct.cli import main
from tapct.records import Record, read_record
from tapct.sweep import commands
from tests.data import quickstart
from tests.features.processes import Child
from tests.sweep.fakes import Forked, Here

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder that installs the small encoders of the tests under names, as a third-party package would."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "small_encoders-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small-encoders\nVersion: 0\n")
    encoders = "small-3d = tests.small:Small3D\ncubic = tests.small:CubicMillimetres\n"
    (info / "entry_points.txt").write_text(f"[tapct.encoders]\n{encoders}")
    return folder


class Installed:
    """Runs `tapct` with the small encoders installed, its workers in processes of their own.

    Attributes:
        results: Folder of the results.
        environment: What its processes see.
    """

    def __init__(self, site: Path, folder: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        self.results = folder / "results"
        self.environment = {
            **kept,
            "PYTHONPATH": f"{site}:{REPO}",
            "RESULTS_ROOT": str(self.results),
            "TAPCT_CACHE": str(folder / "cache"),
            "DATA_ROOT": str(folder),  # has no folder "quickstart": that task ships with its data
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "250",
        }

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "tapct.cli", *arguments]
        env = self.environment | environment
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", env=env, cwd=REPO, check=False, timeout=600
        )

    def here(self, *arguments: str, workers_too: bool = False) -> subprocess.CompletedProcess:
        """Runs the command itself in this process, where everything is imported; its workers as well if so told."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environment),  # workers set more of them
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            if workers_too:
                patch.setitem(commands.run.__kwdefaults__, "start", Here)
            patch.syspath_prepend(self.environment["PYTHONPATH"].partition(":")[0])
            patch.setattr(sys, "argv", ["tapct", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        status = ended.value.code
        if isinstance(status, str):
            return subprocess.CompletedProcess(arguments, 1, out.getvalue(), err.getvalue() + status)
        return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


SWEEP = ("-e", "small-3d,cubic", "-t", "quickstart", "--max-steps", "2", "--runs", "2", "--accelerator", "cpu")


def weights(tapct: Installed) -> tuple[str, str]:
    """Those of the two experiments: random ones, and a file that is not there."""
    return "-w", f"small-3d=random,cubic={tapct.results}/none.pth"


@contextmanager
def one_thread() -> Iterator[None]:
    """As a worker has: the last digits of a sum depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def settled() -> Iterator[None]:
    """As if files had been written long ago: what is in them is remembered, however fast the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("tapct._utils.content_hashes", "tapct.features.inventory"):
            patch.setattr(f"{module}.SETTLED_S", -1)
        yield


@pytest.fixture(scope="session")
def swept(site, tmp_path_factory) -> tuple[Installed, subprocess.CompletedProcess]:
    """Two real experiments on a small quickstart, one of which fails: its weights are not there.

    They run once, whatever processes share the tests between them: only the tests of one file may change the folder.
    """
    common = tmp_path_factory.getbasetemp()
    common = common.parent if "PYTEST_XDIST_WORKER" in os.environ else common
    tapct, ended = Installed(site, common / "swept"), common / "swept.json"
    tapct.environment["DATA_ROOT"] = str(common / "swept" / "data")
    with FileLock(ended.with_suffix(".lock")):
        if not ended.exists():
            quickstart.write(Path(tapct.environment["DATA_ROOT"]))
            with one_thread(), settled():
                ran = tapct.here("run", *SWEEP, "--jobs", "2", *weights(tapct), workers_too=True)
            ended.write_text(json.dumps([ran.args, ran.returncode, ran.stdout, ran.stderr]), encoding="utf-8")
        return tapct, subprocess.CompletedProcess(*json.loads(ended.read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def real_record(swept) -> Record:
    tapct, ran = swept
    assert ran.returncode in (0, 1), ran.stderr
    return read_record(tapct.results / "quickstart" / "small-3d" / "record.json")


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    Child.kill_all()
    Forked.kill_all()
