"""What the clinical table of LUNG1 alone knows of survival, without a scan: the rows in docs/tasks.md.

python -m benchmarks.lung1_tables --clinical NSCLC-Radiomics-Lung1.clinical-version3-Oct-2019.csv
"""

from pathlib import Path

import jsonargparse
import numpy as np
import torch

from tapct.metrics.survival import GRID_DAYS, HORIZONS_DAYS, Outcomes, evaluate, integrated_brier, kaplan_meier, uno_c
from tapct.probes import cox_head, tables
from tapct.probes.solved import PooledCases
from tapct.statistics.resampling import draw_patients
from tapct.tasks.lung1_survival import SPEC, LUNG1Survival, read_clinical
from tapct.tasks.splits import FoldTable

ROWS = ("age", "stage", "age+stage", "age+sex+stage+histology", "age+sex+stage+histology+t_stage+n_stage")
REPEATS, RESAMPLES = 3, 2000


def out_of_fold(cases: PooledCases, fold: np.ndarray) -> np.ndarray:
    """(N, 1 + T) risk and survival of each patient, by a head of the other folds."""
    found = np.zeros((len(fold), 1 + len(GRID_DAYS)))
    for k in np.unique(fold):
        train = cases.some(np.flatnonzero(fold != k))
        head = tables.solved(lambda a, b: cox_head.solve(a, b, scale=True), train, None).head
        for row in np.flatnonzero(fold == k):
            found[row] = head(torch.from_numpy(cases.features[row])).numpy()
    return found


def main(clinical: Path) -> None:
    rows, folds = read_clinical(clinical), LUNG1Survival.shipped_split()
    assert isinstance(folds, FoldTable)
    names = list(folds.cases["test"])
    targets = np.array([[rows[name].days, float(rows[name].event)] for name in names])
    outcomes, columns = Outcomes(targets[:, 0], targets[:, 1] == 1), {column.name: column for column in SPEC.table}
    fold = [np.array([of[name] for name in names]) for of in folds.folds[:REPEATS]]
    drawn, curve = draw_patients(len(names), RESAMPLES, SPEC.name), kaplan_meier(outcomes)
    print(f"{int(outcomes.event.sum())} of {len(names)} died; alive:", curve.at(np.array(HORIZONS_DAYS))[:, 0].round(3))
    others = np.zeros((len(names), len(GRID_DAYS)))
    for k in np.unique(fold[0]):
        others[fold[0] == k] = kaplan_meier(outcomes[fold[0] != k]).at(np.array(GRID_DAYS))[:, 0]
    print(f"nothing: IBS {integrated_brier(outcomes, others)[0]:.3f}")
    for row in ROWS:
        chosen = [columns[name] for name in row.split("+")]
        numbers = [[n for c in chosen for n in c.numbers(rows[name].values[c.name])] for name in names]
        cases = PooledCases(names, names, np.array(numbers), targets, len(numbers[0]))
        answers = [out_of_fold(cases, of) for of in fold]
        means = {
            name: np.mean([evaluate(outcomes, a[:, 0], a[:, 1:])[name][0] for a in answers]) for name in ("UnoC", "IBS")
        }
        low, high = np.quantile(np.mean([uno_c(outcomes, a[:, 0], drawn) for a in answers], axis=0), [0.025, 0.975])
        print(f"{row}: Uno's C {means['UnoC']:.3f} ({low:.3f} to {high:.3f}), IBS {means['IBS']:.3f}", flush=True)


if __name__ == "__main__":
    jsonargparse.auto_cli(main, as_positional=False)
