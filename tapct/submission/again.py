"""Encoding a few cases of a submission again: the only check that a consistent lie about per-case values does not pass.

Scans, weights and heads are what the record names; what comes out is compared with what it says. The cases are chosen
by its fingerprint, which whoever writes the record cannot choose freely, and by a word that whoever verifies may add.
"""

import functools
import hashlib
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from lightning.pytorch.trainer.states import TrainerFn, TrainerState
from torch import nn

from tapct import kinds
from tapct.checks import Check
from tapct.encoders import Encoder
from tapct.errors import RecordError, TapctError
from tapct.features import EncodedCase, FeatureBank, TensorStore
from tapct.kinds import Kind
from tapct.metrics import confusion_matrix, dice_per_class, surface_metrics
from tapct.probes.dense import predict_labels
from tapct.probes.folds import head_for, head_of_state
from tapct.probes.frozen import FrozenEncoderProbe
from tapct.probes.predictions import chosen_cases, rebuilt_encoder, require_encoder
from tapct.records import CaseResult, Record, RunRecord
from tapct.submission.folder import Submission
from tapct.tasks import TaskData
from tapct.volumes import LinearMap

EncoderPlaces = Mapping[str, str]
"""Where encoders are that are not installed, by the names of their cards."""


@dataclass(frozen=True)
class Tolerance:
    """What a number may differ by when it is computed again, on another machine.

    Attributes:
        dice: Of Dice and NSD, absolute.
        logit: Of logits, absolute; of one above 1 a share of it.
    """

    dice: float
    logit: float


TOLERANCES = {"fp32": Tolerance(dice=0.005, logit=0.02), "bf16": Tolerance(dice=0.02, logit=0.1)}
"""By the precision of the encoder. Kernels of other machines sum in another order, which moves features by a rounding
(2**-24 in fp32, 2**-8 in bf16) of each layer, and by one of the dtype that they are stored in (2**-8 in bf16); a voxel
whose two best classes are that close turns. docs/submit-a-result.md has what was measured."""

_FIX = "ask who submitted it for a run on the published weights and the release's own scans"


def recompute(
    submission: Submission,
    count: int,
    *,
    data_root: str | None,
    weights: str | None,
    salt: str,
    device: torch.device,
    places: EncoderPlaces | None = None,
) -> Iterator[Check]:
    """Yields a check for each case that is encoded again.

    Args:
        submission: The submission.
        count: Cases.
        data_root: Folder that holds one folder per task; None for a task that ships with its data.
        weights: The file of the encoder's weights; None for the published ones.
        salt: Chooses the cases together with the fingerprint.
        device: Where to compute.
        places: Where encoders are that are not installed, by the names of their cards.
    """
    record, places = submission.record, places or {}
    names = chosen(record, count, salt)
    precision = record.encoder.precision_used or "fp32"
    tolerance = TOLERANCES.get(precision, TOLERANCES["bf16"])
    try:
        heads = {run.run: _head(submission, run, places) for run in record.runs}
        encoder = rebuilt_encoder(record, weights, record.encoder.precision_used, places)
        for data, case in _encoded(record, names, data_root, encoder, device):
            on_device = _probe(record, places).on_device(case, device)
            yield _compared(record, places, heads, data, on_device, tolerance)
    except TapctError as error:
        yield Check("fail", "recompute", str(error), _FIX)
    except Exception as error:  # noqa: BLE001 whatever a third-party settings or heads make of a network
        yield Check("fail", "recompute", f"it cannot be made again ({type(error).__name__}: {error})", _FIX)


def chosen(record: Record, count: int, salt: str) -> list[str]:
    """Returns the cases to encode again: the same for everybody who knows record and salt."""
    names, fingerprint = [case.case for case in record.runs[0].cases["test"]], record.fingerprint
    by_hash = {name: hashlib.sha256(f"{fingerprint}{salt}{name}".encode()).hexdigest() for name in names}
    return sorted(names, key=by_hash.__getitem__)[:count]


def _encoded(
    record: Record, names: list[str], data_root: str | None, encoder: Encoder, device: torch.device
) -> Iterator[tuple[TaskData, EncodedCase]]:
    """Yields cases with the data of their task, encoded now: what is stored here is not asked."""
    data = chosen_cases(record, names, data_root)
    with tempfile.TemporaryDirectory() as folder:
        bank = FeatureBank(
            encoder,
            TensorStore(folder),
            dtype=record.probe.feature_dtype or "bf16",
            overlap=record.probe.window_overlap,
            fit_windows=record.probe.fit_windows,
            device=device,
        )
        bank.fill(data.parts)
        require_encoder(record, bank.description())
        whole = TaskData(
            record.task.name, data_root, options=record.task.options, perturbation=record.task.perturbation
        )
        for index in range(len(data.parts[0])):
            yield whole, bank.case(data.parts[0], index)


def _head(submission: Submission, run: RunRecord, places: EncoderPlaces) -> nn.Module:
    record, state = submission.record, submission.head(run)
    probe = _probe(record, places)
    classes = list(record.task.classes)
    build = probe.head_of if probe.is_solved else lambda state: probe.build_head(classes)
    head = head_of_state(build, state)
    head.load_state_dict(state)
    return head.eval()


