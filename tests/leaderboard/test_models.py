"""Two settings of one encoder are two models: on the page, in the tables, in the cases' table."""

import pytest

from tapct.encoders import EncoderCard
from tapct.errors import RecordError
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.exports import rows
from tapct.records import read_records, to_table
from tapct.statistics.inputs import model_names, require_one_encoder
from tests.leaderboard import results
from tests.records.made import changed


def record(
    task="lits17", *, settings=None, source="a" * 64, name="astra", encoder_class="baselines.astra.Astra", **more
):
    """A record of an encoder under settings; of before they were kept, where none are given."""
    one = results.record("astra", task, patients=8, **more)
    if settings is None:
        return one
    identity = {"class": encoder_class, "code_sha256": source, "settings": settings}
    return changed(one, encoder={"identity": identity})


def board_of(folder, *records):
    for number, one in enumerate(records):
        results.write(folder, f"experiment{number}", one)
    return assemble({folder: read_records(folder)}, resamples=20)


def names(board):
    return [model.name for model in board.models]


CHEST, ABDOMEN = {"region": "chest"}, {"region": "abdomen"}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"settings": CHEST}, {"settings": ABDOMEN}, ["Astra, region abdomen", "Astra, region chest"]),
        (
            {"settings": {"clip": {"tensor": "1" * 64}}},
            {"settings": {"clip": {"tensor": "2" * 64}}},
            ["Astra, clip 11111111", "Astra, clip 22222222"],
        ),
        (
            {"settings": CHEST, "encoder_class": "mine.Astra"},
            {"settings": CHEST},
            ["Astra, baselines.astra.Astra", "Astra, mine.Astra"],
        ),
        (
            {"settings": CHEST, "source": "c" * 64},
            {"settings": CHEST, "source": "d" * 64},
            ["Astra, source cccccccc", "Astra, source dddddddd"],
        ),
        ({"settings": CHEST}, {"settings": {"region": None}}, ["Astra, region chest", "Astra, region none"]),
        ({"settings": CHEST}, {"settings": {}}, ["Astra, region chest", "Astra, region none"]),
    ],
    ids=["setting", "buffer", "class", "source", "none", "absent"],
)
@pytest.mark.parametrize("tasks", [("lits17", "lits17"), ("lits17", "kits23")], ids=["one task", "two tasks"])
def test_two_settings_of_one_encoder_are_two_models(one, other, expected, tasks, tmp_path):
    board = board_of(tmp_path, record(tasks[0], **one), record(tasks[1], ability=0.5, **other))
    assert names(board) == expected
    assert sum(len(model.entries) for model in board.models) == 2


def test_the_same_settings_are_one_model_over_tasks(tmp_path):
    board = board_of(tmp_path, record("lits17", settings=CHEST), record("kits23", settings=CHEST))
    assert names(board) == ["Astra"]
    assert board.models[0].entries.keys() == {"lits17", "kits23"}


def test_an_older_record_is_of_the_one_model_that_it_can_be_of(tmp_path):
    board = board_of(tmp_path, record("lits17"), record("kits23", settings=CHEST))
    assert names(board) == ["Astra"]


def test_an_older_record_that_could_be_of_two_models_is_of_none_of_them(tmp_path):
    experiments = [record("lits17"), record("kits23", settings=CHEST), record("amos22", settings=ABDOMEN)]
    found = names(board_of(tmp_path, *experiments))
    assert found[0] == "Astra, baselines.astra.Astra, region abdomen"
    assert found[2] == "Astra, settings not recorded"


def test_an_older_record_that_names_its_region_is_of_that_model(tmp_path):
    old = record("lits17")
    old = changed(old, encoder=CHEST)
    board = board_of(tmp_path, old, record("kits23", settings=CHEST), record("amos22", settings=ABDOMEN))
    (chest,) = (model for model in board.models if model.name == "Astra, region chest")
    assert chest.entries.keys() == {"lits17", "kits23"}


def test_two_records_of_one_model_on_a_task_are_still_refused(tmp_path):
    with pytest.raises(RecordError, match="are both of Astra on lits17"):
        board_of(tmp_path, record(settings=CHEST), record(settings=CHEST, ability=0.5))


def test_two_models_never_get_one_name(tmp_path):
    long = "x" * 100
    found = names(board_of(tmp_path, record(settings={"a": f"{long}1"}), record(settings={"a": f"{long}2"}, ability=1)))
    assert len(set(found)) == 2


def test_what_was_varied_keeps_settings_apart_and_refuses_another_source():
    chest, abdomen = record(settings=CHEST), record(settings=ABDOMEN)
    assert model_names([chest, abdomen, chest]) == [
        "astra, region chest",
        "astra, region abdomen",
        "astra, region chest",
    ]
    assert model_names([chest, record()]) == ["astra", "astra"]
    edited = record(settings=CHEST, source="b" * 64)
    require_one_encoder(["astra", "astra"], [chest, record()])
    with pytest.raises(RecordError, match="do not compare: source is 'aaaa"):
        require_one_encoder(model_names([chest, edited]), [chest, edited])
    with pytest.raises(RecordError, match=r"do not compare: settings\.region is 'chest' and 'abdomen'"):
        require_one_encoder(["astra", "astra", "astra"], [record(), chest, abdomen])


def with_options(one, **options):
    """A record of today, which says what was set."""
    encoder = {"options": options}
    if on_card := {key: value for key, value in options.items() if key in EncoderCard.OPTIONS}:
        encoder["card"] = one.encoder.card.content() | on_card
    return changed(one, encoder=encoder)


LARGE = {"in_plane_size": 512}


