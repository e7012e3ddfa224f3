"""From a results folder to a site: what is read, what is shown, what is refused."""

import csv
import inspect
import json
import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from tapct.errors import RecordError
from tapct.leaderboard import official, site, text
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.board import in_letters, letter
from tapct.leaderboard.overlap import known_overlap
from tapct.leaderboard.page import _environment, svg
from tapct.leaderboard.page.charts import pareto, patient_strips, rank_shares, reliability_curve, task_inputs
from tapct.probes import SegmentationProbe, Trainer
from tapct.probes.settings import ProbeSettings
from tapct.records import read_records
from tapct.statistics import summarise_tasks
from tapct.statistics.reported import reported
from tapct.tasks import TaskData
from tests.leaderboard import results

TASKS = ("lits17", "kits23", "luna16")
PREDICTED = ("probability", "target")
MODELS = ("tap-b-3d", "curia", "suprem", "voco-b")


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
    assert site.build([folder], out, resamples=300) == 0
    return out


@pytest.fixture(scope="module")
def board(folder):
    return assemble({folder: read_records(folder)}, resamples=300)


def table_of(site):
    """The rows of the main table."""
    html = (site / "index.html").read_text(encoding="utf-8")
    html = html[html.index('<table class="board">') :]
    return html[html.index("<tbody") : html.index("</table>")]


def rows(out, **wanted):
    with (out / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] == value for key, value in wanted.items())]


