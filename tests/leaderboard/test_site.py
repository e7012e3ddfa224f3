"""From a results folder to a site: what is read, what is shown, what is refused."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from tapct.errors import RecordError
from tapct.leaderboard import site, summarise_tasks
from tapct.leaderboard.board import assemble, letter
from tapct.leaderboard.overlap import known_overlap
from tapct.leaderboard.page.charts import pareto, patient_strips, rank_shares, reliability_curve, task_inputs
from tapct.records import read_records
from tests.leaderboard import results

TASKS = ("lits17", "kits23", "luna16")
MODELS = ("tap-b-3d", "curia", "suprem", "voco-b")
HOSTILE = """<script>alert(1)</script> & "x" $a_b$ </svg>| %"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = results.write_all(
        tmp_path_factory.mktemp("results"), MODELS, TASKS, missing=[("voco-b", "kits23")], flagged=[("curia", "luna16")]
    )
    results.write(found, "curia@random", results.record("curia", "lits17", ability=-1, random=True))
    results.write(
        found, "curia,fraction=0.1", results.record("curia", "lits17", more_task={"train_fraction": 0.1}, patients=5)
    )
    results.write(found, "curia,noise", results.record("curia", "lits17", more_task={"perturbation": "noise_20"}))
    return found


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    assert site.build(folder, out, resamples=300) == 0
    return out


@pytest.fixture(scope="module")
def board(folder):
    return assemble(read_records(folder), folder, resamples=300)


def rows(out, **wanted):
    with (out / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]


class Page(HTMLParser):
    """Elements in order, as (tag, attributes), and what is text."""

    VOID = frozenset({"meta", "link", "input", "path", "use"})
    UNCLOSED = frozenset({"td", "th", "tr", "dd", "dt", "li"})  # HTML lets their end tags out, and so does the page

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID | self.UNCLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def test_the_same_records_give_the_same_bytes(folder, built, tmp_path):
    site.build(folder, tmp_path, resamples=300)
    names = sorted(path.name for path in built.iterdir())
    assert names == ["index.html", *(f"leaderboard.{suffix}" for suffix in ("csv", "json", "md", "tex"))]
    for name in names:
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


