"""The folder of a run: its files, who may write there, and whether it is the same run."""

import contextlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml

from pretrain.config import Config, dump_config, parse_config
from pretrain.errors import PretrainError
from tapct import locks
from tapct.files import write_atomically

_PACKAGES = ("torch", "numpy", "blosc2", "tapct-bench")

CHANGEABLE = frozenset(
    {
        "data.store",  # its content is compared instead
        "data.workers",
        "data.prefetch",
        "data.max_quarantined_fraction",
        "run.output",
        "run.stop_at",
        "run.device",
        "run.compile",
        "run.recompute",
        "run.keep_freed_memory",
        "run.prune_last_block",
        "run.checkpoint_every",
        "run.keep",
        "run.log_every",
        "run.on_nonfinite",
        "run.max_skipped_steps",
    }
)
"""Settings that a resumed run may change, and the sections run.probe and run.collapse: none changes what is computed
(compile, recompute and prune_last_block change rounding)."""

_CHANGEABLE_SECTIONS = ("run.probe.", "run.collapse.")


class RunFolder:
    """Paths of a run, and the lock that keeps a second launch out.

    Attributes:
        checkpoints: Folder of the checkpoints.
        dumps: Folder of the batches of steps that went wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.checkpoints = folder / "checkpoints"
        self.dumps = folder / "dumps"
        self._lock = contextlib.ExitStack()

    def claim(self) -> None:
        """Makes the folder and locks it until this process ends, however it ends.

        Raises:
            PretrainError: If another process has it, it cannot be written, or its file system refuses locks.
        """
        path = self._folder / "run.lock"
        try:
            lock = self._lock.enter_context(locks.hold(path, 0))
        except OSError as error:
            raise PretrainError(
                f"{self._folder} cannot be written ({error.strerror or error}). Choose another --run.output"
            ) from error
        if lock is None:
            holder = path.read_text(encoding="utf-8").strip() or "another process"
            raise PretrainError(
                f"{self._folder} is being trained in by {holder}. Wait for it, stop it, or choose another --run.output"
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}".encode())

    def write_config(self, config: Config) -> None:
        """Writes the resolved settings, for whoever reads the folder."""
        write_atomically(self._folder / "config.yaml", dump_config(config))


def saved_config(state: dict[str, Any], source: str) -> Config:
    """Returns the settings that a checkpoint or a dump was written under."""
    return parse_config(yaml.safe_load(state["config"]), source)


def check_same_run(state: dict[str, Any], config: Config, store_digest: str, source: Path) -> None:
    """Refuses to go on from a checkpoint under settings that would make it another run.

    Args:
        state: The checkpoint.
        config: The settings now.
        store_digest: That of the store now.
        source: The checkpoint's file, for the message.

    Raises:
        PretrainError: If they differ; names each setting with both values.
    """
    before, now = (_flat(c.model_dump(mode="json")) for c in (saved_config(state, str(source)), config))
    differences = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in CHANGEABLE and not key.startswith(_CHANGEABLE_SECTIONS)
    ]
    if state["store_digest"] != store_digest:
        differences.append(f"the volumes of the store {config.data.store} are others than before")
    if differences:
        raise PretrainError(
            f"{source} is of another run: {'; '.join(differences)}. Give the same settings and store to resume, or "
            "another --run.output to start anew"
        )


def versions() -> dict[str, str]:
    """Returns the versions of what computes: Python, packages, the commit of this code where it is known."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found["commit"] = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found["commit"] = "not in a checkout"
    return found


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as "section.key"."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