class Page(HTMLParser):
    """Elements in order, as (tag, attributes), and what is text."""

    VOID = frozenset({"meta", "link", "input", "path"})

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def test_the_same_records_give_the_same_bytes(folder, built, tmp_path):
    site.build([folder], tmp_path, resamples=300)
    names = sorted(path.name for path in built.iterdir())
    tables = [f"leaderboard.{suffix}" for suffix in ("csv", "json", "md", "tex")]
    assert names == ["index.html", *tables, "paper_and_this_run.csv"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


def test_the_page_is_valid_html_and_loads_nothing(built):
    html = (built / "index.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {a["href"] for tag, a in page.elements if tag == "a" and "href" in a}
    assert {link[1:] for link in linked if link.startswith("#")} <= set(ids)
    tables = {f"leaderboard.{suffix}" for suffix in ("csv", "json", "md", "tex")}
    assert {link for link in linked if not link.startswith("#")} == tables | {"paper_and_this_run.csv"}
    assert not [tag for tag, a in page.elements if "src" in a or tag in ("iframe", "object", "img")]
    assert "http" not in html.replace("http-equiv", "")
    assert "/tmp" not in html


def test_numbers_of_every_table_stand_under_their_own_heads(built):
    html = (built / "index.html").read_text(encoding="utf-8")
    tables = re.findall(r'<table class="matrix classes">.*?</table>', html, re.DOTALL)
    assert len(tables) == 2 * 3 + 4 + 1, (
        "Dice, NSD and HD95 of two tasks; four tables of labels; what is beaten by what"
    )
    for table in tables:
        assert len({len(re.findall(r"<t[hd]\b", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}) == 1


def test_the_table_has_a_row_per_model_and_an_experiment_per_task(built, board):
    body = table_of(built)
    assert body.count('scope="row"') == len(board.models) == 5
    assert body.count("<td") == 5 * (3 + 2)  # three tasks; mean ranks over all and over segmentation, not over one task
    assert body.count("no record: the model was not run on this task") == 2 * (5 * 3 - 12)  # title and spoken text
    html = (built / "index.html").read_text(encoding="utf-8")
    assert "Nobody has run AMOS22, TotalSegmentator, MSD Pancreas, LUNA25, RSNA2022, RSNA2023, FDG-PET-CT yet." in html


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
        assert tuple(row["tie_groups"].split()) == task.tie_groups(model.name, "native")
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
    overall = summarise_tasks([task.summaries["native"] for task in board.in_suite("segmentation")])
    for model in overall:
        (row,) = rows(
            built, task="(mean rank)", family="segmentation", protocol="native", model=model.name, source="record"
        )
        expected = None if model.mean_rank.value is None else float(f"{model.mean_rank.value:.12g}")
        assert (float(row["value"]) if row["value"] else None) == expected
    lacking = {row["model"] for row in rows(built, task="(mean rank)", family="segmentation") if not row["value"]}
    assert lacking == {"VoCo-B", "Curia (random weights)"}
    content = json.loads((built / "leaderboard.json").read_text(encoding="utf-8"))
    assert content["suite"] == {"tasks": ["lits17", "kits23", "luna16"], "declared": False}
    assert "Mean ranks are over the core" in (built / "index.html").read_text(encoding="utf-8")


def test_a_task_of_few_is_in_the_suite_only_where_it_is_named(tmp_path):
    results.write_all(tmp_path, MODELS, ("lits17", "kits23"), patients=8)
    results.write_all(tmp_path, MODELS[:1], ("luna16",), patients=8)
    found = {tmp_path: read_records(tmp_path)}
    board = assemble(found, resamples=50)
    assert [task.name for task in board.in_suite("all")] == ["lits17", "kits23"]
    assert all(model.mean_rank.value for model in board.overall["all", "native"].values())
    named = assemble(found, suite=["luna16", "lits17"], resamples=50)
    ranked = {name: model.mean_rank for name, model in named.overall["all", "native"].items()}
    assert {name for name, rank in ranked.items() if rank.value} == {"TAP-B-3D"}
    assert ranked["Curia"].reason == "no score in luna16, of 2 tasks of the suite"


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
    assert html.count(results.FLAG.message) == 1
    assert table_of(built).count('<abbr class="mark at-chance" title="chance-level: 0.50">chance</abbr>') == 1
    (row,) = rows(built, model="Curia", task="luna16", source="record")
    assert (row["flags"], row["marks"]) == ("chance-level", "few-patients few-positives at-chance")


def test_the_paper_is_shown_and_never_ranked(built, board):
    paper = rows(built, source="paper")
    assert len(paper) == len(board.references)
    assert not any(row["rank_low"] or row["tie_groups"] for row in paper)
    (row,) = rows(built, source="paper", model="TAP-B-3D", task="amos22", reason="Table 2, (z, 512, 512)")
    assert float(row["value"]) == 0.724


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    site.build([results.named(folder / "r", results.HOSTILE)], folder, resamples=50)
    return folder


def test_hostile_names_are_text_on_the_page(hostile):
    html = (hostile / "index.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("script"), tags.count("style"), tags.count("img")) == (1, 1, 0)
    assert {name for _, attributes in page.elements for name in attributes if name.startswith("on")} == set()
    assert all(text.for_page(name) in "".join(page.text) for name in results.HOSTILE)
    allowed = re.compile(r"--[az]:\d+%(;--z:\d+%)?|((fill|opacity|stroke|stroke-width|stroke-linecap|stroke-dasharray|"
                         r"stroke-dashoffset|font-size|text-anchor):[\w.,()#% -]+;?|"
                         r"font:[\d.]+px [\w', -]+;?)+")  # fmt: skip
    styles = {attributes["style"] for _, attributes in page.elements if "style" in attributes}
    assert [style for style in styles if not allowed.fullmatch(style)] == []


def test_hostile_names_are_no_formulas_in_a_spreadsheet(hostile):
    with (hostile / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        experiments = [experiment for row in csv.reader(file) for experiment in row]
    assert not [
        c for c in experiments if c.startswith(("=", "+", "@", "\t", "\r")) or (c.startswith("-") and not number(c))
    ]
    assert '\'=HYPERLINK("http://evil.example","x")' in experiments


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\u202eevil\u202c na\u200bme\u0007", "evil name"),
        ("\tTAB\r\n\u2028line", "TAB line"),
        ("a\u00a0b\u2003c", "a b c"),
        ("x" * 5000, "x" * 99 + "…"),
        ("Müller, 北京", "Müller, 北京"),
    ],
)
def test_what_cannot_be_seen_is_not_shown(hidden, shown):
    assert text.plain(hidden, 100) == shown
    assert "\u202e" not in Page(f"<p>{render_text(hidden)}</p>").text[0]


def render_text(hidden):
    return _environment().from_string("{{ hidden }}").render(hidden=hidden)


def test_a_name_with_controls_does_not_break_a_figure():
    made = svg.figure(2, 1)
    made.text(0, 0, "a\u0000b\u000b <i>\u202e")
    assert "ab &lt;i&gt;" in svg.render(made, "x", "\u202elabel <")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\u200b=1"])
def test_no_text_is_a_formula(name):
    assert text.for_spreadsheet(name).startswith("'")


def number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_hostile_names_are_text_in_markdown_and_latex(hostile):
    markdown = (hostile / "leaderboard.md").read_text(encoding="utf-8")
    tables = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5) for line in tables)
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\]\(", markdown), "a link"
    assert r"\[click\](http:\/\/evil.example) \| \*\*b\*\* \`c\`" in markdown
    latex = (hostile / "leaderboard.tex").read_text(encoding="utf-8")
    assert r"\textbackslash{}input\{/etc/passwd\} \$x\_1\textasciicircum{}2\$ 100\% \#1 \& \textasciitilde{}" in latex
    assert r"\input" not in latex
    assert not [line for line in latex.splitlines() if line.startswith("[")], "which LaTeX takes for the end of a row"


def test_two_models_of_one_name_are_told_apart_by_what_differs(tmp_path):
    for size in (224, 512):
        one = results.record("tap-b-3d", "lits17", card={"in_plane_size": size}, patients=8, ability=size / 500)
        results.write(tmp_path, f"tap-{size}", one)
    board = assemble({tmp_path: read_records(tmp_path)}, resamples=200)
    assert [model.name for model in board.models] == ["TAP-B-3D, in_plane_size 224", "TAP-B-3D, in_plane_size 512"]


def test_names_that_look_the_same_are_told_apart_and_a_model_has_one_name_however_it_is_spelt(tmp_path):
    for task in ("lits17", "kits23"):
        for name, shown in {"a": "Cafe\u0301", "b": "Caf\u00e9", "c": f"C of {task}"}.items():
            one = results.record("curia", task, patients=8, card={"name": name, "display_name": shown})
            results.write(tmp_path, name, one)
    board = assemble({tmp_path: read_records(tmp_path)}, resamples=200)
    found = {unicodedata.normalize("NFC", model.name): len(model.entries) for model in board.models}
    assert found == {"C of kits23": 2, "Café, name a": 2, "Café, name b": 2}


def test_two_records_of_one_experiment_are_refused_with_both_files(tmp_path):
    for ability, experiment in enumerate(("curia", "again")):
        results.write(tmp_path, experiment, results.record("curia", "lits17", patients=8, ability=ability))
    with pytest.raises(RecordError, match=r"lits17/again/record\.json and lits17/curia/record\.json are both of Curia"):
        site.build([tmp_path], tmp_path / "site", resamples=200)


def folder_of(place, *models, **settings):
    for model in models:
        results.write(place, model, results.record(model, "lits17", patients=8, **settings))
    return place


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"more_task": {"split_sha256": "f" * 64}}, "split_sha256 is ffffffffffff, in the shipped protocol a35e87fb"),
        ({"more_task": {"version": 2}}, "version is 2, in the shipped protocol 1"),
        ({"more_probe": {"steps": 5000}}, "max_steps is 5000, in the shipped protocol 1000"),
        ({"more_probe": {"optimizer": {"class": "SGD", "weight_decay": 0.01}}}, "optimizer is {'class': 'SGD'"),
        (
            {"more_probe": {"optimizer": {"class": "AdamW", "weight_decay": 0.01, "betas": [0.5, 0.5]}}},
            "optimizer betas is [0.5, 0.5], in the shipped protocol [0.9, 0.999]",
        ),
        (
            {"more_probe": {"lr_scheduler": [{"class": "CosineAnnealingLR", "eta_min": 0.1, "T_max": 1000}]}},
            "lr_scheduler is ['CosineAnnealingLR with eta_min 0.1'], in the shipped protocol",
        ),
        ({"more_task": {"options": {"hidden": 1}}}, "option hidden is 1"),
        ({"more_task": {"train_draw": 1}}, "train_draw is 1, in the shipped protocol 0"),
        ({"more_probe": {"learning_rates": [0.1]}}, "learning_rates is 1, in the shipped protocol 3"),
        ({"seeds": 1}, "runs is 1, in the shipped protocol 3"),
        ({"more_task": {"name": "of_a_third_party"}}, "no task of ours"),
        ({"notice": "a demonstration"}, "notice is a demonstration, in the shipped protocol None"),
    ],
)
def test_a_majority_of_third_parties_displaces_nobody(tmp_path, settings, why):
    folder_of(tmp_path, "tap-b-3d")
    folder_of(tmp_path / "x", "curia", "suprem", "voco-b", **settings)
    board = assemble({folder: read_records(folder) for folder in (tmp_path, tmp_path / "x")}, resamples=200)
    assert [model.name for model in board.models] == ["TAP-B-3D"]
    (own,) = board.own
    assert {model.name for model in own.board.models} == {"Curia", "SuPreM U-Net", "VoCo-B"}
    assert own.why.startswith(why)
    assert not board.left_out
    alone = assemble({tmp_path: read_records(tmp_path)}, resamples=200)
    assert board.overall == alone.overall


