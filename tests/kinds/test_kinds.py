"""What a kind of task says, and what records, tables and statistics make of it."""

import math
import re

import numpy as np
import pyarrow as pa
import pytest

from tapct import kinds
from tapct.doctor import _plugins
from tapct.errors import RecordError, TaskError
from tapct.kinds import Cases, Field, Kind, Mean, Metric, Number, Statistic
from tapct.records import Record, find_records, write_record
from tapct.records.case import as_cases
from tapct.records.cases import COLUMNS, columns
from tapct.statistics import TaskInputs, summarise_task
from tapct.tasks.spec import TaskSpec
from tests.leaderboard import results
from tests.leaderboard.test_regression import model
from tests.third_party import installed

SIZE = {"name": "size", "title": "size", "of": Mean(lambda cases: cases["size"].mean(axis=1))}


def made(**changes) -> Kind:
    wanted = {
        "name": "sizes",
        "title": "Sizes",
        "target": "a size",
        "metrics": (Metric(**SIZE),),
        "ranked": ("size",),
        "fields": (Field(name="size", title="size"),),
        "probe": "nowhere:Probe",
        "dataset": "nowhere:Dataset",
    }
    return Kind(**(wanted | changes))


def test_every_kind_has_its_own_metrics_and_its_own_classes_are_there():
    names = [metric.name for name in kinds.KINDS for metric in kinds.kind(name).metrics]
    assert len(set(names)) == len(names)
    for name in kinds.KINDS:
        one = kinds.kind(name)
        assert one.name == name
        assert one.probe_class().kind == name
        assert kinds.of_probe(f"tapct.probes.{one.probe_class().__name__}") is one
        assert {field.name for field in one.fields}.isdisjoint(COLUMNS.names) or not one.outcome
    with pytest.raises(TaskError, match=r"no kind of task 'segmentaton'\. Did you mean 'segmentation'"):
        kinds.kind("segmentaton")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "Sizes"}, "small letters"),
        ({"ranked": ("weight",)}, "ranked by none of its metrics"),
        ({"metrics": (Metric(**SIZE), Metric(**SIZE))}, "a metric twice"),
        ({"metrics": (Metric(name="size", title="size", of=Number(len)),)}, "not compared by"),
    ],
)
def test_a_kind_that_cannot_be_is_refused(changes, why):
    with pytest.raises(TaskError, match=why):
        made(**changes)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ({}, 0.5, None),
        ({"low": 0}, -1e-9, "at least 0"),
        ({"low": 0, "high": 1}, 1.5, "from 0 to 1"),
        ({}, math.inf, "finite"),
        ({}, None, "is missing"),
        ({"missing": True}, None, None),
        ({"many": True}, 0.5, "must be a list"),
        ({}, [0.5], "must be one number"),
        ({"many": True, "low": 0}, [0.5, -1.0], "at least 0"),
        ({"many": True}, [], None),
    ],
)
def test_a_field_refuses_what_it_cannot_be(field, value, why):
    found = Field(name="size", title="size", **field).fault(value)
    assert found is None if why is None else why in found


def test_a_task_is_ranked_by_a_metric_of_its_kind_and_names_the_unit_that_it_is_in():
    spec = {"name": "t", "display_name": "T", "version": 1, "classes": ("a",), "licence": "", "source": ""}
    with pytest.raises(TaskError, match="ranked by MAE"):
        TaskSpec(kind="regression", metric="MicroAUROC", unit="years", **spec)
    with pytest.raises(TaskError, match="give `unit`"):
        TaskSpec(kind="regression", metric="MAE", **spec)
    with pytest.raises(TaskError, match="no kind of task"):
        TaskSpec(kind="regresion", metric="MAE", **spec)


# -- Statistics ------------------------------------------------------------------------------------------


