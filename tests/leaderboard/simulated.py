"""Tasks whose truth is known."""

import numpy as np

from tapct.statistics import TaskInputs


def task(values, patients=None, targets=None, *, name="simulated", metric=None, notice=None) -> TaskInputs:
    """Inputs of (models, cases) or (models, seeds, cases[, labels]) values."""
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 2 else values
    cases = values.shape[2]
    return TaskInputs(
        task=name,
        version="1",
        metric=metric or ("dice_native" if targets is None else "MicroAUROC"),
        models=tuple("abcdefghijklmnopqrst"[: len(values)]),
        cases=tuple(f"case {i}" for i in range(cases)),
        patients=tuple(f"patient {p}" for p in (range(cases) if patients is None else patients)),
        values=values,
        targets=targets,
        notice=notice,
    )


def clusters(patients: int, rng: np.random.Generator, most: int = 5) -> np.ndarray:
    """The patient of each case, one to `most` cases each."""
    return np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))


def within(patient: np.ndarray, rng: np.random.Generator, shape: tuple = (), alike: float = 0.9) -> np.ndarray:
    """(*shape, cases) standard normal numbers, those of a patient correlated by `alike`."""
    common = rng.normal(size=(*shape, patient.max() + 1))[..., patient]
    return np.sqrt(alike) * common + np.sqrt(1 - alike) * rng.normal(size=(*shape, len(patient)))
