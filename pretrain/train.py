"""Pretrains an encoder: `python -m pretrain.train --config FILE [--section.key=value ...]`, alone or under torchrun.

The same command resumes from the newest checkpoint in run.output, also with another number of processes. Exit status:
0 the last step is done; 1 an error, which is named; 75 asked to stop (SIGTERM, SIGINT): all is saved, start it again.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import torch

from pretrain.command import ExitStatus, run
from pretrain.distributed import World, join
from pretrain.errors import PretrainError
from pretrain.settings import load_config
from pretrain.training.engine import Engine
from pretrain.training.memory import keep_freed_memory
from pretrain.training.normalisation import far_from_store, with_intensities

log = logging.getLogger("pretrain")


class StopRequest:
    """Remembers that a signal asked to stop; the engine looks once a step, so that all processes stop at the same one.

    A second SIGTERM changes nothing, since Slurm and torchrun both send one. A second SIGINT interrupts at once.
    """

    def __init__(self) -> None:
        self._wanted = False

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Returns whether a signal came."""
        return self._wanted

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._wanted = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def main(arguments: Sequence[str] | None = None) -> ExitStatus:
    """Trains."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every key of the config can be overridden: --optim.base_lr=0.002 --run.output=runs/second",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, help="The YAML file of the run, such as pretrain/configs/tap_s_3d.yaml."
    )
    chosen, overrides = parser.parse_known_args(arguments)
    return run(lambda: _train(chosen.config, overrides))


def _train(path: str, overrides: Sequence[str]) -> ExitStatus:
    config = load_config(path, overrides)
    try:
        with StopRequest() as stop, join(config.run.device) as world:
            _log_to_stderr(world)
            if world.device.type == "cpu" and config.run.keep_freed_memory:
                keep_freed_memory()
            config = with_intensities(config)
            if world.is_first and (far := far_from_store(config)) is not None:
                log.warning("%s", far)
            finished = Engine(config, world, stop).run()
    except torch.OutOfMemoryError as error:
        raise PretrainError(
            f"the GPU's memory is full ({str(error).splitlines()[0]}). Lower run.micro_batch_size"
        ) from error
    except OSError as error:
        raise PretrainError(
            f"{error}. Fix it and start the same command again; it resumes from the newest checkpoint"
        ) from error
    if not finished:
        log.info("asked to stop; all is saved, and the same command resumes")
    return ExitStatus.DONE if finished else ExitStatus.STOPPED


def _log_to_stderr(world: World) -> None:
    logging.basicConfig(
        level=logging.INFO if world.is_first else logging.WARNING,
        format="%(asctime)s " + (f"[process {world.rank}] " if world.size > 1 else "") + "%(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )


if __name__ == "__main__":
    sys.exit(main())
