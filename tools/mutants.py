"""Tries small mistakes in a module, and shows those that its tests do not notice: `make mutants MODULE=...`.

A process imports the libraries that the tests need, once, and forks for each mutant. The child imports the project
anew, with the one change in the one module, and runs the tests: those that run the changed line first, then the rest of
their files. The files on the disk stay as they are, so that what hashes or reads sources sees no difference: a mutant
dies by what it does. (Tests that start a process of their own do not see it.)

Which tests go with a module, and which of its mutants change nothing, is in tests/mutants.toml.
"""

import argparse
import ast
import contextlib
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import tomllib
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tools.mutations import Mutant, mutants_of

REPOSITORY = Path(__file__).resolve().parents[1]
TABLE = REPOSITORY / "tests" / "mutants.toml"
ENOUGH = 0.95
"""Share of the mutants that must die, of those that change something."""
DIED, SURVIVED, SLOW = "died", "survived", "took too long"


@dataclass(frozen=True)
class Entry:
    """What the table says of a module.

    Attributes:
        tests: Files and folders of its tests.
        equivalent: By the keys of mutants that change nothing, or their beginning and `*`, why.
    """

    tests: tuple[str, ...]
    equivalent: dict[str, str] = field(default_factory=dict)

    def is_equivalent(self, mutant: Mutant) -> bool:
        """Returns whether a mutant is listed as one that changes nothing."""
        beginnings = tuple(key[:-1] for key in self.equivalent if key.endswith("*"))
        return mutant.key in self.equivalent or mutant.key.startswith(beginnings)


def entry_of(module: str) -> Entry:
    """Returns the entry of a module, the test file of the same name among its tests.

    Raises:
        LookupError: If the module has no tests.
    """
    path = Path(module)
    given = tomllib.loads(TABLE.read_text(encoding="utf-8")).get(module, {})
    folders = path.parts[1:-1] if path.parts[0] == "tapct" else path.parts[:1] if len(path.parts) > 1 else ()
    beside = Path("tests", *folders, f"test_{path.name}")
    tests = [beside.as_posix()] if (REPOSITORY / beside).is_file() else []
    if not (tests := [*tests, *given.get("tests", ())]):
        raise LookupError(f"{module} has no {beside}, and no tests in {TABLE.relative_to(REPOSITORY)}")
    return Entry(tuple(tests), {one["mutant"]: one["why"] for one in given.get("equivalent", ())})


class Mutated(importlib.machinery.SourceFileLoader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname: str) -> types.CodeType:
        """Compiles the tree."""
        return compile(self.tree, self.path, "exec", dont_inherit=True)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        """Finds its own module: it is a finder of `sys.meta_path` as well."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)


class Watched:
    """A plugin for pytest that notes which test runs which lines of a file, and how long it takes."""

    def __init__(self, path: Path) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=None, include=[str(path)], config_file=False)
        self.path, self.seconds = path, dict[str, float]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Watches a test with its fixtures."""
        self.coverage.switch_context(item.nodeid)
        start = time.monotonic()
        result = yield
        self.seconds[item.nodeid] = time.monotonic() - start
        return result

    def lines(self) -> dict[int, list[str]]:
        """Returns by line the tests that run it."""
        return self.coverage.get_data().contexts_by_lineno(str(self.path))


@dataclass(frozen=True)
class Chosen:
    """A plugin for pytest that runs the chosen tests, in their order."""

    tests: Sequence[str]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Chooses and orders."""
        place = {name: number for number, name in enumerate(self.tests)}
        items[:] = sorted((one for one in items if one.nodeid in place), key=lambda one: place[one.nodeid])


def run_tests(tests: Sequence[str], work: Path, plugin: object) -> int:
    """Runs tests in this process and returns pytest's exit status."""
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={work / 'tests'}", f"--rootdir={REPOSITORY}"]
    options += ["-m", "not slow and not gpu and not network"]  # with those that CI alone runs
    return int(pytest.main([*options, *tests], plugins=[plugin]))


def forked(do: Callable[[], int], output: Path, limit_s: float) -> int | None:
    """Runs something in a forked process; returns its exit status, or None if it took longer than the limit."""
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        os.setsid()  # so that what it starts ends with it
        status = 70
        try:
            with output.open("w", encoding="utf-8") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                status = do()
                sys.stdout.flush()
        finally:
            os._exit(status)
    end, ended, status = time.monotonic() + limit_s, 0, 0
    while not ended and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0 if ended else 0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if ended:
        return os.waitstatus_to_exitcode(status)
    os.waitpid(child, 0)
    return None


