"""What a run says of itself: lines on the console, `metrics.jsonl`, TensorBoard, and alarms.

`metrics.jsonl` has one JSON object a line, each with "event", "time_s" (Unix; that clock may be set),
"elapsed_s" (since the process began to write, by a clock that only goes forward) and "step":

    start       a process group began: processes, device, versions
    metrics     the scalars of a logged step
    probe       the online k-NN
    checkpoint  a checkpoint was started
    skipped     a step was not taken: its loss or gradient was not finite
    alarm       the representation collapses: which scalar, its value and limit
    init        the weights that the backbone begins with (init.from)
    phase       the crops have another size from here on (early)
    store       the run is trained on with another store than before (run.adopt_store)
    plain       compiled code does not compute what the plain code says, which is used instead (run.compile_check)
    end         why the process group stopped

A process that is killed writes no "end", and may leave half a line, which the next start removes. After a resume from
an older checkpoint steps come again, with the same values; readers take the last of each.
"""

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from pretrain.errors import PretrainError
from pretrain.files import cannot_write

METRICS_FILE = "metrics.jsonl"

_PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "L40S": 362e12}
"""NVIDIA's data sheets, without sparsity; the first name that is part of the device's counts."""

_RESUMES = "The run resumes from the newest checkpoint"
_BOARD_BYTES = 4096  # of a step's scalars, about

log = logging.getLogger(__name__)


class Monitor:
    """Writes the events of a run; only the first process has one."""

    def __init__(self, folder: Path) -> None:
        """Opens the files of a run, to resume where they end.

        Raises:
            PretrainError: If they cannot be written.
        """
        self._path = folder / METRICS_FILE
        self._began = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _cut_torn_line(self._path)
            self._file = self._path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"))
        except OSError as error:
            raise PretrainError(
                f"{folder} cannot be written ({error.strerror}). Choose another --run.output"
            ) from error

    def event(self, kind: str, step: int, **fields: Any) -> None:
        """Writes one line of `metrics.jsonl`. Numbers that are not finite become null.

        Raises:
            PretrainError: If the disk is full.
        """
        elapsed_s = round(time.monotonic() - self._began, 3)
        head = {"event": kind, "time_s": round(time.time(), 3), "elapsed_s": elapsed_s, "step": step}
        line = json.dumps(head | {name: _finite_or_none(value) for name, value in fields.items()}) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error, len(line), _RESUMES) from error

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars as one line of `metrics.jsonl`, and to TensorBoard."""
        self.event(kind, step, **values)
        try:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
            self._board.flush()
        except OSError as error:
            raise cannot_write(self._path.parent / "tensorboard" / "events", error, _BOARD_BYTES, _RESUMES) from error

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._board.close()


class Pace:
    """How fast the steps go, and how long they wait for data, since it was last asked.

    Args:
        samples_per_step: Samples of one step over all processes.
        flops_per_step: FLOPs that a step needs over all processes, counted from the model (`pretrain.training.flops`).
        peak_flops: FLOP/s that all devices could do; None where it is not known, which leaves out the MFU.
    """

    def __init__(self, samples_per_step: int, flops_per_step: float, peak_flops: float | None) -> None:
        self._samples, self._flops, self._peak = samples_per_step, flops_per_step, peak_flops
        self._steps, self._wait_s, self._since = 0, 0.0, time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Adds time that the loop stood still for want of data."""
        self._wait_s += seconds

    def stepped(self) -> None:
        """Counts one step."""
        self._steps += 1

    def take(self, steps_left: float) -> dict[str, float]:
        """Returns the pace since the last call: step_s, samples_per_s, data_wait (share of the time), eta_s, mfu."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        step_s = elapsed / max(self._steps, 1)
        pace = {
            "step_s": step_s,
            "samples_per_s": self._samples * self._steps / elapsed,
            "data_wait": self._wait_s / elapsed,
            "eta_s": steps_left * step_s,
        }
        if self._peak is not None:
            pace["mfu"] = self._flops * self._steps / elapsed / self._peak
        self._steps, self._wait_s, self._since = 0, 0.0, now
        return pace


def peak_flops(device: torch.device) -> float | None:
    """Returns the dense bfloat16 FLOP/s of a device by its data sheet; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_FLOPS.items() if part in name), None)


def effective_rank(moments: torch.Tensor) -> float:
    """Returns exp(entropy of the singular values) of tokens: RankMe (Garrido et al., 2023).

    On the host: on a GPU the eigenvalues of a matrix are waited for.

    Args:
        moments: Second moments of the tokens, (C, C) float64, on the host.
    """
    values = torch.linalg.eigvalsh(moments.nan_to_num(0.0, 0.0, 0.0)).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=1e-300)
    return float(torch.special.entr(share).sum().exp())


def console_line(step: int, steps: int, values: Mapping[str, float]) -> str:
    """Returns one line of progress."""
    parts = [f"step {step:,}/{steps:,}"]
    parts += [
        f"{name} {values[name]:.4g}"
        for name in ("loss", "dino_local", "dino_global", "ibot", "koleo")
        if name in values
    ]
    parts.append(f"{values['samples_per_s']:.3g} samples/s")
    parts.append(f"data wait {values['data_wait']:.0%}")
    parts.append(f"MFU {values['mfu']:.1%}" if "mfu" in values else "MFU not known for this device")
    parts.append(f"ETA {duration(values['eta_s'])}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Returns a duration in words: "3 d 4 h", "2 h 5 min" or "1 min 3 s"."""
    left = math.ceil(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, left = divmod(left, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def read_events(run: Path) -> list[dict[str, Any]]:
    """Returns the events of a run, in order; a last line that is not complete yet is left out.

    Raises:
        PretrainError: If there are none, or a line cannot be read.
    """
    path = run / METRICS_FILE
    if not path.is_file():
        raise PretrainError(f"there is no {path}: {run} is not the folder of a run, or it has not begun")
    return list(_parse(path))


def _parse(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            return
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise PretrainError(f"{path}, line {number} is not JSON ({error}). Remove the line") from error


def _cut_torn_line(path: Path) -> None:
    """Removes what a killed process left after the last newline."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log.warning("%s ended in half a line, which is removed", path)
            file.truncate(whole)
            os.fsync(file.fileno())


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
