"""Records of simulated experiments: a model under a setting of the task."""

from collections.abc import Sequence

import numpy as np

from tapct.records import CaseResult, Record
from tests.leaderboard.test_inputs import TASK, case, record


def experiment(
    model: str, values: np.ndarray, patient_of: Sequence[int] | None = None, heads: str = "0", **task
) -> Record:
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
        [_case(f"c{i}", f"p{p}", v) for i, (v, p) in enumerate(zip(seed, patient_of, strict=True))] for seed in values
    ]
    made = record(model, *runs, task={**TASK, **task})
    return made.model_copy(update={"runs": [run.model_copy(update={"probe_sha256": heads * 64}) for run in made.runs]})


def _case(name: str, patient: str, score: float) -> CaseResult:
    """A case of one class; what is simulated has no range, so it is put in as it is."""
    liver = None if np.isnan(score) else float(score)
    dice = {"liver": liver, "spleen": None}
    numbers = {"dice": {"native": dice, "paper": {"liver": 0.1, "spleen": 0.1}}, "nsd": dice}
    numbers["hd95_mm"] = {"liver": None if liver is None else 10 * liver}
    return case(name, 0.5, None, patient=patient).model_copy(update=numbers)
