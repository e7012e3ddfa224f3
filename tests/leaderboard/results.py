"""Results folders of the true layout, filled with simulated numbers."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.special import expit

from tapct import kinds
from tapct.encoders import encoder_class
from tapct.encoders.options import load_spec
from tapct.leaderboard.official import shipped
from tapct.probes.input_sheet import recorded_sheet
from tapct.records import RECORD_FILE, CaseResult, Flag, PatchSize, Record, RunRecord
from tapct.records.case import as_cases
from tapct.tasks import task_class

SEGMENTATION = ("amos22", "lits17", "kits23", "totalsegmentator", "msd_pancreas")
CLASSIFICATION = ("luna16", "luna25", "rsna2022", "rsna2023", "fdg_pet_ct")
ENCODERS = (
    *("tap-s-2d", "tap-b-2d", "tap-s-2.5d", "tap-b-2.5d", "tap-s-3d", "tap-b-3d", "curia", "suprem"),
    *("ct-fm", "vista3d", "voco-b", "fmcib", "voxelfm", "merlin", "astra"),
)
SOLVED = {"setting": 0.1, "score": 0.7, "candidates": [{"setting": 0.1, "score": 0.7, "loss": 0.5}]}
"""What a solved head was chosen from: as `tapct.probes.solved` has it."""
FLAG = Flag(id="chance-level", message="The interval holds what chance gives: check the weights.", detail="0.50")


def record(
    encoder: str,
    task: str,
    *,
    ability: float = 0.0,
    patients: int = 20,
    seeds: int = 3,
    planned: int | None = None,
    random: bool = False,
    weights: str | None = None,
    flags: Sequence[Flag] = (),
    card: Mapping | None = None,
    more_task: Mapping | None = None,
    notice: str | None = None,
    adaptor: str | None = None,
    more_probe: Mapping | None = None,
    cell_size: PatchSize | None = None,
    sheet: Mapping | None = None,
    options: Mapping | None = None,
) -> Record:
    """A record as `eva fit` under the shipped config writes it, for an encoder as good as `ability` (in logits)."""
    spec = task_class(task).spec
    adaptor = adaptor or spec.adaptor
    own = asdict(encoder_class(encoder).card) | dict(card or {})
    easy = np.random.default_rng(_seed(task)).normal(size=patients)
    key = f"{task} {encoder} {random} {ability}" + (f" {adaptor}" if adaptor != spec.adaptor else "")
    solved = (adaptor or "abmil").partition(":")[0] != "abmil"
    simulate = {"segmentation": _segmented, "classification": _classified, "regression": _regressed}[spec.kind]
    runs = []
    for run in range(seeds):
        rng = np.random.default_rng(_seed(f"{key} {0 if solved else run}"))
        cases = simulate(spec, easy, key, ability + rng.normal(0, 0.02), rng)
        runs.append(
            RunRecord(
                run=run,
                seed=run,
                probe_sha256=_sha256(f"probe {key} {run}"),
                selection=SOLVED if solved else {"learning_rate": 0.001, "step": 100, "score": 0.5, "candidates": []},
                metrics={"test": _metrics(spec.kind, cases)},
                cases={"test": cases},
            )
        )
    return Record(
        notice=notice or spec.notice,
        encoder={
            "card": own,
            "weights": weights or ("random" if random else own["weights"]["file"] or "weights.pt"),
            "weights_sha256": _sha256(f"weights {weights or encoder} {random}"),
            "precision": "auto",
            "feature_centre_voxel": [1.5, 3.5, 3.5],
            "parameters": own["num_params"],
            **({} if sheet is None else {"input_sheet": sheet, "options": dict(options or {})}),
        },
        task=_task(task, patients) | dict(more_task or {}),
        probe=_probe(task, adaptor) | dict(more_probe or {}),
        cell_size=cell_size,
        runs_planned=planned or seeds,
        runs=runs,
        execution={
            "written_at": "2026-11-20T12:00:00+00:00",
            "seconds": {"extract": 600.0, "fit": 300.0, "test": 60.0},
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "device": "NVIDIA H100 80GB HBM3",
        },
        flags=list(flags),
    )


@functools.cache
def sheet_of(encoder: str) -> dict:
    """What a record says of the input of an encoder that is installed here."""
    return recorded_sheet(load_spec(encoder, "random", deferred=True))


def _task(task: str, patients: int) -> dict:
    """What a record says of a shipped task."""
    spec, ships = task_class(task).spec, shipped(task)
    config = ships.settings
    return {
        "name": task,
        "version": spec.version,
        "kind": spec.kind,
        "metric": spec.metric,
        "classes": list(spec.classes),
        "options": config.get("options", {}),
        "split": f"{task}.csv",
        "split_sha256": ships.split_sha256,
        "cases": {"train": 4 * patients, "val": patients // 2, "test": patients},
        "excluded": {},
        "batch_size": config["batch_size"],
        "order_seed": 0,
        **({"unit": spec.unit} if spec.unit else {}),
    }


def _probe(task: str, adaptor: str | None) -> dict:
    """What a record says of the probe of a shipped config."""
    spec, config, solved = (
        task_class(task).spec,
        shipped(task).settings,
        (adaptor or "abmil").partition(":")[0] != "abmil",
    )
    return (
        {
            "module": f"tapct.probes.{spec.kind}",
            "head": "Conv3d(1, 1)",
            "classes": list(spec.classes),
            "window_overlap": 0.0,
            "fit_windows": config["fit_windows"],
            "seed": 0,
            "learning_rates": config["learning_rates"],
            "scale_features": True,
            "select": config["select"],
            "feature_dtype": "bf16",
            "optimizer": {"class": "AdamW", "weight_decay": 0.01},
            "lr_scheduler": [{"class": "CosineAnnealingLR"}],
            "steps": config["max_steps"],
            "accumulate_grad_batches": config["accumulate_grad_batches"],
            "precision": "32-true",
            "gradient_clip_val": None,
        }
        | ({"nsd_tolerance_mm": 2.0, "start_bias": "prior"} if spec.kind == "segmentation" else {})
        | ({"adaptor": adaptor, "pooling": "mean" if solved else None} if adaptor else {})
        | ({"steps": 0, "learning_rates": None} if solved else {})
    )


HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>",
    "</style><style>body{display:none}</style>",
    "{color:red} .board{display:none}",
    "url(javascript:alert(1))",
    '=HYPERLINK("http://evil.example","x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\\input{/etc/passwd} $x_1^2$ 100% #1 & ~",
    "[click](http://evil.example) | **b** `c`",
    "[1-1] a",
    '" style="fill:red" x="',
    "x" * 100,
    "W " * 49 + "W",
)
"""Names that a record may have, and that would be markup, styles, formulas or commands, or are wide."""


def named(folder: Path, names: Sequence[str]) -> Path:
    """Writes a model of each name, on a task of either kind; whatever the names, the numbers are the same."""
    for task in ("lits17", "luna16"):
        for place, name in enumerate(names):
            card = {"name": f"m{place}", "display_name": name, "reference": 50 * name, "pretraining_data": (50 * name,)}
            one = record("curia", task, ability=1 - 0.1 * place, card=card, patients=12, notice=None)
            write(folder, f"m{place}", one)
    return folder


def write(folder: Path, experiment: str, one: Record) -> Path:
    """Writes a record where a sweep publishes it."""
    path = folder / one.task.name / experiment / RECORD_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(one.to_json(), encoding="utf-8")
    return path


def write_all(
    folder: Path,
    encoders: Sequence[str] = ENCODERS,
    tasks: Sequence[str] = SEGMENTATION + CLASSIFICATION,
    patients: Mapping[str, int] | int = 20,
    missing: Sequence[tuple[str, str]] = (),
    flagged: Sequence[tuple[str, str]] = (),
) -> Path:
    """Fills a results folder: models 0.08 logits apart, the second and third as good as each other."""
    for task in tasks:
        for place, encoder in enumerate(encoders):
            if (encoder, task) in missing:
                continue
            number = patients if isinstance(patients, int) else patients[task]
            ability = 1.2 - 0.08 * (1 if place == 2 else place)
            flags = [FLAG] if (encoder, task) in flagged else []
            write(folder, encoder, record(encoder, task, ability=ability, patients=number, flags=flags))
    return folder


def full_size(folder: Path) -> Path:
    """15 models x 10 tasks x 3 seeds, with as many reported patients as the shipped tasks have."""
    patients = {task: task_class(task).split_counts()[2] for task in SEGMENTATION + CLASSIFICATION}
    return write_all(
        folder,
        patients=patients,
        missing=[("fmcib", "totalsegmentator"), ("merlin", "rsna2022"), ("voxelfm", "luna25")],
        flagged=[("fmcib", "msd_pancreas"), ("voco-b", "amos22"), ("voco-b", "luna16")],
    )


def _segmented(spec, easy, key, ability, rng) -> list[CaseResult]:
    names = spec.classes[1:]
    hard = np.random.default_rng(_seed(spec.name + "classes")).normal(size=len(names))
    taste = np.random.default_rng(_seed(f"{spec.name} {key}")).normal(0, 0.3, len(easy))  # the same in all seeds
    cases = []
    for index, patient in enumerate(easy + taste):
        native = expit(ability + 0.8 * patient + 0.7 * hard + rng.normal(0, 0.25, len(names)))
        paper, nsd = expit(np.log(native / (1 - native)) + 0.1), native**1.2
        absent = np.random.default_rng(_seed(f"{spec.name} {index}")).random(len(names)) < 0.05

        def by_class(values, absent=absent):
            return {n: None if a else round(float(v), 4) for n, v, a in zip(names, values, absent, strict=True)}

        cases.append(
            CaseResult(
                case=f"case {index}",
                patient=f"patient {index}",
                loss=1.0,
                dice={"native": by_class(native), "paper": by_class(paper)},
                nsd=by_class(nsd),
                hd95_mm=by_class(4 + 90 * (1 - native)),
                padding_voxels=(0, 0, 0),
            )
        )
    return cases


def _classified(spec, easy, key, ability, rng) -> list[CaseResult]:
    truth = np.random.default_rng(_seed(spec.name + "truth")).random((len(easy), len(spec.classes))) < 0.35
    truth[0], truth[1] = True, False
    taste = np.random.default_rng(_seed(f"{spec.name} {key}")).normal(0, 0.9, truth.shape)
    logits = (2 * truth - 1) * (0.4 + 0.6 * ability) + 0.5 * easy[:, None] + taste + rng.normal(0, 0.3, truth.shape)
    return [
        CaseResult(
            case=f"case {index}",
            patient=f"patient {index}",
            loss=1.0,
            logits=dict(zip(spec.classes, row.tolist(), strict=True)),
            probabilities=dict(zip(spec.classes, expit(row).tolist(), strict=True)),
            target={n: int(t) for n, t in zip(spec.classes, own, strict=True)},
            padding_voxels=(0, 0, 0),
        )
        for index, (row, own) in enumerate(zip(logits.astype(np.float32).astype(float), truth, strict=True))
    ]


def _regressed(spec, easy, key, ability, rng) -> list[CaseResult]:
    """Ages about 60, which a model of ability 1 knows to 5 years, and one of ability 0 to 15."""
    truth = 60 + 12 * np.random.default_rng(_seed(spec.name + "truth")).normal(size=(len(easy), len(spec.classes)))
    taste = np.random.default_rng(_seed(f"{spec.name} {key}")).normal(size=truth.shape)
    predicted = truth + (15 - 10 * ability) * taste + rng.normal(0, 0.5, truth.shape)
    rows = zip(predicted.tolist(), truth.tolist(), strict=True)
    return [
        CaseResult(
            case=f"case {index}",
            patient=f"patient {index}",
            loss=1.0,
            padding_voxels=(0, 0, 0),
            outcome={
                name: dict(zip(spec.classes, row, strict=True))
                for name, row in (
                    *(("predicted", ours), ("observed", theirs)),
                    *(("baseline", [60.0] * len(theirs)), ("scale", [1.0] * len(theirs))),
                )
            },
        )
        for index, (ours, theirs) in enumerate(rows)
    ]


def _metrics(kind: str, cases: list[CaseResult]) -> dict[str, float | None]:
    if cases[0].outcome is not None:
        of = kinds.kind(kind)
        return of.numbers(as_cases(of, cases))
    if cases[0].dice is None:
        ranking = {"MicroAUROC": 0.7, "MicroAP": 0.6, "MacroAUROC": 0.7, "MacroAP": 0.6}
        return {**ranking, "BalancedAccuracy": 0.65, "CalibrationError": 0.05}
    means = {
        "dice_native": np.nanmean([_mean(c.dice["native"]) for c in cases]),
        "dice_paper": np.nanmean([_mean(c.dice["paper"]) for c in cases]),
        "nsd_native": np.nanmean([_mean(c.nsd) for c in cases]),
        "hd95_mm_native": np.nanmean([_mean(c.hd95_mm) for c in cases]),
    }
    return {**{k: float(v) for k, v in means.items()}, "dice_native_class_mean": 0.5, "hd95_mm_native_one_sided": 2.0}


def _mean(row: dict[str, float | None]) -> float:
    defined = [value for value in row.values() if value is not None]
    return sum(defined) / len(defined) if defined else np.nan


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seed(text: str) -> int:
    return int(_sha256(text)[:8], 16)
