"""The folder of a run: its files, who may write there, and whether it is the same run."""

import contextlib
import importlib.metadata
import os
import platform
import socket
from pathlib import Path
from typing import Any

import yaml

from pretrain.config import Config
from pretrain.data.identity import StoreIdentity, why_another_store
from pretrain.errors import PretrainError
from pretrain.files import write
from pretrain.settings import dump_config, parse_config
from tapct._utils import locks
from tapct.records import git_state

_PACKAGES = ("torch", "numpy", "blosc2", "tapct-bench")

_ROUNDING = "other kernels or another order of sums for the same formula: rounding"
CHANGEABLE = {
    "data.store": "where the store is; what is in it is compared (`pretrain.data.identity`)",
    "data.cache": "where what was read is kept",
    "data.cache_gb": "how much of what was read is kept",
    "data.intensities": "where numbers come from that are compared themselves",
    "data.workers": "who reads; random numbers come from counters",
    "data.prefetch": "how far ahead is read",
    "data.max_quarantined_fraction": "when to give up",
    "losses.chunk_rows": _ROUNDING + "; not from or to null, whose logits bf16 rounds",
    "losses.centre_from_bottleneck": _ROUNDING,
    "run.output": "where the run is",
    "run.stop_at": "when to stop on the same schedule",
    "run.device": _ROUNDING,
    "run.compile": _ROUNDING,
    "run.compile_check": "when to refuse",
    "run.recompute": _ROUNDING,
    "run.prune_last_block": _ROUNDING,
    "run.keep_freed_memory": "what the allocator does with freed memory",
    "run.adopt_store": "what to do with another store, which is noted where it happens",
    "run.checkpoint_every": "when to save",
    "run.keep": "how much to keep",
    "run.log_every": "what is told",
    "run.on_nonfinite": "when to stop",
    "run.max_skipped_steps": "when to stop",
    "run.probe": "what is told; the probe changes nothing that is trained",
    "run.collapse": "what is told, and when to stop",
}
"""Settings, and sections of them, that a resumed run may change, each with why it does not become another run."""


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
        write(self._folder / "config.yaml", dump_config(config))


def saved_config(state: dict[str, Any], source: str) -> Config:
    """Returns the settings that a checkpoint or a dump was written under."""
    settings = yaml.safe_load(state["config"])
    settings["data"].setdefault("antialias", False)  # before there was a choice, nothing was averaged
    return parse_config(settings, source)


def check_same_run(
    state: dict[str, Any], config: Config, stores: list[dict[str, Any]], identity: StoreIdentity, source: Path
) -> None:
    """Refuses to resume from a checkpoint under settings that would make it another run.

    Args:
        state: The checkpoint.
        config: The settings now.
        stores: Those of the run, see `pretrain.data.identity.stores_of`.
        identity: The store now.
        source: The checkpoint's file, for the message.

    Raises:
        PretrainError: If they differ; names each setting with both values.
    """
    before, now = (_dotted(c.model_dump(mode="json")) for c in (saved_config(state, str(source)), config))
    differences = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if not _may_change(key, before.get(key), now.get(key))
    ]
    other = why_another_store(stores, identity, config.data.store)
    if other is not None and not config.run.adopt_store:
        differences.append(other)
    if differences:
        raise PretrainError(
            f"{source} is of another run: {'; '.join(differences)}. Give the same settings and store to resume, or "
            "another --run.output to start anew"
        )


def _may_change(key: str, before: Any, now: Any) -> bool:
    if before == now:
        return True
    if key == "losses.chunk_rows" and None in (before, now):
        return False
    return key in CHANGEABLE or key.rpartition(".")[0] in CHANGEABLE


def versions() -> dict[str, str]:
    """Returns the versions of what computes: Python, packages, the commit of this code where it is known."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    git = git_state()
    if git is None:
        found["commit"] = "not in a checkout"
    elif "unavailable" in git:
        found["commit"] = f"unknown ({git['unavailable']})"
    else:
        found["commit"] = git["commit"] + ("-dirty" if git["dirty"] else "")
    return found


def _dotted(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as "section.key"."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
