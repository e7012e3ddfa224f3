"""What features take, by their shapes and on disk."""

import pytest
import torch

from tapct.errors import FeatureError
from tapct.features.nbytes import entry_nbytes
from tapct.features.store import TensorStore

MAP, EMBEDDINGS = (768, 12, 16, 16), (4, 768)
TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@pytest.mark.parametrize("dtype", TORCH)
def test_bytes_are_those_of_the_file_up_to_its_header(dtype, tmp_path):
    store, key = TensorStore(tmp_path), "0" * 64
    store.save(
        key, {"map": torch.ones(MAP).to(TORCH[dtype]), "embeddings": torch.ones(EMBEDDINGS).to(TORCH[dtype])}, {}
    )
    assert 0 < store.path(key).stat().st_size - entry_nbytes(MAP, EMBEDDINGS, dtype) < 4096


def test_the_paper_s_case_takes_what_its_values_take():
    """A scan of 300 slices at 512 px under TAP-B-3D: 75 x 64 x 64 patches of 768 channels."""
    patches, windows = 75 * 64 * 64, 100
    assert entry_nbytes((768, 75, 64, 64), (windows, 768), "bf16") == 2 * 768 * (patches + windows)
    assert entry_nbytes((768, 75, 64, 64), (windows, 768), "int8") == 768 * (patches + 2 * windows + 4)
    assert entry_nbytes((), (windows, 768), "int8") == entry_nbytes((), (windows, 768), "bf16") == 2 * 768 * windows


def test_an_unknown_dtype_is_refused():
    with pytest.raises(FeatureError, match="not as 'fp8'"):
        entry_nbytes(MAP, EMBEDDINGS, "fp8")