def tap(task, ability=0.0, **options):
    return with_options(results.record("tap-b-3d", task, patients=8, ability=ability), **options)


@pytest.mark.parametrize(
    ("encoder", "options", "name"),
    [
        ("tap-b-3d", {}, "TAP-B-3D"),
        ("tap-b-3d", LARGE, "TAP-B-3D, 512 px"),
        ("tap-b-3d", {"window_size": [24, 224, 224], **LARGE}, "TAP-B-3D, 512 px, window 24 × 224 × 224"),
        ("suprem", {"features": "decoder"}, "SuPreM U-Net, features decoder"),
        ("ct-fm", {"spacing_mm": [1.5, 1.5, 1.5]}, "CT-FM, spacing 1.5 mm"),
        ("ct-fm", {"spacing_mm": [3.0, 1.5, 1.5]}, "CT-FM, spacing 3 × 1.5 × 1.5 mm"),
        ("ct-fm", {"spacing_mm": None, "pad_hu": -1000.0}, "CT-FM, padding -1000 HU, spacing native"),
        ("tap-b-3d", {"precision": "fp32"}, "TAP-B-3D, precision fp32"),
    ],
)
def test_what_was_set_is_in_the_name_of_the_only_model(encoder, options, name, tmp_path):
    one = with_options(results.record(encoder, "lits17", patients=8), **options)
    assert names(board_of(tmp_path, one)) == [name]


@pytest.mark.parametrize(("encoder", "shown"), [("tap-b-3d", "TAP-B-3D"), ("suprem", "SuPreM U-Net")])
def test_a_filter_is_a_model_of_its_own_and_an_older_record_had_the_one_of_all(encoder, shown, tmp_path):
    def one(task, **options):
        return with_options(results.record(encoder, task, patients=8), **options)

    new, averaged = one("lits17"), one("kits23", in_plane_filter="antialias")
    assert (new.encoder.card.in_plane_filter, averaged.encoder.card.in_plane_filter) == ("linear", "antialias")
    card = {key: value for key, value in averaged.encoder.card.content().items() if key != "in_plane_filter"}
    content = averaged.encoder.content() | {"card": card}
    older = averaged.model_copy(update={"encoder": type(averaged.encoder)(**{**content, "options": {}})})
    assert "in_plane_filter" not in older.to_json().replace("The in-plane filter", "")
    board = board_of(tmp_path, new, older)
    assert names(board) == [f"{shown}, in_plane_filter antialias", f"{shown}, in_plane_filter linear"]
    assert [len(model.entries) for model in board.models] == [1, 1]
    same = board_of(tmp_path / "same", one("lits17", in_plane_filter="antialias"), older)
    assert [len(model.entries) for model in same.models] == [2]


def test_a_larger_size_is_a_row_of_its_own_everywhere(tmp_path):
    experiments = [tap("lits17"), tap("kits23"), tap("lits17", 1.0, **LARGE), tap("kits23", 1.0, **LARGE)]
    board = board_of(tmp_path, *experiments, results.record("curia", "lits17", patients=8))
    assert names(board) == ["Curia", "TAP-B-3D", "TAP-B-3D, 512 px"]
    for model, of in (("TAP-B-3D", experiments[:2]), ("TAP-B-3D, 512 px", experiments[2:])):
        (row,) = (one for one in board.models if one.name == model)
        assert {entry.record.fingerprint for entry in row.entries.values()} == {one.fingerprint for one in of}
        assert {model} <= board.overall["segmentation", "native"].keys()
    lits = next(task for task in board.tasks if task.name == "lits17")
    assert {one.name for one in lits.summaries["native"].models} == set(names(board)), "ranked next to the others"
    assert not board.own
    assert not board.left_out
    assert {row.model for row in rows(board) if row.source == "record"} == set(names(board))


def test_an_older_record_keeps_its_name_and_is_of_the_model_that_it_is_of(tmp_path):
    older = changed(
        results.record("tap-b-3d", "kits23", patients=8),
        encoder={"card": tap("kits23", **LARGE).encoder.card.content()},
    )
    assert names(board_of(tmp_path / "alone", older)) == ["TAP-B-3D"]
    assert names(board_of(tmp_path / "both", older, tap("lits17", **LARGE))) == ["TAP-B-3D, 512 px"]


def test_a_set_precision_is_another_model_and_the_machines_choice_is_not(tmp_path):
    by_machine = [
        changed(tap(task), encoder={"precision_used": used}) for task, used in (("lits17", "fp32"), ("kits23", "bf16"))
    ]
    asked = changed(tap("lits17", 0.5, precision="fp32"), encoder={"precision": "fp32", "precision_used": "fp32"})
    assert names(board_of(tmp_path, *by_machine, asked)) == ["TAP-B-3D", "TAP-B-3D, precision fp32"]


def test_options_of_a_third_party_have_a_name_whatever_they_are(tmp_path):
    odd = {"file": {"file": "1" * 64}, "list": ["a", "b"], "long": "x" * 500, "a+b=c": "d@random"}
    board = board_of(tmp_path, tap("lits17", **odd), tap("lits17", 0.5, **(odd | {"file": {"file": "2" * 64}})))
    assert len(set(names(board))) == 2
    assert all(len(model.label) < 255 for model in board.models)


def test_the_table_of_cases_tells_models_apart():
    models = [to_table(one)["model"][0].as_py() for one in (record(settings=CHEST), record(settings=ABDOMEN), record())]
    assert len(set(models)) == 3
    assert to_table(record("kits23", settings=CHEST))["model"][0].as_py() == models[0]
