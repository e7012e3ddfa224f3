"""What a sweep was asked for, and the experiments that this makes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tapct.arguments import ENCODERS, NUMBERS, TASKS, WEIGHTS, WHOLE
from tapct.sweep.experiment import Experiment, absolute


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was asked for: each field is an option of `tapct run`.

    Attributes:
        encoders: Comma-separated names of encoders, or "all". "curia@random" is curia with random weights;
            "tap-b-3d+in_plane_size=512" is TAP-B-3D with an option of its card or constructor, and several options are
            joined by +. Without such options, the variable ENCODER_OPTIONS gives them. With --suite, only these of the
            suite's encoders are run.
        tasks: Comma-separated names of tasks, or "all" for the ten of the benchmark. With --suite, only these of the
            suite's tasks are run.
        suite: The name of a shipped suite (`tapct list suites`), such as paper-table-3, or the path of a YAML file that
            names experiments.
        weights: The weights of all encoders (a path, "random", or "null" for the published ones), or comma-separated
            pairs ENCODER=VALUE. By default the variable ENCODER_WEIGHTS decides.
        results: The folder of the results. The default is the variable RESULTS_ROOT, or "results".
        max_steps: The number of optimizer steps, instead of the configs'.
        runs: The number of runs, one seed each, instead of the configs'.
        accelerator: The device to run on: cpu, gpu or auto.
        configs: A folder of KIND/TASK.yaml. The default are the configs that `tapct config` lists.
        overrides: A YAML file that is passed to eva after the task's config. The option may be given several times.
        adaptors: Comma-separated names of what is trained on the features: linear, knn, prototype, abmil; ridge,
            attention; cox; cosine; nearest, vote. Add :cls, :mean, :max, :mean+max or :mask to those that pool.
            "all" is every one that a task's kind takes. The default is the variable ADAPTOR, or each task's own.
        bags: Comma-separated names of what attention sees: cls (the windows' class tokens), patch (a scan's patch
            features) or auto (class tokens where the model has some). The default is the variable BAG, or each task's
            own, which is auto.
        fractions: Comma-separated shares of the training patients, such as 0.01,0.1,1, to measure label efficiency.
        draws: The number of random subsets of the patients for each share below 1.
        perturbations: Comma-separated perturbations of the test scans, or "all". The unperturbed scans are evaluated
            as well.
        mistakes: Comma-separated names of usual mistakes with the encoders' input, or "all", to measure what each
            costs. The right input is evaluated as well.
    """

    encoders: Annotated[str | None, ENCODERS] = None
    tasks: Annotated[str | None, TASKS] = None
    suite: str | None = None
    weights: Annotated[str | None, WEIGHTS] = None
    results: str | None = None
    max_steps: Annotated[int | None, WHOLE] = None
    runs: Annotated[int | None, WHOLE] = None
    accelerator: str | None = None
    configs: str | None = None
    overrides: Annotated[Sequence[str], Parameter(name="--override", show_default=False)] = ()
    adaptors: str | None = None
    bags: str | None = None
    fractions: Annotated[Sequence[float], NUMBERS] = ()
    draws: Annotated[int, WHOLE] = 3
    perturbations: str | None = None
    mistakes: str | None = None

    def experiments(self) -> list[Experiment]:
        """Returns the experiments, task by task: scans that were just read need no disk.

        Raises:
            SweepError: If an encoder, a task, a suite, a config or an override does not exist.
        """
        # With numpy and pydantic, which the help of commands does without.
        from tapct.sweep.experiments import experiments_of

        return experiments_of(self)


def results_folder(results: str | None) -> Path:
    """Returns the folder of the results: the one named, else the variable RESULTS_ROOT, else `results`."""
    return Path(absolute(results or os.environ.get("RESULTS_ROOT") or "results"))
