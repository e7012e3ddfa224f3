"""docs/add-a-task.md, followed: a package of somebody's own, installed next to ours."""

import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from tapct.cli import main
from tapct.leaderboard.overlap import known_overlap
from tapct.sweep.asked import Sweep
from tapct.sweep.experiment import SweepError
from tapct.tasks import TaskData, core_tasks, list_tasks, task_class
from tapct.tasks.findings import findings
from tests.data.abdomen import Block, block, save
from tests.tasks.end_to_end import run
from tests.third_party import blocks, installed, lay_out

REPOSITORY = Path(__file__).parents[1]
GUIDE = (REPOSITORY / "docs" / "add-a-task.md").read_text(encoding="utf-8")
FIRST = {"p1_2019": 90, "p1_2020": 92, "p2_2019": 94, "p3_2021": 96}
"""Case of the guide's split to the first slice of its slab; all show the spleen."""


def experiments(tasks: str) -> dict[str, str] | str:
    try:
        return {
            experiment.task: str(experiment.config)
            for experiment in Sweep(encoders="chance", tasks=tasks).experiments()
        }
    except SweepError as error:
        return str(error)


def said(*words: str) -> str:
    """What `tapct` prints, run in this process."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr(sys, "argv", ["tapct", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return out.getvalue().strip()


@pytest.fixture(scope="module")
def slabs() -> dict[str, Block]:
    return {case: block(first) for case, first in FIRST.items()}


@pytest.fixture(scope="module")
def report(tmp_path_factory, slabs) -> dict:
    """What the two tasks of the guide are where only the guide's steps were done."""
    checkout = tmp_path_factory.mktemp("checkout")
    data = checkout / "data"
    modules = dict(zip(("spleen", "spleen_injury"), blocks(GUIDE, "python"), strict=True))
    package = lay_out(checkout, blocks(GUIDE, "toml")[0], modules)
    for name in modules:
        (package / "splits" / f"{name}.csv").write_text(blocks(GUIDE, "csv")[0])
    make_config = re.sub(
        r"tapct (config \w+)", lambda asked: f"echo '{said(*asked[1].split())}'", blocks(GUIDE, "sh")[0]
    )
    subprocess.run(["sh", "-euc", make_config], cwd=checkout, check=True, timeout=60)
    for case, slab in slabs.items():
        for task in ("spleen", "spleen_injury"):
            save(data / task / "scans" / f"{case}.nii.gz", slab.hu, slab.affine)
        save(data / "spleen" / "masks" / f"{case}.nii.gz", slab.labels({1: 1}), slab.affine)
    rows = [f"{case},{int(case.startswith('p2'))}" for case in slabs]
    (data / "spleen_injury" / "labels.csv").write_text("\n".join(["case,injured", *rows, ""]))
    with installed(checkout):
        found = told(data, package / "configs" / "spleen.yaml", checkout)
    found["config"] = (package / "configs" / "spleen.yaml").read_text(encoding="utf-8")
    assert found["spleen"]["file"] == str(package / "spleen.py")
    return found


def told(data: Path, config: Path, out: Path) -> dict:
    """Returns what the tasks are, as the package is installed."""
    report = {"tasks": list_tasks(), "imported": "our_tasks" in sys.modules}
    sources = ["Our archive, 2024", "AbdomenAtlas 1.1", "Spleens", "LIDC-IDRI"]
    report["overlap"] = known_overlap("spleen", sources)
    for task in ("spleen", "spleen_injury"):
        cls = task_class(task)
        parts = {split: cls(data / task, split) for split in ("train", "val", "test")}
        report[task] = {
            "file": sys.modules[cls.__module__].__file__,
            "counts": cls.split_counts(),
            "patients": {split: [part.patient(case) for case in part.cases] for split, part in parts.items()},
            "shape": list(parts["test"][0][0].shape),
            "targets": [int(part[i][1].sum()) for part in parts.values() for i in range(len(part))],
            "doctor": [finding[:2] for finding in findings(task, str(data))],
        }
    TaskData("spleen_injury", str(data)).setup("fit")
    (case,) = run(config, data, None, out, "segmentation").runs[0].cases["test"]
    report["cells"] = {asked: experiments(asked) for asked in ("spleen", "spleen_injury", "all")}
    report["dice"] = case.dice["native"]["spleen"]
    labels = data / "spleen_injury" / "labels.csv"
    whole = labels.read_text(encoding="utf-8")
    for name, text in {"lacking": whole.replace("p2_2019,1\n", ""), "twice": whole + "p2_2019,0\n"}.items():
        labels.write_text(text)
        report[name] = [message for status, message, _ in findings("spleen_injury", str(data)) if status == "fail"]
    return report


def test_the_files_have_at_most_40_lines():
    assert [len(module.splitlines()) <= 40 for module in blocks(GUIDE, "python")] == [True, True]


def test_the_tasks_are_listed_with_their_counts(report):
    assert report["tasks"][-2:] == ["spleen", "spleen_injury"]
    assert not report["imported"]
    for task in ("spleen", "spleen_injury"):
        assert report[task]["counts"] == (2, 1, 1)
        assert report[task]["patients"] == {"train": ["p1", "p1"], "val": ["p2"], "test": ["p3"]}


def test_their_cases_are_read_and_the_doctor_is_content(report, slabs):
    voxels = [int((slab.organs == 1).sum()) for slab in slabs.values()]
    assert all(voxels)
    assert report["spleen"]["targets"] == voxels
    assert report["spleen_injury"]["targets"] == [0, 0, 1, 0]
    for task in ("spleen", "spleen_injury"):
        z, _, y, x = report[task]["shape"]
        assert (x, y, z) == slabs["p3_2021"].hu.shape
        assert {status for status, _ in report[task]["doctor"]} == {"ok"}
        assert "all 4 cases can be read, scan and target" in [message for _, message in report[task]["doctor"]]


def test_models_that_were_pretrained_on_data_with_its_scans_are_marked(report):
    assert report["overlap"] == ("Our archive, 2024", "AbdomenAtlas 1.1", "Spleens")


def test_the_copied_config_runs_in_eva_and_says_nothing_of_the_other_task(report):
    assert "#" not in report["config"]
    assert "ancreas" not in report["config"]
    assert report["dice"] is not None
    assert np.isfinite(report["dice"])


def test_tapct_run_finds_the_config_beside_the_module(report):
    assert report["cells"]["spleen"]["spleen"].endswith("our_tasks/configs/spleen.yaml")
    assert "our_tasks.spleen_injury, as configs/spleen_injury.yaml" in report["cells"]["spleen_injury"]
    assert sorted(report["cells"]["all"]) == sorted(core_tasks())


def test_a_case_without_a_row_or_with_two_is_named(report):
    assert report["lacking"] == ["spleen_injury, case p2_2019: the targets [] are not one 0 or 1 for each of 1 classes"]
    assert report["twice"] == [
        "spleen_injury, case p2_2019: the targets [1, 0] are not one 0 or 1 for each of 1 classes"
    ]