def task(metric: str, values: np.ndarray, patients: np.ndarray, *, as_statistic: bool) -> TaskInputs:
    """The same (models, seeds, cases) numbers, as a mean over cases or as a statistic of them."""
    names = tuple(f"case {i}" for i in range(values.shape[2]))
    owners = tuple(f"patient {p}" for p in patients)
    samples = tuple(tuple(Cases(names, owners, ("a",), {"x": seed[:, None]}) for seed in model) for model in values)
    return TaskInputs(
        task="t",
        version="1",
        metric=metric,
        models=tuple("abcd"[: len(values)]),
        cases=names,
        patients=owners,
        values=None if as_statistic else values,
        samples=samples if as_statistic else None,
    )


def test_a_mean_as_a_statistic_has_the_same_number_interval_and_differences(monkeypatch):
    """What the jackknife says of a patient is, of a mean, what they add to it."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    values = rng.normal(0.6, 0.1, (3, 2, len(patients))) + np.array([0.0, 0.05, 0.2])[:, None, None]
    values = values.clip(0, 1)

    def mean(cases, counts):
        return (cases["x"][:, 0] @ counts) / counts.sum(axis=0)

    forms = {
        "as-mean": Metric(name="as-mean", title="m", of=Mean(lambda cases: cases["x"][:, 0])),
        "as-statistic": Metric(name="as-statistic", title="m", of=Statistic(mean)),
    }
    monkeypatch.setattr(kinds, "metric", forms.__getitem__)
    one, other = (
        summarise_task(task(name, values, patients, as_statistic=name == "as-statistic"), 500) for name in forms
    )
    for a, b in zip(one.models, other.models, strict=True):
        assert b.seeds == pytest.approx(a.seeds, abs=1e-12)
        for end in ("value", "low", "high"):
            assert getattr(b.estimate, end) == pytest.approx(getattr(a.estimate, end), abs=1e-9)
    for a, b in zip(one.comparison.differences, other.comparison.differences, strict=True):
        assert b.estimate.value == pytest.approx(a.estimate.value, abs=1e-12)
        assert b.better == a.better
        assert b.p_value >= a.p_value  # Student's tails, as the error itself is not known well
    assert one.comparison.rank_intervals == other.comparison.rank_intervals


def test_inputs_are_of_the_form_that_the_metric_takes():
    values = np.full((2, 1, 4), 0.5)
    with pytest.raises(ValueError, match="dice_native needs values"):
        task("dice_native", values, np.arange(4), as_statistic=True)
    with pytest.raises(ValueError, match="HarrellC takes no values"):
        task("HarrellC", values, np.arange(4), as_statistic=False)


# -- Records ---------------------------------------------------------------------------------------------


@pytest.fixture
def found() -> Record:
    """A record of localisation, with lists of every length."""
    one = results.record("curia", "luna16", patients=4, seeds=2)
    content = one.content()
    kind = kinds.kind("localisation")
    content["task"] |= {"kind": kind.name, "metric": kind.ranked[0], "classes": ["nodule"]}
    for place, run in enumerate(content["runs"]):
        run["metrics"] = {"test": {kind.ranked[0]: 0.5}}
        for number, case in enumerate(run["cases"]["test"]):
            for key in ("logits", "probabilities", "target"):
                del case[key]
            lengths = {field.name: number if field.given else number + place for field in kind.fields}
            case["outcome"] = {
                field.name: {"nodule": [0.0 if field.name == "excluded" else 1.0] * lengths[field.name]}
                for field in kind.fields
            }
    return Record.model_validate(content)


def test_a_record_keeps_outcomes_in_json_and_as_columns(found, tmp_path):
    path = write_record(found, tmp_path / "t" / "curia")
    again = Record.from_json(path.read_text(encoding="utf-8"), where="here")
    assert again == found
    assert again.fingerprint == found.fingerprint
    (stored,) = find_records(tmp_path).valid.values()
    table = stored.table()
    own = [field.name for field in kinds.kind("localisation").fields]
    assert table.column_names == [*COLUMNS.names, *own]
    assert all(pa.types.is_list(table.schema.field(name).type) for name in own)
    assert [len(row) for row in table["score"].to_pylist()] == [0, 1, 2, 3, 1, 2, 3, 4]
    cases = as_cases(kinds.kind("localisation"), found.runs[1].cases["test"])
    assert [len(row) for row in cases["score"][:, 0]] == [1, 2, 3, 4]
    assert columns("segmentation") == columns("classification") == columns(None) == COLUMNS


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda outcome: outcome.pop("score"), "have score in only one of them"),
        (lambda outcome: outcome["score"].update(other=[]), "have score of other classes"),
        (lambda outcome: outcome["diameter_mm"].update(nodule=[-1.0]), "diameter_mm of nodule is -1"),
        (lambda outcome: outcome["excluded"].update(nodule=[0.5, 0.5]), "excluded"),
        (lambda outcome: outcome["score"].update(nodule=1.0), "must be a list"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused(found, change, why):
    content = found.content()
    change(content["runs"][0]["cases"]["test"][1]["outcome"])
    with pytest.raises(ValueError, match=why):
        Record.model_validate(content)


def test_an_outcome_of_a_kind_that_has_none_and_a_kind_that_is_not_there_are_refused(found):
    content = found.content()
    content["task"] |= {"kind": "segmentation", "metric": "dice_native"}
    with pytest.raises(ValueError, match="has no outcome"):
        Record.model_validate(content)
    content["task"] |= {"kind": "grading"}
    text = found.to_json().replace('"kind": "localisation"', '"kind": "grading"')
    with pytest.raises(RecordError, match="no kind of task 'grading'"):
        Record.from_json(text, where="here")


THIRD_PARTIES = """
from tapct.kinds import Field, Kind, Mean, Metric

