"""Which tasks a mean rank is over, and what one record cannot do to it."""

import numpy as np
import pytest

from tapct.errors import RecordError
from tapct.leaderboard.board import Task
from tapct.leaderboard.suite import RankedSuite, core, declared
from tapct.statistics.summary import summarise_task
from tests.leaderboard.simulated import task

SHIPPED = ("amos22", "lits17", "luna16", "quickstart")


def run(name, models, family="segmentation", notice=None, undefined=0):
    """A task that the first models of a to z were run on."""
    values = np.random.default_rng(len(name)).random((models, 8))
    values[:undefined] = np.nan
    summary = summarise_task(task(values, name=name, notice=notice), 50)
    return Task(
        name=name, title=name, family=family, metric="", licence=None, summaries={"native": summary, "paper": summary}
    )


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([run("amos22", 4), run("lits17", 2)], ("amos22", "lits17")),
        ([run("amos22", 5), run("lits17", 2)], ("amos22",)),  # two of five
        ([run("amos22", 5), run("lits17", 1)], ("amos22",)),  # one stray record
        ([run("amos22", 5), run("private", 5)], ("amos22",)),
        ([run("amos22", 5), run("quickstart", 5, notice="two patients")], ("amos22",)),
        ([run("amos22", 5), run("lits17", 5, undefined=4)], ("amos22",)),
        ([run("amos22", 9), run("luna16", 2, "classification")], ("amos22", "luna16")),  # by family
        ([run("amos22", 1), run("lits17", 1)], ()),
        ([], ()),
    ],
)
def test_the_core_is_what_ships_and_half_of_the_models_have(tasks, expected):
    assert core(tasks, SHIPPED) == RankedSuite(expected)


def test_a_suite_can_be_declared_of_any_task_that_is_no_demonstration():
    tasks = [run("amos22", 5), run("private", 1), run("quickstart", 5, notice="two patients")]
    assert declared(["private", "amos22"], tasks) == RankedSuite(("amos22", "private"), declared=True)
    with pytest.raises(RecordError, match=r"no record is of lits17\. There are some of amos22, private, quickstart"):
        declared(["lits17"], tasks)
    with pytest.raises(RecordError, match="quickstart enters no mean rank: two patients"):
        declared(["quickstart"], tasks)
