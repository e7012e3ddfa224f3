"""What code computes a value: the modules behind it by the hash of their source, libraries by their version.

Imports are read from the sources, wherever in them they stand, so that nothing is imported here and a network that is
built later counts as well. Comments, docstrings and blank lines are no code.
"""

import ast
import functools
import hashlib
import importlib.util
import io
import sys
import threading
import time
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

from tapct._utils.content_hashes import SETTLED_S
from tapct._utils.files import FileStamp, stamp_of

WITHOUT_EFFECT = frozenset(
    {
        *("tapct.errors", "tapct._utils.lazy", "tapct._utils.files", "tapct.source_code"),
        # Which class, which file, which cases: all of them are known by what they hold.
        *(
            "tapct.encoders.registry",
            "tapct.encoders.places",
            "tapct.encoders.download",
            "tapct.encoders.identity",
            "tapct.encoders.eva_names",
        ),
        "tapct.encoders.promises",  # raises, or not
        "tapct.encoders.authors",  # what `tapct verify-encoder` runs next to an adapter, which does not run it
        *("tapct.tasks.registry", "tapct.tasks.spec", "tapct.tasks.splits"),
        "tapct.volumes.perturb",  # in the keys of what is perturbed, by itself
    }
)
"""Modules of ours that find, name and write things, and change no value, or stand for themselves; not followed."""

_OURS = "tapct"

NO_NUMBERS = frozenset({"huggingface_hub", "loguru", "packaging", "rich", "typing_extensions"})
"""Libraries whose version changes no value."""

ABSENT = "absent"
"""The version of a library that is not installed: code that can do without it does something else then."""


@dataclass(frozen=True)
class Code:
    """The code behind something.

    Attributes:
        modules: Name to the hash of the source.
        libraries: Name to the version.
    """

    modules: dict[str, str]
    libraries: dict[str, str]

    @property
    def sha256(self) -> str:
        """Hash of the modules, whatever folder they lie in."""
        lines = (f"{name} {digest}\n" for name, digest in sorted(self.modules.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def code_of(*roots: str) -> Code:
    """Returns the code that modules run.

    What they import is followed through this project, the package of the first and whatever is not installed as a
    library, such as a file next to theirs. Of an installed library the version is taken. Python's own modules are left
    out.

    It is remembered while every module that was met is the same file, unchanged: sessions ask a hundred times.

    Args:
        roots: Names of modules.

    Raises:
        LookupError: If one has no source file, as in a notebook.
    """
    known = _REMEMBERED.get(roots)
    if known is None or any(_met(name, roots) != met for name, met in known.met.items()):
        now_ns = time.time_ns()
        known = _followed(roots)
        changed_ns = max((max(met.stamp[1:3]) for met in known.met.values() if isinstance(met, _File)), default=0)
        if now_ns - changed_ns > SETTLED_S * 1e9:
            _REMEMBERED[roots] = known
    return Code(dict(known.modules), dict(known.libraries))


class _File(NamedTuple):
    """A source file, and the stamp that it has while it is unchanged."""

    path: Path
    stamp: FileStamp


@dataclass(frozen=True)
class _Followed(Code):
    """The code behind modules, and what was met on the way: all that it depends on."""

    met: dict[str, str | _File | None]


_REMEMBERED: dict[tuple[str, ...], _Followed] = {}


def _followed(roots: tuple[str, ...]) -> _Followed:
    todo = list(roots)
    found = _Followed({}, {}, {})
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        top = _top(name)
        if name in seen or top in sys.stdlib_module_names or (name in WITHOUT_EFFECT and name not in roots):
            continue
        match met := _met(name, roots):
            case str() as installed:
                if top not in NO_NUMBERS:
                    found.libraries[top] = installed
            case None:
                if name in roots:
                    raise LookupError(f"the module {name} is in no file")
            case _File(path=path):
                source = _read(path.read_bytes())
                found.modules[name] = source.sha256
                # A package runs when a module of it is imported. Ours only pass names on, and are followed for these.
                todo += [name.rpartition(".")[0]] if "." in name and top != _OURS else []
                todo += source.imports(_package(name, path))
        if met is not None or top != _OURS:  # of ours it was looked for once and for all
            found.met[name] = met
        seen.add(name)
    return _Followed(dict(sorted(found.modules.items())), dict(sorted(found.libraries.items())), found.met)


def _met(name: str, roots: tuple[str, ...]) -> str | _File | None:
    """Returns what a name stands for: a file to follow, the version of a library; None if it is of no module."""
    top = _top(name)
    if top not in (_top(roots[0]), _OURS) and (installed := _version(top)) is not None:
        return installed
    stamp = None if (file := _file(name)) is None else stamp_of(file)
    return None if file is None or stamp is None else _File(file, stamp)


@functools.cache
def sources_sha256(*modules: str) -> str:
    """Returns a hash of the sources of just these modules, whatever they import.

    Asked once: a process continues with the code that it began with.

    Raises:
        LookupError: If one has no source file.
    """
    files = {name: _file(name) for name in modules}
    if missing := [name for name, file in files.items() if file is None]:
        raise LookupError(f"the module {missing[0]} is in no file")
    return Code({name: _read(file.read_bytes()).sha256 for name, file in files.items() if file}, {}).sha256


@dataclass(frozen=True)
class _Source:
    """A source file: the hash of its code, and its imports as (level, module, names)."""

    sha256: str
    imported: tuple[tuple[int, str, tuple[str, ...]], ...] = ()

    def imports(self, package: str) -> Iterator[str]:
        """Yields what it imports: names of modules, and names that may be of a module or of something in one.

        Args:
            package: The package that its relative imports start from.
        """
        for level, base, names in self.imported:
            if level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - level + 1], *filter(None, [base])])
            yield base
            yield from (f"{base}.{name}" for name in names if name != "*")


