"""Records of simulated cells: a model under a setting of the task."""

from collections.abc import Sequence

import numpy as np

from tapct.records import Record
from tests.leaderboard.test_inputs import TASK, case, record


def cell(model: str, values: np.ndarray, patient_of: Sequence[int] | None = None, heads: str = "0", **task) -> Record:
    """A record of (seeds, cases) scores of one class.

    Args:
        model: Name of the encoder.
        values: Scores.
        patient_of: The patient of each case; by default each its own.
        heads: Stands for the weights of the trained heads.
        task: Settings of the task that are not the usual ones.
    """
    patient_of = range(values.shape[1]) if patient_of is None else patient_of
    runs = [
        [
            case(
                f"c{i}",
                None if np.isnan(v) else float(v),
                None,
                patient=f"p{p}",
                hd95_mm={"liver": None if np.isnan(v) else 10 * float(v)},
            )
            for i, (v, p) in enumerate(zip(seed, patient_of, strict=True))
        ]
        for seed in values
    ]
    made = record(model, *runs, task={**TASK, **task})
    return made.model_copy(update={"runs": [run.model_copy(update={"probe_sha256": heads * 64}) for run in made.runs]})
