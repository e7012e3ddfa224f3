"""Columns of a table: scaled and filled in from training cases, in front of any solved head."""

from collections import Counter
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from eva.core.trainers.functional import run_evaluation_session
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tapct.errors import TaskError
from tapct.probes import ClassificationProbe, Trainer, ridge, solvers, tables
from tapct.probes.adaptors import Adaptor
from tapct.probes.label_heads import solve
from tapct.probes.solved import PooledCases, Solution
from tapct.probes.table_columns import require_told
from tapct.probes.tables import TableEncoding
from tapct.records import read_record
from tapct.tasks import luna16
from tapct.tasks.columns import Column, code_of
from tapct.tasks.luna16 import LUNA16
from tapct.tasks.nodules import read_nodules
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
    filling = TableEncoding.of(train)
    mean = SimpleImputer().fit(train).transform(later)
    scaler = StandardScaler().fit(train)  # leaves out what is not known
    assert filling(later)[:, :4] == pytest.approx((mean - scaler.mean_) / scaler.scale_, abs=1e-12)
    assert np.array_equal(filling(later)[:, 4:], np.isnan(later)[:, [1, 2]]), "the histology's numbers lack the same"


def test_without_anything_missing_there_is_no_further_column():
    full = np.nan_to_num(table())
    assert TableEncoding.of(full)(full).shape == (60, 4)
    odd = full[:1].copy()
    odd[0, 0] = np.nan
    assert TableEncoding.of(full)(odd)[0, 0] == 0.0, "filled with the mean"


LEVELS = np.array([code_of(name) for name in ("ge", "philips", "siemens", "canon")])


def coded(cases: int = 60, seed: int = 3) -> np.ndarray:
    """A kernel of three makers and a fourth that three cases have, unknown of a tenth; and an age."""
    random = np.random.default_rng(seed)
    maker = LEVELS[random.choice(3, cases, p=[0.2, 0.5, 0.3])]
    maker[::10] = np.nan
    maker[[1, 3, 7]] = LEVELS[3]
    return np.stack([maker, random.normal(60, 10, cases)], axis=1)


