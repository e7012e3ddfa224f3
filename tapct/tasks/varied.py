"""A task's parts as an experiment varies them: fewer patients to train on, perturbed scans to report."""

from collections.abc import Mapping

from tapct.errors import TaskError
from tapct.tasks.dataset import CTDataset
from tapct.tasks.fractions import drawn_patients, patients_of
from tapct.volumes.perturb import perturbation as perturbation_named


def varied(
    parts: Mapping[str, CTDataset | None], train_fraction: float, train_draw: int, perturbation: str | None
) -> dict[str, CTDataset | None]:
    """Returns the parts of a task with fewer patients to train on, and perturbed reported scans, as asked for.

    Args:
        parts: By split; None for one without cases.
        train_fraction: Share of the training patients; see `fractions.drawn_patients`.
        train_draw: Number of the draw.
        perturbation: Of the reported scans, by its name in `tapct.volumes.perturb.PERTURBATIONS`; None for none.

    Raises:
        TaskError: If there is no such perturbation, or nothing to perturb or to take a part of.
    """
    changed, train, test = dict(parts), parts["train"], parts["test"]
    if train is None and train_fraction < 1:
        raise TaskError(f"train_fraction is {train_fraction}, but there are no training cases of which to take a part")
    if train is not None and train_fraction < 1:
        cases = {case: train.patient(case) for case in train.cases}
        answers = patients_of(cases, {case: train.strata(case) for case in cases})
        changed["train"] = train.only(drawn_patients(answers, train_fraction, train_draw, train.spec.name))
    if perturbation is not None:
        change = perturbation_named(perturbation)
        if test is None:
            raise TaskError(f"{perturbation} cannot be applied: the split has no reported cases (test)")
        changed["test"] = test.perturbed(change)
    return changed
