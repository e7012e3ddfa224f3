"""Columns of Arrow tables as NumPy has them, without pandas.

Arrow's own conversions import pandas where it is installed, which takes a second of every command that reads a record.
"""

from typing import Any

import numpy as np
import pyarrow as pa


def is_null(column: pa.ChunkedArray) -> np.ndarray:
    """Returns (rows,) whether each value is null."""
    return np.from_dlpack(column.combine_chunks().is_null().cast(pa.int8())).astype(bool)


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Returns (rows,) numbers in the type of the column; where some are null, float64 with NaN there."""
    array = column.combine_chunks()
    dtype = np.dtype(str(array.type))  # "double" is NumPy's name as well
    if not len(array):
        return np.empty(0, dtype)
    values = np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]
    return np.where(is_null(column), np.nan, values) if array.null_count else values


def lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows,) how many numbers each list of a column holds, and all numbers one after the other."""
    array = column.combine_chunks()
    lengths = np.from_dlpack(array.value_lengths()).astype(np.int64)
    return lengths, numbers(pa.chunked_array([array.flatten()], array.type.value_type))


def coded(column: pa.ChunkedArray) -> tuple[list[Any], np.ndarray]:
    """Returns the different texts of a column as they first come, None among them, and the place of each row's."""
    packed = column.combine_chunks().dictionary_encode("encode")
    return packed.dictionary.to_pylist(), np.from_dlpack(packed.indices)