def by_hand(train: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The columns of a table whose first number is a code, by scikit-learn's transformers."""
    rare = [code for code in np.unique(train[:, 0]) if (train[:, 0] == code).sum() < 5]
    first = Counter(train[~np.isnan(train[:, 0]) & ~np.isin(train[:, 0], rare), 0].tolist()).most_common(1)[0][0]
    known = [~np.isnan(of[:, 0]) & ~np.isin(of[:, 0], rare) & np.isin(of[:, 0], train[:, 0]) for of in (train, table)]
    encoder = OneHotEncoder(drop=[first], sparse_output=False).fit(train[known[0], :1])
    levels = np.full((len(table), len(encoder.categories_[0]) - 1), np.nan)
    levels[known[1]] = encoder.transform(table[known[1], :1])
    scaler = StandardScaler().fit(encoder.transform(train[known[0], :1]))
    age = StandardScaler().fit(train[:, 1:]).transform(table[:, 1:])
    return np.concatenate([age, np.nan_to_num(scaler.transform(levels)), ~known[1][:, None]], axis=1)


def test_levels_are_told_apart_as_by_scikit_learn():
    train, later = coded(), coded(20, 4)
    later[0, 0] = code_of("toshiba")
    filling = TableEncoding.of(train, [0])
    assert sorted(filling.levels[1:, 1]) == sorted(code for code in LEVELS[:3] if code != filling.levels[0, 1])
    order = [0, *(1 + np.argsort(filling.levels[1:, 1])), 3]  # by scikit-learn in the order of codes
    assert filling(later)[:, order] == pytest.approx(by_hand(train, later), abs=1e-12)
    assert filling(later)[0, 1:].tolist() == [0, 0, 1], "a level that no training case has is not known"


def test_a_level_that_all_training_cases_have_and_one_that_none_has_say_nothing():
    one = np.stack([np.full(20, LEVELS[0]), np.arange(20.0)], axis=1)
    assert TableEncoding.of(one, [0])(one).shape == (20, 1)
    none = np.stack([np.arange(20.0), np.arange(20.0)], axis=1)
    columns = TableEncoding.of(none, [0])(none)
    assert columns[:, 1].tolist() == [1.0] * 20, "no level has five cases: it is known of none"


def planted(numbers: np.ndarray, seed: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    odds = (numbers[:, 1] - 60) / 8 + np.where(numbers[:, 0] == LEVELS[1], 1.5, 0)
    return (random.random(len(numbers)) < 1 / (1 + np.exp(-odds))).astype(float)[:, None]


def head_and_columns(solution: Solution, train: PooledCases, output: int = 0) -> tuple[np.ndarray, float, np.ndarray]:
    """Weights and bias of an output, and the standardised columns, of a table alone."""
    columns = TableEncoding.of(train.features, train.coded)(train.features)
    weight, bias = (of.numpy()[output] for of in (solution.head.head.weight, solution.head.head.bias))
    scaled = StandardScaler().fit_transform(columns)
    return weight * columns.std(axis=0), bias + weight @ columns.mean(axis=0), scaled


def test_logistic_regression_on_a_table_is_that_of_scikit_learn():
    numbers = coded(200)
    targets = np.concatenate([planted(numbers), planted(numbers, 8)], axis=1)
    targets[::3, 1] = np.nan
    train = PooledCases(*2 * [[str(n) for n in range(200)]], numbers, targets, table=2, coded=(0,))
    never = lambda *of: pytest.fail("there is nothing to choose: a table has its own penalty")  # noqa: E731
    solution = tables.solved(lambda a, b: solve("linear", a, b, never, scale=True), train, None)
    for label, of in enumerate(targets.T):
        stated = ~np.isnan(of)
        weight, bias, columns = head_and_columns(solution, train, label)
        reference = LogisticRegression(C=1 / (solvers.TABLE_STRENGTH * stated.sum()), tol=1e-10, max_iter=10_000)
        reference.fit(columns[stated], of[stated])
        assert weight == pytest.approx(reference.coef_[0], abs=1e-6)
        assert bias == pytest.approx(reference.intercept_[0], abs=1e-6)
        assert reference.coef_[0][0] > 0.5, "the age that was planted"


def test_ridge_on_a_table_is_that_of_scikit_learn():
    numbers = coded(200)
    targets = (numbers[:, 1:] - 60) * 2 + np.random.default_rng(6).normal(size=(200, 1))
    train = PooledCases(*2 * [[str(n) for n in range(200)]], numbers, targets, table=2, coded=(0,))
    solution = tables.solved(lambda a, b: ridge.solve(a, b, ["age"], scale=True), train, None)
    weight, bias, columns = head_and_columns(solution, train)
    reference = Ridge(alpha=solvers.TABLE_STRENGTH * 200).fit(columns, targets[:, 0])
    assert weight == pytest.approx(reference.coef_, abs=1e-9)
    assert bias == pytest.approx(reference.intercept_, abs=1e-9)
    assert solution.selection.setting is None, "nothing was chosen"


def test_features_beside_a_table_have_a_penalty_of_their_own():
    random, numbers = np.random.default_rng(7), coded(200)
    targets, features = planted(numbers), random.normal(size=(200, 10))
    train = PooledCases(
        *2 * [[str(n) for n in range(200)]], np.hstack([features, numbers]), targets, table=2, coded=(0,)
    )
    only = [0.1]
    score = lambda logits, of: float(np.corrcoef(logits.ravel(), of.ravel())[0, 1])  # noqa: E731
    solution = tables.solved(lambda a, b: solve("linear", a, b, score, scale=True, strengths=only), train, None)
    columns = StandardScaler().fit_transform(np.hstack([features, TableEncoding.of(numbers, [0])(numbers)]))
    # scikit-learn has one penalty: columns that are larger by a factor are penalised less by its square
    larger = np.array([1.0] * 10 + [np.sqrt(0.1 / solvers.TABLE_STRENGTH)] * (columns.shape[1] - 10))
    reference = LogisticRegression(C=1 / (0.1 * 200), tol=1e-12, max_iter=100_000).fit(columns * larger, targets[:, 0])
    said = [float(solution.head(torch.from_numpy(row))) for row in train.features]
    assert said == pytest.approx(reference.decision_function(columns * larger), abs=1e-5)


def cases(features: np.ndarray, numbers: np.ndarray, targets: np.ndarray) -> PooledCases:
    names = [str(number) for number in range(len(features))]
    return PooledCases(names, names, np.concatenate([features, numbers], axis=1), targets, numbers.shape[1])


NUMBERS = [Column(name=name, title=name) for name in ("age", "stage", "one", "two")]


@pytest.mark.parametrize("features", [0, 30])
def test_a_head_fills_in_a_later_case_as_it_did_the_training_cases(features):
    random, numbers = np.random.default_rng(2), table()
    targets = (random.random((60, 1)) < 1 / (1 + np.exp(-(numbers[:, :1] - 65) / 3))).astype(float)
    train = cases(random.normal(size=(60, features)), numbers, targets)
    score = lambda logits, of: float(np.corrcoef(logits.ravel(), of.ravel())[0, 1])  # noqa: E731
    solution = tables.solved(lambda a, b: solve("linear", a, b, score, scale=True), train, None)
    filled = TableEncoding.of(numbers).filled(train)
    expected = solution.head.head.weight.numpy() @ filled.features.T + solution.head.head.bias.numpy()[:, None]
    state = dict(solution.head.state_dict())
    build = lambda inner: type(solution.head.head)(*reversed(inner["weight"].shape))  # noqa: E731
    again = tables.head_of(build, state)
    tables.require_table(again, NUMBERS)
    with pytest.raises(TaskError, match=r"trained next to 4 numbers of a table, and 3 stand here \(stage, one, two\)"):
        tables.require_table(again, NUMBERS[1:])
    with pytest.raises(TaskError, match="from before levels were told apart"):
        tables.head_of(build, {name: of for name, of in state.items() if name != "levels"})
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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("knn:table=age", "weighs no columns"),
        ("prototype:mean&table=age", "weighs no columns"),
        ("abmil:table=age", "one by one"),
        ("cosine:mean&table=age", "nothing is trained"),
    ],
)
def test_heads_that_take_no_table_say_why(text, why):
    with pytest.raises(TaskError, match=rf"takes no table: .*{why}.*Heads that do: linear, ridge, cox"):
        Adaptor.parse(text)


