"""Columns of a table: scaled and filled in from training cases, in front of any solved head."""

import numpy as np
import pytest
import torch
from eva.core.trainers.functional import run_evaluation_session
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from tapct.errors import TaskError
from tapct.probes import ClassificationProbe, Trainer, tables
from tapct.probes.adaptors import Adaptor
from tapct.probes.label_heads import solve
from tapct.probes.solved import PooledCases
from tapct.probes.tables import Filling
from tapct.records import read_record
from tapct.tasks.columns import Column
from tests.probes.test_classification import SlabData, Slabs, run
from tests.small import small_encoder


def table(cases: int = 60, seed: int = 0) -> np.ndarray:
    """Age; stage, unknown of a tenth; two numbers of a histology, unknown of the same others."""
    random = np.random.default_rng(seed)
    found = np.stack([*random.normal(65, 9, (1, cases)), *random.integers(0, 4, (3, cases)).astype(float)], axis=1)
    found[::10, 1] = np.nan
    found[5::10, 2:] = np.nan
    return found


def test_a_table_is_scaled_and_filled_as_by_scikit_learn():
    train, later = table(), table(20, 1)
    filling = Filling.of(train)
    mean = SimpleImputer().fit(train).transform(later)
    scaler = StandardScaler().fit(train)  # leaves out what is not known
    assert filling(later)[:, :4] == pytest.approx((mean - scaler.mean_) / scaler.scale_, abs=1e-12)
    assert np.array_equal(filling(later)[:, 4:], np.isnan(later)[:, [1, 2]]), "the histology's numbers lack the same"


def test_without_anything_missing_there_is_no_further_column():
    full = np.nan_to_num(table())
    assert Filling.of(full)(full).shape == (60, 4)
    odd = full[:1].copy()
    odd[0, 0] = np.nan
    assert Filling.of(full)(odd)[0, 0] == 0.0, "filled with the mean"


def test_a_column_that_is_never_known_says_nothing():
    unknown = np.full((10, 1), np.nan)
    assert not Filling.of(unknown)(unknown)[:, 0].any()


def cases(features: np.ndarray, numbers: np.ndarray, targets: np.ndarray) -> PooledCases:
    names = [str(number) for number in range(len(features))]
    return PooledCases(names, names, np.concatenate([features, numbers], axis=1), targets, numbers.shape[1])


@pytest.mark.parametrize("features", [0, 30])
def test_a_head_fills_in_a_later_case_as_it_did_the_training_cases(features):
    random, numbers = np.random.default_rng(2), table()
    targets = (random.random((60, 1)) < 1 / (1 + np.exp(-(numbers[:, :1] - 65) / 3))).astype(float)
    train = cases(random.normal(size=(60, features)), numbers, targets)
    score = lambda logits, of: float(np.corrcoef(logits.ravel(), of.ravel())[0, 1])  # noqa: E731
    solution = tables.solved(lambda a, b: solve("linear", a, b, score, scale=True), train, None)
    filled = Filling.of(numbers).filled(train)
    expected = solution.head.head.weight.numpy() @ filled.features.T + solution.head.head.bias.numpy()[:, None]
    state = dict(solution.head.state_dict())
    again = tables.head_of(lambda inner: type(solution.head.head)(*reversed(inner["weight"].shape)), state)
    again.load_state_dict(state)
    for place, row in enumerate(train.features):
        assert again(torch.from_numpy(row)).numpy() == pytest.approx(expected[:, place], abs=1e-12)
    assert score(expected[0], targets) > 0.5, "the age that was planted is found"


@pytest.mark.parametrize("kind", ["linear", "ridge", "cox"])
def test_adaptors_name_the_columns_of_a_table(kind):
    alone, beside = Adaptor.parse(f"{kind}:table=age+stage"), Adaptor.parse(f"{kind}:mean+max&table=age")
    assert (alone.pooling, alone.table, alone.is_solved) == ("none", ("age", "stage"), True)
    assert (beside.pooling, beside.table) == ("mean+max", ("age",))
    assert [Adaptor.parse(one.name) for one in (alone, beside)] == [alone, beside]
    assert Adaptor.parse(f"{kind}:mean").table == ()


@pytest.mark.parametrize(
    "text",
    [
        "linear:none",
        "linear:table=",
        "linear:table=age+age",
        "linear:mean&age",
        "linear:mean&table=a&table=b",
        "linear:&table=age",
    ],
)
def test_adaptors_that_name_no_table_are_refused(text):
    with pytest.raises(TaskError, match=r"pooled by|named once each"):
        Adaptor.parse(text)


def test_heads_that_weigh_no_columns_take_no_table():
    with pytest.raises(TaskError, match="knn takes no table; heads that do: linear"):
        Adaptor.parse("knn:table=age")


STAGE = Column(name="stage", title="stage", kind="ordered", levels=("I", "II", "III"))
SEX = Column(name="sex", title="sex", kind="categorical", levels=("f", "m", "x"))
AGE = Column(name="age", title="age", unit="years")


def test_columns_become_numbers():
    assert [STAGE.numbers(level) for level in ("I", "III")] == [[0.0], [2.0]]
    assert [SEX.numbers(level) for level in ("f", "m", "x")] == [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert AGE.numbers(65) == [65.0]
    assert np.isnan([*STAGE.numbers(None), *SEX.numbers(None), *AGE.numbers(None)]).all()
    assert (STAGE.width, SEX.width, AGE.width) == (1, 2, 1)


@pytest.mark.parametrize(("column", "value"), [(STAGE, "IV"), (SEX, 1.0), (AGE, "65"), (AGE, float("nan"))])
def test_values_that_a_column_cannot_have_are_refused(column, value):
    with pytest.raises(TaskError, match=f"{column.title} is .*, and must be"):
        column.numbers(value)


class Tabled(Slabs):
    """Slabs, and where each begins: it says which organs there are better than random features do."""

    def table_columns(self, names):
        assert tuple(names) == ("place",)
        return [Column(name="place", title="place of the slab")]

    def values(self, case, columns):
        place = float(case.removeprefix("slab-"))
        return [number for column in columns for number in column.numbers(None if place == 30 else place)]


@pytest.mark.parametrize("adaptor", ["linear:table=place", "linear:mean&table=place"])
def test_a_table_stands_beside_features_or_alone_through_eva(tmp_path, monkeypatch, adaptor):
    monkeypatch.setattr("tests.probes.test_classification.Slabs", Tabled)
    session, record = run(tmp_path / "fit", small_encoder(), [20, 95], {"adaptor": adaptor}, max_steps=3)
    assert record.complete
    assert record.probe.adaptor == adaptor
    assert record.probe.pooling == ("none" if adaptor.startswith("linear:table") else "mean")
    again = Trainer(default_root_dir=str(tmp_path / "again"), accelerator="cpu", n_runs=2, logger=False, max_steps=1)
    model = ClassificationProbe(small_encoder(), adaptor=adaptor, head=str(session))
    run_evaluation_session(again, model, SlabData([0, 30], [10, 40, 70, 98]), n_runs=2, stages=["test"], verbose=False)
    (folder,) = (tmp_path / "again").iterdir()
    assert read_record(folder / "record.json").runs[0].cases["test"] == record.runs[0].cases["test"]


def test_a_table_that_a_task_does_not_have_is_refused(tmp_path):
    with pytest.raises(TaskError, match="Slabs has no table"):
        run(tmp_path, small_encoder(), [20, 95], {"adaptor": "linear:mean&table=age"}, max_steps=3)
