"""Records of simulated models that know something of one label, or nothing; `benchmarks/flags.py` tabulates them."""

from collections import Counter

import numpy as np
from scipy.special import expit, ndtri

from tapct.flags import own_flags
from tapct.records import CaseResult, Record, RunRecord
from tests.records.made import encoder


def simulated(patients: int, positives: int, auroc: float, metric: str, runs: int, rng: np.random.Generator) -> Record:
    """Returns a record of a model of this AUROC, whose runs share most of what they get wrong."""
    targets = rng.permutation(patients) < positives
    common = rng.normal(size=patients)
    made = []
    for run in range(runs):
        scores = np.sqrt(0.9) * common + np.sqrt(0.1) * rng.normal(size=patients)
        logits = (scores + np.sqrt(2) * ndtri(auroc) * targets).astype(np.float32).astype(float)
        cases = [
            CaseResult(
                case=f"case {i}",
                patient=f"patient {i}",
                loss=1.0,
                logits={"x": float(logit)},
                probabilities={"x": float(expit(logit))},
                target={"x": int(target)},
                padding_voxels=(0, 0, 0),
            )
            for i, (logit, target) in enumerate(zip(logits, targets, strict=True))
        ]
        made.append(RunRecord(run=run, seed=run, probe_sha256=f"{run:064}", metrics={}, cases={"test": cases}))
    return Record(
        notice=None,
        encoder=encoder(),
        task={"name": "simulated", "version": 1, "kind": "classification", "metric": metric},
        probe={},
        runs_planned=runs,
        runs=made,
        execution={},
    )


def rates(
    patients: int, positives: int, auroc: float, metric: str, simulations: int, runs: int = 3, seed: int = 0
) -> dict[str, float]:
    """Returns the shares of simulations that raise `chance-level` and `too-few-to-tell`."""
    rng, found = np.random.default_rng(seed), Counter[str]()
    for _ in range(simulations):
        found.update(flag.id for flag in own_flags(simulated(patients, positives, auroc, metric, runs, rng)))
    return {name: found[name] / simulations for name in ("chance-level", "too-few-to-tell")}
