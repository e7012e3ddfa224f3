"""The page of one record."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tapct.errors import RecordError
from tapct.features.received import received_of
from tapct.probes.predictions import LocatedRecord
from tapct.records import CaseResult, Record, RunRecord, read_record
from tapct.report.page import write_report
from tapct.tasks.quickstart import shipped_scan
from tests.records.made import card, encoder
from tests.small import Small3D


class Page(HTMLParser):
    """The text of a page, its tags, and whether every tag is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "path", "use", "rect", "circle", "image"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words, self.tags, self.attributes, self.open = [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


ELSEWHERE = [*(f'{{"session": "{path}"}}' for path in ("../..", "/etc", "a/../../b")), "{}", "["]


@pytest.mark.parametrize("content", ELSEWHERE)
def test_an_experiment_whose_session_is_elsewhere_is_refused(content, copies, monkeypatch):
    monkeypatch.chdir(copies[0])
    Path("cell.json").write_text(content, encoding="utf-8")
    for path in (Path("record.json"), Path("record.json").absolute()):
        with pytest.raises(RecordError, match=r"cell\.json cannot be used"):
            LocatedRecord.at(path)


def test_an_experiment_as_a_page(copies):
    page = Page(write_report(copies[0]))
    record = read_record(copies[0] / "record.json")
    assert page.open == []
    assert "Small 3D (random weights) on quickstart" in page.text
    assert record.notice in page.text
    value = record.runs[0].metrics["test"]["dice_native"]
    assert f"{value:.3f}" in page.text
    for word in (
        *record.task.classes[1:],
        *(f"p{c}"[1:] for c in ("c2", "c3", "c4", "c5")),
        record.runs[1].probe_sha256,
    ):
        assert word in page.text, word
    for setting in ("card.feature_stride", "split_sha256", "optimizer.lr", "git.commit", "learning_rates"):
        assert setting in page.text
    sheet = record.encoder.input_sheet
    assert sheet.received_sha256 == received_of(Small3D("random"), shipped_scan()).sha256
    for said in (sheet.received_sha256, *(f"{row.text} ({row.source})" for row in sheet.rows)):
        assert said in page.text, said
    for title in ("Training loss", "Choice of learning rate and step", "Dice by class", "HD95, mm of 4 cases"):
        assert title in page.text, title
    assert page.tags.count("img") == 1
    assert page.tags.count("svg") >= 6


def test_a_page_is_the_same_to_the_byte_and_needs_nothing_else(copies, tmp_path):
    one, two = write_report(copies[0]), write_report(copies[0] / "record.json", tmp_path / "elsewhere.html")
    assert one == copies[0] / "report.html"
    assert one.read_bytes() == two.read_bytes()
    page = Page(one)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:")), (tag, value)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert "script" not in page.tags
    assert "url(http" not in page.source


def test_a_record_without_its_runs_still_has_a_page(copies, tmp_path):
    shutil.copy(copies[0] / "record.json", tmp_path / "alone.json")
    page = Page(write_report(tmp_path / "alone.json", tmp_path / "page.html"))
    assert "Training loss" not in page.text
    assert "Choice of learning rate and step" in page.text
    assert "img" not in page.tags


def classification(**changes) -> Record:
    def case(index: int) -> CaseResult:
        return CaseResult(
            case=f"<b>{index}</b>",
            patient=f"p{index}",
            loss=0.5,
            probabilities={"<i>sick</i>": index / 10},
            target={"<i>sick</i>": index % 2},
            padding_voxels=(0, 0, 0),
        )

    run = RunRecord(
        run=0,
        seed=0,
        probe_sha256="0" * 64,
        metrics={"test": {"MicroAUROC": 0.5, "MacroAP": None}},
        cases={"test": [case(index) for index in range(10)]},
    )
    fields = {
        "notice": "<script>alert('notice')</script>",
        "encoder": encoder("x", card=card("x", display_name="<script>alert('name')</script>"), weights="random"),
        "task": {
            "name": "t</title><script>",
            "version": 1,
            "kind": "classification",
            "metric": "MicroAUROC",
            "classes": ["<i>sick</i>"],
            "options": {},
            "split_sha256": "0" * 64,
            "excluded": {},
        },
        "probe": {"optimizer": {"b": [{"c": None}, True]}},
        "runs_planned": 1,
        "runs": [run],
        "execution": {"git": None},
        "flags": [{"id": "chance-level", "message": "<img src=x>", "detail": "& so on"}],
    }
    return Record(**{**fields, **changes})


def test_names_and_messages_stay_text(tmp_path):
    (tmp_path / "record.json").write_text(classification().to_json())
    page = Page(write_report(tmp_path))
    assert {"script", "b", "i", "img"}.isdisjoint(page.tags)
    for text in ("<script>alert('name')</script>", "<script>alert('notice')</script>", "<img src=x>", "& so on"):
        assert text in page.text
    assert "chance-level" in page.text
    assert "Calibration" in page.text
    assert "AUROC of each label" in page.text
    assert "5 of 10" in page.text, "positives, of the cases that state the label"
    assert "optimizer.b.0.c" in page.text


def test_where_somebody_keeps_files_stands_on_no_page(tmp_path):
    weights = "/home/somebody/secret project/weights/model.safetensors"
    made = encoder("x", weights=weights, source=r"C:\Users\somebody\model.bin")
    flag = {"id": "chance-level", "message": "look", "detail": "read from /home/somebody/scans/ct.nii"}
    (tmp_path / "record.json").write_text(classification(encoder=made, flags=[flag]).to_json())
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "model.safetensors" in text
    assert not any(word in text for word in ("somebody", "secret", "project/weights"))


def test_a_record_of_an_older_protocol_says_so(tmp_path):
    (tmp_path / "record.json").write_text(classification().to_json())
    assert "Older protocol: ranks from float32 probabilities." in Page(write_report(tmp_path)).text


def test_an_incomplete_record_says_so_and_has_no_headline(tmp_path):
    (tmp_path / "record.json").write_text(classification(runs_planned=3).to_json())
    page = Page(write_report(tmp_path))
    assert "Incomplete" in page.text
    assert "headline" not in [value for _, name, value in page.attributes if name == "class"]
    assert re.search(r"1 of 3 runs", page.text)


def test_what_is_no_record_is_refused(tmp_path):
    with pytest.raises(RecordError, match="there is no record at"):
        write_report(tmp_path)
