"""No folder of somebody's machine enters a record."""

from pathlib import Path

import pytest

from tapct.errors import RecordError
from tapct.probes import ClassificationProbe
from tapct.records import CaseResult
from tapct.records.paths import base_name, without_folders
from tests.probes.test_classification import SlabData, run
from tests.small import Drifting, small_encoder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/weights/tap.safetensors", "tap.safetensors"),
        ("loaded from /mnt/data/x.pt, then /mnt/data/y.pt", "loaded from x.pt, then y.pt"),
        ("{'path': '/scratch/a b/c.pt'}", "{'path': 'a b/c.pt'}"),
        (r"C:\Users\ann\tap.pt", "tap.pt"),
        (r"\\server\share\tap.pt", "tap.pt"),
        ("~/weights/tap.pt", "tap.pt"),
        ("file:///home/ann/tap.pt", "tap.pt"),
        ("huggingface.co/fomofo/tap-ct-s-3d", "huggingface.co/fomofo/tap-ct-s-3d"),
        ("https://doi.org/10.1000/182", "https://doi.org/10.1000/182"),
        ("train_images/12/34, HU/mm, and/or, 1/2", "train_images/12/34, HU/mm, and/or, 1/2"),
        ("N/A", "N/A"),
    ],
)
def test_absolute_paths_are_names_and_what_looks_similar_stays(text, expected):
    assert without_folders(text) == expected
    assert without_folders({"a": [text, 1, None, True]}) == {"a": [expected, 1, None, True]}


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b.pt", "b.pt"), (r"C:\a\b.pt", "b.pt"), ("b.pt", "b.pt"), ("random", "random"), ("/a/b/", "b")],
)
def test_of_a_weights_file_the_name_is_told(path, name):
    assert base_name(path) == name


class Sealed(Drifting):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.cache = "/home/ann/cache/of/weights"

    def describe(self):
        return super().describe() | {"weights": "/home/ann/weights/sealed.pt", "logs": ["/home/ann/logs"]}


def test_a_record_of_a_run_names_files_without_their_folders(tmp_path, monkeypatch):
    describe = SlabData.describe
    monkeypatch.setattr(
        SlabData, "describe", lambda self: describe(self) | {"excluded": {"x": "unreadable: /home/ann/data/x.nii"}}
    )
    session, record = run(tmp_path, small_encoder(Sealed), max_steps=1)
    assert record.encoder.weights == "sealed.pt"
    assert record.encoder.own_settings == {"logs": ["logs"]}
    assert record.task.excluded == {"x": "unreadable: x.nii"}
    text = (session / "record.json").read_text(encoding="utf-8")
    assert "/home/ann" not in text
    assert str(tmp_path) not in text
    assert str(Path(__file__).parents[2]) not in text


def test_what_no_record_could_hold_ends_a_run_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(ClassificationProbe, "losses", lambda *_: pytest.fail("it trained"))
    describe = SlabData.describe
    monkeypatch.setattr(SlabData, "describe", lambda self: describe(self) | {"colour": "green"})
    with pytest.raises(RecordError, match="a record cannot hold what SlabData says of itself: colour"):
        run(tmp_path / "a", small_encoder(Drifting), max_steps=1)
    monkeypatch.setattr(SlabData, "describe", describe)
    monkeypatch.setattr(ClassificationProbe, "describe", lambda self: {"rank": 1})
    with pytest.raises(RecordError, match="what the probe says of itself: rank"):
        run(tmp_path / "b", small_encoder(Drifting), max_steps=1)
    assert not list(tmp_path.rglob("record.json"))
    assert CaseResult.model_config["extra"] == "forbid"
