"""Records of LUNG1 of the true layout, with simulated patients, risks and tables."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tapct import kinds
from tapct.kinds.survival import case_loss
from tapct.metrics.survival import GRID_DAYS
from tapct.records import Record
from tapct.records.case import CaseResult, as_cases
from tapct.tasks.lung1_survival import SPEC
from tests.leaderboard import results

PATIENTS = 90


def patients(number: int = PATIENTS) -> Mapping[str, np.ndarray]:
    """What becomes of each, and what is true of them: an age, and what a scan tells next to it."""
    random = np.random.default_rng(0)
    age, scan = random.normal(size=number), random.normal(size=number)
    died = 800 * random.exponential(size=number) * np.exp(-(age + scan))
    lost = random.uniform(300, 4000, number)
    return {"age": age, "scan": scan, "days": np.ceil(np.minimum(died, lost)), "event": died <= lost}


def record(encoder: str, adaptor: str, weights: Mapping[str, float], seeds: int = 2, number: int = PATIENTS) -> Record:
    """A record of an encoder under an adaptor, whose risks are a weighted sum of age, scan and noise."""
    true = patients(number)
    of_classification = results.record(encoder, "fdg_pet_ct", patients=number, seeds=seeds, adaptor="linear:mean")
    content = of_classification.content()
    content["task"] |= {
        "name": SPEC.name,
        "version": SPEC.version,
        "kind": SPEC.kind,
        "metric": SPEC.metric,
        "classes": list(SPEC.classes),
        "options": {},
        "split": "lung1_survival_folds.csv",
        "split_sha256": "0" * 64,
        "cases": {"train": number, "val": 0, "test": number},
        "folds": {"repeats": 10, "folds": 5},
    }
    content["probe"] |= {"adaptor": adaptor, "classes": list(SPEC.classes), "module": "tapct.probes.SurvivalProbe"}
    for run in content["runs"]:
        random = np.random.default_rng([run["run"], sum(map(ord, encoder + adaptor))])
        noise = random.normal(size=number)
        risk = sum(weight * {**true, "noise": noise}[name] for name, weight in weights.items()) + np.zeros(number)
        cases = [_case(place, float(one), true) for place, one in enumerate(risk)]
        numbers = kinds.kind("survival").numbers(as_cases(kinds.kind("survival"), cases))
        run |= {"cases": {"test": [case.content() for case in cases]}, "metrics": {"test": numbers}}
    return Record.model_validate(content)


def _case(place: int, risk: float, true: Mapping[str, np.ndarray]) -> CaseResult:
    survival = np.exp(-np.array(GRID_DAYS) / 900 * np.exp(risk)).tolist()
    days, event = float(true["days"][place]), float(true["event"][place])
    outcome = {"time_days": days, "event": event, "risk": risk, "survival": survival}
    return CaseResult(
        case=f"LUNG1-{place + 1:03d}",
        patient=f"LUNG1-{place + 1:03d}",
        loss=case_loss(survival, days, event == 1),
        padding_voxels=(0, 0, 0),
        outcome={name: {"death": value} for name, value in outcome.items()},
    )


EXPERIMENTS = {
    ("chance", "cox:mean"): {},
    ("chance", "cox:table=age"): {"age": 0.8},
    ("curia", "cox:mean"): {"scan": 0.8},
    ("curia", "cox:mean&table=age"): {"age": 0.8, "scan": 0.8},
    ("merlin", "cox:mean"): {"noise": 0.3},
    ("merlin", "cox:mean&table=age"): {"age": 0.8, "noise": 0.001},
}
"""Of each encoder and adaptor, what its risks are made of."""


def write(folder: Path) -> Path:
    """Writes the experiments into a results folder."""
    for (encoder, adaptor), weights in EXPERIMENTS.items():
        plain = adaptor.translate(str.maketrans(":&=+", "----"))
        experiment = encoder if adaptor == SPEC.adaptor else f"{encoder}+adaptor={plain}"
        results.write(folder, experiment, record(encoder, adaptor, weights))
    return folder
