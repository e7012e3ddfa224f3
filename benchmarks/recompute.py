"""What recomputing a submission's cases differs by: threads in fp32, and bf16 instead of fp32.

    python benchmarks/recompute.py results/quickstart/tap-t-3d-030e1de1b3c9 [--cases 1] [--data-root DIR]

The second is more than two machines of one precision differ by; `tapct.submission.again.TOLERANCES` is set by it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from tapct.submission.again import recompute
from tapct.submission.folder import Submission


def main() -> None:
    """Prints the number that is furthest from the record, for each precision and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submission", type=Path)
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--data-root")
    arguments = parser.parse_args()
    submission = Submission.read(arguments.submission)
    for precision, threads in (("fp32", 1), ("fp32", 2), ("bf16", 2)):
        torch.set_num_threads(threads)
        encoder = submission.record.encoder.model_copy(update={"precision_used": precision})
        other = replace(submission, record=submission.record.model_copy(update={"encoder": encoder}))
        settings = {"data_root": arguments.data_root, "weights": None, "salt": "", "device": torch.device("cpu")}
        for check in recompute(other, arguments.cases, **settings):
            print(f"{precision}, {threads} threads: {check.name}: {check.message}", flush=True)


if __name__ == "__main__":
    main()