def test_what_a_task_is_ranked_by_is_not_for_its_records_to_say(tmp_path):
    other = results.record("curia", "luna16", more_task={"metric": "MicroAP"})
    assert (official.why_own(other) or "").startswith("metric is MicroAP, in the shipped protocol MicroAUROC")
    results.write(tmp_path, "a", results.record("curia", "lits17", more_task={"metric": None}))  # as older ones may
    results.write(tmp_path, "b", results.record("suprem", "lits17"))
    (of_task,) = assemble({tmp_path: read_records(tmp_path)}, resamples=200).tasks[:1]
    assert (of_task.metric, len(of_task.summaries["native"].models)) == ("dice_native", 2)


def test_of_comparable_records_those_with_all_cases_of_the_split_are_shown(tmp_path):
    folder_of(tmp_path, "curia", "suprem", "voco-b")
    results.write(tmp_path, "tap", results.record("tap-b-3d", "lits17", patients=23))  # as many as the split has
    board = assemble({tmp_path: read_records(tmp_path)}, resamples=200)
    assert [model.name for model in board.models] == ["TAP-B-3D"]
    assert [len(own.board.models) for own in board.own] == [3]


def test_what_is_apart_is_in_every_file_and_under_no_rank_of_others(tmp_path):
    folder_of(tmp_path, "curia", "suprem")
    folder_of(tmp_path / "x", "voco-b", more_probe={"steps": 5000})
    path = folder_of(tmp_path / "x", "merlin") / "lits17" / "merlin" / "record.json"
    path.write_text(results.record("voco-b", "luna16", more_task={"name": "1.2/of/a third_party"}).to_json(), "utf-8")
    assert site.build([tmp_path, tmp_path / "x"], tmp_path / "site", strict=True, resamples=200) == 0
    own = [row for row in rows(tmp_path / "site") if row["own_because"]]
    assert {(row["model"], row["own_because"]) for row in own} == {
        ("VoCo-B", "max_steps is 5000, in the shipped protocol 1000"),
        ("VoCo-B", "no task of ours"),
    }
    assert "VoCo-B" not in table_of(tmp_path / "site")
    for name in ("index.html", "leaderboard.md", "leaderboard.tex", "leaderboard.json"):
        assert "5000, in the shipped protocol 1000" in (tmp_path / "site" / name).read_text("utf-8").replace(r"\_", "_")


