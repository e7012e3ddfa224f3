"""The folder of a submission: the record, its cases as a table, the heads, and a page for who reviews it."""

import os
import shutil
import stat
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from tapct import flags
from tapct.encoders.eva_names import in_folders
from tapct.encoders.weights import content_sha256
from tapct.errors import RecordError
from tapct.leaderboard.marks import DEMONSTRATED
from tapct.probes.loaded import HEAD_FILE
from tapct.probes.predictions import LocatedRecord
from tapct.records import CASES_FILE, RECORD_FILE, Record, RunRecord, read_record, write_record
from tapct.records.paths import base_name, without_folders

README_FILE = "README.md"
MOST_BYTES = 2**30
"""Of one file of a submission."""


@dataclass(frozen=True, eq=False)
class Submission:
    """A submission.

    Attributes:
        folder: Its folder.
        record: What it says.
    """

    folder: Path
    record: Record

    @classmethod
    def read(cls, folder: Path) -> "Submission":
        """Reads a submission.

        Raises:
            RecordError: If its record is not there or not valid.
        """
        return cls(folder, read_record(folder / RECORD_FILE))

    def head_path(self, run: RunRecord) -> Path:
        """Returns the file of a run's head."""
        return self.folder / head_name(run)

    def head(self, run: RunRecord) -> dict[str, torch.Tensor]:
        """Returns the weights of a run's head.

        Raises:
            RecordError: If they are not there, cannot be read, or are not those that the record reports.
        """
        name = head_name(run)
        try:
            with safe_open(self.head_path(run), framework="pt") as file:
                if file.metadata():
                    raise RecordError(f"{name} holds text next to its weights")
            state = safetensors.torch.load_file(self.head_path(run))
        except (SafetensorError, OSError) as error:
            raise RecordError(f"{name} cannot be read as a head: {error}") from error
        if content_sha256(state) != run.probe_sha256:
            raise RecordError(f"{name} is not the head that run {run.run} reports: its hash differs")
        return state


def head_name(run: RunRecord) -> str:
    """Returns the name of the file of a run's head, from the submission's folder."""
    return f"run_{run.run}/{HEAD_FILE}"


def files_of(record: Record) -> set[str]:
    """Returns the names of all files of a submission."""
    return {RECORD_FILE, CASES_FILE, README_FILE, *(head_name(run) for run in record.runs)}


