from collections import Counter

import pytest

from tapct.leaderboard import PAPER, read_paper
from tapct.tasks.registry import core_tasks

ROWS = read_paper()


def number(table, model, task, settings=""):
    (row,) = [r for r in ROWS if (r.table, r.model, r.task) == (table, model, task) and settings in (r.settings or "")]
    return row


def test_every_number_of_the_four_tables_is_there():
    assert Counter(row.table for row in ROWS) == {2: 7 * 6, 3: 12 * 5, 4: 7 * 5, 5: 7 * 5}
    assert len({(r.table, r.model, r.settings, r.task) for r in ROWS}) == len(ROWS)
    assert {row.task for row in ROWS} - {"average"} == set(core_tasks())
    assert "arXiv:2512.00872" in PAPER


@pytest.mark.parametrize(
    ("row", "mean", "std", "notes"),
    [
        (number(2, "Curia", "amos22"), 0.669, 0.006, set()),
        (number(2, "Curia", "totalsegmentator", "224"), 0.425, 0.002, {"star"}),
        (number(2, "VoCo", "totalsegmentator"), 0.072, 0.0, {"dagger"}),
        (number(2, "FMCiB", "totalsegmentator"), None, None, {"oom"}),
        (number(2, "TAP-B-3D", "average"), 0.582, None, set()),
        (number(3, "TAP-B-2.5D", "kits23", "(z, 512, 512)"), 0.536, 0.004, set()),
        (number(3, "TAP-S-3D", "lits17", "(z, 224, 224)"), 0.572, 0.001, set()),
        (number(3, "TAP-B-3D", "totalsegmentator", "(z, 512, 512)"), None, None, {"not_reported"}),
        (number(4, "Curia", "rsna2022"), 0.408, 0.022, set()),
        (number(4, "VISTA3D", "luna25"), 0.866, 0.008, set()),
        (number(5, "TAP-S-2.5D", "fdg_pet_ct"), 0.889, 0.008, set()),
        (number(5, "TAP-B-3D (Patch Feat.)", "rsna2023"), 0.592, 0.005, {"ablation"}),
    ],
)
def test_numbers_are_the_papers(row, mean, std, notes):
    assert (row.mean, row.std, row.notes) == (mean, std, notes)


def test_the_tables_agree_with_each_other():
    """Numbers that the paper gives twice, and averages that it took itself."""
    for row in ROWS:
        if row.table == 2 and row.task == "average":
            means = [r.mean for r in ROWS if (r.table, r.model) == (2, row.model) and r.task != "average"]
            defined = [m for m in means if m is not None]
            assert row.mean == pytest.approx(sum(defined) / len(defined), abs=0.00051)
        elif row.table == 2 and row.model == "TAP-B-3D":
            assert row.mean == number(3, row.model, row.task, row.settings + ",").mean
        elif row.table == 4 and row.model == "TAP-B-3D":
            other = number(5, row.model, row.task)
            assert (row.mean, row.std) == (other.mean, other.std)


def test_a_number_is_missing_only_for_a_reason():
    for row in ROWS:
        assert (row.mean is None) == bool(row.notes & {"oom", "not_reported"})
        assert row.metric == ("AP" if row.task == "rsna2022" else "DSC" if row.table in (2, 3) else "AUC")
    assert {r.model for r in ROWS if "dagger" in r.notes} == {"SuPReM", "CT-FM", "VISTA3D", "VoCo"}
