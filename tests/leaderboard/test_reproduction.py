"""The paper's cells next to ours: which records are of them, the differences, what is marked, and every format."""

import csv
import json
from statistics import fmean, stdev

import pytest

from tapct.encoders import encoder_class
from tapct.leaderboard import read_paper, site
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.page.paper import ours_by_theirs
from tapct.leaderboard.paper_tables import tables
from tapct.records import read_records
from tapct.records.encoder import IdentityRecord
from tests.leaderboard import results

RESAMPLES = 200
ROWS = read_paper()


def reproduction(folder, *records):
    """What the folder of these records amounts to."""
    for number, one in enumerate(records):
        results.write(folder, f"cell {number}", one)
    return assemble({folder: read_records(folder)}, resamples=RESAMPLES).reproduction


def run(found):
    """Table, model, size of slices and task of the cells with a number of ours."""
    rows = [cell.row for cell in found.cells if cell.ours]
    return [(row.table, row.model, row.setup.in_plane_size, row.task) for row in rows]


def of_class(record, cls):
    """A record that says of which class its encoder was."""
    identity = IdentityRecord(cls=cls, code_sha256=None, settings={})
    return record.model_copy(update={"encoder": record.encoder.model_copy(update={"identity": identity})})


def dice(record, grid):
    """Dice of each run, by hand: per case over its defined classes, then over cases."""
    cases = [[case.dice[grid] for case in of.cases["test"]] for of in record.runs]
    return [fmean(fmean(v for v in case.values() if v is not None) for case in of_run) for of_run in cases]


# -- Setups --------------------------------------------------------------------------------------------


def test_setups_are_what_the_tables_say_and_our_cards():
    for row in ROWS:
        setup, card = row.setup, encoder_class(row.setup.encoder).card
        settings = row.settings or ""
        if "spacing" in settings:
            assert settings == f"spacing {setup.spacing_mm}"
        if "(z, 512, 512)" in settings:
            assert setup.in_plane_size == 512
        elif setup.encoder != "curia" or "star" in row.notes:
            assert setup.in_plane_size == (224 if card.in_plane_size else None)
        assert setup.spacing_mm == card.spacing_mm
        if setup.encoder == "ct-fm":
            assert setup.window_size == (24, 128, 128) != card.window_size
        elif "star" in row.notes and setup.encoder == "curia":
            assert setup.window_size == (1, 224, 224)
        else:
            assert setup.window_size == card.window_size
        if "window" in settings:  # of 2D models (224, 224)
            assert str(setup.window_size).removeprefix("(1, ").strip("(") in settings
    assert {row.suite for row in ROWS} == {*(f"paper-table-{n}" for n in (2, 3, 4, 5)), "paper-empty"}


# -- Pairs ---------------------------------------------------------------------------------------------


def test_cells_of_224_and_of_512_pixels_are_two(tmp_path):
    found = reproduction(
        tmp_path,
        results.record("tap-b-3d", "amos22", ability=0.1),
        results.record("tap-b-3d", "amos22", ability=0.4, card={"in_plane_size": 512}),
        results.record("tap-b-3d", "kits23", card={"in_plane_size": 384}),
    )
    assert run(found) == [
        (2, "TAP-B-3D", 512, "amos22"),
        (3, "TAP-B-3D", 224, "amos22"),
        (3, "TAP-B-3D", 512, "amos22"),
    ]
    two, small, large = (cell.ours[0].estimate.value for cell in found.cells if cell.ours)
    assert two == large != small
    assert found.other == {"a grid that the paper does not have for this task": 1}


def test_curia_is_at_512_but_where_the_star_is(tmp_path):
    small = {"in_plane_size": 224, "window_size": (1, 224, 224)}
    found = reproduction(
        tmp_path,
        results.record("curia", "lits17"),
        results.record("curia", "totalsegmentator"),
        results.record("curia", "totalsegmentator", ability=0.5, card=small),
    )
    assert run(found) == [(2, "Curia", 512, "lits17"), (2, "Curia", 224, "totalsegmentator")]
    assert sum(found.other.values()) == 1
    assert all(one.said == () for cell in found.cells for one in cell.ours)


