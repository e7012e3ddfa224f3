"""Locks where a file system has none, or has them on one machine alone."""

import errno
import fcntl
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from pretrain.data.prepare import _sole_writer
from pretrain.errors import PretrainError
from pretrain.training.run_folder import RunFolder
from tapct import doctor
from tapct._utils import locks
from tapct._utils.locks import Mount, mount_of
from tapct.cli import main
from tapct.encoders.download import download
from tapct.errors import FeatureError, LockError, TapctError
from tapct.features.store import TensorStore
from tapct.sweep.lock import LOCK_FILE, Attempt, attempt, last_attempt
from tests.features.processes import Child
from tests.leaderboard.results import record, write

KEY = "0" * 64
MOUNTS = r"""/dev/sda1 / ext4 rw,relatime 0 0
mds@o2ib:/scratch /scratch lustre rw,localflock 0 0
server:/home /home nfs4 rw,vers=4.2,local_lock=none 0 0
server:/old /home/old nfs rw,vers=3,nolock,local_lock=all 0 0
/dev/sdb1 /with\040blank xfs rw 0 0
/dev/sdb1 /over xfs rw 0 0
fuse /over fuse.sshfs rw 0 0
"""


def refuse(number: int):
    def flock(file, operation):
        raise OSError(number, "refused")

    return flock


@pytest.fixture
def refused(monkeypatch):
    """A kernel that has no locks to give, on Lustre."""
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    monkeypatch.setattr(locks, "mount_of", lambda folder: Mount("lustre", frozenset({"rw"})))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A results folder with one record and one attempt that has not ended, and a store with one entry."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path / "features"))
    write(tmp_path / "results", "tap-s-3d", record("tap-s-3d", "amos22", patients=4, seeds=2))
    experiment = tmp_path / "results" / "amos22" / "curia"
    experiment.mkdir()
    begun = Attempt(1, "node7", 1234, "2026-11-28T10:00:00+00:00")
    (experiment / LOCK_FILE).write_text(json.dumps(vars(begun)), encoding="utf-8")
    about = {"kind": "features", "card": "tap-s-3d", "task": "amos22", "case": "1"}
    TensorStore(tmp_path / "features").save(KEY, {"map": torch.zeros(1)}, about)
    return tmp_path


