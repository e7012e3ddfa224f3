"""Every command that docs show or messages name is one that there is: read as the program reads it, but not run."""

import functools
import importlib.util
import io
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cyclopts import CycloptsError
from rich.console import Console

from tapct import cli
from tapct.encoders import list_encoders
from tapct.encoders.mistakes import MISTAKES
from tapct.sweep.asked import Sweep
from tapct.sweep.shipped import installed_configs
from tapct.volumes.perturb import PERTURBATIONS

REPOSITORY = Path(__file__).parents[1]
DOCS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXTS = [
    path
    for folder in ("tapct", "baselines", "pretrain", "eva_configs")
    for path in sorted((REPOSITORY / folder).rglob("*"))
    if path.suffix in (".py", ".yaml", ".md", ".html")
]
MADE_BY_THE_READER = re.compile(r"\b[A-Z]{2,}|\$|\.\.\.|spleen|\bmine\.yaml|my[-_]|our[-_]|image_quality")
"""Stands for something in a command, or is of the guides to one's own: nothing here has that name."""


class Shown(NamedTuple):
    """A command in a block of shell, without what is between it and others."""

    where: str
    words: list[str]


def blocks(path: Path) -> Iterator[str]:
    """Yields the lines of shell in a page's blocks, with those that continue joined."""
    for language, block in re.findall(r"```(sh|bash|console)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            if language != "console" or line.startswith("$ "):
                yield line.removeprefix("$ ")


def commands_of(line: str) -> Iterator[list[str]]:
    """Yields the commands of a line, without variables before them, and with those in $(...) apart."""
    for inner in re.findall(r"\$\(([^()]*)\)", line):
        yield from commands_of(inner)
    lexer = shlex.shlex(re.sub(r"\$\([^()]*\)", "SUBSTITUTED", line), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("();<>|&"):
            if command:
                yield command
            command = []
        elif command or not re.fullmatch(r"[A-Z_]+=.*", word):
            command.append(word)


SHOWN = [
    Shown(f"{path.name}: {' '.join(words)}", words)
    for path in DOCS
    for line in blocks(path)
    for words in commands_of(line)
]


def of(*start: str) -> list[Shown]:
    return [one for one in SHOWN if one.words[: len(start)] == list(start)]


def bare(words: list[str]) -> list[str]:
    """Returns words without the signs of a synopsis: [--may-be-left-out VALUE], and so on ..."""
    return [word.strip("[]").removesuffix("...") for word in words if word != "..."]


def test_the_docs_show_commands_of_every_sort():
    assert len(of("tapct")) > 50
    assert len(of("eva")) > 10
    assert len(of("python", "-m")) > 5


@pytest.mark.parametrize("shown", of("tapct"), ids=lambda shown: shown.where)
def test_a_tapct_command_parses(shown):
    try:
        cli.app.parse_args(bare(shown.words[1:]))
    except CycloptsError as error:
        pytest.fail(str(error))


@pytest.mark.parametrize("shown", of("tapct", "run"), ids=lambda shown: shown.where)
def test_a_sweep_has_experiments(shown, monkeypatch):
    """Encoders with their options, tasks, suites, adaptors, perturbations and mistakes all exist, and go together."""
    if any(MADE_BY_THE_READER.search(word) for word in shown.words):
        return
    for variable in ("ADAPTOR", "BAG", "ENCODER_OPTIONS", "ENCODER_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    _, given, _ = cli.app.parse_args(shown.words[1:])
    assert given.arguments["sweep"].experiments()


def named_in_docs(pattern: str) -> set[str]:
    """Returns what the docs name by comma where a pattern's group stands, without "all"."""
    found = {names for path in DOCS for names in re.findall(pattern, path.read_text(encoding="utf-8"))}
    return {name for names in found for name in names.split(",")} - {"all"}


def test_perturbations_and_mistakes_that_are_named_exist():
    perturbations = named_in_docs(r"(?:--perturbations |(?:perturbation|PERTURBATION)=)([a-z0-9,.-]+)")
    mistakes = named_in_docs(r"(?:--mistakes |mistake=)([a-z0-9,.-]+)")
    assert perturbations
    assert perturbations <= set(PERTURBATIONS)
    assert mistakes
    assert mistakes <= set(MISTAKES)


def test_encoders_that_are_named_with_an_option_can_be_built_so():
    names = "|".join(map(re.escape, sorted(list_encoders(), key=len, reverse=True)))
    label = rf"(?<![\w-])((?:{names})(?:\+\w+=[\w.x-]+)+)"
    varied = re.compile(r"\+(adaptor|bag|fraction|draw|perturbation|mistake)=")  # of the folder of an experiment
    named = {one.rstrip(".") for one in named_in_docs(label) if not varied.search(one)}
    assert len(named) > 10
    experiments = Sweep(encoders=",".join(sorted(named)), tasks="amos22").experiments()
    assert len({experiment.label for experiment in experiments}) > 10


@functools.cache
def options(command: tuple[str, ...]) -> set[str]:
    """Returns the options of a command, as its help lists them."""
    help_print, given, _ = cli.app.parse_args([*command, "--help"])
    shown = io.StringIO()
    help_print(given.arguments["tokens"], console=Console(file=shown, width=120))
    listed = re.findall(r"^  (-.*?)(?:  |$)", shown.getvalue(), re.MULTILINE)
    return {option for line in listed for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)}


@pytest.mark.parametrize("place", ["docs", "messages"])
def test_commands_between_backticks_and_their_options_exist(place):
    wrong, seen = [], 0
    for path in DOCS if place == "docs" else TEXTS:
        for code in re.findall(
            r"(?:`|<code>)(?:\S+=\S+ )*(?:[\w./]*/)?tapct ([a-z][^`<]*)", path.read_text(encoding="utf-8")
        ):
            seen += 1
            command, _, _ = cli.app.parse_commands(code.split())
            named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", code))
            if not command or named - options(command):
                wrong.append(f"{path.relative_to(REPOSITORY)}: tapct {code}")
    assert wrong == []
    assert seen > 30


def test_no_option_is_spelled_with_an_underscore():
    """As Python spells it, and no command line: `--split_file`. Keys of configs (--run.keep_it) are no options."""
    theirs = {"--verify_dataset_integrity"}  # of nnU-Net
    option = re.compile(r"(?<![\w.-])--[a-z]+(?:_[a-z]+)+(?![\w.=]*\.)")
    found = {
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in [*DOCS, *TEXTS]
        for name in option.findall(path.read_text(encoding="utf-8"))
        if name not in theirs
    }
    assert found == set()


@pytest.mark.parametrize("shown", [*of("eva"), *of("python"), *of("torchrun")], ids=lambda shown: shown.where)
def test_configs_and_programs_are_there(shown):
    known = {str(path) for path in installed_configs().values()}
    for option, value in itertools.pairwise(shown.words):
        if MADE_BY_THE_READER.search(value) or value.startswith("SUBSTITUTED"):
            continue
        if option == "--config":
            assert (REPOSITORY / value).is_file()
            assert not value.startswith("eva_configs") or str(REPOSITORY / value) in known
        if option == "-m":
            assert importlib.util.find_spec(value) is not None
        if option == "python" and value.endswith(".py"):
            assert (REPOSITORY / value).is_file()


@pytest.mark.parametrize("shown", of("make"), ids=lambda shown: shown.where)
def test_targets_of_make_are_there(shown):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{shown.words[1]}:", makefile, re.MULTILINE)
