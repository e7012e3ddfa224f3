"""The two images are one: the same base, packages, versions and variables. Neither is built here."""

import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).parents[1]
DOCKERFILE = (REPOSITORY / "containers" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
DEFINITION = (REPOSITORY / "containers" / "tapct.def").read_text(encoding="utf-8")


def section(name: str) -> str:
    return re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION, re.MULTILINE | re.DOTALL)[1]


def test_both_have_one_base_that_the_package_allows():
    python = re.search(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)[1]
    base = re.search(r"^FROM (.+)$", DOCKERFILE, re.MULTILINE)[1].replace("${PYTHON}", python)
    assert re.search(r"^From: (.+)$", DEFINITION, re.MULTILINE)[1] == base
    allowed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert SpecifierSet(allowed).contains(python)


def test_both_install_the_wheel_with_the_constraints_and_the_same_packages():
    for install in (r"pip install (?!.*index-url)[^\n&]*", r"apt-get install [^\n&]*"):
        ours, theirs = (re.findall(install, text) for text in (DOCKERFILE, section("post")))
        assert [line.split() for line in ours] == [line.split() for line in theirs]
        assert len(ours) == 1
    wheel = re.findall(r"pip install (?!.*index-url)[^\n&]*", DOCKERFILE)[0]
    assert "--constraint /opt/tapct/constraints.txt /opt/tapct/dist/tapct_bench-*.whl" in wheel
    copied = dict(line.split() for line in section("files").splitlines() if line.strip())
    assert copied == dict(re.findall(r"^COPY (\S+) (\S+)$", DOCKERFILE, re.MULTILINE))
    assert (REPOSITORY / "constraints.txt").is_file()


def test_both_are_offline_and_phone_home_to_nobody():
    variables = dict(re.findall(r"(\w+)=(\S+)", re.search(r"^ENV (.+)$", DOCKERFILE, re.MULTILINE)[1]))
    assert dict(re.findall(r"^ +export (\w+)=(\S+)$", section("environment"), re.MULTILINE)) == variables
    assert {"HF_HUB_OFFLINE", "ORT_DISABLE_TELEMETRY"} <= variables.keys()


def test_both_run_the_main_job_before_they_are_made():
    job = "tapct run -e tap-t-3d -t quickstart --results"
    assert job in DOCKERFILE
    assert job in section("test")
