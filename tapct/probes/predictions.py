"""Predictions of a record, made again: the saved head on the stored features, held against the record's own numbers."""

import inspect
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from tapct import kinds
from tapct._utils.files import features_folder
from tapct.encoders import Encoder, EncoderCard, encoder_class, is_installed, load_encoder
from tapct.encoders.eva_names import is_eva
from tapct.encoders.options import parse_options
from tapct.encoders.weights import RANDOM, content_sha256
from tapct.errors import RecordError
from tapct.features import EncodedCase, FeatureBank, TensorStore
from tapct.metrics import confusion_matrix, dice_per_class
from tapct.names import ABOUT_FILE
from tapct.probes.dense import predict_labels
from tapct.records import RECORD_FILE, CaseResult, EncoderRecord, IdentityRecord, Record, RunRecord, read_record
from tapct.records.paths import without_folders
from tapct.tasks import TaskData
from tapct.tasks.splits import SplitTable
from tapct.volumes import LinearMap, Volume

REPORTED: tuple[str, ...] = ("test", "val")
"""The splits that may be reported, the better one first."""

DICE_TOLERANCE = 0.005
"""What a Dice made again may differ from the record's: another device rounds otherwise and turns voxels at borders."""


@dataclass(frozen=True, eq=False)
class LocatedRecord:
    """A record and where it lies.

    Attributes:
        record: The record.
        path: Its file.
        session: The folder with its runs: where eva wrote it, also if a sweep has put a copy elsewhere.
    """

    record: Record
    path: Path
    session: Path

    @classmethod
    def at(cls, path: Path) -> "LocatedRecord":
        """Reads a record, or the one in a folder.

        Raises:
            RecordError: If it is not there, or not valid.
        """
        path = path / RECORD_FILE if path.is_dir() else path
        record, about = read_record(path), path.parent / ABOUT_FILE
        session = path.parent
        if about.is_file():
            try:
                session = path.parent / json.loads(about.read_text(encoding="utf-8"))["session"]
                here, there = (Path(os.path.normpath(p.absolute())) for p in (path.parent, session))
                if not there.is_relative_to(here):
                    raise ValueError(f"{session} is outside of its folder")
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise RecordError(
                    f"{about} cannot be used ({type(error).__name__}: {error}). Put the experiment's own back"
                ) from error
        if not any(all(split in run.cases for run in record.runs) for split in REPORTED):
            raise RecordError(f"{path} reports no split in all of its runs: run the experiment again")
        return cls(record, path, session)

    @property
    def model(self) -> str:
        """The name of the encoder for readers."""
        name = self.record.encoder.full_name
        return f"{name} (random weights)" if self.record.encoder.is_random else name

    @property
    def split(self) -> str:
        """The split that is reported in all runs."""
        return reported_split(self.record)

    def cases(self, run: RunRecord | None = None) -> dict[str, CaseResult]:
        """Returns the reported cases of a run (the first), by name."""
        return {case.case: case for case in (run or self.record.runs[0]).cases[self.split]}

    def run_folder(self, run: RunRecord) -> Path:
        """Returns where the files of a run are."""
        folder = self.session / f"run_{run.run}"
        return folder if folder.is_dir() else self.session


def reported_split(record: Record) -> str:
    """Returns the split that a record reports in all runs."""
    return next(s for s in REPORTED if all(s in run.cases for run in record.runs))


@dataclass(frozen=True, eq=False)
class Prediction:
    """The labels of a case, as one run of a record predicts them.

    Attributes:
        labels: (D, H, W) on the scan's grid.
        truth: (D, H, W) labels of the task.
        scan: The scan.
        dice: Mean over the classes that the case defines; None if there is none.
    """

    labels: np.ndarray
    truth: np.ndarray
    scan: Volume
    dice: float | None