@pytest.mark.parametrize(
    ("adaptor", "models"),
    [
        ("abmil", [(4, "TAP-B-3D"), (5, "TAP-B-3D")]),
        ("abmil:patch", [(5, "TAP-B-3D (Patch Feat.)")]),
        ("linear", []),
        ("abmil:cls", []),
    ],
)
@pytest.mark.parametrize("task", ["luna16", "rsna2022"])
def test_bags_of_class_tokens_and_of_patches_are_two_cells(tmp_path, adaptor, models, task):
    found = reproduction(tmp_path, results.record("tap-b-3d", task, adaptor=adaptor))
    assert [(table, model) for table, model, _, _ in run(found)] == models
    assert found.other == ({} if models else {"an adaptor that is not the paper's": 1})


WINDOWS = "windows or padding that neither the paper nor the encoder's card has"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"random": True}, "random weights"),
        ({"weights": "ours.pt"}, "weights of another file than the published one"),
        ({"more_probe": {"head_from": {"name": "lits17"}}}, "heads that were trained elsewhere"),
        ({"card": {"feature_dim": 64, "feature_stride": (1, 1, 1)}}, "features of another layer"),
        ({"card": {"pad_hu": 0.0}}, WINDOWS),
        ({"card": {"window_size": (48, 96, 96)}}, WINDOWS),
        ({"card": {"spacing_mm": (1.0, 1.0, 1.0)}}, "a grid that the paper does not have for this task"),
    ],
)
def test_what_is_no_reproduction_is_not_beside_the_paper(tmp_path, change, why):
    found = reproduction(tmp_path, results.record("suprem", "amos22", **change))
    assert (run(found), found.other) == ([], {why: 1})


def test_an_encoder_that_was_pretrained_here_is_not_the_papers_by_its_name(tmp_path):
    of_paper, own = (
        of_class(results.record("tap-b-3d", "amos22", ability=ability), cls)
        for ability, cls in ((0.1, "tapct.encoders.tap_ct.TapB3D"), (0.4, "tapct.encoders.exported.Exported"))
    )
    found = reproduction(tmp_path, of_paper, own)
    assert run(found) == [(3, "TAP-B-3D", 224, "amos22")]
    (ours,) = next(cell.ours for cell in found.cells if cell.ours)
    assert ours.record == of_paper.fingerprint
    assert found.other == {"an encoder of the same name, and another class": 1}


def test_a_part_of_the_training_patients_perturbed_scans_and_other_encoders_are_none(tmp_path):
    found = reproduction(
        tmp_path,
        results.record("merlin", "amos22"),
        results.record("suprem", "amos22", more_task={"train_fraction": 0.1}),
        results.record("suprem", "amos22", more_task={"perturbation": "noise-30hu"}),
    )
    assert (run(found), found.other) == ([], {})


def test_other_protocols_are_said_and_stand_last(tmp_path):
    found = reproduction(
        tmp_path,
        results.record("ct-fm", "amos22", ability=0.9, more_probe={"scale_features": False}),
        results.record("ct-fm", "amos22", ability=0.2, card={"window_size": (24, 128, 128)}),
    )
    (cell,) = [cell for cell in found.cells if cell.ours]
    plain, unscaled = cell.ours
    assert plain.said == ()
    assert unscaled.said == (
        "scale_features is False, in the shipped protocol True",
        "window 32 × 128 × 128, in the paper 24 × 128 × 128",
    )
    assert [one.mark.id for one in plain.marks] == ["few-patients"]
    assert [one.mark.id for one in unscaled.marks] == ["few-patients", "other-protocol"]


# -- Numbers -------------------------------------------------------------------------------------------


def test_differences_are_those_by_hand(tmp_path):
    record = results.record("tap-s-3d", "lits17", ability=0.5, patients=30)
    found = reproduction(tmp_path, record)
    (cell,) = [cell for cell in found.cells if cell.ours]
    (one,) = cell.ours
    ours = dice(record, "paper")
    assert (cell.row.mean, cell.row.std) == (0.572, 0.001)
    assert one.estimate.value == pytest.approx(fmean(ours), abs=1e-12)
    assert one.seed_spread == pytest.approx(stdev(ours), abs=1e-12)
    assert one.ranked.value == pytest.approx(fmean(dice(record, "native")), abs=1e-12)
    assert one.ranked_as == "native"
    assert one.difference.value == pytest.approx(fmean(ours) - 0.572, abs=1e-12)
    assert one.difference.low == pytest.approx(one.estimate.low - 0.572, abs=1e-12)
    assert one.difference.high == pytest.approx(one.estimate.high - 0.572, abs=1e-12)
    assert one.estimate.low < one.estimate.value < one.estimate.high
    assert (one.seeds, one.patients) == (3, 30)


