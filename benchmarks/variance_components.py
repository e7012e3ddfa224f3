"""How often do the intervals of the variance components hold what is true? Grids whose components are known.

    OMP_NUM_THREADS=1 python benchmarks/variance_components.py [--simulations 1000] [--resamples 1000] [--json out.json]

Dice-like scores of encoders x adaptors x three seeds, with effects of encoder (SD 0.03), adaptor (0.03), their
interaction (0.01) and seed (0.005), and patients of differing difficulty: for all experiments alike (0.15), and each in
its own way for an encoder, an adaptor, an experiment and a run (0.04, 0.04, 0.03, 0.02). Two truths are asked for: the
components of *these* encoders, adaptors and seeds on infinitely many patients, which is what the page says its
intervals hold; and those of the distributions that they were drawn from, which nobody can know from a few.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tapct.leaderboard.adaptors import SOURCES, Component, mean_squares, variance_components
from tapct.statistics import TaskInputs
from tapct.statistics.intervals import Estimate
from tapct.statistics.resampling import Resampled, draw_patients, resample

SD = {"encoder": 0.03, "adaptor": 0.03, "encoder x adaptor": 0.01, "seed": 0.005}
GRIDS = [(e, a, n) for e, a in ((3, 3), (5, 4), (8, 4)) for n in (20, 50, 100)]
SEEDS = 3


def simulated(
    encoders: int, adaptors: int, patients: int, resamples: int, name: str, rng: np.random.Generator
) -> tuple[Sequence[Component], np.ndarray, np.ndarray]:
    """Returns the components of one grid, and the true variances: of its own effects, and those drawn from."""
    experiments = (encoders, adaptors)
    shapes = {"encoder": (encoders, 1, 1), "adaptor": (1, adaptors, 1), "encoder x adaptor": (*experiments, 1)}
    effects = sum(SD[source] * rng.normal(size=shapes.get(source, (*experiments, SEEDS))) for source in SD)
    effects = np.broadcast_to(effects, (*experiments, SEEDS))
    hard = [(0.15, (1, 1, 1)), *((sd, shapes[s]) for s, sd in zip(shapes, (0.04, 0.04, 0.03), strict=True))]
    hard.append((0.02, (*experiments, SEEDS)))
    scores = 0.5 + effects[..., None] + sum(sd * rng.normal(size=(*shape, patients)) for sd, shape in hard)
    between = sum(sd**2 for sd, _ in hard) / patients
    inputs = TaskInputs(
        task=name,
        version="1",
        metric="dice_native",
        models=tuple(map(str, range(encoders * adaptors))),
        cases=tuple(map(str, range(patients))),
        patients=tuple(map(str, range(patients))),
        values=scores.reshape(-1, SEEDS, patients),
        targets=None,
    )
    found = Resampled(*(of.reshape(*experiments, *of.shape[1:]) for of in resample(inputs, resamples)))
    components, reason = variance_components(found, draw_patients(patients, resamples, inputs.key))
    assert reason is None
    of, seed = mean_squares(effects.mean(axis=2)), effects.var(axis=2, ddof=1).mean()
    parts = [(of.encoder - of.both) / adaptors, (of.adaptor - of.both) / encoders, of.both - seed / SEEDS, seed]
    drawn_from = [sd**2 for sd in SD.values()]
    return components, np.maximum([*parts, between], 0), np.array([*drawn_from, between])


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether there is an interval and it holds the truth."""
    return estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high


def coverage(simulations: int, resamples: int) -> list[dict]:
    rows = []
    for encoders, adaptors, patients in GRIDS:
        rng, held = np.random.default_rng(encoders * 1000 + patients), []
        for index in range(simulations):
            found, here, drawn_from = simulated(encoders, adaptors, patients, resamples, f"simulation {index}", rng)
            held.append(
                [
                    [holds(part.share, share) for part, share in zip(found, here / here.sum(), strict=True)],
                    [holds(part.sd, sd) for part, sd in zip(found, np.sqrt(here), strict=True)],
                    [holds(part.share, s) for part, s in zip(found, drawn_from / drawn_from.sum(), strict=True)],
                ]
            )
        of = dict(zip(("share", "sd", "share, drawn from"), np.mean(held, axis=0).round(3).tolist(), strict=True))
        rows.append({"encoders": encoders, "adaptors": adaptors, "patients": patients, **of})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = coverage(args.simulations, args.resamples)
    table = Table("encoders", "adaptors", "patients", "interval of", *SOURCES)
    for row in rows:
        for what in ("share", "sd", "share, drawn from"):
            sizes = (str(row[key]) for key in ("encoders", "adaptors", "patients"))
            table.add_row(*sizes, what, *(f"{share:.3f}" for share in row[what]))
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
