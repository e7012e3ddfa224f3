"""About what the heads of a cell take in memory at their peak: an upper estimate by formula, beside the program itself.

The features of the cases of a step are there in float32 as they are and scaled; heads that train side by side keep what
their gradients need. It is no promise: `benchmarks/bill.py` compares it with what cells then took.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tapct.encoders import EncoderCard
from tapct.probes.dense import SLAB_BYTES
from tapct.sweep.bill.encoding import Encoded
from tapct.sweep.bill.settings import Wanted

FLOAT, DOUBLE = 4, 8

ELSE_BYTES = 2**28
"""What libraries take beyond those of `eva fit --help` once a cell reads, encodes and draws: `benchmarks/bill.py` found
0.2 GB beside the heads of the quickstart."""

SLABS = 5
"""Slabs of logits at once: logits, their interpolation, probabilities, gradient and what autograd keeps."""

EVALUATED_BYTES = 32
"""Of each voxel of a scan that is evaluated: labels, predictions and their confusion as 64-bit numbers, distances."""

ATTENTION = 128
"""Hidden units of eva's ABMIL."""

KEPT = 4
"""Arrays of (instances, hidden units) that the gradient of an attention head keeps: two layers, each before and after
its activation."""


@dataclass(frozen=True)
class _Largest:
    """The largest of the scans of a cell."""

    cells: int
    windows: int
    native: int
    voxels: int


def head_nbytes(wanted: Wanted, card: EncoderCard, scans: Sequence[Encoded], classes: int, device_type: str) -> int:
    """Returns about what the heads of a cell take, in bytes, on top of what Python and the libraries take.

    Args:
        wanted: What the cell wants.
        card: Of the encoder.
        scans: What its scans take; one at least.
        classes: Of the task.
        device_type: "cuda" or "cpu".
    """
    largest = _Largest(*(max(getattr(s, n) for s in scans) for n in ("cells", "windows", "native", "voxels")))
    if wanted.kind == "segmentation":
        return ELSE_BYTES + _dense(wanted, card, largest, classes, device_type)
    if wanted.adaptor == "abmil":
        return ELSE_BYTES + _attention(wanted, card, largest)
    return ELSE_BYTES + _solved(card, largest, len(scans))


def _dense(wanted: Wanted, card: EncoderCard, largest: _Largest, classes: int, device_type: str) -> int:
    features = 2 * largest.cells * card.feature_dim * FLOAT
    logits = 2 * wanted.heads * largest.cells * classes * FLOAT
    voxels = max(largest.native * EVALUATED_BYTES, largest.voxels * EVALUATED_BYTES)
    return features + logits + voxels + SLABS * SLAB_BYTES[device_type]


def _attention(wanted: Wanted, card: EncoderCard, largest: _Largest) -> int:
    instances, size = (largest.windows, card.embedding_dim) if card.has_cls else (largest.cells, card.feature_dim)
    bags = wanted.batch_size * instances
    # The map of each case is on the device whether the bag is made of it or not.
    features = wanted.batch_size * (largest.cells * card.feature_dim + largest.windows * card.embedding_dim) * FLOAT
    return features + 2 * bags * size * FLOAT + wanted.heads * KEPT * bags * ATTENTION * FLOAT


def _solved(card: EncoderCard, largest: _Largest, cases: int) -> int:
    pooled = 4 * cases * 2 * max(card.feature_dim, card.embedding_dim) * DOUBLE
    return pooled + largest.cells * card.feature_dim * (DOUBLE + FLOAT)