def made(name, metric, low):
    of = Mean(lambda cases: cases["predicted"].mean(axis=1))
    return Kind(
        name=name, title=name, target="a size", metrics=(Metric(name=metric, title=metric, of=of),), ranked=(metric,),
        fields=(Field(name="predicted", title="size", low=low),), probe="strange:RegressionProbe", dataset="strange:D",
    )

taken, one, other = made("taken", "MAE", 0), made("one", "Size", 1e6), made("other", "Size", 1e6)
"""


def test_third_parties_kinds_harm_nobody_who_does_not_ask_for_them(tmp_path):
    """One that cannot be imported, one with a metric of ours, two with one metric, fields and a probe of our names."""
    info = tmp_path / "strange-1.dist-info"
    info.mkdir()
    (tmp_path / "strange.py").write_text(THIRD_PARTIES)
    (tmp_path / "strange_broken.py").write_text("raise SystemExit('no licence')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1\n")
    points = ["broken = strange_broken:KIND", *(f"{name} = strange:{name}" for name in ("taken", "one", "other"))]
    (info / "entry_points.txt").write_text("\n".join(["[tapct.kinds]", *points, ""]))
    with installed(tmp_path):
        assert kinds.metric("MAE").lower_is_better
        assert kinds.of_probe("tapct.probes.RegressionProbe").name == "regression"
        assert kinds.of_probe("strange.RegressionProbe").name == "one"
        assert kinds.of_probe("nobody.RegressionProbe") is None
        for ask, why in (
            (
                lambda: kinds.kind("broken"),
                "of strange 1 cannot be imported (strange_broken:KIND): SystemExit: no",
            ),
            (lambda: kinds.kind("taken"), "has the metric 'MAE', which is one of regression"),
            (lambda: kinds.metric("Size"), "'one' and 'other' have a metric 'Size' each"),
        ):
            with pytest.raises(TaskError, match=re.escape(why)):
                ask()
        write_record(model("good", 0.5, "age"), tmp_path / "results" / "ages" / "good")
        found = find_records(tmp_path / "results")
        assert [record.table()["predicted"][0].as_py() for record in found.valid.values()], found.invalid
        warned = [check.message for check in _plugins() if check.status == "warn"]
    assert any("no licence" in message for message in warned), "the doctor names it"
    assert any("has the metric 'MAE'" in message for message in warned)