def test_features_in_int8_are_compared_and_marked(tmp_path):
    folder_of(tmp_path, "curia", "suprem")
    folder_of(tmp_path, "voco-b", more_probe={"feature_dtype": "int8"})
    assert site.build([tmp_path], tmp_path / "site", strict=True, resamples=200) == 0
    marked = {
        row["model"]: "int8-features" in row["marks"].split() for row in rows(tmp_path / "site", protocol="native")
    }
    assert marked == {"Curia": False, "SuPreM U-Net": False, "VoCo-B": True}
    assert not any(row["own_because"] for row in rows(tmp_path / "site"))
    assert '<abbr class="mark int8-features"' in table_of(tmp_path / "site")


def test_numbers_of_a_region_that_a_rule_found_are_marked_and_those_of_a_mask_are_not(tmp_path):
    region = {"name": "Region", "text": "the body", "source": "ours: a test"}
    sheet = {"rows": [region], "not_received": "its network is never called"}
    for encoder, pooling in {"radiomics": "mean", "body-size": "mask"}.items():
        made = results.record(encoder, "luna16", sheet=sheet, more_probe={"pooling": pooling})
        results.write(tmp_path, encoder, made)
    assert site.build([tmp_path], tmp_path / "site", resamples=200) == 0
    marked = {
        row["model"]: "region-by-rule" in row["marks"].split() for row in rows(tmp_path / "site", source="record")
    }
    assert marked == {"Radiomics (hand-made)": True, "Body size": False}


