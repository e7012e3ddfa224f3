"""A Llama and a Qwen, tiny, made once."""

import pytest
import torch

from tapct.language_models.files import find
from tapct.language_models.model import LanguageModel, Lora
from tests.language_models import tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny.write(root / kind, kind) for kind in ("llama", "qwen")}


@pytest.fixture(scope="session", params=["llama", "qwen"])
def model(request, folders):
    return LanguageModel(find(str(folders[request.param])))


@pytest.fixture(scope="session")
def adapted(folders):
    return LanguageModel(find(str(folders["llama"])), lora=Lora(rank=3, alpha=6))


def rows(model, lengths, seed=0):
    """Vectors of tokens, as a resampler might give them."""
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(n, model.size, generator=rng) * model.token_rms for n in lengths]
