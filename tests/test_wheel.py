"""The wheel that people install, and `tapct config`, which finds in it what a checkout has in folders."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from pretrain.settings import load_config
from tapct.cli import main
from tapct.sweep.shipped import installed_configs

REPOSITORY = Path(__file__).parents[1]
SHIPPED = ("tapct", "baselines", "pretrain", "eva_configs")


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from a copy, as pip would unpack it."""
    source, built, site = (tmp_path_factory.mktemp(name) for name in ("source", "built", "site"))
    for name in SHIPPED:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    return site


def test_the_wheel_has_every_file_of_the_packages_and_the_configs(unpacked):
    here = {str(path.relative_to(REPOSITORY)) for name in SHIPPED for path in files_of(REPOSITORY / name)}
    there = {str(path.relative_to(unpacked)) for path in files_of(unpacked) if ".dist-info" not in str(path)}
    assert there == here
    assert {"tapct/py.typed", "eva_configs/quickstart.yaml", "pretrain/configs/tap_debug.yaml"} <= there


def test_every_entry_point_names_what_the_wheel_has(unpacked):
    (installed,) = importlib.metadata.distributions(path=[str(unpacked)])
    points = [point for point in installed.entry_points if point.group.startswith(("tapct.", "console_scripts"))]
    assert {point.group for point in points} == {"tapct.encoders", "tapct.tasks", "console_scripts"}
    modules = {unpacked / f"{point.module.replace('.', '/')}.py" for point in points}
    assert [module for module in modules if not module.is_file()] == []


def test_outside_of_the_checkout_its_own_configs_are_found(unpacked, tmp_path):
    """As installed: the packages in the wheel come first, and the current folder is empty."""
    script = "from tapct.cli import main; main()"
    for name in ("quickstart", "pretrain/tap_debug", "suites/quick"):
        command = [sys.executable, "-P", "-c", script, "config", name]
        env = {"PATH": "", "PYTHONPATH": str(unpacked), "HOME": str(tmp_path)}
        shown = subprocess.run(
            command, cwd=tmp_path, env=env, check=True, capture_output=True, encoding="utf-8", timeout=60
        )
        assert Path(shown.stdout.removesuffix("\n")).is_relative_to(unpacked)
        assert Path(shown.stdout.removesuffix("\n")).is_file()


@pytest.fixture
def config(monkeypatch, capsys):
    """Runs `tapct config` in this process; returns its exit status and what it printed to stdout."""

    def run(*arguments: str) -> tuple[int | str, str]:
        monkeypatch.setattr(sys, "argv", ["tapct", "config", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    return run


def test_the_list_has_every_config_and_a_name_alone_is_its_path(config, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, shown = config()
    assert status == 0
    assert max(map(len, shown.splitlines())) <= 80
    known = installed_configs()
    assert [name for name in known if f" {name} " not in shown.replace("\n", " ")] == []
    files = [*(REPOSITORY / "eva_configs").rglob("*.yaml"), *(REPOSITORY / "pretrain" / "configs").glob("*.yaml")]
    assert sorted(known.values()) == sorted(files)
    assert config("segmentation/amos22")[0] != 0, "the name of a task is the one that `-t` takes"
    assert config("amos22") == (0, f"{REPOSITORY / 'eva_configs' / 'segmentation' / 'amos22.yaml'}\n")


def test_one_is_copied_as_it_is_and_replaces_no_file(config, tmp_path):
    copy = tmp_path / "new" / "mine.yaml"
    assert config("pretrain/tap_debug", "-o", str(copy)) == (0, "")
    assert copy.read_bytes() == (REPOSITORY / "pretrain" / "configs" / "tap_debug.yaml").read_bytes()
    assert load_config(copy, []).run.steps == 60
    status, _ = config("amos22", "-o", str(copy))
    assert "is there already" in str(status)
    assert yaml.safe_load(copy.read_text(encoding="utf-8"))["model"]["size"] == "debug"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["amos2"], "Did you mean 'amos22'"),
        (["tap_debug"], "Did you mean 'pretrain/tap_debug'"),
        (["-o", "mine.yaml"], "name it"),
    ],
)
def test_a_wrong_name_gets_the_nearest(config, arguments, said):
    status, shown = config(*arguments)
    assert said in str(status)
    assert not shown
