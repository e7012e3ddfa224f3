"""How often `chance-level` and `too-few-to-tell` are raised of a model that knows something, and of one that does not.

    python benchmarks/flags.py

Scores of one label are normal, shifted by what the model knows (its AUROC); patients have a case each.
"""

import argparse
import time

from tests.flags_simulated import rates

SIZES = ((50, 5), (100, 10))
AUROCS = (0.5, 0.7, 0.8)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    asked = parser.parse_args()
    start = time.perf_counter()
    print("| patients | positives | metric | AUROC | chance-level | too-few-to-tell |\n|---:|---:|---|---:|---:|---:|")
    for patients, positives in SIZES:
        for metric in ("MicroAUROC", "MicroAP"):
            for auroc in AUROCS:
                of = rates(patients, positives, auroc, metric, asked.simulations)
                shares = " | ".join(f"{100 * share:.1f} %" for share in of.values())
                print(f"| {patients} | {positives} | {metric} | {auroc} | {shares} |", flush=True)
    print(f"\n{asked.simulations} simulations each, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