def predict(
    found: LocatedRecord,
    cases: Sequence[str],
    data_root: str | None,
    device: torch.device,
    weights: str | None = None,
    places: Mapping[str, str] | None = None,
) -> dict[str, Prediction]:
    """Predicts cases of a segmentation record with the head of its first run.

    Features come from the store, and are extracted where they are not in it. Nothing is taken on trust: the head's
    hash, the weights' hash and the Dice of every class must be those of the record.

    Args:
        found: The record.
        cases: Reported cases.
        data_root: Folder that holds one folder per task; None for a task that ships with its data.
        device: Where to compute.
        weights: As in `rebuilt_encoder`.
        places: As there.

    Raises:
        RecordError: If the record is of no segmentation, its head is gone or another, or the numbers do not come out.
        TaskError: If the data is not there.
    """
    record, run = found.record, found.record.runs[0]
    if record.task.kind is None or not kinds.kind(record.task.kind).dense:
        raise RecordError(f"{found.path} is of {record.task.name}, a {record.task.kind}: there is nothing to draw")
    head = _head(found, run).to(device)
    encoder = rebuilt_encoder(record, weights, places=places)
    bank, data = _bank(record, encoder, device), chosen_cases(record, cases, data_root)
    bank.fill(data.parts)
    require_encoder(record, bank.description())
    part = data.parts[0]
    predictions = {}
    for index, name in enumerate(part.cases):
        case = bank.case(part, index).to(device)
        labels = _labels(head, case)
        dice = _check_dice(found, name, labels, case.target)
        truth = case.target.cpu().numpy()
        predictions[name] = Prediction(labels.cpu().numpy(), truth, data.scan(name), dice)
    return predictions


def _labels(head: nn.Module, case: EncodedCase) -> torch.Tensor:
    grids = case.features.feature_grid, case.features.native_grid
    with torch.inference_mode():
        return predict_labels(head(case.features.map), LinearMap.between(*grids))


def _head(found: LocatedRecord, run: RunRecord) -> nn.Module:
    path = found.run_folder(run) / "head.safetensors"
    if not path.is_file():
        raise RecordError(f"the head of run {run.run} of {found.path} is not at {path}: keep a record with its runs")
    try:
        state = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise RecordError(f"{path} is damaged: {error}. Run the experiment again") from error
    if content_sha256(state) != run.probe_sha256:
        raise RecordError(
            f"{path} is not the head that {found.path} reports: its hash differs. Run the experiment again"
        )
    classes, channels = state["weight"].shape[:2]
    head = nn.Conv3d(channels, classes, kernel_size=1)
    head.load_state_dict(state)
    return head.eval()


def chosen_cases(record: Record, cases: Sequence[str], data_root: str | None) -> TaskData:
    """Returns the task with these cases alone, by a split of its own: what a case is does not depend on the split.

    Args:
        record: The record.
        cases: Reported cases.
        data_root: Folder that holds one folder per task; None for a task that ships with its data.

    Raises:
        RecordError: If the record does not report a case.
        TaskError: If the data is not there.
    """
    task, known = record.task, {case.case: case for case in record.runs[0].cases[reported_split(record)]}
    if missing := [case for case in cases if case not in known]:
        raise RecordError(f"the record reports no case '{missing[0]}'")
    table = SplitTable.of([(case, known[case].patient, "test") for case in cases], "chosen", where="the record")
    settings: dict[str, Any] = {"options": task.options}
    if task.perturbation:
        settings["perturbation"] = task.perturbation
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder) / "split.csv"
        split.write_text(table.to_csv(), encoding="utf-8")
        return TaskData(task.name, data_root, split_file=str(split), **settings)


def _bank(record: Record, encoder: Encoder, device: torch.device) -> FeatureBank:
    probe = record.probe
    return FeatureBank(
        encoder,
        TensorStore(features_folder()),
        dtype=probe.feature_dtype or "bf16",
        overlap=probe.window_overlap,
        fit_windows=probe.fit_windows,
        device=device,
    )