def test_nodule_tasks_are_beside_the_paper_on_attention_and_ranked_on_linear(tmp_path):
    from sklearn.metrics import roc_auc_score

    linear = results.record("curia", "luna16", ability=0.3)
    attention = results.record("curia", "luna16", ability=-0.2, adaptor="abmil")

    def auroc(record):
        runs = [run.cases["test"] for run in record.runs]
        return fmean(
            roc_auc_score([*(v for c in run for v in c.target.values())], [v for c in run for v in c.logits.values()])
            for run in runs
        )

    found = reproduction(tmp_path, linear, attention)
    (cell,) = [cell for cell in found.cells if cell.ours]
    (one,) = cell.ours
    assert one.estimate.value == pytest.approx(auroc(attention), abs=1e-12)
    assert (one.ranked_as, one.ranked.value) == ("linear", pytest.approx(auroc(linear), abs=1e-12))
    assert one.difference.value == pytest.approx(auroc(attention) - 0.860, abs=1e-12)


def test_cells_that_the_paper_left_empty_are_marked_and_have_no_difference(tmp_path):
    found = reproduction(
        tmp_path,
        results.record("fmcib", "totalsegmentator"),
        results.record("tap-s-2d", "totalsegmentator", card={"in_plane_size": 512}),
        results.record("tap-s-2d", "totalsegmentator"),
    )
    marked = {
        (cell.row.model, cell.row.mean): [m.mark.id for m in one.marks if m.mark.id == "not-in-paper"]
        for cell in found.cells
        for one in cell.ours
    }
    assert marked == {("FMCiB", None): ["not-in-paper"], ("TAP-S-2D", None): ["not-in-paper"], ("TAP-S-2D", 0.482): []}
    assert [one.difference is None for cell in found.cells for one in cell.ours] == [True, False, True]


def test_an_average_is_over_the_tasks_of_the_papers(tmp_path):
    tasks = ("amos22", "lits17", "kits23", "msd_pancreas")  # those that FMCiB has in the paper
    records = [results.record("fmcib", task, ability=0.1 * place) for place, task in enumerate(tasks)]
    found = reproduction(tmp_path / "all", *records, results.record("suprem", "amos22"))
    averages = [cell for cell in found.cells if cell.row.task == "average" and cell.ours]
    assert [cell.row.model for cell in averages] == ["FMCiB"]
    mean = fmean(fmean(dice(record, "paper")) for record in records)
    assert averages[0].ours[0].estimate.value == pytest.approx(mean, abs=1e-12)
    assert averages[0].ours[0].difference.value == pytest.approx(mean - 0.146, abs=1e-12)
    assert reproduction(tmp_path / "three", *records[:3]).cells[35].ours == ()


def test_a_copy_is_counted_once(tmp_path):
    one = results.record("suprem", "amos22")
    found = reproduction(tmp_path, one, one)
    assert [len(cell.ours) for cell in found.cells if cell.ours] == [1]


def test_a_cell_counts_once_in_the_differences_by_its_record_of_the_shipped_protocol(tmp_path):
    other = results.record("suprem", "amos22", ability=-2, more_probe={"steps": 2})
    found = reproduction(tmp_path, other, results.record("suprem", "amos22"), results.record("suprem", "lits17"))
    two = next(table for table in tables(found) if table.number == 2)
    first = [cell.ours[0] for cell in found.cells if cell.ours and cell.row.task != "average"]
    assert [one.said for one in first] == [(), ()]
    assert two.gaps == [one.difference.value for one in first]


# -- Formats -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("results")
    for place, encoder in enumerate(("tap-b-3d", "ct-fm", "fmcib")):
        for task in ("amos22", "totalsegmentator"):
            results.write(found, encoder, results.record(encoder, task, ability=0.5 - 0.3 * place))
    results.write(found, "curia", results.record("curia", "rsna2022"))
    results.write(found, "random", results.record("ct-fm", "amos22", ability=-1, random=True))
    return found


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    site.build([folder], out, resamples=RESAMPLES)
    return out


@pytest.fixture(scope="module")
def board(folder):
    return assemble({folder: read_records(folder)}, resamples=RESAMPLES)


