"""The ranges of what is needed: true at both ends, said where they end, and no neighbour is shut out."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic.fields import FieldInfo

from tapct import doctor, tested
from tapct.errors import RecordError
from tapct.records import types

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]


def pins(path: Path) -> Iterator[Requirement]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield Requirement(line.partition("#")[0].strip())


def lowest_of(wanted: Requirement) -> Version:
    (bound,) = (Version(one.version) for one in wanted.specifier if one.operator in (">=", "=="))
    return bound


@pytest.mark.parametrize("file", ["constraints.txt", "tapct/tested/lowest.txt", "tapct/tested/newest.txt"])
def test_every_set_of_versions_is_whole_and_within_the_ranges(file):
    found = {pin.name.lower().replace("_", "-"): pin.specifier for pin in pins(REPOSITORY / file)}
    for wanted in NEEDED:
        assert all(wanted.specifier.contains(one.version) for one in found[wanted.name]), wanted


def test_the_lowest_that_was_tested_is_the_lower_bound():
    """Packages may need more of each other than we do; of those that we name ourselves that is not so."""
    found = {
        pin.name: Version(next(iter(pin.specifier)).version)
        for pin in pins(Path(tested.__file__).parent / "lowest.txt")
    }
    for wanted in NEEDED:
        asked, got = lowest_of(wanted), found[wanted.name]
        assert got.release[: len(asked.release)] == asked.release, wanted


def test_upper_bounds_have_a_reason_and_docs_say_it():
    bounded = {one.name for one in NEEDED if {part.operator for part in one.specifier} & {"<", "<=", "=="}}
    assert bounded == tested.FORBIDDEN.keys() - {"pydantic"}
    table = (REPOSITORY / "docs" / "versions.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` ", table, re.MULTILINE)) >= tested.FORBIDDEN.keys()


def packages(monkeypatch, **installed: str) -> dict[str, doctor.Check]:
    """The doctor's checks of packages, some of which are of other versions."""
    versions = {name.replace("_", "-"): version for name, version in installed.items()}
    whole = metadata.version
    monkeypatch.setattr(tested, "version", lambda name: versions.get(name) or whole(name))
    return {check.name: check for check in doctor.checks() if check.name in ("packages", "newer", *versions)}


def test_the_doctor_is_content_with_what_was_tested(monkeypatch):
    newest = {name: str(version) for name, version in tested.newest().items()}
    patched = newest["pydantic"].rpartition(".")[0] + ".99"
    checks = packages(monkeypatch, **newest | {"pydantic": patched})
    assert {name: check.status for name, check in checks.items()} == {"packages": "ok"}


def test_the_doctor_warns_of_what_was_not_tested(monkeypatch):
    checks = packages(monkeypatch, torch="3.1.0", numpy="1.26.4")
    assert {name: check.status for name, check in checks.items()} == {
        "packages": "ok",
        "newer": "warn",
        "numpy": "warn",
    }
    assert re.search(r"torch 3\.1\.0 \(tested up to 2\.\d+\.\d+\)", checks["newer"].message)
    assert checks["numpy"].fix == "pip install 'numpy>=2.1'"


@pytest.mark.parametrize(
    ("package", "version"), [("kaiko-eva", "0.4.4"), ("jsonargparse", "4.53.0"), ("onnxruntime", "1.31.0")]
)
def test_the_doctor_fails_where_a_reason_is_known(package, version, monkeypatch):
    check = packages(monkeypatch, **{package: version})[package]
    assert check.status == "fail"
    assert tested.FORBIDDEN[package] in check.message


@pytest.mark.parametrize(("version", "status"), [((3, 11, 9), "ok"), ((3, 13, 2), "ok"), ((3, 17, 0), "warn")])
def test_a_python_that_was_not_tested_is_a_warning(version, status, monkeypatch):
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, version)))
    monkeypatch.setattr(sys, "version_info", (*version, "final", 0))
    assert next(doctor.checks()).status == status


def test_records_are_refused_where_pydantic_would_change_their_fingerprints(monkeypatch):
    monkeypatch.setattr(FieldInfo, "__slots__", tuple(name for name in FieldInfo.__slots__ if name != "exclude_if"))
    with pytest.raises(RecordError, match=r"pip install 'pydantic>=2\.12'"):
        importlib.reload(types)


@pytest.mark.parametrize(("torch", "without_cuda"), [("cpu", True), ("", False)])
def test_make_installs_pytorch_with_or_without_cuda(torch, without_cuda, tmp_path):
    command = ["make", "--dry-run", "quickstart", f"VENV={tmp_path / 'env'}", f"PYTHON={sys.executable}"]
    ran = subprocess.run(
        [*command, *([f"TORCH={torch}"] if torch else [])],
        cwd=REPOSITORY,
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    (install,) = (line for line in ran.stdout.splitlines() if "--editable" in line)
    assert "--constraint constraints.txt" in install
    assert ("--torch-backend cpu" in install) == without_cuda


def test_make_says_that_an_environment_has_another_pytorch(tmp_path):
    (tmp_path / ".installed").write_text("\n", encoding="utf-8")
    command = ["make", "--dry-run", "quickstart", f"VENV={tmp_path}", f"PYTHON={sys.executable}", "TORCH=cpu"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode != 0
    assert "make clean" in ran.stderr


@pytest.mark.network
@pytest.mark.parametrize("neighbour", ["totalsegmentator", "nnunetv2", "torchio"])
def test_packages_of_the_field_can_be_installed_beside(neighbour, tmp_path):
    """pip finds versions for both, and changes none of those that are installed here."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", str(report), neighbour]
    ran = subprocess.run([*command, *PROJECT["dependencies"]], capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 0, ran.stderr
    wanted = {one["metadata"]["name"].lower() for one in json.loads(report.read_text(encoding="utf-8"))["install"]}
    assert neighbour in wanted or tested.installed(neighbour)
    assert wanted.isdisjoint(one.name for one in NEEDED)