def tapct(monkeypatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["tapct", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_what_only_reads_works(folder, refused, monkeypatch, capsys):
    results = str(folder / "results")
    asked = ("-e", "tap-s-3d,curia,fmcib", "-t", "amos22", "--results", results)
    for command in (
        ("status", "--results", results),
        ("run", *asked, "--dry-run"),
        ("cache", "ls"),
        ("cache", "verify"),
        ("report", f"{results}/amos22/tap-s-3d/record.json"),
        ("leaderboard", results, "-o", str(folder / "site")),
    ):
        assert tapct(monkeypatch, *command) == 0, command
    out = capsys.readouterr().out
    assert "unknown curia on amos22: attempt 1 on node7 (pid 1234) since" in out
    assert "refuses locks here" in out
    assert "1 to do" in out
    entry = TensorStore(folder / "features").load(KEY)
    assert entry is not None


def test_what_writes_says_which_mount_option_is_missing(folder, refused, monkeypatch, tmp_path):
    missing = "refuses locks: .* Lustre needs the mount option flock on every client"
    store = TensorStore(folder / "features")
    (store.path(KEY).with_suffix(".lock")).touch()
    before = sorted((folder / "features").rglob("*"))
    ran = tapct(monkeypatch, "run", "-e", "curia", "-t", "amos22", "--results", str(folder / "results"))
    assert "experiments cannot be run in" in ran
    assert "the mount option flock" in ran
    assert "the mount option flock" in tapct(monkeypatch, "cache", "rm", "--all")
    assert [path for path in sorted((folder / "features").rglob("*")) if "leases" not in path.parts] == before
    with pytest.raises(FeatureError, match=missing), store.lock(KEY):
        pass
    with pytest.raises(LockError, match=missing), attempt(folder / "results" / "amos22" / "fmcib"):
        pass
    with pytest.raises(LockError, match=missing):
        download("http://nowhere.invalid/weights", tmp_path / "weights")
    for writes in (RunFolder(tmp_path / "run").claim, _sole_writer(tmp_path / "volumes").__enter__):
        with pytest.raises(PretrainError, match=missing):
            writes()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_an_attempt_that_has_ended_is_told_also_without_locks(number, tmp_path, monkeypatch):
    with attempt(tmp_path):
        pass
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    last, running = last_attempt(tmp_path)
    assert (last.number, running) == (1, False)
    with pytest.raises(LockError, match="refuses locks"), attempt(tmp_path):
        pass


def test_another_error_is_not_taken_for_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match="refused") as raised, locks.hold(tmp_path / "lock", 0):
        pass
    assert not isinstance(raised.value, TapctError)


def test_locks_that_keep_nobody_out_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)
    with pytest.raises(LockError, match="keep nobody out"):
        locks.require(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_holder_removes_is_free_for_the_next(tmp_path):
    path = tmp_path / "a" / "lock"
    with locks.hold(path, 0) as first:
        path.unlink()
        with locks.hold(path, 0) as second:
            assert None not in (first, second)
            with locks.hold(path, 0) as third:
                assert third is None


def test_a_process_that_was_forked_meanwhile_does_not_hold_what_its_parent_let_go_of(tmp_path):
    def outlive(send):
        send("forked")
        time.sleep(60)

    with locks.hold(tmp_path / "lock", 0) as held:
        assert held is not None
        orphan = Child(outlive)
        assert orphan.receive() == "forked"
        with locks.hold(tmp_path / "lock", 0) as second:
            assert second is None, "the parent holds it as long as it wants"
    with locks.hold(tmp_path / "lock", 0) as held:
        assert held is not None
    assert orphan.is_alive
    orphan.kill()


# -- Mounts, and the doctor ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "kind", "option"),
    [
        ("/scratch/results", "lustre", "localflock"),
        ("/home/me", "nfs4", None),
        ("/home/old/me", "nfs", "local_lock=all"),
        ("/with blank/x", "xfs", None),
        ("/homework", "ext4", None),
        ("/over", "fuse.sshfs", None),
    ],
)
def test_the_mount_of_a_folder_and_whether_its_locks_hold_here_alone(folder, kind, option, tmp_path, monkeypatch):
    table = tmp_path / "mounts"
    table.write_text(MOUNTS, encoding="utf-8")
    mount = mount_of(Path(folder), table)
    assert mount.kind == kind
    monkeypatch.setattr(locks, "mount_of", lambda folder: mount)
    assert locks.only_here(Path(folder)) == option


def test_without_a_table_of_mounts_nothing_is_known(tmp_path):
    assert mount_of(tmp_path, tmp_path / "none") is None


def found(monkeypatch, folder) -> dict[str, doctor.Check]:
    monkeypatch.setenv("RESULTS_ROOT", str(folder / "results" / "not there yet"))
    return {check.name: check for check in doctor.checks() if check.name.startswith("locks")}


def test_the_doctor_tries_locks_where_results_and_features_are(folder, monkeypatch):
    before = sorted(folder.rglob("*"))
    assert {name: check.status for name, check in found(monkeypatch, folder).items()} == {
        "locks results": "ok",
        "locks features": "ok",
    }
    assert sorted(folder.rglob("*")) == before
    monkeypatch.setattr(locks, "mount_of", lambda folder: Mount("nfs", frozenset({"nolock"})))
    for check in found(monkeypatch, folder).values():
        assert (check.status, "on this machine alone (mount option nolock)" in check.message) == ("warn", True)
        assert "mount it without nolock" in check.fix


def test_the_doctor_says_what_a_mount_lacks(folder, refused, monkeypatch):
    for name, check in found(monkeypatch, folder).items():
        assert check.status == "fail"
        assert "the mount option flock" in check.message
        assert ("RESULTS_ROOT" if "results" in name else "TAPCT_FEATURES") in check.fix
