"""What a record holds of a detector: its metrics from the lists of a case, and lists that cannot be."""

import numpy as np
import pytest

from tapct.kinds import kind
from tapct.kinds.localisation import CANDIDATE, KIND, POINT, detections
from tapct.metrics.froc import LIMIT, Detections, mark
from tapct.records.case import CaseResult, as_cases

CLASSES = ("nodule", "node")


def case(name: str, seed: int, findings: int = 3, candidates: int = 8) -> CaseResult:
    """A case of two classes with some candidates near the findings."""
    rng = np.random.default_rng(seed)
    columns: dict[str, dict[str, list[float]]] = {field.name: {} for field in KIND.fields}
    for label in CLASSES:
        points, places = rng.uniform(0, 50, (findings, 3)), rng.uniform(0, 50, (candidates, 3))
        near = max(0, findings - 1)
        places[:near] = points[:near] + 1
        of = {
            **dict(zip(POINT, points.T, strict=True)),
            **dict(zip(CANDIDATE, places.T, strict=True)),
            "diameter_mm": rng.uniform(5, 20, findings),
            "excluded": (rng.random(findings) < 0.3).astype(float),
            "score": rng.normal(size=candidates).round(1),
        }
        for field, values in of.items():
            columns[field][label] = values.tolist()
    return CaseResult(case=name, patient=name, loss=0.5, padding_voxels=(0, 0, 0), outcome=columns)


def test_it_is_a_kind():
    assert kind("localisation") is KIND
    assert KIND.outcome_fault(case("a", 0).outcome, CLASSES) is None


def test_metrics_are_those_of_the_marks_of_all_classes():
    results = [case("a", 0), case("b", 1), case("empty", 2, 0, 0)]
    marks = []
    for one in results:
        of = one.outcome
        each = []
        for label in CLASSES:
            places, points = (np.array([of[name][label] for name in fields]).T for fields in (CANDIDATE, POINT))
            rest = (np.array(of[name][label]) for name in ("score", "diameter_mm", "excluded"))
            score, diameter, excluded = rest
            each.append(mark(places, score, points, diameter, excluded == 1))
        marks.append(each)
    expected, found = Detections.of(marks), KIND.numbers(as_cases(KIND, results))
    once = np.ones((3, 1))
    assert found["FROC"] == expected.froc(once)[0] > 0
    assert found["MedianError_mm"] == expected.error_mm(once)[0]
    assert [found[m.name] for m in KIND.metrics[1:8]] == expected.sensitivities(once)[:, 0].tolist()


def test_a_resample_counts_whole_scans():
    results = [case("a", 0), case("b", 1), case("c", 2)]
    counts = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    drawn = KIND.metric("FROC").of.of(as_cases(KIND, results), counts)
    repeated = [results[i] for i in (0, 0, 1)], [results[i] for i in (1, 2, 2)]
    assert drawn.tolist() == [detections(as_cases(KIND, of)).froc(np.ones((3, 1)))[0] for of in repeated]


def test_cases_with_a_finding_that_counts_are_those_that_a_comparison_needs():
    results = [case("a", 0), case("empty", 2, 0, 5)]
    (which,) = KIND.metric("FROC").needs(as_cases(KIND, results)).values()
    assert which.tolist() == [True, False]


def test_without_a_finding_nothing_is_a_number():
    assert KIND.numbers(as_cases(KIND, [case("empty", 2, 0, 5)])) == {}


WRONG = {
    "unlike lengths": (("score", [0.5]), "must be lists of one length"),
    "a diameter of 0": (("diameter_mm", [5.0, 0.0, 4.0]), "diameter_mm of nodule is 0"),
    "half excluded": (("excluded", [0.5, 0.0, 0.0]), "neither 0 nor 1"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused(change, message):
    field, values = change
    outcome = {name: dict(of) for name, of in case("a", 0).outcome.items()}
    outcome[field]["nodule"] = values
    assert message in KIND.outcome_fault(outcome, CLASSES)


def test_more_candidates_than_a_scan_may_have_are_refused():
    assert f"a scan may have {LIMIT}" in KIND.outcome_fault(case("a", 0, 3, LIMIT + 1).outcome, CLASSES)


def test_what_came_out_again_stands_beside_the_nearest_candidate_of_the_record():
    then = case("a", 0, 3, 40).by_field
    order = np.random.default_rng(0).permutation(40)[:35]  # in another order, and the last ones not there
    kept = [*order, *(one for one in range(20) if one not in order)]
    now = {
        field: {name: [of[one] for one in kept] if len(of) == 40 else of for name, of in by.items()}
        for field, by in then.items()
    }
    found, said = KIND.matched(now, then)
    assert found == said
    assert {len(found["score"][name]) for name in CLASSES} == {20}
    nothing = {name: [] for name in CLASSES}
    lost, _ = KIND.matched({**now, **dict.fromkeys([*CANDIDATE, "score"], nothing)}, then)
    assert lost["score"] == nothing