def plain_files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yields name and bytes of every file below a folder.

    Raises:
        RecordError: If something there is not a plain file, such as a link, or one is too large.
    """
    for top, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(top) / name
            where, found = path.relative_to(folder).as_posix(), path.lstat()
            if stat.S_ISDIR(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode):
                raise RecordError(f"{where!r} is not a plain file (a link, perhaps)")
            if found.st_size > MOST_BYTES:
                raise RecordError(f"{where!r} has {found.st_size:,} bytes, and the most are {MOST_BYTES:,}")
            yield where, found.st_size


def submissions_below(path: Path) -> list[Path]:
    """Returns the folders of submissions: this one, or all below it that have a record.

    Raises:
        RecordError: If there is none.
    """
    found = [path] if (path / RECORD_FILE).exists() else sorted(one.parent for one in path.rglob(RECORD_FILE))
    if not found:
        raise RecordError(f"there is no submission in {path}: none of its folders has a {RECORD_FILE}")
    return found


def submit(found: LocatedRecord, out: Path, *, demonstration: bool) -> Path:
    """Writes the folder of a submission, OUT/TASK/ENCODER-FINGERPRINT.

    Args:
        found: The record, where eva or a sweep left it with its heads.
        out: The folder of all submissions.
        demonstration: Whether a record that is a demonstration may be put together, to try this out.

    Raises:
        RecordError: If it cannot be submitted, or cannot be written; nothing is left behind.
    """
    record = _fit(found, demonstration=demonstration)
    place = out / record.task.name / f"{in_folders(record.encoder.card.name)}-{record.fingerprint[:12]}"
    if place.exists():
        raise RecordError(f"{place} is there already. Remove it to put it together again")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".submission.") as staging:
            whole = Path(staging) / "whole"
            _write(Submission(whole, record), found)
            whole.rename(place)
    except OSError as error:
        raise RecordError(f"cannot write {place}: {error.strerror or error}") from error
    return place


def _fit(found: LocatedRecord, *, demonstration: bool) -> Record:
    """Returns the record as it may be published.

    Raises:
        RecordError: If it may not.
    """
    record = found.record
    if not record.complete:
        raise RecordError(
            f"{found.path} holds {len(record.runs)} of {record.runs_planned} runs. The same `tapct run` completes it"
        )
    if record.older_protocol is not None:
        raise RecordError(f"{found.path} is of an older protocol ({record.older_protocol}). Run the experiment again")
    if record.encoder.mistake is not None:
        raise RecordError(
            f"{found.path} is of a wrong input on purpose (mistake={record.encoder.mistake}), and no result of the "
            "encoder. Submit the experiment without --mistakes"
        )
    if DEMONSTRATED in (record.notice or "") and not demonstration:
        raise RecordError(
            f"{found.path} is not a result for a board: {record.notice} With --demonstration it is put together "
            "all the same, to try this out, and stays marked"
        )
    encoder = record.encoder
    clean = without_folders(record.content()) | {
        "encoder": without_folders(encoder.content()) | {"weights": base_name(encoder.weights)}
    }
    return flags.with_own_checks(Record.model_validate(clean))


def _write(submission: Submission, found: LocatedRecord) -> None:
    submission.folder.mkdir()
    write_record(submission.record, submission.folder)
    for run in submission.record.runs:
        source, target = found.run_folder(run) / HEAD_FILE, submission.head_path(run)
        if not source.is_file():
            raise RecordError(
                f"the head of run {run.run} is not at {source}: eva leaves it next to the record. Keep a record with "
                "its runs"
            )
        target.parent.mkdir()
        shutil.copyfile(source, target)
        submission.head(run)
    text = readme(submission.record)
    (submission.folder / README_FILE).write_text(text, encoding="utf-8")


def readme(record: Record) -> str:
    """Returns the page of a submission: what a reviewer wants to see of it, made of the record alone."""
    encoder, task, card = record.encoder, record.task, record.encoder.card
    identity = encoder.identity
    rows: dict[str, Any] = {
        "encoder": f"{card.display_name} (`{card.name}`)",
        "class": None if identity is None else f"`{identity.cls}`, source {_short(identity.code_sha256)}",
        "settings": None if identity is None else ", ".join(f"{k}: {v}" for k, v in identity.settings.items()),
        "weights": f"{encoder.weights}, content {_short(encoder.weights_sha256)}, licence {card.weights.licence}",
        "published at": card.weights.repository,
        "parameters": None if encoder.parameters is None else f"{encoder.parameters:,}",
        "window, stride": f"{_by(card.window_size)}, {_by(card.feature_stride)} voxels (z, y, x)",
        "grid": f"spacing {_by(card.spacing_mm)} mm, in-plane size {card.in_plane_size}, "
        f"in-plane filter {card.in_plane_filter}, padding {card.pad_hu:g} HU",
        "channels": f"{card.feature_dim}, embedding {card.embedding_dim}, class token: {_yes(card.has_cls)}",
        "pretraining data": ", ".join(card.pretraining_data),
        "precision": f"{encoder.precision_used}, features stored as {record.probe.feature_dtype}",
        "next to its authors' code": None if encoder.verification is None else encoder.verification.text,
        "features from a pack": None if record.feature_pack is None else _short(record.feature_pack.sha256),
        "task": f"{task.name}, version {task.version}, split {_short(task.split_sha256)}",
        "adaptor": record.probe.adaptor,
        "training patients": None if task.train_fraction == 1 else f"{task.train_fraction:g}, draw {task.train_draw}",
        "perturbation": task.perturbation,
        "device": record.execution.device,
        "fingerprint": f"`{record.fingerprint}`",
    }
    lines = [f"# {_cell(card.display_name)} on {_cell(task.name)}", ""]
    if record.notice is not None:
        lines += [f"**{_cell(record.notice)}**", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items() if value)]
    lines += ["", "| metric | mean over runs | each run |", "|---|---|---|", *_metrics(record)]
    lines += ["", "Flags: " + (", ".join(sorted({flag.id for flag in record.flags})) or "none") + ".", ""]
    return "\n".join(lines)


def _metrics(record: Record) -> Iterator[str]:
    for split in dict.fromkeys(split for run in record.runs for split in run.metrics):
        for name in dict.fromkeys(name for run in record.runs for name in run.metrics.get(split, {})):
            values = [run.metrics.get(split, {}).get(name) for run in record.runs]
            defined = [value for value in values if value is not None]
            mean = f"{statistics.fmean(defined):.4f}" if defined else "undefined"
            each = ", ".join("undefined" if value is None else f"{value:.4f}" for value in values)
            yield f"| {_cell(f'{split}/{name}')} | {mean} | {each} |"


def _cell(value: Any) -> str:
    """Returns text in a cell of Markdown: nothing in it is a link, HTML or another cell."""
    text = " ".join(str(value).split())
    return "".join(f"&#{ord(c)};" if c in "|<>[]&" else c for c in text)


def _by(values: Any) -> str:
    return "native" if values is None else " x ".join(f"{value:g}" for value in values)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _short(sha256: str | None) -> str:
    return "not known" if sha256 is None else f"`{sha256[:12]}`"