def test_several_folders_are_one_board_and_strict_minds_what_is_left_out(tmp_path, capsys):
    one, other = tmp_path / "a" / "results", tmp_path / "b" / "results"
    folder_of(one, "curia")
    folder_of(other, "suprem")
    assert site.build([one, other, one], tmp_path / "site", strict=True, resamples=200) == 0
    assert {row["model"] for row in rows(tmp_path / "site", source="record")} == {"Curia", "SuPreM U-Net"}
    folder_of(other, "curia")  # the same record again
    assert site.build([one, other], tmp_path / "site", resamples=200) == 0
    assert site.build([one, other], tmp_path / "site", strict=True, resamples=200) == 1
    copied = "b/results/lits17/curia/record.json: a copy of a/results/lits17/curia/record.json"
    assert copied in capsys.readouterr().err
    folder_of(other, "curia", ability=1)  # another result of the same model
    with pytest.raises(RecordError, match=r"a/results/lits17/curia/record\.json and b/results/lits17/curia/record"):
        site.build([one, other], tmp_path / "site", resamples=200)


def test_what_we_say_of_the_shipped_protocol_is_what_probes_and_trainer_do():
    def default(of, name):
        return inspect.signature(of.__init__).parameters[name].default

    assert official.UNSAID["window_overlap"] == default(ProbeSettings, "window_overlap")
    assert official.UNSAID["fit_windows"] == default(ProbeSettings, "fit_windows")
    assert official.UNSAID["scale_features"] == default(ProbeSettings, "scale_features")
    assert official.UNSAID["select"] == default(ProbeSettings, "select")
    assert official.UNSAID["learning_rates"] == default(ProbeSettings, "learning_rates")
    assert official.UNSAID["optimizer"]["class"] == default(ProbeSettings, "optimizer").__name__
    assert official.UNSAID["optimizer"]["weight_decay"] == default(torch.optim.AdamW, "weight_decay")
    for name, value in official.OF_ADAMW.items():
        assert value == pytest.approx(default(torch.optim.AdamW, name), rel=0)
    assert official.UNSAID["start_bias"] == default(SegmentationProbe, "start_bias")
    assert official.UNSAID["nsd_tolerance_mm"] == default(SegmentationProbe, "nsd_tolerance_mm")
    assert official.UNSAID["n_runs"] == default(Trainer, "n_runs")
    assert official.UNSAID["accumulate_grad_batches"] == default(Trainer, "accumulate_grad_batches")
    assert official.UNSAID["batch_size"] == default(TaskData, "batch_size")


