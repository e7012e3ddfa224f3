"""The kind report: its metrics on cases, what knows nothing, resampling, and refusals."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tapct import kinds
from tapct.kinds import Cases
from tapct.kinds.report import COMMON, OF_WORDS, RANDOM, TEXT, WHOLE, case_loss, knowing_nothing, outcome

KIND = kinds.kind("report")
FINDINGS = ("Effusion", "Nodule", "Emphysema")


def made(found, reference, common=(0, 0, 0), random=(0.5, 0.25, 0), meteor=0.5):
    """What a record holds of a case, of whose text 8 of 10 words are right."""
    of_findings = {"found": found, "reference": reference, "common": common, "random": random}
    words = np.array([8, 6, 4, 2, 10, 12, 0.75, meteor])
    nothing = {COMMON: words / 2, RANDOM: words / 2}
    return outcome(FINDINGS, {k: np.array(v, dtype=float) for k, v in of_findings.items()}, {TEXT: words, **nothing})


def cases(*rows) -> Cases:
    classes = (*FINDINGS, *WHOLE)
    values = {
        field.name: np.array([[row[field.name][name] for name in classes] for row in rows], dtype=np.float64)
        for field in KIND.fields
    }
    names = tuple(map(str, range(len(rows))))
    return Cases(names, names, classes, values)


ROWS = (
    made((1, 0, 0), (1, 1, 0)),
    made((0, 1, 0), (1, 1, 0)),
    made((1, 1, 0), (0, 0, 0)),
    made((1, 0, 1), (1, 0, 0)),
)


def test_records_hold_whole_texts_behind_the_findings():
    for row in ROWS:
        assert KIND.outcome_fault(row, FINDINGS) is None
    assert KIND.recorded_classes(FINDINGS) == (*FINDINGS, TEXT, COMMON, RANDOM)
    assert case_loss(ROWS[0]) == pytest.approx(1 / 3)
    assert case_loss(ROWS[3]) == pytest.approx(1 / 3)


def test_numbers_of_findings_are_of_the_findings_alone():
    found = KIND.numbers(cases(*ROWS))
    ours, reference = ([[row[name][f] for f in FINDINGS] for row in ROWS] for name in ("found", "reference"))
    two = f1_score(np.array(reference)[:, :2], np.array(ours)[:, :2], average="macro")
    assert found["MacroF1"] == pytest.approx(two)  # no reference has emphysema
    assert found["MicroF1"] == pytest.approx(f1_score(reference, ours, average="micro"))
    assert (found["MicroPrecision"], found["MicroRecall"]) == (pytest.approx(3 / 6), pytest.approx(3 / 5))
    assert found["FindingsNowhere"] == 1
    assert (found["ROUGE-L"], found["METEOR"]) == (0.75, 0.5)
    assert found["BLEU4"] == pytest.approx((0.8 * 6 / 9 * 0.5 * 2 / 7) ** 0.25 * np.exp(1 - 12 / 10))


def test_what_is_undefined_is_left_out():
    quiet = cases(*(made((0, 0, 0), (0, 0, 0), meteor=np.nan) for _ in range(3)))
    found = KIND.numbers(quiet)
    assert not found.keys() & {"MacroF1", "MicroF1", "MicroPrecision", "MicroRecall", "METEOR"}
    assert found["FindingsNowhere"] == 3


def test_what_knows_nothing_says_what_it_says_to_everybody():
    of = cases(*ROWS)
    assert KIND.numbers(knowing_nothing(of, COMMON))["MacroF1"] == 0  # it has no finding
    assert "MicroPrecision" not in KIND.numbers(knowing_nothing(of, COMMON))
    random = KIND.numbers(knowing_nothing(of, RANDOM))
    # Of effusion 3 of 4, of nodule 2 of 4 references; said with 1/2 and 1/4: right 1.5 and 0.5, said 2 and 1.
    assert random["MacroF1"] == pytest.approx((2 * 1.5 / (2 + 3) + 2 * 0.5 / (1 + 2)) / 2)
    assert random["ROUGE-L"] == 0.375
    assert KIND.numbers(of)["ROUGE-L"] == 0.75  # as it was


def test_resampled_cases_are_those_drawn_again():
    of, counts = cases(*ROWS), np.array([[2.0, 0], [0, 1], [1, 3], [1, 0]])
    for name in ("MacroF1", "MicroF1", "BLEU4"):
        found = KIND.metric(name).of.of(of, counts)
        for column, value in zip(counts.T, found, strict=True):
            drawn = [ROWS[i] for i in np.repeat(np.arange(4), column.astype(int))]
            assert value == pytest.approx(KIND.metric(name).value(cases(*drawn)))


@pytest.mark.parametrize(
    ("field", "name", "value", "message"),
    [
        ("found", "Nodule", 0.5, "found of Nodule is 0.5, and must be a whole number"),
        ("found", "Nodule", None, "Nodule lacks found"),
        ("found", TEXT, 1.0, "text has found"),
        ("words", "Nodule", 3.0, "Nodule has words"),
        ("matched_4", TEXT, 8.0, "matched_4 of text is 8 of 10 words"),
        ("random", "Nodule", 1.5, "random of Nodule is 1.5"),
        ("rouge_l", RANDOM, None, "random report lacks rouge_l"),
    ],
)
def test_numbers_that_cannot_be_are_refused(field, name, value, message):
    one = made((1, 0, 0), (1, 1, 0))
    one[field][name] = value
    assert message in (KIND.outcome_fault(one, FINDINGS) or "")


def test_no_task_is_ranked_by_words():
    assert KIND.ranked == ("MacroF1", "MicroF1")
    assert {"matched_1", "words", "rouge_l", "meteor"} < set(OF_WORDS)
