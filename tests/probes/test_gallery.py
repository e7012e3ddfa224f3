"""The gallery of retrieval as a head: it knows its scans by name, in whatever order they are reported."""

import numpy as np
import pytest
import torch

from tapct.errors import TaskError
from tapct.probes.retrieval import GalleryHead, RetrievalProbe
from tapct.probes.solved import PooledCases
from tests.small import Drifting, small_encoder

NAMES = ("a", "b", "c")


@pytest.fixture
def head() -> GalleryHead:
    features = np.random.default_rng(0).normal(size=(3, 6))
    cases = PooledCases(NAMES, NAMES, features, np.ones((3, 1)))
    made = RetrievalProbe(small_encoder(Drifting), adaptor="cosine:mean").solve_head(cases, None).head
    again = GalleryHead(3, 6)
    again.load_state_dict(made.state_dict())
    return again


def test_scans_are_found_by_name_whatever_their_order(head):
    assert np.array_equal(head.of(("c", "a", "b")), head.gallery.numpy()[[2, 0, 1]])
    assert torch.allclose(head.gallery.norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "b"), "the head holds 3 scans, and 2 are reported: it is of another split"),
        (("a", "b", "d"), "the head does not hold d, which is reported: it is of another split"),
    ],
)
def test_a_gallery_of_other_scans_is_refused(head, names, words):
    with pytest.raises(TaskError, match=words):
        head.of(names)
