"""A step that went wrong, kept so that it can be looked at: `python -m pretrain.replay FILE`.

When a loss or a gradient is not finite, the engine writes the micro-batch at fault together with the networks as they
were. This runs it again, and says what is not finite and which module gave it first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pretrain.command import ExitStatus, run
from pretrain.observe.replay import diagnose, read_dump


def main(arguments: Sequence[str] | None = None) -> ExitStatus:
    """Replays one dump; DONE if the fault came again, ATTENTION if all is finite now."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.replay", description=__doc__)
    parser.add_argument("file", type=Path, help="The file of the step: RUN/dumps/step_*.pt.")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="The device to run it on."
    )
    chosen = parser.parse_args(arguments)
    return run(lambda: _replay(chosen.file, torch.device(chosen.device)))


def _replay(file: Path, device: torch.device) -> ExitStatus:
    model, batch, state = read_dump(file, device)
    print(f"step {batch.step}, micro-batch {batch.index}; recorded: {state['diagnosis']}")
    for sample in state["samples"]:
        print(f"  sample: {sample}")
    again = diagnose(model, batch, teacher_temperature=state["teacher_temperature"], scale=state["scale"])
    print(f"replayed: {again}")
    for name, value in again.losses.items():
        print(f"  {name}: {value}")
    return ExitStatus.ATTENTION if again.is_finite else ExitStatus.DONE


if __name__ == "__main__":
    sys.exit(main())
