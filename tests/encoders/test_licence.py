"""Under which terms weights are, by the words of their cards."""

import re

import pytest

from tapct.encoders import Weights, encoder_class, list_encoders
from tapct.encoders.licence import brief, is_non_commercial, terms

RESTRICTED = {
    *("tap-s-2d", "tap-b-2d", "tap-s-2.5d", "tap-b-2.5d", "tap-s-3d", "tap-b-3d", "curia", "curia-2", "suprem"),
    *("vista3d", "flexict-3d", "spectre", "ct-clip"),
}


def test_the_encoders_here_that_are_not_for_commercial_use():
    found = {name for name in list_encoders() if is_non_commercial(encoder_class(name).card.weights.licence)}
    assert found == RESTRICTED


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        ("cc-by-nc-4.0", True),
        ("CC BY-NC-SA 4.0", True),
        ("Research only", True),
        ("research use only", True),
        ("for academic use only", True),
        ("NVIDIA OneWay Noncommercial License", True),
        ("CC BY-SA 4.0", False),
        ("Apache-2.0", False),
        ("NVIDIA Open Model License", False),
        ("ENCODER licence", False),
        (None, False),
    ],
)
def test_a_licence_is_read_by_its_words(licence, restricted):
    assert is_non_commercial(licence) is restricted


def test_terms_in_a_sentence_and_in_a_table():
    free, bound, unknown = (Weights(licence=one, gated=True) for one in ("MIT", "research-only RAIL-M", None))
    assert [terms(one) for one in (free, bound, unknown)] == [
        "licence MIT, gated",
        "licence research-only RAIL-M, non-commercial, gated",
        "no licence is stated, gated",
    ]
    assert [brief(one) for one in (free, bound, unknown, Weights(needed=False))] == [
        "gated",
        "NC, gated",
        "?, gated",
        "",
    ]
    assert not re.search("non-commercial.*non-commercial", terms(encoder_class("ct-clip").card.weights))