def test_damaged_and_unfinished_records_are_named_where_they_would_stand(tmp_path):
    for task in ("lits17", "kits23"):
        results.write(tmp_path, "curia", results.record("curia", task, patients=8))
        results.write(tmp_path, "suprem", results.record("suprem", task, patients=8))
    (tmp_path / "lits17" / "suprem" / "record.json").write_text("{", encoding="utf-8")
    results.write(tmp_path, "curia", results.record("curia", "kits23", seeds=2, planned=3, patients=8))
    site.build([tmp_path], tmp_path / "site", resamples=200)
    (damaged,) = rows(tmp_path / "site", model="SuPreM U-Net", task="lits17", protocol="native", source="record")
    assert "truncated" in damaged["reason"]
    (unfinished,) = rows(tmp_path / "site", model="Curia", task="kits23", protocol="native", source="record")
    assert "2 of 3 runs" in unfinished["reason"]
    for name in ("index.html", "leaderboard.csv", "leaderboard.json"):
        assert str(tmp_path) not in (tmp_path / "site" / name).read_text(encoding="utf-8")


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="there is no finished record"):
        site.build([tmp_path], tmp_path / "site")


def test_a_demonstration_says_so_beside_every_number(tmp_path):
    for encoder in ("curia", "suprem"):
        one = results.record(encoder, "quickstart", patients=1, ability=len(encoder))
        results.write(tmp_path, encoder, one)
    site.build([tmp_path], tmp_path / "site", resamples=200)
    html = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    body = table_of(tmp_path / "site")
    assert body.count(">demo</abbr>") == 2  # of one task there is no mean rank
    for suffix in ("csv", "json", "md", "tex"):
        assert "A demonstration on two patients" in (tmp_path / "site" / f"leaderboard.{suffix}").read_text("utf-8")
    assert "a single patient: nothing to resample" in html
    assert "<small>0." not in body  # one patient allows no interval


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
    site.build([tmp_path], tmp_path / "site", resamples=200)
    why = "ranks from float32 probabilities"
    older = {(row["task"], row["model"]) for row in rows(tmp_path / "site", older_protocol=why)}
    assert older == {("luna16", "SuPreM U-Net"), ("(mean rank)", "SuPreM U-Net")}
    assert len(rows(tmp_path / "site", older_protocol="", source="record")) == 3 + 2 * 2
    content = json.loads((tmp_path / "site" / "leaderboard.json").read_text(encoding="utf-8"))
    assert {(r["task"], r["model"]) for r in content["rows"] if r["older_protocol"] == why} == older
    body = table_of(tmp_path / "site").split('scope="row"')[1:]
    # The number, and the mean rank over all tasks, which are all of one family.
    assert [row.count(">older</abbr>") for row in body if "#model-suprem" in row] == [2]
    assert [row.count(">older</abbr>") for row in body if "#model-curia" in row] == [0]
    for suffix in ("md", "tex"):
        table = (tmp_path / "site" / f"leaderboard.{suffix}").read_text(encoding="utf-8")
        assert "older: a number of an older protocol, not made as those next to it." in table
        assert [line.count("older") for line in table.splitlines() if "SuPreM" in line] == [2]
        assert not any("older" in line for line in table.splitlines() if "Curia" in line)
    with (tmp_path / "site" / "robustness.csv").open(encoding="utf-8", newline="") as file:
        assert {row["model"]: row["older_protocol"] for row in csv.DictReader(file)} == {"curia": "", "suprem": why}


def test_where_all_is_of_today_nothing_is_said_of_older_protocols(built):
    for path in built.iterdir():
        assert "older protocol" not in path.read_text(encoding="utf-8")


