"""Predictions that were made elsewhere: scored as by hand, refused by name, and next to the ranked models."""

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tapct.cli import main
from tapct.errors import TapctError
from tapct.imported.importing import import_predictions
from tapct.leaderboard import site
from tapct.leaderboard.official import why_own
from tapct.records import read_record
from tapct.tasks.registry import task_datasets, task_root
from tests.data import ct_rate
from tests.data.abdomen import block, save, write_slabs
from tests.leaderboard.results import record, write, write_all

SPLITS = {"one": "train", "two": "test", "three": "test"}
CASES = ["two", "three"]
IDS = {1: 1, 5: 2, 6: 3, 20: 4}  # of TotalSegmentator, as the quickstart has them: spleen, liver, stomach, colon


def truth(case: str) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a case in (x, y, z), but for those of small structures, and the affine."""
    slab = block(40 + 10 * list(SPLITS).index(case), slices=8)
    return slab.labels(IDS), slab.affine


def predicted(case: str) -> np.ndarray:
    """The labels with half of each class in x taken away, and some liver where there is none."""
    labels = truth(case)[0].copy()
    labels[::2] = 0
    labels[1, 1, 1] = 2
    return labels


@pytest.fixture
def slabs(tmp_path: Path) -> Path:
    for case in CASES:
        save(tmp_path / "predictions" / f"{case}.nii.gz", predicted(case), truth(case)[1], axes="LPS")
    return write_slabs(tmp_path, SPLITS)


def scored(root: Path, *predictions: Path, name: str = "nnU-Net", **settings) -> Path:
    given = predictions or (root / "predictions",)
    split = {"split_file": str(root / "split.csv")}
    return import_predictions("quickstart", given, name, root / "results", data_root=str(root), **split, **settings)


def test_label_maps_are_scored_on_the_grid_of_the_scan(slabs):
    found = read_record(scored(slabs, about="a test"))
    for case in found.runs[0].cases["test"]:
        reference = task_datasets("quickstart", slabs / "quickstart", str(slabs / "split.csv"), None)["test"]
        target = reference.read(case.case)[1].numpy()
        given = predicted(case.case)[::-1, ::-1].transpose(2, 1, 0)
        for place, (name, dice) in enumerate(case.dice["native"].items(), start=1):
            one, other = given == place, target == place
            both = one.sum() + other.sum()
            assert dice == (pytest.approx(2 * (one & other).sum() / both) if both else None), (case.case, name)
    assert list(found.runs[0].cases["test"][0].dice) == ["native"]
    assert found.imported.about == "a test"


def test_numbers_of_a_file_of_labels_are_renamed(slabs):
    classes = task_datasets("quickstart", slabs / "quickstart", str(slabs / "split.csv"), None)["test"].classes
    places = {name: [0] if place == 0 else [100 + place, 200 + place] for place, name in enumerate(classes)}
    (slabs / "dataset.json").write_text(json.dumps({"labels": places, "file_ending": ".nii.gz"}), encoding="utf-8")
    for case in CASES:
        labels = predicted(case)
        labels = np.where(labels > 0, labels.astype(np.int16) + np.where(labels % 2, 100, 200), 0).astype(np.uint8)
        save(slabs / "other" / f"{case}.nii.gz", labels, truth(case)[1])
    renamed = read_record(scored(slabs, slabs / "other", name="other", labels=slabs / "dataset.json"))
    plain = read_record(scored(slabs))
    assert renamed.runs[0].cases["test"] == plain.runs[0].cases["test"]
    assert renamed.runs[0].probe_sha256 == plain.runs[0].probe_sha256


def _moved(root: Path) -> None:
    affine = truth("two")[1].copy()
    affine[2, 3] += 3
    save(root / "predictions" / "two.nii.gz", predicted("two"), affine)


def _cropped(root: Path) -> None:
    save(root / "predictions" / "two.nii.gz", predicted("two")[:-1], truth("two")[1])


def _unknown(root: Path) -> None:
    save(root / "predictions" / "two.nii.gz", predicted("two") + np.uint8(40), truth("two")[1])


def _twice(root: Path) -> None:
    save(root / "predictions" / "two.nii", predicted("two"), truth("two")[1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_moved, "two.nii.gz does not lie on the grid"),
        (_cropped, "two.nii.gz does not lie on the grid"),
        (_unknown, "two.nii.gz holds the labels 40"),
        (_twice, "two.nii are of one case|two.nii.gz and two.nii"),
        (lambda root: (root / "predictions" / "three.nii.gz").unlink(), "lacks the predictions of 1 of 2 .*three"),
    ],
)
def test_label_maps_that_cannot_be_scored_are_refused_by_name(slabs, spoil, message):
    spoil(slabs)
    with pytest.raises(TapctError, match=message):
        scored(slabs)
    assert not (slabs / "results").exists()


def test_a_name_is_taken_once_and_stays_in_its_folder(slabs):
    scored(slabs)
    with pytest.raises(TapctError, match="is there already"):
        scored(slabs)
    for name in ("../other", "a/b"):
        with pytest.raises(TapctError, match="cannot be part of a folder"):
            scored(slabs, name=name)


def test_the_command_says_what_it_wrote(slabs, monkeypatch, capsys):
    said = [str(slabs / "predictions"), "-t", "quickstart", "--name", "nnU-Net", "--root", str(slabs)]
    said += ["--results", str(slabs / "results"), "--split-file", str(slabs / "split.csv")]
    monkeypatch.setattr("sys.argv", ["tapct", "import-predictions", *said])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "imported-nnU-Net/record.json: a reference" in capsys.readouterr().out.replace("\n", "")


# -- Probabilities ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("findings")
    ct_rate.write(root / "ct_rate")
    return root


def reported(root: Path):
    return task_datasets("ct_rate", task_root("ct_rate", str(root)), None, None)["test"]


def table(path: Path, part, change=lambda rows: rows) -> Path:
    rng = np.random.default_rng(0)
    rows = [["case", *part.classes]] + [[case, *rng.random(len(part.classes)).round(2)] for case in part.cases]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(change(rows))
    return path


def test_probabilities_are_ranked_as_they_are(findings, tmp_path):
    part = reported(findings)

    def certain(rows):
        rows[1][1], rows[2][1] = 0, 1
        return rows

    path = table(tmp_path / "given.csv", part, certain)
    one = import_predictions("ct_rate", [path], "RadBERT", tmp_path / "results", data_root=str(findings))
    found = read_record(one)
    cases = found.runs[0].cases["test"]
    pairs = [(c.logits[name], c.probabilities[name], t) for c in cases for name, t in c.target.items() if t is not None]
    with path.open(encoding="utf-8") as file:
        given = {row["case"]: row for row in csv.DictReader(file)}
    wanted = [float(given[c.case][name]) for c in cases for name, t in c.target.items() if t is not None]
    logits, probabilities, targets = map(list, zip(*pairs, strict=True))
    assert probabilities == pytest.approx(wanted, abs=1e-12)
    assert found.runs[0].metrics["test"]["MicroAUROC"] == pytest.approx(roc_auc_score(targets, wanted))
    assert np.argsort(logits, kind="stable").tolist() == np.argsort(wanted, kind="stable").tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [rows[0], [rows[1][0], 1.2, *rows[1][2:]], *rows[2:]], "1.2 is not a probability"),
        (lambda rows: [rows[0], [rows[1][0], "nan", *rows[1][2:]], *rows[2:]], "nan is not a probability"),
        (lambda rows: [rows[0], [rows[1][0], "", *rows[1][2:]], *rows[2:]], "'' is not a number"),
        (lambda rows: rows[:-1], "lacks 1 of"),
        (lambda rows: [*rows, rows[1]], "is there twice"),
        (lambda rows: [*rows, ["valid_999_a", *rows[1][1:]]], "in no part of the split, such as valid_999_a"),
        (lambda rows: [row[:-1] for row in rows], "must have the columns"),
        (lambda rows: [[*rows[0], "more"], *([*row, 0.5] for row in rows[1:])], "what differs: more"),
        (lambda rows: [rows[0], rows[1][:-1], *rows[2:]], "values for"),
    ],
)
def test_tables_that_cannot_be_scored_are_refused_by_name(findings, tmp_path, change, message):
    path = table(tmp_path / "given.csv", reported(findings), change)
    with pytest.raises(TapctError, match=re.escape(message)):
        import_predictions("ct_rate", [path], "RadBERT", tmp_path / "results", data_root=str(findings))


# -- The page --------------------------------------------------------------------------------------------


def imported_from(one, name: str, runs: int):
    """A record as the import writes it, with the numbers of a simulated one."""
    kept = [run.model_copy(update={"selection": None}) for run in one.runs[:runs]]
    probe = {"classes": one.task.classes, "nsd_tolerance_mm": one.probe.nsd_tolerance_mm}
    content = one.content() | {"runs": [run.content() for run in kept], "runs_planned": runs, "probe": probe}
    content["encoder"] |= {"card": content["encoder"]["card"] | {"name": name, "display_name": name}}
    return type(one).model_validate(content | {"imported": {"predictions": "label maps", "trained_on": "fold 0"}})


def number(run) -> float:
    """The metric that a run is ranked by, of its cases."""
    cases = run.cases["test"]
    if cases[0].dice is None:
        pairs = [(case.target[name], logit) for case in cases for name, logit in case.logits.items()]
        return roc_auc_score(*zip(*pairs, strict=True))
    return np.mean([np.mean([one for one in case.dice["native"].values() if one is not None]) for case in cases])


@pytest.mark.parametrize("task", ["lits17", "luna16"])
def test_imported_predictions_stand_beside_the_ranked_models_and_change_no_rank(tmp_path, task):
    folder = write_all(tmp_path / "results", encoders=("curia", "ct-fm"), tasks=(task,), patients=20)
    site.build([folder], tmp_path / "without", resamples=200)
    reference = imported_from(record("suprem", task, ability=0.5, patients=20), "nnU-Net", runs=1)
    write(folder, "imported-nnU-Net", reference)
    assert site.build([folder], tmp_path / "with", resamples=200, strict=True) == 0

    def read(where: str, name: str) -> str:
        return (tmp_path / where / name).read_text(encoding="utf-8")

    assert read("without", "leaderboard.csv") == read("with", "leaderboard.csv")
    assert not (tmp_path / "without" / "imported.csv").exists()
    rows = list(csv.DictReader(read("with", "imported.csv").splitlines()))
    own = number(reference.runs[0])
    titles = {"Curia": "curia", "CT-FM": "ct-fm"}
    assert {row["model"] for row in rows} == set(titles)
    for row in rows:
        ranked = read_record(folder / task / titles[row["model"]] / "record.json")
        mean = np.mean([number(run) for run in ranked.runs])
        assert float(row["value"]) == pytest.approx(own, abs=1e-9)
        assert float(row["model_minus_reference"]) == pytest.approx(mean - own, abs=1e-9)
        assert float(row["model_minus_reference_low"]) < float(row["model_minus_reference"])
    page = read("with", "index.html")
    assert 'id="imported"' in page
    assert "nnU-Net" in page
    assert "fold 0" in page


def test_imported_predictions_are_no_submission(tmp_path):
    assert "imported" in why_own(imported_from(record("suprem", "lits17", patients=12), "nnU-Net", runs=3))


def test_a_record_of_our_own_has_dice_under_both_protocols():
    content = record("suprem", "lits17", patients=12).content()
    for case in content["runs"][0]["cases"]["test"]:
        case["dice"].pop("paper")
    with pytest.raises(ValueError, match="both protocols"):
        type(record("suprem", "lits17", patients=12)).model_validate(content)


# -- The recipe ------------------------------------------------------------------------------------------


def test_what_the_recipe_writes_for_nnu_net_comes_back_as_it_was(tmp_path, monkeypatch):
    write_slabs(tmp_path, SPLITS)
    text = (Path(__file__).parents[2] / "docs" / "trained-references.md").read_text(encoding="utf-8")
    script = text.partition("```python\n")[2].partition("```")[0]
    names = {"TASK": "quickstart", "DATA_ROOT": tmp_path, "nnUNet_raw": tmp_path / "raw"}
    names["SPLIT_FILE"] = tmp_path / "split.csv"
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    exec(compile(script, "recipe", "exec"), {})
    folder = tmp_path / "raw" / "Dataset501_quickstart"
    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == ["three_0000.nii.gz", "two_0000.nii.gz"]
    assert [path.name for path in (folder / "labelsTr").iterdir()] == ["one.nii.gz"]
    # A label map that lies on such a scan is one of the case.
    for case in CASES:
        scan = nib.load(folder / "imagesTs" / f"{case}_0000.nii.gz")
        part = task_datasets("quickstart", tmp_path / "quickstart", str(tmp_path / "split.csv"), None)["test"]
        labels = part.read(case)[1].numpy().astype(np.uint8).transpose(2, 1, 0)
        (tmp_path / "predictions").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(labels, scan.affine), tmp_path / "predictions" / f"{case}.nii.gz")
    found = read_record(scored(tmp_path, labels=folder / "dataset.json"))
    assert found.runs[0].metrics["test"]["dice_native"] == 1
