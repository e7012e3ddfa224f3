"""Mutation testing's own tests: which mistakes it makes, which it sees, and that its table is of the code as it is."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools import mutants
from tools.mutations import mutants_of

REPOSITORY = Path(__file__).parents[1]
TABLE = tomllib.loads((REPOSITORY / "tests" / "mutants.toml").read_text(encoding="utf-8"))


def changes(code: str) -> list[str]:
    return [one.key for one in mutants_of(ast.parse(code))]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a < b", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("a * b", ["a * b -> a / b"]),
        ("f(a, 1)", ["f(a, 1) -> pass", "f(a, 1) -> f(1, a)", "1 -> 2 in f(a, 1)", "1 -> 0 in f(a, 1)"]),
        ("x[0.5]", ["0.5 -> 1.5 in x[0.5]", "0.5 -> -0.5 in x[0.5]"]),
        ("x[-1]", ["-1 -> 0 in x[-1]", "-1 -> -2 in x[-1]", "-1 -> 1 in x[-1]"]),
        ("a and not b", ["a and (not b) -> a or not b", "not b -> b in a and (not b)"]),
        ("x.mean(axis=i)", ["x.mean(axis=i) -> pass", "x.mean(axis=i) -> x.sum(axis=i)", "x.mean(axis=i) -> x.mean()"]),
        ("[max(a), np.abs(b)]", ["max(a) -> min(a)", "np.abs(b) -> b"]),
        ("x[a:b]", ["x[a:b] -> x[:b]", "x[a:b] -> x[a:]"]),
        ("x += y", ["x += y -> pass", "x += y -> x -= y"]),
        ("x[i] = y", ["x[i] = y -> pass"]),
        ("def f(a=True): return a", ["f: return a -> return None", "f: True -> False"]),
        ("if a: b", ["a -> not a"]),
        ("a if b else c", ["a if b else c -> c if b else a"]),
        ("LIMIT = 3", ["LIMIT: 3 -> 4", "LIMIT: 3 -> 2"]),
    ],
)
def test_the_mistakes_of_a_line(code, expected):
    assert sorted(changes(code)) == sorted(one if ": " in one else f": {one}" for one in expected)


def test_what_no_number_depends_on_is_left_alone():
    code = (
        '"""Text."""\n@cache(1)\ndef f(a: g(1, 2)) -> h(1, 2):\n    raise E(f"{a + 1}")\nzip(strict=True)\nimport b\n'
    )
    assert changes(code) == [": zip(strict=True) -> pass"]


def test_the_same_mistake_twice_is_two():
    assert changes("def f():\n    a < 2\n    a < 2")[0::4] == ["f: a < 2 -> a <= 2", "f: a < 2 -> a <= 2 (2)"]


def test_the_table_is_of_the_code_as_it_is():
    for module in TABLE:
        entry = mutants.entry_of(module)
        assert all((REPOSITORY / path).exists() for path in entry.tests), module
        there = mutants_of(ast.parse((REPOSITORY / module).read_bytes()))
        listed = [mutants.Entry(entry.tests, {key: ""}) for key in entry.equivalent]
        gone = [list(one.equivalent) for one in listed if not any(map(one.is_equivalent, there))]
        assert gone == [], f"no mutants of {module}: it has changed since"


def test_what_the_tests_miss_is_shown_and_is_a_failure(tmp_path):
    pytest.importorskip("coverage")
    (tmp_path / "tests").mkdir()
    for name, text in {
        "clamped.py": "LIMIT = 10\n\n\ndef clamped(x):\n    if x > LIMIT:\n        x -= x - LIMIT\n    return x\n",
        "tests/test_clamped.py": "from clamped import clamped\n\n\ndef test_it():\n    assert clamped(9) == 9\n",
        "tests/mutants.toml": """["clamped.py"]\nequivalent = [
            {mutant = "clamped: x > LIMIT -> x >= LIMIT", why = "LIMIT stays LIMIT"},
            {mutant = "clamped: return x *", why = "wrong: it dies"},
        ]\n""",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    code = """import sys; from pathlib import Path; from tools import mutants
mutants.REPOSITORY = Path(sys.argv[1]); mutants.TABLE = mutants.REPOSITORY / "tests/mutants.toml"
sys.path.insert(0, sys.argv[1]); sys.exit(mutants.main(["clamped.py"]))"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.splitlines()[:-1] == [
        "clamped.py: 8 of 8 mutants, 1 tests",
        "clamped.py:1: survived: LIMIT: 10 -> 11",
        "clamped.py:1: survived: LIMIT: 10 -> 9",
        "clamped.py:6: survived: no test runs it: clamped: x -= x - LIMIT -> pass",
        "clamped.py:6: survived: no test runs it: clamped: x -= x - LIMIT -> x += x - LIMIT",
        "clamped.py:6: survived: no test runs it: clamped: x - LIMIT -> x + LIMIT",
        "clamped.py:7: died, though listed as equivalent: clamped: return x -> return None",
    ]
    assert "tried 8, died 2 (0 of them took too long), equivalent 1, survived 5: 28.6% died" in ran.stdout
