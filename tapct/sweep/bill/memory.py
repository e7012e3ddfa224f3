"""About what an experiment's heads take in memory at their peak: an upper estimate by formula, without the program.

What heads see of the cases of a step is there as it is and scaled (of a large bag, a slab); heads that train side by
side keep what their gradients need. It is not a promise: `benchmarks/bill.py` compares it with what experiments then
took.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tapct import kinds
from tapct.encoders import EncoderCard
from tapct.probes.adaptors import Adaptor, BagName
from tapct.probes.attention import INSTANCES, PADDED_VALUES
from tapct.probes.dense import SLAB_BYTES
from tapct.sweep.bill.encoding import Encoded
from tapct.sweep.bill.settings import Wanted

FLOAT, DOUBLE = 4, 8

ELSE_BYTES = 2**28
"""What libraries take beyond those of `eva fit --help` once an experiment reads, encodes and draws:
`benchmarks/bill.py` found 0.2 GB next to the heads of the quickstart."""

SLABS = 5
"""Slabs of logits at once: logits, their interpolation, probabilities, gradient and what autograd keeps."""

EVALUATED_BYTES = 32
"""Of each voxel of a scan that is evaluated: labels, predictions and their confusion as 64-bit numbers, distances."""

ATTENTION = 128
"""Hidden units of eva's ABMIL."""

KEPT = 4
"""Arrays of (instances, hidden units) that the gradient of an attention head keeps: two layers, each before and after
its activation."""


BAG_SLABS = 6
"""Slabs of a bag, each with what a head's gradient keeps of it, that are there at once: as stored, converted, scaled,
as the matrix products copy them, and what the allocator holds back. `benchmarks/bags.py` took 213 MiB, six are 240."""


@dataclass(frozen=True)
class _Largest:
    """The largest of the scans of an experiment."""

    patches: int
    windows: int
    native: int
    voxels: int


def head_nbytes(wanted: Wanted, card: EncoderCard, scans: Sequence[Encoded], classes: int, device_type: str) -> int:
    """Returns about what the heads of an experiment take, in bytes, on top of what Python and the libraries take.

    Args:
        wanted: What the experiment wants.
        card: Of the encoder.
        scans: What its scans take; one at least.
        classes: Of the task.
        device_type: "cuda" or "cpu".
    """
    largest = _Largest(*(max(getattr(s, n) for s in scans) for n in ("patches", "windows", "native", "voxels")))
    if not kinds.kind(wanted.kind).heads:
        return ELSE_BYTES + _dense(wanted, card, largest, classes, device_type)
    adaptor = Adaptor.parse(wanted.adaptor)
    if adaptor.is_solved:
        return ELSE_BYTES + _solved(card, largest, len(scans))
    bag = adaptor.with_bag(wanted.bag).bag_of(card)  # type: ignore[arg-type]
    return ELSE_BYTES + _attention(wanted, card, largest, bag, device_type)


def _dense(wanted: Wanted, card: EncoderCard, largest: _Largest, classes: int, device_type: str) -> int:
    features = 2 * largest.patches * card.feature_dim * FLOAT
    logits = 2 * wanted.heads * largest.patches * classes * FLOAT
    voxels = max(largest.native * EVALUATED_BYTES, largest.voxels * EVALUATED_BYTES)
    return features + logits + voxels + SLABS * SLAB_BYTES[device_type]


def _attention(wanted: Wanted, card: EncoderCard, largest: _Largest, bag: BagName | None, device_type: str) -> int:
    instances, size = (largest.windows, card.embedding_dim) if bag == "cls" else (largest.patches, card.feature_dim)
    bags = wanted.batch_size * instances
    # As stored, float32 at most; on a CPU they are mapped from disk.
    stored = bags * size * FLOAT if device_type == "cuda" else 0
    if bags * size <= PADDED_VALUES:
        return stored + (2 + wanted.heads) * bags * size * FLOAT + wanted.heads * KEPT * bags * ATTENTION * FLOAT
    return stored + BAG_SLABS * INSTANCES * (size + KEPT * ATTENTION) * FLOAT


def _solved(card: EncoderCard, largest: _Largest, cases: int) -> int:
    pooled = 4 * cases * 2 * max(card.feature_dim, card.embedding_dim) * DOUBLE
    return pooled + largest.patches * card.feature_dim * (DOUBLE + FLOAT)