def test_the_csv_has_every_cell_and_what_is_to_do(built, board):
    with (built / "paper_and_this_run.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ROWS)
    for row, cell in zip(rows, board.reproduction.cells, strict=True):
        assert (int(row["table"]), row["paper_model"], row["task"]) == (
            cell.row.table,
            cell.row.model,
            cell.row.task,
        )
        assert row["paper_mean"] == ("" if cell.row.mean is None else f"{cell.row.mean:g}")
        assert bool(row["ours"]) == bool(cell.ours)
        average = cell.row.task == "average"
        assert row["to_do"] == ("" if cell.ours or average else f"tapct run --suite {cell.row.suite}")
        for one in cell.ours:
            assert float(row["ours"]) == pytest.approx(one.estimate.value, rel=1e-11)
            if one.difference:
                assert float(row["difference"]) == pytest.approx(float(row["ours"]) - cell.row.mean, abs=1e-10)
    (oom,) = [row for row in rows if row["paper_model"] == "FMCiB" and row["task"] == "totalsegmentator"]
    assert (oom["paper_mean"], oom["paper_notes"], oom["difference"]) == ("", "oom", "")
    assert "not-in-paper" in oom["marks"].split()
    (ct_fm,) = [row for row in rows if row["paper_model"] == "CT-FM" and row["task"] == "amos22"]
    assert ct_fm["protocol_differs"] == "window 32 × 128 × 128, in the paper 24 × 128 × 128"


def test_the_json_has_the_same_and_says_that_splits_differ(built):
    found = json.loads((built / "leaderboard.json").read_text(encoding="utf-8"))
    section = found["paper_and_this_run"]
    assert "unpublished" in section["note"]
    assert len(section["cells"]) == len(ROWS)
    assert section["of_no_cell"] == {"random weights": 1}
    assert {"not-in-paper", "other-protocol"} <= set(found["marks"])


def test_the_page_shows_paper_ours_difference_and_native_in_a_cell(built, board):
    html = (built / "index.html").read_text(encoding="utf-8")
    section = html[html.index('<section aria-labelledby="paper">') :]
    section = section[: section.index("</section>")]
    (cell,) = [c for c in board.reproduction.cells if c.ours and c.row.model == "CT-FM" and c.row.task == "amos22"]
    one = cell.ours[0]
    start = section.index("0.417 ± 0.008")
    shown = section[start : section.index("</td>", start)]

    def signed(value):
        return f"{value:+.3f}".replace("-", "−")

    for text in (
        f"<b>{one.estimate.value:.3f}</b> ± {one.seed_spread:.3f}",
        f"{one.estimate.low:.3f}–{one.estimate.high:.3f}",
        f"{signed(one.difference.value)} ({signed(one.difference.low)} to {signed(one.difference.high)})",
        f"native {one.ranked.value:.3f}",
        "window 32 × 128 × 128",
    ):
        assert text in shown
    assert "The paper's splits are unpublished" in section.replace("&#39;", "'")
    assert section.count("<table") == 4
    assert "2 of 60 cells run" in section
    assert "<code>tapct run --suite paper-table-5</code>" in section
    assert section.count("<svg") == 2
    assert "1 with random weights" in section


def test_markdown_and_latex_have_the_rows_that_were_run(built):
    markdown = (built / "leaderboard.md").read_text(encoding="utf-8")
    tables = markdown[markdown.index("## The paper and this run. Table 2") :]
    assert "splits are unpublished" in tables
    lines = [line for line in tables.splitlines() if line.startswith("| ") and "---" not in line]
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines]
    assert names == ["Model", "CT-FM", "FMCiB", "TAP-B-3D", "Model", "TAP-B-3D 224 pixels", "Model", "Curia"]
    assert "0.417 ± 0.008†<br>ours " in tables
    assert r"The paper and this run. Table 3" in (built / "leaderboard.tex").read_text(encoding="utf-8")


def test_a_board_without_a_cell_of_the_paper_has_one_sentence(tmp_path):
    results.write(tmp_path / "r", "merlin", results.record("merlin", "amos22"))
    site.build([tmp_path / "r"], tmp_path / "site", resamples=50)
    html = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert html.count("tapct run --suite paper") == 1
    assert 'id="paper"' not in html
    assert not (tmp_path / "site" / "paper_and_this_run.csv").exists()
    found = json.loads((tmp_path / "site" / "leaderboard.json").read_text(encoding="utf-8"))
    assert found["paper_and_this_run"] is None
    assert "The paper and this run" not in (tmp_path / "site" / "leaderboard.md").read_text(encoding="utf-8")


def test_the_figure_has_a_panel_a_task_with_both_numbers(board):
    drawn = ours_by_theirs(board, "segmentation")
    assert "AMOS22, Dice" in drawn
    assert "TotalSegmentator, Dice" in drawn
    assert "KiTS23" not in drawn
    assert "CT-FM" in drawn
    assert "RSNA2022, AP" in ours_by_theirs(board, "classification")
