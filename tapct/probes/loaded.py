"""Heads that were trained before: `eva test` and `eva validate` report them on any split or data root."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from tapct.encoders.weights import content_sha256
from tapct.errors import TaskError
from tapct.probes.folds import is_of_folds
from tapct.probes.heads import Chosen
from tapct.records import RECORD_FILE, EncoderRecord, Record, read_record
from tapct.tasks.splits import FoldTable

HEAD_FILE = "head.safetensors"

TRAINING = (
    *("optimizer", "lr_scheduler", "steps", "accumulate_grad_batches", "precision", "gradient_clip_val"),
    *("seed", "learning_rates", "select", "scale_features", "feature_scale", "start_bias", "adaptor", "pooling", "bag"),
    "cut_reports",
)
"""Settings of a record's probe that say how its heads were trained."""

_GRID = ("name", "window_size", "spacing_mm", "in_plane_size", "in_plane_filter", "pad_hu", "feature_stride")


@dataclass(frozen=True)
class LoadedHead:
    """The head of one run, from a file.

    Attributes:
        state: Its weights.
        run: The run of the session that it comes from.
        record: That session's record; None where the file lies by itself.
    """

    state: dict[str, torch.Tensor]
    run: int
    record: Record | None

    @classmethod
    def find(cls, path: str, run: int, runs: int) -> "LoadedHead":
        """Reads the head that a run is to report.

        Args:
            path: A session's folder, whose run of the same index is taken; or a `head.safetensors`.
            run: Index of the run.
            runs: Runs that are planned.

        Raises:
            TaskError: If it is not there, damaged, not that of the record next to it, or one file for several runs.
        """
        given = Path(path).expanduser()
        if given.is_dir():
            file = given / f"run_{run}" / HEAD_FILE
            file = file if file.exists() or runs > 1 else given / HEAD_FILE
        else:
            file = given
            if runs > 1:
                raise TaskError(
                    f"model.init_args.head is one file, {given}, and {runs} runs would report it {runs} times. Set "
                    "trainer.init_args.n_runs to 1 (N_RUNS=1), or name the session's folder, which has a head a run"
                )
        if not file.is_file():
            raise TaskError(f"there is no head at {file}. Name a session's folder (it has run_0/{HEAD_FILE}) or a head")
        try:
            state = safetensors.torch.load_file(file)
        except (SafetensorError, OSError) as error:
            raise TaskError(f"{file} cannot be read as a head: {error}") from error
        record, origin = _record_next_to(file)
        if record is not None:
            known = {one.run: one.probe_sha256 for one in record.runs}
            if known.get(origin) != content_sha256(state):
                raise TaskError(
                    f"{file} is not the head of run {origin} of the record next to it: its hash differs. Copy the "
                    "whole session again, or move the file to a folder of its own"
                )
        return cls(state, origin, record)

    @property
    def chosen(self) -> Chosen:
        """The head as a run reports it."""
        of_run = [] if self.record is None else [one for one in self.record.runs if one.run == self.run]
        return Chosen(self.run, self.state, of_run[0].selection if of_run else None)

    def settings(self) -> dict[str, Any]:
        """Returns what a record must hold of where the head is from, and how it was trained as far as that is known."""
        if self.record is None:
            return {"head_from": {"sha256": content_sha256(self.state)}}
        task, probe = self.record.task, self.record.probe.content()
        origin = {"name": task.name, "version": task.version, "split_sha256": task.split_sha256}
        known = {key: probe[key] for key in TRAINING if key in probe}
        return known | {"head_from": {"record": self.record.fingerprint, **origin}}

    def check(self, seen: dict[str, Any], encoder: EncoderRecord) -> None:
        """Makes sure that the head sees what it was trained on, as far as its record tells.

        Args:
            seen: What decides what heads see: `Probe.seen_by_heads`.
            encoder: What the record will hold of the encoder.

        Raises:
            TaskError: If not, naming what differs.
        """
        if self.record is None:
            return
        probe, there = self.record.probe.content(), self.record.encoder
        before = _before(probe.get("adaptor"), there.card.has_cls)
        pairs: dict[str, tuple[Any, Any]] = {key: (probe.get(key, before.get(key)), v) for key, v in seen.items()}
        pairs |= {f"{key} of the encoder": (getattr(there.card, key), getattr(encoder.card, key)) for key in _GRID}
        pairs["weights of the encoder"] = there.weights_sha256, encoder.weights_sha256
        if there.identity is not None and encoder.identity is not None:  # a record from before has none
            before, now = there.identity.content(), encoder.identity.content()
            pairs |= {f"{key} of the encoder": (before[key], now[key]) for key in ("class", "settings", "code_sha256")}
        for name, (trained, today) in pairs.items():
            if trained != today:
                raise TaskError(
                    f"the head was trained with another {name}: {trained}, and now it is {today}. Give the same "
                    "adaptor and windows, the encoder with its weights and options, and a task of the same classes"
                )

    def check_folds(self, table: FoldTable | None) -> None:
        """Makes sure that heads of a cross-validated task report no patient that they have seen.

        Raises:
            TaskError: If not, or if that cannot be known.
        """
        if not is_of_folds(self.state):
            if table is not None:
                raise TaskError("a cross-validated task is reported by a head of each fold, and the file has one head")
            return
        trained = None if self.record is None else self.record.task.split_sha256
        if table is None or trained != table.sha256:
            raise TaskError(
                "the heads are of a cross-validated task, each for the patients of one fold: they can be reported on "
                "the same folds alone, with their session's record next to them"
            )


def _before(adaptor: str | None, has_cls: bool) -> dict[str, Any]:
    """Returns what was the case in records from before it was named, of an adaptor that may not be named either."""
    attends = adaptor in (None, "abmil")
    return {"adaptor": "abmil"} | ({"bag": "cls" if has_cls else "patch, with the padding"} if attends else {})


def _record_next_to(file: Path) -> tuple[Record | None, int]:
    """Returns the record of the session that a head lies in, and which run it is of."""
    folder = file.resolve().parent
    if folder.name.startswith("run_") and folder.name[4:].isdigit() and (folder.parent / RECORD_FILE).is_file():
        return read_record(folder.parent / RECORD_FILE), int(folder.name[4:])
    return (read_record(folder / RECORD_FILE), 0) if (folder / RECORD_FILE).is_file() else (None, 0)
