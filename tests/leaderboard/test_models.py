"""Two settings of one encoder are two models: on the page, in the tables, in the cases' table."""

import pytest

from tapct.errors import RecordError
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.inputs import model_names, require_one_encoder
from tapct.records import read_records, to_table
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
        results.write(folder, f"cell{number}", one)
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
    cells = [record("lits17"), record("kits23", settings=CHEST), record("amos22", settings=ABDOMEN)]
    found = names(board_of(tmp_path, *cells))
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


def test_the_table_of_cases_tells_models_apart():
    models = [to_table(one)["model"][0].as_py() for one in (record(settings=CHEST), record(settings=ABDOMEN), record())]
    assert len(set(models)) == 3
    assert to_table(record("kits23", settings=CHEST))["model"][0].as_py() == models[0]
