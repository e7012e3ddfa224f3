"""What is beaten by what: each model of a task next to the rows to beat."""

import json

import pytest

from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.exports import by_score
from tapct.leaderboard.page.beaten import OWN, beaten
from tapct.records import read_records
from tests.leaderboard import results


def board_of(folder, task, **by_encoder):
    """A board of records, by encoder its abilities: pretrained, and with random weights if there is a second."""
    for encoder, abilities in by_encoder.items():
        for number, ability in enumerate(abilities):
            name = encoder.replace("_", "-")
            random = bool(number)
            made = results.record(name, task, ability=ability, random=random, patients=60)
            results.write(folder, f"{name}@random" if random else name, made)
    return assemble({folder: read_records(folder)}, resamples=400)


def table_of(board):
    (task,) = [task for task in board.tasks if task.summaries]
    return task, beaten(task, by_score(task, list(board.models)))


def test_models_are_set_against_their_own_random_weights_and_the_rows_to_beat(tmp_path):
    board = board_of(tmp_path, "lits17", curia=(2.0, 0.0), suprem=(0.05,), intensity=(0.0,), random_pyramid=(0.02,))
    task, table = table_of(board)
    assert table.heads[0] == OWN
    assert set(table.heads[1:]) == {"Intensity statistics", "Random pyramid"}
    lines = {row[0]: dict(zip(table.heads, row[1:], strict=True)) for row in table.rows}
    assert set(lines) == {"Curia", "Curia (random weights)", "SuPreM U-Net", "Intensity statistics", "Random pyramid"}
    assert lines["Curia"][OWN].startswith("beats +")
    assert lines["Curia"]["Intensity statistics"].startswith("beats +")
    assert lines["SuPreM U-Net"][OWN] == "", "nobody ran it with random weights"
    assert lines["Curia (random weights)"][OWN] == ""
    assert lines["Intensity statistics"]["Intensity statistics"] == ""
    found = {(one.first, one.second): one for one in task.summaries["native"].comparison.differences}
    for row, experiments in lines.items():
        for column, said in experiments.items():
            if (row, column) in found or (column, row) in found:
                one = found.get((row, column)) or found[column, row]
                turn = 1 if one.first == row else -1
                verdict = "" if one.better is None else "beats " if one.better == row else "beaten "
                low, high = sorted((turn * one.estimate.low, turn * one.estimate.high))
                wanted = f"{verdict}{turn * one.estimate.value:+.3f} ({low:.3f} to {high:.3f})"
                assert said == wanted.replace("(-0.000", "(0.000").replace("to -0.000", "to 0.000")
    assert "nobody ran here: chance" in table.note
    assert "intensity" not in table.note


def test_of_an_error_less_is_better_and_so_is_above_zero(tmp_path):
    _, table = table_of(board_of(tmp_path, "totalsegmentator_age", curia=(2.0,), intensity=(0.0,)))
    lines = {row[0]: row[1:] for row in table.rows}
    assert lines["Curia"][0].startswith("beats +")
    assert lines["Intensity statistics"] == [""]
    assert "MAE" in table.note or "error" in table.note.lower()


def test_too_few_patients_are_not_compared_and_a_task_without_such_rows_has_no_table(tmp_path):
    for encoder in ("curia", "intensity"):
        results.write(tmp_path / "few", encoder, results.record(encoder, "lits17", patients=4))
    board = assemble({tmp_path / "few": read_records(tmp_path / "few")}, resamples=100)
    _, table = table_of(board)
    said = {row[0]: row[1] for row in table.rows}["Curia"]
    assert said.endswith(", not compared")
    assert float(said.partition(",")[0]) == pytest.approx(
        next(m.estimate.value for m in board.tasks[0].summaries["native"].models if m.name == "Curia")
        - next(m.estimate.value for m in board.tasks[0].summaries["native"].models if m.name != "Curia"),
        abs=6e-4,
    )
    assert "4 patients are too few to compare models" in table.note
    _, none = table_of(board_of(tmp_path / "all", "lits17", curia=(1.0,), suprem=(0.0,)))
    assert none is None


def test_the_page_has_the_table(tmp_path):
    board_of(tmp_path / "r", "lits17", curia=(2.0, 0.0), intensity=(0.0,))
    assert site.build([tmp_path / "r"], tmp_path / "site", resamples=100) == 0
    html = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "What is beaten by what" in html
    assert html.count("beats +") >= 2
    pairs = json.loads((tmp_path / "site" / "leaderboard.json").read_text(encoding="utf-8"))
    assert pairs