@dataclass(frozen=True)
class Baseline:
    """What the tests do without a change.

    Attributes:
        lines: By line of the module, the tests that run it; the empty string stands for its import.
        seconds: By test, how long it takes.
        libraries: Modules from outside of the project that were imported.
    """

    lines: dict[int, list[str]]
    seconds: dict[str, float]
    libraries: list[str]

    def tests_for(self, mutant: Mutant) -> list[str]:
        """Returns the tests that could notice a mutant, the quick ones that run it first; none if none does."""
        at = range(mutant.lines[0], mutant.lines[1] + 1)
        running = {test for line in at for test in self.lines.get(line, ())}
        if mutant.top or running == {""}:
            running |= {test for tests in self.lines.values() for test in tests}
        running.discard("")
        files = {test.partition("::")[0] for test in running}
        others = [test for test in self.seconds if test.partition("::")[0] in files]
        return sorted(others, key=lambda test: (test not in running, self.seconds[test]))


def baseline(path: Path, tests: Sequence[str], work: Path) -> Baseline:
    """Runs the tests without a change.

    Raises:
        RuntimeError: If one fails.
    """
    said, output = work / "baseline.json", work / "output"

    def run() -> int:
        before, watched = set(sys.modules), Watched(path)
        watched.coverage.start()
        status = run_tests(tests, work, watched)
        watched.coverage.stop()
        files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items() if name not in before}
        outside = [name for name, file in files.items() if file and not Path(file).is_relative_to(REPOSITORY)]
        said.write_text(json.dumps([watched.lines(), watched.seconds, outside]), encoding="utf-8")
        return status

    if status := forked(run, output, limit_s=1800):
        raise RuntimeError(f"the tests fail without a change (status {status}):\n{output.read_text(errors='replace')}")
    lines, seconds, outside = json.loads(said.read_text(encoding="utf-8"))
    return Baseline({int(line): of for line, of in lines.items()}, seconds, outside)


def import_all(names: Sequence[str]) -> None:
    """Imports the libraries that the tests want; what is not there by itself is left to the tests."""
    with Path(os.devnull).open("w", encoding="utf-8") as nothing, contextlib.redirect_stderr(nothing):
        for name in names:
            with contextlib.suppress(ImportError, AttributeError):
                importlib.import_module(name)


def try_mutants(module: str, sample: int | None, only: Sequence[str] = ("",)) -> int:
    """Tries the mutants of a module and prints those that survive; returns the exit status."""
    start, path, entry = time.monotonic(), REPOSITORY / module, entry_of(module)
    tree, name = ast.parse(path.read_bytes()), ".".join(Path(module).with_suffix("").parts)
    every = mutants_of(tree)
    chosen = set(sorted(every, key=lambda one: one.order)[:sample])
    chosen = {one for one in chosen if any(text in one.key for text in only)}
    results = dict[str, list[Mutant]]()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        before = baseline(path, entry.tests, work)
        import_all(before.libraries)
        gc.freeze()  # so that children neither look through what was imported nor copy it
        print(f"{module}: {len(chosen)} of {len(every)} mutants, {len(before.seconds)} tests", flush=True)
        for mutant in (one for one in every if one in chosen):
            tests = before.tests_for(mutant)
            files = sorted({test.partition("::")[0] for test in tests})

            def run(mutant: Mutant = mutant, tests: list[str] = tests, files: list[str] = files) -> int:
                mutant.apply()
                sys.meta_path.insert(0, Mutated(name, str(path), tree))
                return run_tests(files, work, Chosen(tests))

            limit_s = 20 + 5 * sum(before.seconds[test] for test in tests)
            status = forked(run, work / "output", limit_s) if tests else 0
            result = SLOW if status is None else DIED if status else SURVIVED
            results.setdefault(result, []).append(mutant)
            if (result == SURVIVED) != entry.is_equivalent(mutant):
                why = ", though listed as equivalent" if result != SURVIVED else "" if tests else ": no test runs it"
                print(f"{module}:{mutant.lines[0]}: {result}{why}: {mutant.key}", flush=True)
    survived = results.get(SURVIVED, [])
    equivalent = sum(map(entry.is_equivalent, survived))
    died = len(chosen) - len(survived)
    part = died / max(1, len(chosen) - equivalent)
    print(f"tried {len(chosen)}, died {died} ({len(results.get(SLOW, []))} of them took too long), ", end="")
    print(f"equivalent {equivalent}, survived {len(survived) - equivalent}: {part:.1%} died", end="")
    print(f", {time.monotonic() - start:.0f} s")
    wrong = any(entry.is_equivalent(one) for result in (DIED, SLOW) for one in results.get(result, ()))
    return int(part < ENOUGH or wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("module", help="file of the module, from the repository's root: tapct/metrics/dice.py")
    parser.add_argument("--sample", type=int, help="how many mutants, always the same ones; all by default")
    parser.add_argument("--only", action="append", help="text of the mutants that are tried again; may be repeated")
    asked = parser.parse_args(arguments)
    os.chdir(REPOSITORY)
    try:
        return try_mutants(asked.module, asked.sample, asked.only or [""])
    except (LookupError, OSError, RuntimeError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
    sys.exit(main())