def test_a_table_stands_beside_features_as_their_encoder_pools_them():
    own = Adaptor.parse("linear:own&table=age")
    assert (own.pooling, own.table, own.name) == (None, ("age",), "linear:own&table=age")
    with pytest.raises(TaskError, match="pooled by cls"):
        Adaptor.parse("linear:own")
    with pytest.raises(TaskError, match=r"no adaptor .table:age.\. A table needs a head: linear:table=age"):
        Adaptor.parse("table:age")
    with pytest.raises(TaskError, match="has 104 characters, more than 100, which no record can hold"):
        Adaptor.parse("linear:table=" + "+".join(f"column_{n}" for n in range(10)) + "+x")


STAGE = Column(name="stage", title="stage", kind="ordered", levels=("I", "II", "III"))
SEX = Column(name="sex", title="sex", kind="categorical", levels=("f", "m", "x"))
AGE = Column(name="age", title="age", unit="years")
MAKER = Column(name="maker", title="maker", kind="text")


def test_columns_become_numbers():
    assert [STAGE.number(level) for level in ("I", "III")] == [0.0, 2.0]
    assert [SEX.number(level) for level in ("f", "m", "x")] == [0.0, 1.0, 2.0]
    assert AGE.number(65) == 65.0
    assert np.isnan([column.number(None) for column in (STAGE, SEX, AGE, MAKER)]).all()
    assert MAKER.number(" GE  Medical") == MAKER.number("ge medical") == code_of("ge medical") != MAKER.number("ge")
    assert np.isnan(MAKER.number("Unknown"))
    assert [column.is_coded for column in (STAGE, SEX, AGE, MAKER)] == [False, True, False, True]