_PARSING = threading.Lock()
"""CPython 3.11 counts the depth of what it parses over all threads, and ends in a SystemError where they overlap."""


@functools.lru_cache(maxsize=4096)
def _read(content: bytes) -> _Source:
    try:
        with _PARSING:
            parsed = ast.parse(content)
        return _Source(source_sha256(content), tuple(_imports(parsed)))
    except (SyntaxError, ValueError, tokenize.TokenError):  # compiled, or of another Python
        return _Source(hashlib.sha256(content).hexdigest())


def source_sha256(content: bytes) -> str:
    """Returns a hash of the code in a Python source: the same for another comment, docstring or blank line.

    It is made of tokens, since what `ast` prints differs between versions of Python.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    text = io.TextIOWrapper(io.BytesIO(content), encoding).read()
    lines = text.splitlines(keepends=True)
    digest = hashlib.sha256()
    line: list[str] = []
    only_text = True
    depth, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":  # from 3.12 on in parts: taken whole, as before
            start = token.start if depth == 0 else start
            depth += 1
        elif kind == "FSTRING_END":
            depth -= 1
            if depth == 0:
                line.append(_between(lines, start, token.end))
                only_text = False
        elif depth or kind in ("COMMENT", "NL", "ENCODING"):
            continue
        elif kind in ("NEWLINE", "ENDMARKER"):
            if line and not only_text:  # a statement of nothing but text does nothing: a docstring
                digest.update("\0".join([*line, "\n"]).encode())
            line, only_text = [], True
        elif kind in ("INDENT", "DEDENT"):
            digest.update(f"{kind}\n".encode())
        else:
            only_text &= kind == "STRING" and "f" not in token.string.partition(token.string[-1])[0].lower()
            line.append(token.string)
    return digest.hexdigest()


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Returns the text from one (line, column) to another, lines counted from 1."""
    (first, column), (last, until) = start, end
    if first == last:
        return lines[first - 1][column:until]
    return "".join([lines[first - 1][column:], *lines[first : last - 1], lines[last - 1][:until]])


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((0, alias.name, ()) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield level, module or "", tuple(alias.name for alias in names)
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]) if _is_import(func):
                bare = name.lstrip(".")
                yield len(name) - len(bare), bare, ()


def _is_import(func: ast.expr) -> bool:
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", None)
    return name in ("import_module", "__import__")


# -- Finding modules without importing them ----------------------------------------------------------------


def _top(name: str) -> str:
    return name.partition(".")[0]


def _file(name: str) -> Path | None:
    """Returns the file of a module; None where there is no such module, or it is in no file."""
    loaded = sys.modules.get(name)
    # What is loaded is asked again each time: whoever edits a module under way, or loads another one, is to be noticed.
    origin = getattr(loaded, "__file__", None) or (_origin_of_ours if _top(name) == _OURS else _origin)(name)
    return Path(origin) if origin is not None and Path(origin).is_file() else None


def _origin(name: str) -> str | None:
    return getattr(_spec(name), "origin", None)


@functools.cache
def _origin_of_ours(name: str) -> str | None:
    """Looked for once: ours come and go with an installation, and most names that are imported are of no module."""
    return _origin(name)


def _package(name: str, file: Path) -> str:
    loaded = getattr(sys.modules.get(name), "__package__", None)
    return loaded or (name if file.stem == "__init__" else name.rpartition(".")[0])


def _spec(name: str) -> ModuleSpec | None:
    loaded: Any = sys.modules.get(name)
    if loaded is not None:
        return getattr(loaded, "__spec__", None)
    parent, _, _ = name.rpartition(".")
    if not parent:
        return importlib.util.find_spec(name)
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, list(above.submodule_search_locations))


@functools.cache
def version_of(name: str) -> str:
    """Returns the version of an installed distribution without that of its build (2.11.0+cpu, 2.11.0+cu130).

    Before a release the build says which code it is (2.6.0a0+ecf3bae), and stays. Asked once: a process continues with
    the libraries that it began with, and reading their metadata for each key was a quarter of a short session.
    """
    try:
        found = Version(version(name))
    except PackageNotFoundError:
        return ABSENT
    except InvalidVersion:
        return version(name)
    return str(found) if found.is_prerelease else found.public


def _version(top: str) -> str | None:
    """Returns the version of an installed library; None for what is to be followed: it is in no library."""
    installed = _distribution(top)
    if installed is not None:
        return version_of(installed)
    return None if _spec(top) is not None else ABSENT


@functools.cache
def _distribution(top: str) -> str | None:
    """Returns the distribution that installed a module's files; None for a checkout, which changes at any time."""
    spec = _spec(top)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), *filter(None, [spec.origin])]
    for name in _names(top) if places else ():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        home = Path(str(found.locate_file(""))).resolve()
        if found.read_text("RECORD") is not None and any(Path(p).resolve().is_relative_to(home) for p in places):
            return name
    return None


def _names(top: str) -> Iterator[str]:
    yield top  # most are called as their module, and looking through all takes a fifth of a second
    yield from _distributions().get(top, [])


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return {top: list(names) for top, names in packages_distributions().items()}
