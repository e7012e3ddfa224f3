"""What a model's network was given, on the page: as its record says, and drawn only where the same is given here."""

import re
import sys

import pytest

from tapct.leaderboard import input_sheets, site
from tapct.leaderboard.assembly import assemble
from tapct.records import read_records
from tapct.records.models import model_id
from tests.leaderboard import results

NOTHING = "0" * 64


def page(folder, **settings):
    site.build([folder], folder / "site", resamples=20, **settings)
    return (folder / "site" / "index.html").read_text(encoding="utf-8")


def sheet_of(folder):
    """The sheet of the one model of a folder."""
    (sheet,) = input_sheets.sheets_of(assemble({folder: read_records(folder)}, resamples=20)).values()
    return sheet


def test_rows_with_their_sources_and_three_slices(tmp_path):
    results.write(tmp_path, "a", results.record("tap-t-3d", "lits17", sheet=results.sheet_of("tap-t-3d")))
    html = page(tmp_path)
    given = html[html.index("What its network is given") :]
    assert re.search(r'<th scope="row">HU window</th><td>-1008 to 822 HU</td><td><b>[a-z ]+</b>', given)
    assert len(re.findall(r'<use href="#slice-\d"/>', given)) == 3
    assert [re.sub("<.*?>", "", experiment) for experiment in re.findall(r"(?:<i>.</i>){4}", given)] == [
        "RLAP",
        "RLSI",
        "APSI",
    ]
    assert "No picture" not in html
    assert "src=" not in html
    assert page(tmp_path) == html


def test_families_share_their_pictures_and_a_model_takes_kilobytes(tmp_path):
    names = ("tap-s-3d", "tap-b-3d", "curia")
    for sheet in (False, True):
        for name in names:
            said = results.sheet_of(name) if sheet else None
            results.write(tmp_path / str(sheet), name, results.record(name, "lits17", sheet=said))
    without, with_sheets = page(tmp_path / "False"), page(tmp_path / "True")
    assert with_sheets.count("<image ") == 6
    assert with_sheets.count("<use ") == 9
    assert len(with_sheets) - len(without) < 13_000 * len(names)


def test_a_sheet_makes_no_other_model_and_older_records_keep_their_fingerprints(tmp_path):
    older, newer = (results.record("tap-t-3d", "lits17", sheet=s) for s in (None, results.sheet_of("tap-t-3d")))
    assert "input_sheet" not in older.to_json()
    assert model_id(older) == model_id(newer.model_copy(update={"encoder": newer.encoder.model_copy()}))
    results.write(tmp_path, "a", older)
    results.write(tmp_path, "b", results.record("tap-t-3d", "luna16", sheet=results.sheet_of("tap-t-3d")))
    html = page(tmp_path)
    assert "<b>1</b> model<" in html.replace("models", "model")
    assert html.count("What its network is given") == 1


@pytest.mark.parametrize(
    ("card", "more", "why"),
    [
        ({"name": "of-a-third_party"}, {}, "no encoder of-a-third_party is installed where this page was made"),
        ({"name": "antigravity:Encoder"}, {}, "no encoder antigravity:Encoder is installed"),
        ({"name": "eva:/etc/passwd"}, {}, "no encoder eva:/etc/passwd is installed"),
        ({}, {"received_sha256": NOTHING}, r"is something else than what the record says \(000000000000\)"),
        ({}, {"received_sha256": None, "not_received": "its network is never called"}, "its network is never called"),
    ],
)
def test_of_a_record_that_cannot_be_drawn_the_page_says_why(tmp_path, card, more, why):
    said = results.sheet_of("tap-t-3d") | more
    results.write(tmp_path, "a", results.record("tap-t-3d", "lits17", card=card, sheet=said))
    sheet = sheet_of(tmp_path)
    assert re.search(why, sheet.no_picture)
    assert not sheet.pictures
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"in_plane_size": 10**6}, "more than the 134,217,728"),
        ({"spacing_mm": [1e-9, 1, 1]}, "cannot be asked|more than"),
        ({"no_such": 1}, "has no option 'no_such'"),
        ({"window_size": {"file": NOTHING}}, "hold files or arrays"),
        ({"precision": "/etc/passwd"}, "hold files or arrays"),
    ],
)
def test_options_of_a_third_party_ask_for_nothing_that_cannot_be_had(tmp_path, options, why):
    one = results.record("tap-t-3d", "lits17", sheet=results.sheet_of("tap-t-3d"), options=options)
    results.write(tmp_path, "a", one)
    assert re.search(why, sheet_of(tmp_path).no_picture)


def test_hostile_rows_are_text(tmp_path):
    rows = [{"name": name, "text": name, "source": f"authors: {name}"} for name in results.HOSTILE]
    sheet = {"rows": rows, "not_received": results.HOSTILE[0]}
    results.write(tmp_path, "a", results.record("tap-t-3d", "lits17", sheet=sheet))
    html = page(tmp_path)
    assert "No picture: " in html
    assert html.count("<script>") == 1
    assert "<img" not in html
    assert html.count("</style>") == 1


def test_what_most_records_of_a_model_say_is_shown(tmp_path):
    said = results.sheet_of("tap-t-3d")
    other = said | {"rows": [*said["rows"][1:], {"name": "Window", "text": "another", "source": "ours: a slip"}]}
    for task, one in (("lits17", said), ("kits23", said), ("luna16", other)):
        results.write(tmp_path, "a", results.record("tap-t-3d", task, sheet=one))
    html = page(tmp_path)
    assert "1 of its records says something else" in html
    assert "ours: a slip" not in html


def test_a_word_that_changed_is_shown_and_makes_no_other_record(tmp_path):
    said = results.sheet_of("tap-t-3d")
    assert "Centre of a cell" in [row["name"] for row in said["rows"]], "what records have held from the first"
    results.write(tmp_path, "a", results.record("tap-t-3d", "lits17", sheet=said))
    html = page(tmp_path)
    assert "Centre of a patch</th>" in html
    assert "Centre of a cell" not in html


def test_a_contradiction_is_said_and_its_letters_are_true(tmp_path, monkeypatch):
    from baselines.suprem import SuPreM

    monkeypatch.setattr(SuPreM, "axes", "LAS")  # a mistake: its array is then mirrored to what LAS says
    encode = SuPreM._encode
    monkeypatch.setattr(SuPreM, "_encode", lambda self, x: encode(self, x.flip(2)))
    results.sheet_of.cache_clear()
    results.write(tmp_path, "a", results.record("suprem", "lits17", sheet=results.sheet_of("suprem")))
    results.sheet_of.cache_clear()
    html = page(tmp_path)
    assert "The array lies otherwise than declared: its axes grow towards R, A, S" in html
    assert "<i>L</i><i>R</i><i>A</i><i>P</i>" in html


def test_what_was_compared_with_the_authors_code_is_said(tmp_path):
    one = results.record("tap-t-3d", "lits17")
    known = {"status": "randomised", "date": "2026-11-29", "source": "theirs 1.0", "differences": {"map": 1e-6}}
    encoder = type(one.encoder).model_validate(one.encoder.content() | {"verification": known})
    results.write(tmp_path, "a", one.model_copy(update={"encoder": encoder}))
    sheet = sheet_of(tmp_path)
    assert sheet.said is None
    assert sheet.verification.startswith("tested on randomised weights only")
    assert sheet.verification in page(tmp_path).replace("&#39;", "'")
