"""`tapct compare`: what encoders have in common by their stored features of a task."""

import csv
import json

import numpy as np
import pytest
import torch

from tapct.encoders import load_encoder
from tapct.errors import FeatureError, RecordError
from tapct.features import FeatureBank, TensorStore
from tapct.leaderboard import site
from tapct.metrics.similarity import linear_cka, neighbour_overlap
from tapct.similarity import commands
from tapct.similarity.found import FILE, Similarity, read, write
from tapct.similarity.stored import compare
from tapct.tasks import TaskData
from tests.data.abdomen import write_slabs
from tests.leaderboard import results
from tests.small import CubicMillimetres, Rescaled, Small3D, known_by_name
from tests.test_configs import CONFIGS

CASES = {f"c{n}": ("train", "val", "test")[n % 3] for n in range(12)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve slabs of the quickstart, and the features of some encoders of them."""
    root = write_slabs(tmp_path_factory.mktemp("data"), CASES, step=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPCT_CACHE", str(root / "cache"))
        for one in banks(root, mode="use"):
            one.fill(slabs(root).parts)
    return root


def slabs(root) -> TaskData:
    return TaskData("quickstart", str(root), split_file=str(root / "split.csv"))


def banks(root, mode: str = "only-cached", dtype: str = "bf16") -> list[FeatureBank]:
    encoders = (
        Small3D("random"),
        Rescaled(factor=0.03, shift=4.0, permuted=True),
        Rescaled(factor=5.0, by_channel=True),
        CubicMillimetres("random"),
    )
    return [FeatureBank(one, TensorStore(root / "features"), mode=mode, dtype=dtype) for one in encoders]


def test_a_model_under_another_name_is_named_and_others_are_not(root):
    small, renamed, *_ = (bank.encoder for bank in banks(root))
    found = compare(banks(root), slabs(root), pooling="mean", neighbours=3)
    labels = [one.label for one in found.encoders]
    assert (found.cases, found.patients, len(found.pairs)) == (12, 12, 6)
    assert [(pair.first, pair.second) for pair in found.same] == [(labels[0], labels[1])]
    assert found.same[0].cka == pytest.approx(1, abs=1e-5)
    (said,) = [line for line in commands.in_words(found) if "another name" in line]
    assert said.startswith(
        f"{renamed.full_name} (random weights) is {small.full_name} (random weights) under another name"
    )
    assert found.pair(labels[0], labels[2]).cka < 0.999, "each channel by a factor of its own is another"
    own = compare(banks(root), slabs(root), neighbours=3)
    assert [one.pooling for one in own.encoders] == ["cls", "cls", "cls", "mean"]


def test_an_encoder_that_says_the_same_of_every_case_has_nothing_in_common_with_others(root, tmp_path):
    two = [
        FeatureBank(one, TensorStore(tmp_path)) for one in (Rescaled(factor=0.0, shift=1.0), CubicMillimetres("random"))
    ]
    for bank in two:
        bank.fill(slabs(root).parts)
    (pair,) = compare(two, slabs(root), neighbours=3).pairs
    assert (pair.cka, pair.cka_biased, pair.neighbours) == (None, None, None)


def test_numbers_are_those_of_the_pooled_features(root):
    two = banks(root)[0::3]
    found = compare(two, slabs(root), pooling="mean", neighbours=2)
    vectors = []
    for bank in two:
        bank.fill(slabs(root).parts)
        rows = []
        for part in slabs(root).parts:
            for index in range(len(part)):
                features = bank.case(part, index).features
                patches = features.map.float()
                where = features.feature_grid.coordinates_in(features.encoder_grid)
                inside = [
                    torch.from_numpy(at <= size - 0.5)
                    for at, size in zip(where, features.encoder_grid.shape, strict=True)
                ]
                z, y, x = inside
                rows.append(patches[:, z][:, :, y][:, :, :, x].double().mean((1, 2, 3)).numpy())
        vectors.append(np.stack(rows))
    (pair,) = found.pairs
    alike = linear_cka(*vectors)
    assert (pair.cka, pair.cka_biased) == pytest.approx(alike, rel=1e-6)
    assert pair.neighbours == pytest.approx(neighbour_overlap(*vectors, np.arange(12), 2), abs=1e-6)


def test_what_cannot_be_compared_is_said(root, tmp_path):
    with pytest.raises(FeatureError, match="two encoders at least"):
        compare(banks(root)[:1], slabs(root))
    with pytest.raises(FeatureError, match="is named twice"):
        compare([*banks(root)[:1], *banks(root)[:1]], slabs(root))
    with pytest.raises(FeatureError, match=r"--neighbours must be from 1 to 11, .* not 12"):
        compare(banks(root)[:2], slabs(root), neighbours=12)
    with pytest.raises(FeatureError, match=r"are not in .* 'only-cached'"):
        compare(banks(root, dtype="fp16")[:2], slabs(root), neighbours=3)
    few = write_slabs(tmp_path / "few", {"c0": "train", "c1": "test"})
    with pytest.raises(
        FeatureError, match="quickstart has 2 patients here: of fewer than 10, any two encoders look alike"
    ):
        compare(banks(root)[:2], slabs(few))


def test_what_was_found_is_kept_beside_the_records_and_read_strictly(root, tmp_path):
    found = compare(banks(root), slabs(root), neighbours=3)
    path = write(found, tmp_path)
    assert path == tmp_path / "quickstart" / FILE
    assert read(path) == found
    content = json.loads(path.read_text(encoding="utf-8"))
    for change in ({"pairs": content["pairs"][1:]}, {"cases": 0}, {"more": 1}):
        path.write_text(json.dumps(content | change), encoding="utf-8")
        with pytest.raises(RecordError, match="cannot be read"):
            read(path)
    path.write_text(json.dumps(content | {"task": "amos22"}), encoding="utf-8")
    with pytest.raises(RecordError, match="is of the task amos22"):
        read(path)
    assert Similarity.model_validate(content) == found


def test_the_command_prints_it_and_leaves_it_for_the_page(root, tmp_path, monkeypatch, capsys):
    shipped = (CONFIGS / "quickstart.yaml").read_text(encoding="utf-8")
    line = "    task: quickstart\n"
    assert shipped.count(line) == 1
    config = tmp_path / "quickstart.yaml"
    config.write_text(shipped.replace(line, f"{line}    split_file: {root / 'split.csv'}\n"), encoding="utf-8")
    monkeypatch.setenv("TAPCT_CACHE", str(root / "cache"))
    asked = {"task": "quickstart", "root": str(root), "config": str(config), "folder": str(root / "features")}
    with known_by_name("small-3d", "tests.small:Small3D"), known_by_name("rescaled", "tests.small:Rescaled"):
        names = ["small-3d@random", "rescaled@random+factor=0.03+permuted=true+shift=4"]
        settings = {"pooling": "mean", "neighbours": 2, "accelerator": "cpu", "results": str(tmp_path / "results")}
        assert commands.compare(names, **asked, **settings) == 0
        with pytest.raises(FeatureError, match="'only-cached'"):
            commands.compare(["small-3d@random", "rescaled@random+factor=7"], **asked, accelerator="cpu")
    said = capsys.readouterr().out
    assert "Rescaled, factor 0.03, permuted true, shift 4 (random weights) is Small 3D (random weights) under" in said
    assert "12 cases of 12 patients" in said
    assert "linear CKA, debiased" in said
    assert read(tmp_path / "results" / "quickstart" / FILE).neighbours == 2
    for bank in (FeatureBank(load_encoder(name), TensorStore(root / "features")) for name in ("intensity", "chance")):
        bank.fill(slabs(root).parts)
    for weights in (None, "null", "intensity=null"):  # what has no parameters, and names that are of published weights
        assert commands.compare(["intensity", "chance"], **asked, weights=weights, neighbours=2, accelerator="cpu") == 0
        assert "none" in capsys.readouterr().out, "chance says the same of every case"
    with known_by_name("small-3d", "tests.small:Small3D"):  # random weights of one next to the published of another
        assert commands.compare(["intensity", "small-3d@random"], **asked, neighbours=2, accelerator="cpu") == 0


def test_the_page_draws_it_names_what_is_the_same_and_leaves_out_what_it_cannot_read(tmp_path, capsys):
    for encoder in ("curia", "suprem"):
        results.write(tmp_path / "r", encoder, results.record(encoder, "lits17", patients=12))
    titles = {"curia": "Curia", "suprem": "SuPreM <b>", "new": "New name"}
    encoders = [{"label": k, "title": v, "pooling": "mean", "features": 8} for k, v in titles.items()]
    numbers = {("curia", "suprem"): (0.42, 0.31), ("curia", "new"): (0.99999, 1.0), ("suprem", "new"): (None, None)}
    pairs = [
        {"first": a, "second": b, "cka": cka, "cka_biased": cka, "neighbours": overlap}
        for (a, b), (cka, overlap) in numbers.items()
    ]
    found = {"task": "lits17", "cases": 40, "patients": 30, "neighbours": 10, "encoders": encoders, "pairs": pairs}
    write(Similarity.model_validate(found), tmp_path / "r")
    (tmp_path / "r" / "amos22").mkdir()
    (tmp_path / "r" / "amos22" / FILE).write_text("{}", encoding="utf-8")
    assert site.build([tmp_path / "r"], tmp_path / "site", resamples=100) == 0
    html = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "What the encoders have in common" in html
    assert "New name is Curia under another name" in html
    assert "SuPreM &lt;b&gt;" in html
    assert "SuPreM <b>" not in html
    for number in (">0.42<", ">0.31<", ">1.00<"):
        assert number in html
    with (tmp_path / "site" / "similarity.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cka"], row["neighbours_in_common"], row["same_model"]) for row in rows] == [
        ("0.42", "0.31", "False"),
        ("0.99999", "1.0", "True"),
        ("", "", "False"),
    ]
    assert "r/amos22/similarity.json cannot be read" in capsys.readouterr().err
    (tmp_path / "r" / "lits17" / FILE).unlink()
    assert site.build([tmp_path / "r"], tmp_path / "site", resamples=100) == 0
    assert not (tmp_path / "site" / "similarity.csv").exists()
