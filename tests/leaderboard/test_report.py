"""A board of reports from simulated records: ranks, intervals, and the section of the page."""

import numpy as np
import pytest

from tapct.errors import RecordError
from tapct.kinds.report import COMMON, RANDOM, TEXT, case_loss, outcome
from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.page.kinds import report as section
from tapct.leaderboard.page.sections import DrawnTask, PageTable
from tapct.records import CaseResult, Record, read_records, write_record
from tapct.statistics.inputs import from_records
from tapct.tasks.ct_rate_report import READ_BY_MACHINE
from tests.leaderboard.test_inputs import record

CLASSES = ("Effusion", "Nodule", "Emphysema", "Hernia")
SHARES = np.array([0.5, 0.4, 0.3, 0.0])
SCANS = 80
TASK = {
    "name": "ct_rate_report",
    "version": 1,
    "kind": "report",
    "metric": "MacroF1",
    "classes": list(CLASSES),
    "options": {},
    "split_sha256": "0" * 64,
}
READER = {
    "name": "radbert",
    "weights_sha256": "a" * 64,
    "tokenizer_sha256": "b" * 64,
    "threshold": 0.5,
    "most_tokens": 512,
}


def model(name: str, wrong: float, adaptor: str = "nearest", reader=READER, words=None) -> Record:
    """A record of a model whose texts have so many of the findings wrong."""
    truth, noise = np.random.default_rng(0), np.random.default_rng(1)
    cases = []
    for row in range(SCANS):
        reference = (truth.random(4) < SHARES).astype(float)
        found = np.where(noise.random(4) < wrong, 1 - reference, reference)
        scores = np.array([8, 6, 4, 2, 10, 12, 0.75, np.nan])
        found_of = outcome(
            CLASSES,
            {"found": found, "reference": reference, "common": np.zeros(4), "random": SHARES},
            {TEXT: scores, COMMON: scores, RANDOM: scores / 2},
        )
        about = {"case": str(row), "patient": str(row // 2), "loss": case_loss(found_of), "padding_voxels": (0, 0, 0)}
        cases.append(CaseResult(**about, outcome=found_of))
    probe = {"adaptor": adaptor, "reader": reader, "reader_agreement": 0.987, "word_scores": words}
    return record(name, cases, task=TASK, probe=probe, notice=READ_BY_MACHINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for name, wrong, adaptor in (("good", 0.1, "nearest"), ("poor", 0.45, "nearest"), ("good", 0.05, "vote")):
        write_record(model(name, wrong, adaptor), root / "ct_rate_report" / f"{name}+{adaptor}")
    return root


@pytest.fixture(scope="module")
def board(folder):
    """The board of these records, which are of a split of their own."""
    (own,) = assemble({folder: read_records(folder)}, resamples=200).own
    return own.board


@pytest.fixture(scope="module")
def shown(board):
    (task,) = (task for task in board.tasks if task.name == TASK["name"])
    return list(section.pictures(DrawnTask(of=task, drawn=board.models)))


def rows(table: PageTable) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table.heads, row[1:], strict=True)) for row in table.rows}


def test_models_are_ranked_by_findings_and_the_floor_is_no_model(board):
    (task,) = (task for task in board.tasks if task.name == TASK["name"])
    values = {model.name: task.summary(model.name, "native").estimate for model in board.models}
    assert {*values} == {"Good", "Poor"}
    assert values["Poor"].high < values["Good"].low < values["Good"].value < values["Good"].high


def test_a_notice_is_no_demonstration(board):
    (task,) = (task for task in board.tasks if task.name == TASK["name"])
    marks = {one.mark.id: one.says for one in board.marks(board.models[0], task)}
    assert marks["notice"] == READ_BY_MACHINE
    assert "demonstration" not in marks


def test_where_no_text_and_no_reference_has_a_finding_the_section_stands(tmp_path):
    quiet = model("quiet", 0.0)
    none = {"found", "reference", "common", "random"}
    cases = [
        case.model_copy(
            update={
                "outcome": {
                    field: {name: 0.0 if field in none and of is not None else of for name, of in by_class.items()}
                    for field, by_class in case.outcome.items()
                }
            }
        )
        for case in quiet.runs[0].cases["test"]
    ]
    write_record(record("quiet", cases, task=TASK, probe=quiet.probe), tmp_path / "ct_rate_report" / "quiet")
    assert site.build([tmp_path], tmp_path / "site", resamples=200) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "no reference has a finding" in page


def test_every_model_and_adaptor_stands_beside_the_floor_with_intervals(board, shown):
    beside = rows(shown[0])
    assert [*beside] == ["Good", "Poor", "Good, vote", COMMON, RANDOM]
    (task,) = (task for task in board.tasks if task.name == TASK["name"])
    estimate = task.summary("Good", "native").estimate
    value, low, _, high = beside["Good"]["macro F1"].replace("(", "").replace(")", "").split()
    assert float(value) == pytest.approx(estimate.value, abs=1e-3)
    assert float(low) == pytest.approx(estimate.low, abs=0.02)  # of other resamples
    assert float(high) == pytest.approx(estimate.high, abs=0.02)
    assert beside[COMMON]["macro F1"].startswith("0.000")
    assert beside[COMMON]["precision"] == ""  # it says nothing
    reference = np.random.default_rng(0).random((SCANS, 4)) < SHARES
    share = reference.mean(axis=0)[:3]
    wanted = np.mean(2 * share * SHARES[:3] / (share + SHARES[:3]))
    assert beside[RANDOM]["macro F1"].startswith(f"{wanted:.3f}")
    assert beside["Good"]["ROUGE-L, weak: words, not findings"] == "0.750"
    assert beside[RANDOM]["ROUGE-L, weak: words, not findings"] == "0.375"
    assert "98.7% of the release's own labels" in shown[0].note


def test_findings_stand_by_themselves_and_what_no_reference_has_is_in_no_mean(shown):
    _, picture, *tables = shown
    assert "Effusion" in picture.svg
    f1, precision, recall = map(rows, tables)
    head = next(head for head in f1["Good"] if head.startswith("Hernia"))
    assert head == f"Hernia, 0 of {SCANS}"
    assert recall["Good"][head] == f1[COMMON][head] == ""
    assert precision["Good"][head] in ("", "0.000")
    of = [float(value) for name, value in f1["Good"].items() if not name.startswith(("mean", "Hernia"))]
    assert float(f1["Good"]["mean of 3 with 20 references or more"]) == pytest.approx(np.mean(of), abs=1e-3)


def test_the_page_has_the_section(folder, tmp_path):
    assert site.build([folder], tmp_path, resamples=200) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for text in ("Next to what knows nothing of the scan", "F1 of each finding", COMMON):
        assert text in page


def test_numbers_of_other_readers_and_words_of_other_libraries_do_not_compare():
    one, other = model("one", 0.1), model("other", 0.2, reader={**READER, "weights_sha256": "c" * 64})
    with pytest.raises(RecordError, match="do not compare: reader is"):
        from_records([one, other], "MacroF1")
    words = [model(name, 0.1, words={"BLEU4": f"sacrebleu {name}"}) for name in ("2.6", "2.7")]
    from_records(words, "MacroF1")
    with pytest.raises(RecordError, match="do not compare: word_scores is"):
        from_records(words, "BLEU4")