def test_the_page_is_sound_html_and_loads_nothing(built):
    html = (built / "index.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {a["href"] for tag, a in page.elements if tag == "a" and "href" in a}
    assert {link[1:] for link in linked if link.startswith("#")} <= set(ids)
    assert {link for link in linked if not link.startswith("#")} == {
        f"leaderboard.{suffix}" for suffix in ("csv", "json", "md", "tex")
    }
    used = {a.get("xlink:href", a.get("href")) for tag, a in page.elements if tag == "use"}
    assert {name[1:] for name in used} <= set(ids)
    assert not [tag for tag, a in page.elements if "src" in a or tag in ("iframe", "object", "img")]
    assert "http" not in html.replace("http-equiv", "")
    assert "/tmp" not in html


def test_the_table_has_a_row_per_model_and_a_cell_per_task(built, board):
    html = (built / "index.html").read_text(encoding="utf-8")
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    assert body.count("scope=row>") + body.count("scope=row ") == len(board.models) == 5
    assert [task.name for task in board.tasks][:2] == ["lits17", "kits23"]  # with records first, in each family
    assert len(board.tasks) == 10  # the others are the paper's
    assert body.count("no record: the model was not run on this task") >= 2 * (5 * 10 - 12)  # title and spoken text


def test_numbers_and_ranks_of_all_formats_agree(built, board):
    task = next(task for task in board.tasks if task.name == "lits17")
    markdown = (built / "leaderboard.md").read_text(encoding="utf-8")
    latex = (built / "leaderboard.tex").read_text(encoding="utf-8")
    content = json.loads((built / "leaderboard.json").read_text(encoding="utf-8"))
    for model in task.summaries["native"].models:
        (row,) = rows(built, source="record", task="lits17", protocol="native", model=model.name)
        low, high = task.rank_interval(model.name, "native")
        value, lower = (float(f"{number:.12g}") for number in (model.estimate.value, model.estimate.low))
        assert (float(row["value"]), int(row["rank_low"]), int(row["rank_high"])) == (value, low, high)
        assert row["tie_groups"] == task.letters(model.name, "native")
        number = f"{model.estimate.value:.3f} ({model.estimate.low:.3f}–{model.estimate.high:.3f}) [{low}–{high}]"
        assert number in markdown
        assert number.replace("–", "--") in latex
        (same,) = (
            r
            for r in content["rows"]
            if (r["source"], r["task"], r["protocol"], r["model"]) == ("record", "lits17", "native", model.name)
        )
        assert (same["value"], same["low"], same["rank_low"]) == (value, lower, low)


def test_a_mean_rank_is_only_of_models_with_every_task(built, board):
    overall = summarise_tasks([task.summaries["native"] for task in board.family("segmentation")])
    for model in overall:
        (row,) = rows(
            built, task="(mean rank)", family="segmentation", protocol="native", model=model.name, source="record"
        )
        expected = None if model.mean_rank.value is None else float(f"{model.mean_rank.value:.12g}")
        assert (float(row["value"]) if row["value"] else None) == expected
    lacking = {row["model"] for row in rows(built, task="(mean rank)", family="segmentation") if not row["value"]}
    assert lacking == {"VoCo-B", "Curia (random weights)"}


def test_random_weights_are_named_and_overlap_with_nothing(board):
    by_name = {model.name: model for model in board.models}
    assert by_name["Curia (random weights)"].random
    suprem = next(model for model in board.models if model.card.name == "suprem")
    assert suprem.overlap("lits17") == ("AbdomenAtlas 1.1 (2,100 CTs)", "AbdomenCT-1K", "CT-ORG", "LiTS17",
                                        "Medical Segmentation Decathlon")  # fmt: skip
    assert suprem.overlap("luna16") == ("LUNA16",)
    assert by_name["Curia"].overlap("lits17") == ()


@pytest.mark.parametrize(
    ("task", "data", "known"),
    [
        ("kits23", "C4KC-KiTS", True),
        ("kits23", "KiTS", True),
        ("luna25", "NLST", True),
        ("luna16", "LIDC-IDRI", True),
        ("msd_pancreas", "MSD Task06 Lung", False),
        ("msd_pancreas", "MSD Task07 Pancreas", True),
        ("amos22", "CT-RATE", False),
        ("totalsegmentator", "TotalSegmentator v2", True),
        ("somebody_elses", "AMOS22", False),
    ],
)
def test_overlap_goes_by_the_names_of_the_data(task, data, known):
    assert known_overlap(task, [data]) == ((data,) if known else ())


def test_label_efficiency_and_robustness_stay_out_of_the_table(board, built):
    assert board.set_aside == 2
    assert len(rows(built, task="lits17", source="record", protocol="native")) == 5


def test_flags_stand_beside_the_number_and_in_the_section(built):
    html = (built / "index.html").read_text(encoding="utf-8")
    assert html.count(results.FLAG.message) == 2
    (row,) = rows(built, model="Curia", task="luna16", source="record")
    assert row["flags"] == "chance-level"


def test_the_paper_is_shown_and_never_ranked(built, board):
    paper = rows(built, source="paper")
    assert len(paper) == len(board.references)
    assert not any(row["rank_low"] or row["tie_groups"] for row in paper)
    (row,) = rows(built, source="paper", model="TAP-B-3D", task="amos22", reason="Table 2, (z, 512, 512)")
    assert float(row["value"]) == 0.724
    html = (built / "index.html").read_text(encoding="utf-8")
    references = html[html.index("<tbody class=refs") :]
    references = references[: references.index("</tbody>")]
    assert "0.724" in references
    assert references.count("scope=row>") == 12  # six of Tables 2 and 4, six TAP-CT of Tables 3 and 5


def test_hostile_names_stay_text(tmp_path):
    for encoder, ability in (("curia", 0.0), ("suprem", 1.0)):
        card = {"display_name": HOSTILE, "reference": HOSTILE, "pretraining_data": (HOSTILE,)}
        one = results.record(encoder, "lits17", ability=ability, card=card, notice=HOSTILE, patients=8)
        results.write(tmp_path / "r", encoder, one)
    site.build(tmp_path / "r", tmp_path, resamples=200)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not page.open
    assert HOSTILE in "".join(page.text)
    assert '"x" $a_b$' in "".join(page.text)
    markdown = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert all(line.count(" | ") == 2 for line in markdown.splitlines() if line.startswith("| &lt;"))
    latex = (tmp_path / "leaderboard.tex").read_text(encoding="utf-8")
    assert r"\$a\_b\$" in latex


def test_two_models_of_one_name_are_told_apart_by_what_differs(tmp_path):
    for size in (224, 512):
        one = results.record("tap-b-3d", "lits17", card={"in_plane_size": size}, patients=8, ability=size / 500)
        results.write(tmp_path, f"tap-{size}", one)
    board = assemble(read_records(tmp_path), tmp_path, resamples=200)
    assert [model.name for model in board.models] == ["TAP-B-3D, in_plane_size 224", "TAP-B-3D, in_plane_size 512"]


def test_two_records_of_one_cell_are_refused_with_both_files(tmp_path):
    for cell in ("curia", "again"):
        results.write(tmp_path, cell, results.record("curia", "lits17", patients=8))
    with pytest.raises(RecordError, match=r"lits17/again/record\.json and lits17/curia/record\.json are both of Curia"):
        site.build(tmp_path, tmp_path / "site", resamples=200)


def test_what_does_not_compare_is_left_out_with_the_reason(tmp_path):
    for encoder in ("curia", "suprem"):
        results.write(tmp_path, encoder, results.record(encoder, "lits17", patients=8))
    other = results.record("voco-b", "lits17", patients=8, more_task={"split_sha256": "d" * 64})
    results.write(tmp_path, "voco-b", other)
    board = assemble(read_records(tmp_path), tmp_path, resamples=200)
    assert {model.name for model in board.models} == {"Curia", "SuPreM U-Net"}
    (out,) = board.left_out
    assert (out.path, out.model) == ("lits17/voco-b/record.json", "VoCo-B")
    assert "split_sha256" in out.reason


def test_damaged_and_unfinished_records_are_named_where_they_would_stand(tmp_path):
    for task in ("lits17", "kits23"):
        results.write(tmp_path, "curia", results.record("curia", task, patients=8))
        results.write(tmp_path, "suprem", results.record("suprem", task, patients=8))
    (tmp_path / "lits17" / "suprem" / "record.json").write_text("{", encoding="utf-8")
    results.write(tmp_path, "curia", results.record("curia", "kits23", seeds=2, planned=3, patients=8))
    site.build(tmp_path, tmp_path / "site", resamples=200)
    (damaged,) = rows(tmp_path / "site", model="SuPreM U-Net", task="lits17", protocol="native", source="record")
    assert "truncated" in damaged["reason"]
    (unfinished,) = rows(tmp_path / "site", model="Curia", task="kits23", protocol="native", source="record")
    assert "2 of 3 runs" in unfinished["reason"]
    for name in ("index.html", "leaderboard.csv", "leaderboard.json"):
        assert str(tmp_path) not in (tmp_path / "site" / name).read_text(encoding="utf-8")


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="there is no finished record"):
        site.build(tmp_path, tmp_path / "site")