@pytest.mark.parametrize(("column", "value"), [(STAGE, "IV"), (SEX, 1.0), (AGE, "65"), (AGE, float("nan"))])
def test_values_that_a_column_cannot_have_are_refused(column, value):
    with pytest.raises(TaskError, match=f"{column.title} is .*, and must be"):
        column.number(value)


class Tabled(Slabs):
    """Slabs, and where each begins: it says which organs there are better than random features do."""

    spec: ClassVar[SimpleNamespace] = SimpleNamespace(name="slabs", shortcuts=())

    def table_columns(self, names):
        return [Column(name=name, title=f"{name} of the slab") for name in names]

    def values(self, case, columns):
        place = float(case.removeprefix("slab-"))
        of = {"place": None if place == 30 else place, "height": 14.0, "age": None}
        return [column.number(of[column.name]) for column in columns]


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


@pytest.mark.parametrize(
    ("column", "why"), [("height", r"is the same in all .* \(4 of the 4"), ("age", "is known of 0 of the 4")]
)
def test_a_column_that_says_nothing_is_refused(tmp_path, monkeypatch, column, why):
    monkeypatch.setattr("tests.probes.test_classification.Slabs", Tabled)
    with pytest.raises(TaskError, match=rf"slabs: the column '{column}' \({column} of the slab\) {why}"):
        run(tmp_path, small_encoder(), [20, 95], {"adaptor": f"linear:mean&table=place+{column}"}, max_steps=3)


def test_a_column_of_several_that_says_nothing_gets_no_weight():
    numbers = np.array([[1.0, 2.0, np.nan, LEVELS[0]]] * 8)
    numbers[0, 0] = 3.0
    columns = [AGE, STAGE, Column(name="dose", title="dose"), MAKER]
    require_told("slabs", columns, numbers, ["age"], all_train=True)
    require_told("slabs", columns, numbers, ["age", "dose"], all_train=False)
    with pytest.raises(TaskError, match="known of 8 of the 8 training cases, and has one level that 5 of them have"):
        require_told("slabs", columns, numbers, ["maker"], all_train=True)
    with pytest.raises(TaskError, match="no column of table=acquisition tells training cases apart: 'dose' is"):
        require_told("slabs", columns[2:], numbers[:, 2:], ["acquisition"], all_train=True)


def test_a_table_that_a_task_does_not_have_is_refused(tmp_path):
    with pytest.raises(TaskError, match="Slabs has no table"):
        run(tmp_path, small_encoder(), [20, 95], {"adaptor": "linear:mean&table=age"}, max_steps=3)


AUROC_OF_VOLUME = 0.9637
"""As docs/tasks.md has it."""


def test_how_large_a_nodule_is_tells_nearly_all_that_its_readers_said():
    """`linear:table=volume` on luna16's own list and split: a sphere's volume is of its diameter, whatever the scan."""
    nodules = read_nodules(luna16.LIST, luna16.COLUMNS)
    split = LUNA16.shipped_split().cases

    def part(names: dict[str, str]) -> PooledCases:
        ml = np.array([[np.pi / 6 * nodules[name].diameter_mm ** 3 / 1000] for name in names])
        malignant = np.array([[float(nodules[name].malignant)] for name in names])
        return PooledCases([*names], [*names.values()], np.log10(ml), malignant, table=1)

    train, test = part(split["train"]), part(split["test"])
    never = lambda *of: pytest.fail("there is nothing to choose")  # noqa: E731
    solution = tables.solved(lambda a, b: solve("linear", a, b, never, scale=True), train, None)
    said = [float(solution.head(torch.from_numpy(row))) for row in test.features]
    assert roc_auc_score(test.targets[:, 0], said) == pytest.approx(AUROC_OF_VOLUME, abs=5e-4)
