"""Where a result was made: versions, code, device."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapct._utils import system

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "tapct-bench",
    "kaiko-eva",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "monai",
    "numpy",
    "nibabel",
    "pydicom",
    "jsonargparse",
    "transformers",
    "safetensors",
    "scipy",
    "pydantic",
    "pyarrow",
)


def environment(device: "torch.device") -> dict[str, Any]:
    """Returns versions, commit and device of this process, for a record."""
    import torch  # records are read without it

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": git_state(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "device_type": device.type,
        "processor": _processor(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": peak_memory_bytes(device),
    }


def peak_memory_bytes(device: "torch.device") -> dict[str, int]:
    """Returns the most memory that this process has used so far, on the host (not on Windows) and on the device."""
    import torch

    host = system.peak_memory_bytes()
    peak = {} if host is None else {"host": host}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Returns the commit of this project's checkout and whether it has changes.

    Asked once: a process continues with the code that it began with, whatever is committed meanwhile.

    None outside a checkout; where git cannot be asked, `{"unavailable": why}`.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(root), *command],
                capture_output=True,
                encoding="utf-8",
                check=True,
                timeout=20,
                env=environment,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"unavailable": type(error).__name__}  # its text names the checkout's folder
    return {"commit": commit, "dirty": bool(status)}


def _processor() -> str | None:
    """Returns the model of the CPU; None where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


@functools.cache
def _version(package: str) -> str | None:
    """Returns the version of an installed package; asked once, as a process continues with what it has imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