def test_a_demonstration_says_so_beside_every_number(tmp_path):
    for encoder in ("curia", "suprem"):
        one = results.record(encoder, "quickstart", patients=1, ability=len(encoder))
        results.write(tmp_path, encoder, one)
    site.build(tmp_path, tmp_path / "site", resamples=200)
    html = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    # Two models on two grids: the number, the mean rank over all tasks, and that over the family.
    assert body.count(">demo</abbr>") == 2 * 2 * 3
    for suffix in ("csv", "json", "md", "tex"):
        assert "A demonstration on two patients" in (tmp_path / "site" / f"leaderboard.{suffix}").read_text("utf-8")
    assert "no interval" in body  # one patient allows none


def of_an_older_protocol(one):
    """A record as the release before schema 3 left it."""
    runs = [
        run.model_copy(update={"cases": {"test": [c.model_copy(update={"logits": None}) for c in run.cases["test"]]}})
        for run in one.runs
    ]
    return one.model_copy(update={"runs": runs, "older_schema": 2})


def test_numbers_of_an_older_protocol_are_marked_everywhere(tmp_path):
    results.write(tmp_path, "curia", results.record("curia", "luna16", patients=12, ability=1.0))
    results.write(tmp_path, "suprem", of_an_older_protocol(results.record("suprem", "luna16", patients=12)))
    for encoder in ("curia", "suprem"):
        results.write(tmp_path, encoder, results.record(encoder, "fdg_pet_ct", patients=12))
    results.write(tmp_path, "noise", of_an_older_protocol(
        results.record("suprem", "fdg_pet_ct", patients=12, more_task={"perturbation": "noise_20"})))  # fmt: skip
    site.build(tmp_path, tmp_path / "site", resamples=200)
    why = "ranks from float32 probabilities"
    older = {(row["task"], row["model"]) for row in rows(tmp_path / "site", older_protocol=why)}
    assert older == {("luna16", "SuPreM U-Net"), ("(mean rank)", "SuPreM U-Net")}
    assert len(rows(tmp_path / "site", older_protocol="", source="record")) == 3 + 2 * 2
    content = json.loads((tmp_path / "site" / "leaderboard.json").read_text(encoding="utf-8"))
    assert {(r["task"], r["model"]) for r in content["rows"] if r["older_protocol"] == why} == older
    body = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    body = body[body.index("<tbody>") : body.index("</tbody>")].split("scope=row")[1:]
    # The number, and the mean rank on two grids over all tasks and over those of classification.
    assert [row.count(">older</abbr>") for row in body if "#model-suprem" in row] == [5]
    assert [row.count(">older</abbr>") for row in body if "#model-curia" in row] == [0]
    for suffix, dagger in (("md", "†"), ("tex", r"\textdagger{}")):
        text = (tmp_path / "site" / f"leaderboard.{suffix}").read_text(encoding="utf-8")
        assert f"{dagger} Older protocol: {why}." in text
        assert [line.count(dagger) for line in text.splitlines() if "SuPreM" in line] == [2]
        assert [line.count(dagger) for line in text.splitlines() if "Curia" in line] == [0]
    with (tmp_path / "site" / "robustness.csv").open(encoding="utf-8", newline="") as file:
        assert {row["model"]: row["older_protocol"] for row in csv.DictReader(file)} == {"curia": "", "suprem": why}


