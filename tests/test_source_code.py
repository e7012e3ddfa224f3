"""The code behind a value: what changes its hash, what does not, and which modules and libraries belong to it."""

import ast
import importlib
import importlib.util
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from tapct import source_code
from tapct.source_code import ABSENT, WITHOUT_EFFECT, code_of, source_sha256

SOURCE = '''"""About."""

import math

LOW = -1000  # HU


class Clip:
    """Clips."""

    low = LOW
    """Lowest."""

    def __call__(self, x):
        """Returns it clipped."""
        # to the range
        return max(x, self.low) if f"{x!r:>{4}} {'a'}" else "# no comment"
'''


def sha256(source):
    return source_sha256(source.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""About."""', '"""About clipping."""'),
        ('"""About."""\n', ""),
        ("  # HU", ""),
        ("  # HU", "  # Hounsfield units, as everywhere"),
        ('    """Clips."""\n\n', ""),
        ('"""Lowest."""', '"""The lowest\n\n    value."""'),
        ('"""Returns it clipped."""', "'''Returns it clipped.'''"),
        ("\n\nclass", "\n\n\n\nclass"),
        ("\n", "\r\n"),
        ("        # to the range\n", ""),
    ],
)
def test_comments_docstrings_and_blank_lines_are_no_code(old, new):
    assert sha256(SOURCE.replace(old, new)) == sha256(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-1000", "-150"),
        ("max(", "min("),
        ('"# no comment"', '"# a comment"'),
        ("{'a'}", "{'b'}"),
        ("!r:>{4}", "!r:>{5}"),
        ("import math\n", "import cmath\n"),
        ("    low = LOW\n", "low = LOW\n"),
        ("x!r", "x!s"),
        ("return max", "max"),
    ],
)
def test_anything_else_is(old, new):
    assert SOURCE.count(old)
    assert sha256(SOURCE.replace(old, new)) != sha256(SOURCE)


def test_a_text_that_is_no_docstring_is_code():
    assert sha256('x = """a\n\nb"""\n') != sha256('x = """a\nb"""\n')
    assert sha256('f"{g()}"\n') != sha256('"g"\n')


PACKAGE = {
    "__init__.py": "",
    "encoder.py": "import numpy\nfrom .clip import clip\n\n\ndef build():\n    from .nets import net\n    return net\n",
    "clip.py": "from mypkg import constants\nclip = constants.LOW\n",
    "constants.py": "LOW = -1000\n",
    "nets/__init__.py": "",
    "nets/net.py": "import importlib\nimport scipy.ndimage\nlater = importlib.import_module('mypkg.late')\n",
    "late.py": "from .missing_extra import nothing\nimport not_installed_anywhere\n",
    "unused.py": "x = 1\n",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A third-party package on the path; nothing of it is imported."""
    write(tmp_path / "site" / "mypkg", PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    yield tmp_path / "site" / "mypkg"
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mypkg", "beside", "rootless")]:
        del sys.modules[name]


def test_what_a_module_imports_of_its_package_belongs_to_it_wherever_it_stands(package):
    found = code_of("mypkg.encoder")
    modules = {f"mypkg.{name}" for name in ("encoder", "clip", "constants", "nets", "nets.net", "late")}
    assert found.modules.keys() == {"mypkg", *modules}
    assert found.libraries == {
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "not_installed_anywhere": ABSENT,
    }
    assert "mypkg.nets.net" not in sys.modules
    assert "mypkg.nets" not in sys.modules


@pytest.mark.parametrize("name", ["encoder.py", "clip.py", "constants.py", "nets/net.py", "late.py", "__init__.py"])
def test_a_change_of_any_of_them_is_another_code(name, package):
    before = code_of("mypkg.encoder").sha256
    source = (package / name).read_text(encoding="utf-8")
    (package / name).write_text(f"# fixed\n{source}", encoding="utf-8")
    assert code_of("mypkg.encoder").sha256 == before
    (package / name).write_text(f"{source}\nx = 2\n", encoding="utf-8")
    assert code_of("mypkg.encoder").sha256 != before


def test_remembered_code_is_forgotten_once_a_file_changes_goes_comes_or_lies_elsewhere(package, tmp_path, monkeypatch):
    monkeypatch.setattr("tapct.source_code.SETTLED_S", -1)
    found = [code_of("mypkg.encoder").sha256]
    assert code_of("mypkg.encoder").sha256 == found[0]
    with (package / "late.py").open("a", encoding="utf-8") as file:
        file.write("x = 2\n")
    found.append(code_of("mypkg.encoder").sha256)
    (package / "missing_extra.py").write_text("nothing = 0\n", encoding="utf-8")
    importlib.invalidate_caches()
    found.append(code_of("mypkg.encoder").sha256)
    (package / "late.py").unlink()
    importlib.invalidate_caches()
    found.append(code_of("mypkg.encoder").sha256)
    assert len(set(found)) == 4
    moved = shutil.copytree(package.parent, tmp_path / "elsewhere")
    (moved / "mypkg" / "clip.py").write_text("LOW = -1\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(moved), *(p for p in sys.path if p != str(package.parent))])
    importlib.invalidate_caches()
    assert code_of("mypkg.encoder").sha256 not in found


def test_what_is_made_of_the_answer_changes_no_later_one(package, monkeypatch):
    monkeypatch.setattr("tapct.source_code.SETTLED_S", -1)
    before = code_of("mypkg.encoder")
    code_of("mypkg.encoder").modules.clear()
    assert code_of("mypkg.encoder") == before


def test_neither_what_is_not_imported_nor_where_it_lies_counts(package, tmp_path, monkeypatch):
    before = code_of("mypkg.encoder")
    (package / "unused.py").write_text("x = 2\n", encoding="utf-8")
    moved = shutil.copytree(package.parent, tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [str(moved), *(p for p in sys.path if p != str(package.parent))])
    sys.modules.pop("mypkg", None)
    importlib.invalidate_caches()
    assert code_of("mypkg.encoder") == before


def test_a_file_beside_an_adapter_is_followed_and_a_library_is_not(package):
    write(package.parent, {"rootless.py": "import beside\nimport monai\n", "beside.py": "LOW = 1\n"})
    importlib.invalidate_caches()
    before = code_of("rootless")
    assert before.modules.keys() == {"rootless", "beside"}
    assert before.libraries == {"monai": version("monai")}
    (package.parent / "beside.py").write_text("LOW = 2\n", encoding="utf-8")
    assert code_of("rootless").sha256 != before.sha256


def test_a_module_in_no_file_is_an_error():
    with pytest.raises(LookupError, match="no_such_module is in no file"):
        code_of("no_such_module")


def test_the_builds_of_a_library_are_one_version():
    assert code_of("tapct.vit").libraries["torch"] == version("torch").partition("+")[0]


def test_what_is_said_to_have_no_effect_is_there():
    assert all(importlib.util.find_spec(name) is not None for name in WITHOUT_EFFECT)


def test_sources_are_parsed_one_at_a_time(monkeypatch):
    """CPython 3.11 counts the depth of what it parses over all threads, and ends in a SystemError."""
    parse, inside, most = ast.parse, [], []

    def watched(content):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return parse(content)

    monkeypatch.setattr("tapct.source_code.ast.parse", watched)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: source_code._read(b"x = %d\n" % n), range(24)))
    assert max(most) == 1
    assert len(most) == 24