def _probe(record: Record, places: EncoderPlaces) -> FrozenEncoderProbe:
    kind = _kind(record)
    adaptor = {"adaptor": record.probe.adaptor or kind.usual_head} if kind.heads else {}
    said = {name: value for name in kind.settings if (value := getattr(record.probe, name, None)) is not None}
    return kind.probe_class()(rebuilt_encoder(record, "random", places=places), **adaptor, **said)


def _kind(record: Record) -> Kind:
    if record.task.kind is None:
        raise RecordError("the record does not say of what kind its task is")
    return kinds.kind(record.task.kind)


def _compared(
    record: Record,
    places: EncoderPlaces,
    heads: Mapping[int, nn.Module],
    data: TaskData,
    case: EncodedCase,
    tolerance: Tolerance,
) -> Check:
    """Compares what every head gives a case with what its run says of it."""
    dense = _kind(record).dense
    limit, again = (tolerance.dice, _dice) if dense else (tolerance.logit, functools.partial(_fields, places))
    found: list[tuple[float, str]] = []
    for run in record.runs:
        said = next(one for one in run.cases["test"] if one.case == case.name)
        head = head_for(heads[run.run].to(case.target.device), data.folds, run.run, case.patient)
        for name, (now, then) in again(record, head, data, case, said).items():
            allowed = limit if dense else limit * max(1.0, abs(then or 0.0))
            words = f"{name} of run {run.run} is {_number(now)}, and the record says {_number(then)}"
            found.append((_apart(now, then) / allowed, f"{words} (allowed: {allowed:.2g} apart)"))
    worst, words = max(found)
    if worst == 0:
        return Check("ok", f"recompute {case.name}", f"{len(found)} numbers are the same")
    if worst <= 1:
        return Check("ok", f"recompute {case.name}", f"{len(found)} numbers agree; at worst {words}")
    return Check("fail", f"recompute {case.name}", f"made again, {words}", _FIX)


def _apart(found: float | None, wanted: float | None) -> float:
    if found is None or wanted is None:
        return 0.0 if found is wanted else math.inf
    return abs(found - wanted)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


_Pairs = dict[str, tuple[float | None, float | None]]
"""What came out and what the record says, by name."""


def _dice(record: Record, head: nn.Module, data: TaskData, case: EncodedCase, said: CaseResult) -> _Pairs:
    features, classes = case.features, list(record.task.classes)
    assert case.labels is not None
    pairs: _Pairs = {}
    with torch.inference_mode():
        logits = head(features.map)
        for protocol, grid, labels in (
            ("native", features.native_grid, case.target),
            ("paper", features.encoder_grid, case.labels),
        ):
            predicted = predict_labels(logits, LinearMap.between(features.feature_grid, grid))
            dice = dice_per_class(confusion_matrix(predicted, labels, len(classes)).cpu().numpy())
            pairs |= _pairs(f"{protocol} Dice", classes, dice, (said.dice or {}).get(protocol))  # type: ignore[call-overload]
            if protocol == "native":
                tolerance_mm = record.probe.nsd_tolerance_mm or 0.0
                surfaces = surface_metrics(predicted, labels, len(classes), grid.affine, tolerance_mm)
                pairs |= _pairs("NSD", classes, surfaces.nsd, said.nsd)
    return pairs


def _pairs(what: str, classes: list[str], found: object, said: Mapping[str, float | None] | None) -> _Pairs:
    values = list(found)[1:]  # type: ignore[call-overload]
    return {
        f"{what} of {name}": (None if math.isnan(value) else float(value), (said or {}).get(name))
        for name, value in zip(classes[1:], values, strict=True)
    }


class _Reporting(NamedTuple):
    """What a probe asks of its trainer to evaluate a case."""

    datamodule: TaskData
    state: TrainerState = TrainerState(fn=TrainerFn.TESTING)
    log_dir: str = ""


def _fields(
    places: EncoderPlaces, record: Record, head: nn.Module, data: TaskData, case: EncodedCase, said: CaseResult
) -> _Pairs:
    """Returns every number by field and class that the probe of the record's kind gives a case.

    Before them stands how far the features are from those that a head holds of the case, where it holds any.
    """
    probe = _probe(record, places).to(case.target.device)
    probe.trainer = _Reporting(data)
    with torch.inference_mode(), probe.full_precision():
        _, result = probe.evaluate(head, case, reported=False)
        pairs: _Pairs = {what: (value, 0.0) for what, value in probe.apart(head, case).items()}
    both = _kind(record).matched(result.by_field, said.by_field)
    for field in _kind(record).fields:
        now, then = (of.get(field.name, {}) for of in both)
        for name in dict.fromkeys([*now, *then]):
            numbers = [of.get(name) if field.many else [of.get(name)] for of in (now, then)]
            for place, pair in enumerate(itertools.zip_longest(*(of or () for of in numbers))):
                pairs[f"{field.title} of {name}{f', number {place}' if field.many else ''}"] = pair
    return pairs