def rebuilt_encoder(
    record: Record,
    weights: str | None = None,
    precision: str | None = None,
    places: Mapping[str, str] | None = None,
) -> Encoder:
    """Returns the encoder of a record with its options, without building its network yet.

    Args:
        record: The record.
        weights: The file of its weights, which a record names without its folder, or "random"; by default the
            published ones (an older record may say where they were).
        precision: By default as the record asked for it.
        places: Where encoders are that are not installed, by the names of their cards: see `places_of`.

    Raises:
        RecordError: If the encoder is not installed, and its place is not named.
        EncoderError: If it cannot be made with the record's options.
    """
    about = record.encoder
    name, options = about.card.name, dict[str, Any](deferred=True, precision=precision or about.precision or "auto")
    if about.is_random:
        weights = RANDOM
    elif weights is None and Path(about.weights).is_absolute() and Path(about.weights).is_file():
        weights = about.weights
    if name in (places or {}):
        name = (places or {})[name]
    elif not (is_installed(name) or is_eva(name)):
        if weights in (None, RANDOM):  # what a record names may be anything that can be imported here
            raise RecordError(
                f"the record's encoder, {name}, is not installed here: install it, or name its code that you trust: "
                "--encoders package.module:Class, or the folder of an exported one"
            )
        # Written by `pretrain.export`: it is named by its folder.
        name, weights = str(Path(weights).parent), None
    elif about.options is None:
        options |= _older_options(about)
    return load_encoder(name, weights, **parse_options(name, about.options) | options)


def _older_options(about: EncoderRecord) -> dict[str, Any]:
    """Returns the options of an encoder of before records said them, as far as card and settings tell."""
    cls = encoder_class(about.card.name)
    stock, card = json.loads(json.dumps(asdict(cls.card))), about.card.content()
    options = {key: card[key] for key in EncoderCard.OPTIONS if card[key] != stock[key]}
    own = set(inspect.signature(cls.__init__).parameters) - {"self", "weights", "precision", "deferred", "options"}
    settings = about.own_settings  # older records have a few of them here
    settings = (about.identity.settings if about.identity else {}) | settings
    return options | {key: settings[key] for key in own if key in settings and not _is_hash(settings[key])}


def _is_hash(setting: Any) -> bool:
    """Whether a setting was a file or a buffer, which cannot be made of its hash; the default stands in, or fails."""
    return isinstance(setting, dict) and bool({"tensor", "array", "file", "folder"} & setting.keys())


def require_encoder(record: Record, description: dict[str, Any]) -> None:
    """Refuses an encoder that is not the record's.

    Args:
        record: The record.
        description: What the encoder says of itself.

    Raises:
        RecordError: If its class, settings or weights differ.
    """
    about = record.encoder
    if about.identity is not None:
        _check_settings(record, about.identity, description["identity"])
    expected, there = about.weights_sha256 or "none", description["weights_sha256"] or "none"
    if there != expected:
        raise RecordError(
            f"the record was made with other weights of {about.card.name} than those here "
            f"(sha256 {expected[:12]}... and {there[:12]}...): name its file, --weights {about.card.name}=PATH "
            f"(it was called {about.weights_name})"
        )


def _check_settings(record: Record, expected: IdentityRecord, there: dict[str, Any]) -> None:
    """Refuses an encoder of another class or other settings than the record's; older records do not say."""
    known = {"class": expected.cls, **expected.settings}
    ours = without_folders(json.loads(json.dumps({"class": there["class"], **there["settings"]})))
    differing = [key for key in {**known, **ours} if known.get(key) != ours.get(key)]
    if differing:
        key = differing[0]
        raise RecordError(
            f"the record was made with another {', '.join(differing)} of {record.encoder.card.name} than "
            f"can be had here: {key} was {known.get(key)}, and is {ours.get(key)}"
        )


def _check_dice(found: LocatedRecord, case: str, labels: torch.Tensor, target: torch.Tensor) -> float | None:
    recorded = found.cases()[case].by_class("dice_native") or {}
    confusion = confusion_matrix(labels, target, len(recorded) + 1)
    dice = dict(zip(recorded, dice_per_class(confusion.cpu().numpy())[1:], strict=True))
    for name, value in recorded.items():
        again = None if np.isnan(dice[name]) else float(dice[name])
        if (again is None) != (value is None) or abs((again or 0) - (value or 0)) > DICE_TOLERANCE:
            raise RecordError(
                f"{found.path}: made again, the Dice of {name} in case {case} is {again}, but the record says {value}. "
                "The scan, its labels, the features or the code are not those of the record"
            )
    defined = [float(v) for v in dice.values() if not np.isnan(v)]
    return float(np.mean(defined)) if defined else None
