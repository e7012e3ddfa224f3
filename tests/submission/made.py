"""Sessions as `eva fit` leaves them, of simulated numbers that agree with one another and with the shipped task."""

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from scipy.special import expit
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score
from torch import nn

from tapct.encoders import registry
from tapct.encoders.weights import content_sha256
from tapct.probes.recording import encoder_record
from tapct.records import CASES_FILE, RECORD_FILE, CaseResult, Record, RunRecord, write_record
from tapct.records.parquet import cases_parquet
from tapct.records.schema import fingerprint
from tapct.submission.folder import README_FILE, readme
from tapct.tasks import task_class
from tests.leaderboard.results import record as simulated
from tests.small import Small3D, small_card

SEGMENTATION, CLASSIFICATION = "msd_pancreas", "luna16"


class Submitted(Small3D):
    """An encoder whose card is true."""

    card = small_card(name="submitted", display_name="Submitted", num_params=75_648, pretraining_data=("MSD",))


ENTRY_POINTS = [
    EntryPoint("submitted", "tests.submission.made:Submitted", registry.GROUP),
    EntryPoint("another", "tests.submission.made:Another", registry.GROUP),
]


class Another(Small3D):
    """One more encoder."""

    card = small_card(name="another", display_name="Another", num_params=75_648)


def encoder() -> Any:
    one = Submitted("random")
    return encoder_record(one, one.describe() | {"precision_used": "fp32"})


def session(folder: Path, task: str, **changes: Any) -> Path:
    """Writes the record of three runs, its table and its heads."""
    spec, table = task_class(task).spec, task_class(task).shipped_split()
    assert table is not None
    rng = np.random.default_rng(0)
    simulate = _segmented if spec.kind == "segmentation" else _classified
    classes = spec.classes
    given = {case: simulate_reference(spec.kind, len(classes), rng) for case in table.cases["test"]}
    runs = []
    for number in range(3):
        cases = [simulate(case, patient, classes, given[case], rng) for case, patient in table.cases["test"].items()]
        head = {"weight": torch.randn(len(classes), 48, 1, 1, 1), "bias": torch.randn(len(classes))}
        path = folder / f"run_{number}" / "head.safetensors"
        path.parent.mkdir(parents=True)
        safetensors.torch.save_file(head, path)
        metrics = _means(cases) if spec.kind == "segmentation" else _ranks(cases)
        runs.append(
            RunRecord(
                run=number,
                seed=number,
                probe_sha256=content_sha256(head),
                metrics={"test": {"AverageLoss": float(np.mean([c.loss for c in cases])), **metrics}},
                cases={"test": cases},
            )
        )
    like = simulated("submitted", task, adaptor="linear" if spec.kind == "classification" else None)
    counts = {split: len(cases) for split, cases in table.cases.items()}
    of_task = like.task.model_copy(update={"split_sha256": table.sha256, "split": f"{task}.csv", "cases": counts})
    one = like.model_copy(update={"encoder": encoder(), "task": of_task, "runs": runs, **changes})
    write_record(one, folder)
    return folder / RECORD_FILE


def simulate_reference(kind: str, classes: int, rng: np.random.Generator) -> list[int]:
    if kind == "classification":
        return [int(rng.random() < 0.4) for _ in range(classes)]
    return [0 if rng.random() < 0.15 else int(rng.integers(50, 5000)) for _ in range(classes - 1)]


def _segmented(case, patient, classes, reference, rng) -> CaseResult:
    names = classes[1:]
    dice, nsd, hd95 = {}, {}, {}
    for name, voxels in zip(names, reference, strict=True):
        found = rng.random() < 0.8
        dice[name] = (float(rng.random()) if found else 0.0) if voxels else (0.0 if rng.random() < 0.3 else None)
        both = bool(voxels) and found
        nsd[name] = None if dice[name] is None else (float(rng.random()) if both else 0.0)
        hd95[name] = float(rng.uniform(1, 60)) if both else None
    return CaseResult(
        case=case,
        patient=patient,
        loss=float(rng.random()),
        dice={"native": dice, "paper": dict(dice)},
        nsd=nsd,
        hd95_mm=hd95,
        padding_voxels=(0, 0, 0),
        voxels=10**7,
        reference_voxels=dict(zip(names, reference, strict=True)),
    )


def _classified(case, patient, classes, reference, rng) -> CaseResult:
    logits = np.float32(rng.normal(size=len(classes)) + np.array(reference)).astype(float)
    loss = nn.functional.binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(reference).double())
    return CaseResult(
        case=case,
        patient=patient,
        loss=float(loss),
        logits=dict(zip(classes, logits.tolist(), strict=True)),
        probabilities=dict(zip(classes, expit(logits).tolist(), strict=True)),
        target=dict(zip(classes, reference, strict=True)),
        padding_voxels=(0, 0, 0),
    )


def _means(cases: list[CaseResult]) -> dict[str, float]:
    rows = {
        "dice_native": [c.dice["native"] for c in cases],
        "dice_paper": [c.dice["paper"] for c in cases],
        "nsd_native": [c.nsd for c in cases],
        "hd95_mm_native": [c.hd95_mm for c in cases],
    }
    tables = {name: np.array([list(r.values()) for r in of], dtype=float) for name, of in rows.items()}
    found = {}
    with np.errstate(all="ignore"):
        for name, table in tables.items():
            found[name] = float(np.nanmean(_nanmean(table, 1)))
            found[f"{name}_class_mean"] = float(np.nanmean(_nanmean(table, 0)))
    one_sided = np.isnan(tables["hd95_mm_native"]).sum() - np.isnan(tables["nsd_native"]).sum()
    return found | {"hd95_mm_native_one_sided": float(one_sided)}


def _nanmean(table: np.ndarray, axis: int) -> np.ndarray:
    return np.nansum(table, axis=axis) / (~np.isnan(table)).sum(axis=axis)


def _ranks(cases: list[CaseResult]) -> dict[str, float]:
    """Of one label, where means over pairs and over labels are the same."""
    of_cases = [c.logits for c in cases], [c.target for c in cases]
    z, t = (np.array([next(iter(row.values())) for row in rows]) for rows in of_cases)
    bins = np.minimum((expit(z) * 15).astype(int), 14)
    gaps = [abs((expit(z) - t)[bins == b].sum()) for b in range(15)]
    auroc, ap = float(roc_auc_score(t, z)), float(average_precision_score(t, z))
    return {
        **{"MicroAUROC": auroc, "MacroAUROC": auroc, "MicroAP": ap, "MacroAP": ap},
        "MacroAPSkill": float((ap - t.mean()) / (1 - t.mean())),
        "BalancedAccuracy": float(balanced_accuracy_score(t, z > 0)),
        "CalibrationError": float(sum(gaps) / len(z)),
        "UndefinedLabels": 0.0,
        "RareLabels": 0.0,
    }


def lie(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the record of a submission as a liar would who knows the format: signed, with its own table and page."""
    path = folder / RECORD_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    content["fingerprint"] = fingerprint(content)
    content["complete"] = len(content["runs"]) == content["runs_planned"]
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        record = Record.from_json(path.read_text(encoding="utf-8"), where="it")
    except ValueError:
        return  # what is not a record has no table
    (folder / CASES_FILE).write_bytes(cases_parquet(record, path.read_text(encoding="utf-8")))
    (folder / README_FILE).write_text(readme(record), encoding="utf-8")
