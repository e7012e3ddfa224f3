"""What each job of a sweep asks Slurm for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from tapct.arguments import NUMBER, WHOLE
from tapct.sweep.experiment import SweepError


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each Slurm job asks for: each field is an option of `tapct run`.

    Attributes:
        partition: The partition of the Slurm jobs. The default is the cluster's own.
        gpus: The number of GPUs of each Slurm job. The default is 1, and 0 with --accelerator cpu.
        time_min: The time limit of each Slurm job, in minutes. A job that needs more is queued again, up to ten times.
        cpus: The number of cores of each Slurm job.
        mem_gb: The memory of each Slurm job, in GB. The default is the cluster's own.
        extra: A further option of sbatch, as KEY=VALUE. The option may be given several times.
    """

    partition: str | None = None
    gpus: Annotated[int | None, WHOLE] = None
    time_min: Annotated[int, WHOLE, Parameter(name="--time")] = 240
    cpus: Annotated[int, WHOLE] = 8
    mem_gb: Annotated[float | None, NUMBER] = None
    extra: Annotated[Sequence[str], Parameter(name="--slurm-extra", show_default=False)] = ()

    def __post_init__(self) -> None:
        """Makes sure that the further options can be read.

        Raises:
            SweepError: If one is not KEY=VALUE.
        """
        for option in self.extra:
            key, equals, _ = option.lstrip("-").partition("=")
            if not (key and equals):
                raise SweepError(f"--slurm-extra {option}: write KEY=VALUE, such as account=radiology")
