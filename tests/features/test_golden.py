"""Features do not change unless their key does."""

import json
import sys
from pathlib import Path

import pytest
import torch

import tapct
from tapct.encoders.identity import HARNESS
from tapct.features import extract
from tapct.features.identity import EXTRACTION, READING
from tapct.source_code import NO_NUMBERS, WITHOUT_EFFECT, code_of
from tapct.volumes import read_ct
from tests.features import golden
from tests.small import cropped
from tests.volumes.test_files_of import KINDS

GOLDEN = json.loads(golden.FILE.read_text(encoding="utf-8"))
ROOT = Path(tapct.__file__).parents[1]

AS_MEANT = (
    "the features of {} changed, and so did the code or a library in their key. Was that meant? Then stored ones are "
    "missed from now on, as they must be: `python -m tests.features.golden` writes the new ones"
)
AT_FAULT = (
    "the features of {} changed, and nothing in their key did: a store would continue giving the old ones. What "
    "changed them is not in the key. Add it (tapct/features/identity.py, tapct/encoders/identity.py, WITHOUT_EFFECT "
    "and NO_NUMBERS in tapct/source_code.py) before `python -m tests.features.golden` writes the new ones"
)


@pytest.mark.parametrize("name", golden.CASES)
def test_features_change_only_with_their_key(name):
    """Equal within what machines differ by: another order of a sum changes the sixth digit, a bug the first."""
    found, expected = golden.computed(name), GOLDEN[name]
    size = expected["values"]["spread"]
    for what, values in expected["values"].items():
        if found["values"][what] != pytest.approx(values, rel=1e-3, abs=1e-3 * size):
            pytest.fail(f"{what}: {(AT_FAULT if found['key'] == expected['key'] else AS_MEANT).format(name)}")


def run_by(work):
    """The modules of this project and the libraries of which a function was called, but for what imports call."""
    files = set()
    work()
    sys.setprofile(lambda frame, event, arg: files.add(frame.f_code.co_filename) if event == "call" else None)
    try:
        work()
    finally:
        sys.setprofile(None)
    modules, libraries = set(), set()
    for file in map(Path, files):
        if "site-packages" in file.parts:
            libraries.add(file.parts[file.parts.index("site-packages") + 1].removesuffix(".py"))
        elif file.is_relative_to(ROOT):
            parts = file.relative_to(ROOT).with_suffix("").parts
            modules.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return {name for name in modules if name.partition(".")[0] != "tests"}, libraries


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_that_reads_is_in_the_key(kind, tmp_path):
    path, _ = KINDS[kind](tmp_path)
    in_key = code_of(READING)
    modules, libraries = run_by(lambda: read_ct(path))
    assert "tapct.volumes.read" in modules, "so the profile sees them"
    assert modules <= in_key.modules.keys() | WITHOUT_EFFECT
    assert libraries <= in_key.libraries.keys() | NO_NUMBERS


@pytest.mark.parametrize("name", ["tap-t-3d", "intensity"])
def test_every_module_that_computes_features_is_in_the_key(name):
    encoder = tapct.load_encoder(name, "random", deferred=True)
    ct = cropped(read_ct(golden.ABDOMEN), None, (slice(0, 8), slice(0, 64), slice(0, 64)))
    in_key, own = code_of(EXTRACTION, READING, HARNESS), code_of(type(encoder).__module__)
    modules, libraries = run_by(
        lambda: extract(encoder, torch.from_numpy(ct.hu), ct.grid, overlap=0.5, fit_windows=True)
    )
    assert {"tapct.features.extract", "tapct.volumes.resample"} <= modules
    assert modules <= in_key.modules.keys() | own.modules.keys() | WITHOUT_EFFECT
    assert libraries <= in_key.libraries.keys() | own.libraries.keys() | NO_NUMBERS
