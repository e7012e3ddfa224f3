"""Adapters next to their authors' own code, as `tapct verify-encoder` runs them, with shallow networks of deep ones.

What is missing is a skip that says what to install (`pip install 'tapct-bench[parity]'`). Code that is in no registry
is run by the command alone: docs/encoders.md has what it measured.
"""

import importlib

import pytest

from tapct.encoders import encoder_class
from tapct.encoders.authors import Authors, NotComparableError, counterpart_of, require
from tapct.encoders.options import load_spec, parse_spec
from tapct.tasks.quickstart import shipped_scan
from tapct.verification.compare import compare

DEPTHS = {"colipri": "baselines.colipri.DEPTH", "spectre": "baselines.spectre.DEPTH"}
DEPTHS["nnfoundation-vit"] = "baselines.nnfoundation.DEPTH"
"""Of the networks whose blocks are many and of one kind."""

FROM_A_REGISTRY = [
    *("colipri", "colipri+orientation=SAR", "colipri+features=aligned+normalise=true"),
    *("spectre", "spectre+embedding=cls_and_mean", "nnfoundation-vit"),
    pytest.param("ct-fm", marks=pytest.mark.thorough),  # at its full size: test_ct_fm.py has it by its formulas
]
TOLERANCE = 1e-5
"""Tighter than the command's: shallow networks round less."""


def counterparts() -> dict[str, type[Authors]]:
    """Those of all shipped adapters."""
    names = ("colipri", "coralbay", "ct-clip", "ct-fm", "curia", "curia-2", "flexict-3d", "fmcib", "merlin", "astra")
    names += ("nnfoundation-vit", "spectre", "suprem", "vista3d", "voco-b", "voxelfm")
    return {name: counterpart_of(encoder_class(name)) for name in names}


@pytest.mark.parametrize("name", FROM_A_REGISTRY)
def test_voxels_map_and_embedding_are_those_of_the_authors_code(name, monkeypatch):
    spec = parse_spec(name)
    kind = counterpart_of(encoder_class(spec.encoder))
    try:
        require(kind, spec.encoder)
    except NotComparableError as error:
        pytest.skip(str(error))
    if spec.encoder in DEPTHS:
        monkeypatch.setattr(DEPTHS[spec.encoder], 2)
    found, beside = compare(load_spec(name, "random"), kind, shipped_scan())
    assert found.fault is None
    assert found.differences.keys() == {"voxels", "map", "embedding"}
    assert all(difference < TOLERANCE for difference in found.differences.values())
    assert beside.ours.shape == beside.theirs.shape


def test_each_counterpart_can_be_named_and_says_what_it_runs():
    for name, kind in counterparts().items():
        module = importlib.import_module(kind.__module__)
        assert module.__doc__, name
        assert kind.source, name
        assert kind.requires or kind.repository, name
        assert (kind.repository is None) == (kind.read_at is None), name
        assert kind.tolerance <= 5e-3, name