def test_a_full_disk_leaves_the_old_site(folder, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    (tmp_path / "index.html").write_text("old", encoding="utf-8")
    monkeypatch.setattr(site.files, "write_atomically", full)
    with pytest.raises(RecordError, match="No space left"):
        site.build([folder], tmp_path, resamples=200)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "old"


def test_rank_shares_are_those_of_counting(board):
    models = [m for m in board.models if m.name in ("Curia", "SuPreM U-Net", "TAP-B-3D")]
    share = rank_shares(board, "segmentation", models)
    assert share.sum(axis=1) == pytest.approx([1, 1, 1])
    expected = np.zeros((3, 3))
    for task in board.family("segmentation"):
        summary = task.summaries["native"]
        names = [model.name for model in summary.models]
        for draw in summary.bootstrap.T:
            scores = [draw[names.index(model.name)] for model in models]
            for row, score in enumerate(scores):
                expected[row, sum(other > score for other in scores)] += 1 / summary.bootstrap.shape[1] / 2
    assert share == pytest.approx(expected)


def test_every_patient_is_a_dot(tmp_path):
    # Matplotlib's simplification takes dots (lines of no length) for nothing, in paths of 128 points and more.
    for encoder in ("curia", "suprem"):
        results.write(tmp_path, encoder, results.record(encoder, "lits17", patients=100, ability=len(encoder) - 5))
    board = assemble({tmp_path: read_records(tmp_path)}, resamples=200)
    svg = patient_strips(board.family("all")[0], board.models)
    clouds = [path for path in re.findall(r' d="([^"]*)"', svg) if path.startswith("m")]
    assert [path.count("z") for path in clouds] == [100, 100]
    inputs = task_inputs(board.family("all")[0], board.models)
    for cloud, values in zip(clouds, inputs.values.mean(axis=1), strict=True):
        x = np.cumsum([int(step) for step in re.findall(r"m(-?\d+)", cloud)])
        assert np.corrcoef(x, np.sort(values))[0, 1] > 0.999  # one case each: the patient's value is the case's


def test_reliability_bins_are_those_of_the_calibration_error(board):
    record = board.models[0].entries["luna16"].record
    runs = reported(record, "test").runs
    predicted, observed, count = reliability_curve(runs)
    error = np.sum(count * np.abs(predicted - observed)) / count.sum()
    probabilities, targets = (torch.from_numpy(np.concatenate([run[of] for run in runs])) for of in PREDICTED)
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


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([0], "a"),
        ([0, 1], "ab"),
        ([0, 1, 2, 3], "a–d"),
        ([0, 2, 3, 4, 6], "ac–eg"),
        ([24, 26, 27, 28], "y aa–ac"),
    ],
)
def test_letters_in_a_row_are_shown_by_their_ends(numbers, text):
    assert in_letters(numbers) == text


def test_letters_go_on_after_z():
    assert [letter(i) for i in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "az", "ba"]


def test_tables_of_records_that_are_gone_do_not_stay(tmp_path):
    results.write_all(tmp_path / "results", ("merlin", "voxelfm"), TASKS[:1])
    (tmp_path / "site").mkdir()
    for name in ("label_efficiency.csv", "robustness.csv", "paper_and_this_run.csv"):
        (tmp_path / "site" / name).write_text("of yesterday", encoding="utf-8")
    site.build([tmp_path / "results"], tmp_path / "site", resamples=200)
    found = {path.name for path in (tmp_path / "site").iterdir()}
    assert found == {"index.html", *(f"leaderboard.{suffix}" for suffix in ("csv", "json", "md", "tex"))}


def test_models_that_are_not_for_commercial_use_are_marked_everywhere(built, board):
    restricted = {model.name for model in board.models if model.non_commercial}
    assert restricted == {"TAP-B-3D", "Curia", "SuPreM U-Net"}  # not Curia's random weights, and not VoCo-B
    html = (built / "index.html").read_text(encoding="utf-8")
    assert html.count('<abbr class="nc"') == 1 + 2 * len(restricted)  # the legend, the table, the models' sections
    assert {row["model"] for row in rows(built, source="record") if row["non_commercial"] == "True"} == restricted
    (voco,) = rows(built, source="record", model="VoCo-B", task="luna16")
    assert (voco["weights_licence"], voco["non_commercial"]) == ("Apache-2.0", "False")
    (random,) = rows(built, model="Curia (random weights)", task="lits17", protocol="native")
    assert (random["weights_licence"], random["non_commercial"]) == ("", "")
    for suffix in ("md", "tex"):
        text = (built / f"leaderboard.{suffix}").read_text(encoding="utf-8")
        assert "Curia (NC)" in text
        assert "VoCo-B (NC)" not in text
        assert "(NC): the stated licence" in text