def test_where_all_is_of_today_nothing_is_said_of_older_protocols(built):
    for path in built.iterdir():
        assert "lder protocol" not in path.read_text(encoding="utf-8")


def test_a_full_disk_leaves_the_old_site(folder, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    (tmp_path / "index.html").write_text("old", encoding="utf-8")
    monkeypatch.setattr(site.files, "write_atomically", full)
    with pytest.raises(RecordError, match="No space left"):
        site.build(folder, tmp_path, resamples=200)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "old"


def test_rank_shares_are_those_of_counting(board):
    models = [m for m in board.models if m.name in ("Curia", "SuPreM U-Net", "TAP-B-3D")]
    share = rank_shares(board, "segmentation", models)
    assert share.sum(axis=1) == pytest.approx([1, 1, 1])
    expected = np.zeros((3, 3))
    for task in board.family("segmentation"):
        summary = task.summaries["native"]
        names = [model.name for model in summary.models]
        for draw in summary.draws.T:
            scores = [draw[names.index(model.name)] for model in models]
            for row, score in enumerate(scores):
                expected[row, sum(other > score for other in scores)] += 1 / summary.draws.shape[1] / 2
    assert share == pytest.approx(expected)


def test_every_patient_is_a_dot(tmp_path):
    # Matplotlib's simplification takes dots (lines of no length) for nothing, in paths of 128 points and more.
    for encoder in ("curia", "suprem"):
        results.write(tmp_path, encoder, results.record(encoder, "lits17", patients=100, ability=len(encoder) - 5))
    board = assemble(read_records(tmp_path), tmp_path, resamples=200)
    svg = patient_strips(board.family("all")[0], board.models)
    clouds = [path for path in re.findall(r' d="([^"]*)"', svg) if path.startswith("m")]
    assert [path.count("z") for path in clouds] == [100, 100]
    inputs = task_inputs(board.family("all")[0], board.models)
    for cloud, values in zip(clouds, inputs.values.mean(axis=1), strict=True):
        x = np.cumsum([int(step) for step in re.findall(r"m(-?\d+)", cloud)])
        assert np.corrcoef(x, np.sort(values))[0, 1] > 0.999  # one case each: the patient's value is the case's


def test_reliability_bins_are_those_of_the_calibration_error(board):
    task = next(task for task in board.tasks if task.name == "luna16")
    inputs = task_inputs(task, board.models)
    predicted, observed, count = reliability_curve(inputs, 0)
    error = np.sum(count * np.abs(predicted - observed)) / count.sum()
    probabilities = torch.from_numpy(inputs.probabilities[0])
    targets = torch.from_numpy(np.broadcast_to(inputs.targets, inputs.values[0].shape).copy())
    expected = binary_calibration_error(probabilities.flatten(), targets.flatten(), n_bins=15, norm="l1")
    assert error == pytest.approx(float(expected), abs=1e-12)


def test_the_front_is_what_nobody_is_both_cheaper_and_better_than():
    rng = np.random.default_rng(0)
    cost, quality = rng.integers(1, 9, 40).astype(float), rng.random(40)
    expected = {
        i
        for i in range(40)
        if not any((cost[j] <= cost[i] and quality[j] > quality[i]) or
                   (cost[j] < cost[i] and quality[j] >= quality[i]) for j in range(40))
    }  # fmt: skip
    assert set(pareto(cost, quality)) == expected


def test_letters_go_on_after_z():
    assert [letter(i) for i in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "az", "ba"]


def test_tables_of_records_that_are_gone_do_not_stay(tmp_path):
    results.write_all(tmp_path / "results", MODELS[:2], TASKS[:1])
    (tmp_path / "site").mkdir()
    for name in ("label_efficiency.csv", "robustness.csv"):
        (tmp_path / "site" / name).write_text("of yesterday", encoding="utf-8")
    site.build(tmp_path / "results", tmp_path / "site", resamples=200)
    found = {path.name for path in (tmp_path / "site").iterdir()}
    assert found == {"index.html", *(f"leaderboard.{suffix}" for suffix in ("csv", "json", "md", "tex"))}
