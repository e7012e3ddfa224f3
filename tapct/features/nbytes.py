"""What stored features take on disk, from their shapes alone: for a bill before anything is encoded."""

import math
from collections.abc import Mapping, Sequence

from tapct.errors import FeatureError

VALUE_BYTES: Mapping[str, int] = {"bf16": 2, "fp16": 2, "fp32": 4, "int8": 1}
"""Bytes of a value of the map, by dtype."""

SCALE_BYTES = 4
"""Of a channel's scale in int8."""


def entry_nbytes(map_shape: Sequence[int], embeddings_shape: Sequence[int], dtype: str) -> int:
    """Returns the bytes of a case's features as they are stored, without the header of the file (a few KiB).

    Args:
        map_shape: (C, d, h, w) of the feature map; empty where only embeddings are kept.
        embeddings_shape: (N, E) of the windows' embeddings.
        dtype: What features are stored as: "bf16", "fp16", "fp32" or "int8".

    Raises:
        FeatureError: If there is no such dtype.
    """
    require_dtype(dtype)
    values, embeddings = (math.prod(shape) if shape else 0 for shape in (map_shape, embeddings_shape))
    if dtype != "int8":
        return (values + embeddings) * VALUE_BYTES[dtype]
    return values + embeddings * VALUE_BYTES["bf16"] + (map_shape[0] * SCALE_BYTES if map_shape else 0)


def require_dtype(dtype: str) -> None:
    """Refuses what features are not stored as.

    Raises:
        FeatureError: If there is no such dtype.
    """
    if dtype not in VALUE_BYTES:
        raise FeatureError(f"features are stored as {', '.join(VALUE_BYTES)}, not as '{dtype}'")
